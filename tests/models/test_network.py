"""Networks of learned vectors: readers, schemes, subsets, augmentation, and a stack's members as if alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError, NotFittedError
from pertcast.features.assemble import assemble
from pertcast.models import network
from pertcast.models.network import Network, NetworkConfig
from pertcast.models.registry import build
from pertcast.nn.members import EmbeddingTraining
from pertcast.types import Block

STATISTICS = ("compound_residual_mean", "compound_residual_median", "cell_type_mean")
MIXED = [["compound_residual_mean", "compound_residual_median"], "cell_type_mean"]


@pytest.fixture(scope="module")
def question():
    return make_question()[0]


@pytest.fixture(scope="module")
def rows(question):
    features = FeatureConfig(blocks=("cell_type", "compound", *STATISTICS, "morgan_scores"), components=8, smooth=1.0)
    return assemble(question, features, train=np.arange(len(question)), valid=np.arange(0))


def _config(**changes):
    training = {"epochs": 4, "batch": 16, "lr": 3e-3, "device": "cpu", **changes.pop("training", {})}
    small = {"width": 8, "hidden": 8, "head": 16, "members": 3, "components": 10}
    return NetworkConfig(**{**small, "training": EmbeddingTraining(**training), **changes})


def fit(rows, seed=0, **changes):
    return Network(_config(**changes)).fit(rows.train, seed=seed)


def member_scores(model, rows):
    """Decode every member for itself: (members, n, g)."""
    each = []
    for stack in model.stacks:
        index = model.encoding.index(rows, torch.device("cpu"))
        members = len(stack.embeddings["compound"].weight)
        tables = model.encoding.tables(rows, torch.device("cpu"))
        with torch.no_grad():
            scores = stack(tables, {name: tensor.expand(members, -1) for name, tensor in index.items()})
        each += [model.encoding.svd.decode(model.encoding.unit * one.numpy()) for one in scores]
    return np.stack(each)


@pytest.mark.parametrize("reader", ["concat", "lstm", "gru", "cnn"])
@pytest.mark.parametrize("n", [2, 33])
def test_a_row_does_not_depend_on_its_batch(rows, reader, n):
    """S004-05, R01: alone and among others, for every reader, statistics mixed."""
    model = fit(rows, readers=[reader], blocks=MIXED)
    asked = rows.train.without_y().take(np.random.default_rng(n).integers(0, len(rows.train), n))
    together = model.predict(asked)
    alone = np.concatenate([model.predict(asked.take(np.array([i]))) for i in range(n)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"readers": ["lstm"], "blocks": ["cell_type_mean"]},
        {"readers": ["gru"], "blocks": MIXED, "input_mask": 0.3},
        {"readers": ["cnn"], "blocks": MIXED, "keep": 0.8, "loss": "mixed"},
        {"head": 0, "compound_start": "morgan_scores", "training": {"optimizer": "lion", "lr": 3e-4}},
    ],
)
def test_a_stack_trains_each_member_as_if_alone(rows, changes, monkeypatch):
    """S004-08: three stacks of one predict what one stack of three does, to 1e-4."""
    together = fit(rows, **changes)
    monkeypatch.setattr("pertcast.nn.members.members_at_once", lambda weights, *, megabytes: 1)
    alone = fit(rows, **changes)
    assert (len(together.stacks), len(alone.stacks)) == (1, 3)
    np.testing.assert_allclose(member_scores(together, rows.test), member_scores(alone, rows.test), rtol=0, atol=1e-4)


def test_a_small_budget_cuts_the_stack(rows):
    """About 350,000 weights of 16 bytes are more than half of 8 MB: one member at a time, the same predictions."""
    wide = {"head": 4096, "width": 32, "training": {"epochs": 2}}
    whole, cut = fit(rows, **wide, stack_megabytes=512), fit(rows, **wide, stack_megabytes=8)
    assert (len(whole.stacks), len(cut.stacks)) == (1, 3)
    np.testing.assert_allclose(whole.predict(rows.test), cut.predict(rows.test), rtol=0, atol=1e-4)


@pytest.mark.parametrize("average", ["mean", "median"])
def test_members_are_averaged_over_genes(rows, average):
    model = fit(rows, average=average)
    expected = getattr(np, average)(member_scores(model, rows.test), axis=0)
    np.testing.assert_allclose(model.predict(rows.test), expected, rtol=0, atol=1e-5)


def test_every_scheme_meets_every_reader(rows):
    """Two schemes x two readers x two members, each kind a stack, all seeds different."""
    model = fit(rows, schemes=[["cell_type_mean"], MIXED], readers=["concat", "gru"], members=2)
    assert [len(stack.projections) for stack in model.stacks] == [1, 1, 2, 2]
    starts = [tuple(seeds) for _, seeds in model._seeds(1)]
    assert starts == [(1000, 1001), (1002, 1003), (1004, 1005), (1006, 1007)]


@pytest.mark.parametrize("name", ["cell_type", "compound", *STATISTICS])
@pytest.mark.parametrize("reader", ["concat", "lstm", "gru", "cnn"])
def test_every_token_is_read(rows, name, reader):
    """R02: another content of one block changes the prediction."""
    model, block = fit(rows, readers=[reader], blocks=MIXED), rows.test.block(name)
    changed = Block(block.table[::-1].copy(), block.index) if name in STATISTICS else block
    index = block.index if name in STATISTICS else (block.index + 1) % len(block.table)
    other = replace(rows.test, blocks={**rows.test.blocks, name: replace(changed, index=index)})
    assert np.abs(model.predict(other) - model.predict(rows.test)).max() > 1e-4


def test_a_mixture_is_even_when_predicting(rows):
    """Eighth place: with both statistics at their mean, the prediction is that of either being the mean."""
    model, (one, two, _) = fit(rows, blocks=MIXED), STATISTICS
    encoding, asked = model.encoding, rows.test
    unit = {name: encoding.tables(asked, torch.device("cpu"))[name].numpy() for name in (one, two)}
    mean = (unit[one] + unit[two]) / 2
    even = {n: Block(mean * encoding.spreads[n] + encoding.centers[n], asked.block(n).index) for n in (one, two)}
    merged = replace(asked, blocks={**asked.blocks, **even})
    np.testing.assert_allclose(model.predict(merged), model.predict(asked), rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{"input_mask": 0.5}, {"keep": 0.8}, {"loss": "mixed"}, {"blocks": MIXED}])
def test_settings_change_the_numbers(rows, changes):
    assert np.abs(fit(rows, **changes).predict(rows.test) - fit(rows).predict(rows.test)).max() > 1e-3


def test_members_keep_rows_of_their_own(rows):
    """Bagging: round(0.8 n) rows each, other rows for other members, no repeats."""
    drawn = network._subsets(41, 0.8, [0, 1])
    assert drawn.shape == (2, 33)
    assert all(len(set(one.tolist())) == 33 for one in drawn)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(network._subsets(41, 0.8, [1])[0], drawn[1])


def test_a_compound_that_a_member_never_saw_is_unknown_to_it(rows):
    """Its vector would be a random start; it stands where the unknown compound does."""
    model = fit(rows, keep=0.2, members=1)
    seen = set(rows.train.block("compound").index[network._subsets(len(rows.train), 0.2, [0])[0].numpy()])
    weight = model.stacks[0].embeddings["compound"].weight[0].detach()
    for code in range(1, len(weight)):
        assert torch.equal(weight[code], weight[0]) == (code not in seen)


def test_vectors_start_from_structure_and_learn(rows):
    """Chemistry as a start: leading principal scores, centred, at the scale of the other vectors; then trained."""
    changes = {"compound_start": "morgan_scores", "training": {"epochs": 1, "batch": 999, "lr": 1e-9}}
    model = fit(rows, **changes)
    weight = model.stacks[0].embeddings["compound"].weight.detach().numpy()
    block, code = rows.train.block("morgan_scores"), rows.train.block("compound").index
    scores = {c: block.table[i] for c, i in zip(code, block.index, strict=True)}
    known = sorted(scores)
    d = min(8, block.table.shape[1])
    expected = np.array([scores[c][:d] for c in known])
    expected -= expected.mean(0)
    expected *= 0.3 / np.sqrt((expected**2).mean())
    for member in weight:
        np.testing.assert_allclose(member[known, :d], expected, atol=1e-5)
    moved = fit(rows, compound_start="morgan_scores").stacks[0].embeddings["compound"].weight.detach().numpy()
    assert np.abs(moved - weight).max() > 1e-3


def test_save_and_load_predict_the_same(rows, tmp_path):
    model = fit(rows, schemes=[MIXED, ["cell_type_mean"]], readers=["lstm", "cnn"], members=2, average="median")
    model.save(tmp_path)
    again = Network(_config()).load(tmp_path)
    np.testing.assert_array_equal(again.predict(rows.test), model.predict(rows.test))
    assert again.config == model.config


def test_held_out_targets_are_not_felt(rows):
    """S004-03, R03."""
    train, valid = rows.train.take(np.arange(8, len(rows.train))), rows.train.take(np.arange(8))
    poisoned = replace(valid, y=np.full_like(valid.y, 1e6))
    predicted = [Network(_config()).fit(train, held, seed=0).predict(valid) for held in (valid, poisoned, None)]
    np.testing.assert_array_equal(predicted[0], predicted[1])
    np.testing.assert_array_equal(predicted[0], predicted[2])


@pytest.mark.parametrize("loss", ["mrrmse", "mse", "huber", "mae", "log_cosh", "mixed"])
def test_every_loss_learns(question, rows, loss):
    """S004-08: the training rows are told to within half of their size."""
    model = fit(rows, loss=loss, dropout=0.0, token_dropout=0.0, head=64, training={"epochs": 60, "lr": 1e-2})
    error = np.square(question.y - model.predict(rows.train.without_y())).mean()
    assert error < np.square(question.y - question.y.mean(0)).mean() / 2


def test_faults_are_named(rows, tmp_path):
    with pytest.raises(NotFittedError, match="predict before `fit`"):
        Network(_config()).predict(rows.test)
    with pytest.raises(NotFittedError, match="save before `fit`"):
        Network(_config()).save(tmp_path)
    with pytest.raises(InputError, match="Feature block 'descriptors' is needed"):
        fit(rows, blocks=["descriptors"])
    with pytest.raises(InputError, match="cannot stop early"):
        fit(rows, training={"patience": 3})
    with pytest.raises(InputError, match=r"readers.*concat"):
        build("network", {"readers": ["rnn"]})


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_predicts_what_the_cpu_predicts(rows, tmp_path):
    """R40: to 1e-3, from the same weights."""
    model = fit(rows, blocks=MIXED, readers=["gru"], training={"device": "cuda"})
    model.save(tmp_path)
    on_cpu = Network(_config()).load(tmp_path)
    np.testing.assert_allclose(on_cpu.predict(rows.test), model.predict(rows.test), rtol=0, atol=1e-3)
