"""Fine-tuning on chosen cell types: what is frozen stays, bit for bit, and the rest moves."""

import numpy as np
import pytest
import torch

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features.assemble import assemble
from pertcast.models.transformer import Transformer, TransformerConfig
from pertcast.nn.finetune import FineTune, fine_tune
from pertcast.nn.fit import FitSettings, seeded
from pertcast.nn.members import EmbeddingTraining

TYPES = np.array(["rare"] * 4 + ["common"] * 20, dtype=object)
TRAINING = FitSettings(epochs=50, lr=0.1, patience=3, device="cpu")


class _Net(torch.nn.Module):
    """Early layers with batch norm, then a late one."""

    def __init__(self):
        super().__init__()
        self.early = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        self.late = torch.nn.Linear(4, 1)

    def forward(self, x):
        return self.late(self.early(x))


def _data():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(len(TYPES), 3, generator=draws)
    return {"x": x, "y": x.sum(dim=1, keepdim=True), "row": torch.arange(len(TYPES))}


def _loss(net, rows):
    return (net(rows["x"]) - rows["y"]).square().mean()


def _net():
    with seeded(0):
        return _Net()


def _tuned(net, loss_fn=_loss, **settings):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fine_tune(net, _data(), loss_fn, FineTune(**settings), training=TRAINING, cell_type=TYPES, seed=0)
    return {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}


def test_frozen_weights_do_not_move():
    """S004-17: weights and running means of the frozen part are the same bits; without freezing all of them move."""
    net = _net()
    moved = _tuned(net, frozen=("early",), lr=0.1)
    assert moved == {"late.weight", "late.bias"}
    assert all(p.requires_grad for p in net.parameters())  # frozen for this round only
    everything = _tuned(_net(), frozen=(), lr=0.1)
    assert everything == set(net.state_dict())


def test_one_layer_inside_a_part_can_be_frozen():
    assert _tuned(_net(), frozen=("early.0",), lr=0.1) == {
        "early.1.weight", "early.1.bias", "early.1.running_mean", "early.1.running_var", "early.1.num_batches_tracked",
        "late.weight", "late.bias",
    }  # fmt: skip


def test_what_was_frozen_before_stays_frozen_after():
    net = _net()
    net.early.requires_grad_(False)
    _tuned(net, frozen=("early",))
    assert [p.requires_grad for p in net.parameters()] == [False, False, False, False, True, True]


def test_only_chosen_rows_are_trained_on():
    seen = set()

    def spy(net, rows):
        seen.update(rows["row"].tolist())
        return _loss(net, rows)

    _tuned(_net(), spy, frozen=("early",), epochs=2)
    assert seen == {0, 1, 2, 3}  # the rarest: 'rare'
    seen.clear()
    _tuned(_net(), spy, frozen=("early",), epochs=2, cell_types=("common",))
    assert seen == set(range(4, 24))


def test_too_few_rows_or_nothing_to_train_is_refused():
    lone = np.array(["one"] + ["common"] * 23, dtype=object)
    with pytest.raises(InputError, match=r"at least 2 training rows, and the chosen cell types have 1\."):
        fine_tune(_net(), _data(), _loss, FineTune(frozen=()), training=TRAINING, cell_type=lone, seed=0)
    with pytest.raises(InputError, match=r"Unknown part of the network to freeze 'erly'. Did you mean 'early'\?"):
        _tuned(_net(), frozen=("erly",))
    with pytest.raises(InputError, match=r"all of the network is frozen \(early, late\)"):
        _tuned(_net(), frozen=("early", "late"))


@pytest.fixture(scope="module")
def rows():
    question, _ = make_question(asked=8)
    everything = np.arange(len(question))
    return assemble(
        question,
        FeatureConfig(blocks=("cell_type", "compound", "cell_type_mean")),
        train=everything,
        valid=everything[:0],
    )


def _transformer(finetune):
    training = EmbeddingTraining(epochs=5, device="cpu")
    return Transformer(TransformerConfig(
        blocks=("cell_type_mean",), width=8, heads=2, feedforward=8, head=16, training=training, finetune=finetune,
    ))  # fmt: skip


def test_transformer_keeps_what_it_froze(rows):
    """S004-17: members that attend and plain ones alike; a second stage is told in the history."""
    plain, tuned = (_transformer(f).fit(rows.train, seed=0) for f in (None, FineTune(epochs=3, lr=1e-2)))
    for before, after in zip(plain.nets, tuned.nets, strict=True):
        states = before.state_dict(), after.state_dict()
        moved = {key for key in states[0] if not torch.equal(states[0][key], states[1][key])}
        assert moved == {key for key in states[0] if key.startswith("head")}
    assert [facts["stage"] for facts in tuned.history] == [1] * 5 + [2] * 3 + [1] * 5 + [2] * 3 + [1] * 5 + [2] * 3


def test_transformer_leans_towards_the_rare_cell_type(rows):
    """The training error of the rarest cell type, four rows of it, falls."""
    rare = rows.train.cell_type == "type 3"
    assert rare.sum() == 4
    errors = [
        np.square(_transformer(f).fit(rows.train, seed=0).predict(rows.train) - rows.train.y)[rare].mean()
        for f in (None, FineTune(epochs=30, lr=1e-2))
    ]
    assert errors[1] < 0.8 * errors[0]
