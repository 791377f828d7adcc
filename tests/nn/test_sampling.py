"""Weights and repeats of rare rows: what they equal, and that they never cross a split."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features.assemble import assemble
from pertcast.models import transformer
from pertcast.models.transformer import Transformer, TransformerConfig
from pertcast.nn.losses import LOSSES
from pertcast.nn.members import EmbeddingTraining
from pertcast.nn.sampling import ChosenTypes, Sampling, sampled, set_aside
from pertcast.types import Examples
from pertcast.validation.folds import make_folds

TYPES = np.array(["b", "nk", "nk", "nk", "b", "mono", "nk"], dtype=object)


def _given(weight=None):
    """Rows of the types above, without features; each with a weight of its own where some are given."""
    return Examples(np.arange(len(TYPES)), TYPES, TYPES, ("G",), weight=weight)


def _numbers():
    return {"row": torch.arange(len(TYPES))}


def test_repeats_by_hand():
    """Three rows of each rare cell type: 'mono' has one, 'b' two."""
    seen = sampled(_numbers(), _given(), Sampling(rarest=2, least_rows=3))
    assert seen["row"].tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 5, 5]
    assert set(seen) == {"row"}


def test_weights_by_hand():
    seen = sampled(_numbers(), _given(), Sampling(cell_types=("b",), weight=2.0))
    assert seen["weight"].tolist() == [2, 1, 1, 1, 2, 1, 1]
    both = sampled(_numbers(), _given(), Sampling(weight=0.5, least_rows=3))
    assert both["weight"].tolist() == [1, 1, 1, 1, 1, 0.5, 1, 0.5, 0.5]


def test_rows_keep_their_own_weight():
    """Reliability times what the settings say; a repeated row repeats its weight."""
    own = np.arange(1, 8) / 4
    assert sampled(_numbers(), _given(own), None)["weight"].tolist() == own.tolist()
    seen = sampled(_numbers(), _given(own), Sampling(weight=2.0, least_rows=3))
    assert seen["row"].tolist() == [*range(7), 5, 5]
    assert seen["weight"].tolist() == [0.25, 0.5, 0.75, 1.0, 1.25, 3.0, 1.75, 3.0, 3.0]


def test_nothing_asked_nothing_done():
    for sampling in (None, Sampling()):
        seen = sampled(_numbers(), _given(), sampling)
        assert list(seen) == ["row"]
        assert torch.equal(seen["row"], torch.arange(len(TYPES)))


def test_the_rarest_are_found_by_count_then_name():
    assert_array_equal(TYPES[ChosenTypes().rows(TYPES)], ["mono"])
    assert_array_equal(TYPES[ChosenTypes(rarest=2).rows(TYPES)], ["b", "b", "mono"])
    assert ChosenTypes(rarest=9).rows(TYPES).all()
    tied = np.array(["z", "a", "m"], dtype=object)
    assert_array_equal(tied[ChosenTypes().rows(tied)], ["a"])


def test_names_decide_and_a_wrong_one_is_refused():
    assert_array_equal(TYPES[ChosenTypes(cell_types=("nk", "mono")).rows(TYPES)], ["nk", "nk", "nk", "mono", "nk"])
    with pytest.raises(InputError, match=r"Unknown cell type of the training rows 'mon'. Did you mean 'mono'\?"):
        ChosenTypes(cell_types=("mon",)).rows(TYPES)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_weight_of_two_is_a_row_seen_twice(loss):
    """The loss of one batch of everything: weighting rows equals repeating them."""
    draws = torch.Generator().manual_seed(0)
    rows = {name: torch.randn(len(TYPES), 5, generator=draws) for name in ("predicted", "target")}
    weighted = sampled(rows, _given(), Sampling(cell_types=("b",), weight=2.0))
    twice = sampled(rows, _given(), Sampling(cell_types=("b",), least_rows=4))
    assert len(twice["target"]) == len(TYPES) + 2
    by_weight = LOSSES[loss](weighted["predicted"], weighted["target"], weighted["weight"])
    assert by_weight.item() == pytest.approx(LOSSES[loss](twice["predicted"], twice["target"]).item(), rel=1e-5)
    assert by_weight.item() != pytest.approx(LOSSES[loss](rows["predicted"], rows["target"]).item(), rel=1e-3)


@pytest.fixture(scope="module")
def question():
    return make_question()[0]


def _config(**changes):
    training = EmbeddingTraining(epochs=3, device="cpu", **changes.pop("training", {}))
    return TransformerConfig(blocks=(), width=8, layers=0, head=16, plain_members=0, training=training, **changes)


def _rows(question, fold=None):
    train = np.arange(len(question)) if fold is None else fold.train
    valid = np.arange(0) if fold is None else fold.valid
    return assemble(question, FeatureConfig(), train=train, valid=valid)


@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.parametrize("strategy", ["task", "random"])
def test_no_pair_on_both_sides(question, strategy, patience, monkeypatch):
    """S004-16: repeats are made after fold and early-stopping split; what trains shares no pair with what is held out.

    The tensors that reach the training loop carry the row's pair as a number.
    """
    got = []

    def spy(net, data, loss_fn, settings, *, seed, valid=None, log=None):
        got.append((_pairs(data), set() if valid is None else set(_pairs(valid))))
        return net.eval()

    monkeypatch.setattr(transformer, "fit_network", spy)
    config = _config(sampling=Sampling(rarest=2, least_rows=50), training={"patience": patience})
    for fold in make_folds(strategy, question):
        rows = _rows(question, fold)
        Transformer(config).fit(rows.train, seed=0)
        seen, aside = got.pop()
        assert len(seen) > len(fold.train)  # something was repeated
        assert len(set(seen)) + len(aside) == len(fold.train)
        assert not set(seen) & aside
        held_out = set(zip(question.cell_type[fold.valid], question.compound[fold.valid], strict=True))
        names = rows.features.cell_types.names, rows.features.compounds.names
        assert not {(names[0][t - 1], names[1][c - 1]) for t, c in {*seen, *aside}} & held_out


def _pairs(data):
    return list(zip(data["cell_type"].tolist(), data["compound"].tolist(), strict=True))


def test_set_aside_parts_the_rows(question):
    rest, aside = set_aside(_rows(question).train, seed=0)
    assert len(aside) == len(question) // 10
    assert_array_equal(np.sort([*rest.ids, *aside.ids]), np.arange(len(question)))
    with pytest.raises(InputError, match="at least 2 training rows"):
        set_aside(rest.take(np.array([0])), seed=0)


def test_a_heavy_cell_type_is_fitted_better(question):
    """S004-16: in a network too small for all, the error of the heavy cell type falls, that of the others rises."""
    rows = _rows(question).train
    rare = rows.cell_type == "type 3"

    def errors(sampling):
        training = EmbeddingTraining(epochs=60, batch=16, device="cpu")
        config = TransformerConfig(
            blocks=(), width=1, layers=0, heads=1, head=0, token_dropout=0.0, unknown_rate=0.0, plain_members=0,
            training=training, sampling=sampling, loss="mse",
        )  # fmt: skip
        error = np.square(Transformer(config).fit(rows, seed=0).predict(rows) - rows.y).mean(axis=1)
        return error[rare].mean(), error[~rare].mean()

    plain, heavy = errors(None), errors(Sampling(cell_types=("type 3",), weight=50.0))
    assert heavy[0] < plain[0]
    assert heavy[1] > plain[1]
