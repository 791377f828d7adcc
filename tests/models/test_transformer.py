"""The transformer: tokens of one sample, no row sees another, no held-out target is felt."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pertcast.config import load_recipe
from pertcast.errors import InputError, NotFittedError
from pertcast.models.registry import build
from pertcast.models.transformer import Transformer, TransformerConfig, new_net
from pertcast.nn.members import EmbeddingTraining
from pertcast.types import Block, Examples

GENES, COMPOUNDS, TYPES = 37, 5, 3
STATISTICS = ("compound_residual_mean", "cell_type_mean")


def _onehot(names, vocabulary):
    table = np.concatenate([np.zeros((1, len(vocabulary))), np.eye(len(vocabulary))]).astype(np.float32)
    codes = {name: i + 1 for i, name in enumerate(vocabulary)}
    return Block(table, np.array([codes.get(name, 0) for name in names]))


def _examples(pairs, *, seed=0, noise=0.3):
    """Additive responses of (cell type, compound) pairs; statistics are the true effects, seen through noise."""
    rng = np.random.default_rng(99)
    types, compounds = [f"t{i}" for i in range(TYPES)], [f"c{i}" for i in range(COMPOUNDS)]
    of_type, of_compound = rng.normal(size=(TYPES, GENES)), 2 * rng.normal(size=(COMPOUNDS + 1, GENES))
    bits = rng.integers(0, 2, size=(COMPOUNDS + 1, 64))
    t, c = np.array(pairs).T  # compound number COMPOUNDS is one that training never shows
    y = of_type[t] + of_compound[c] + noise * np.random.default_rng(seed).normal(size=(len(t), GENES))
    names = np.array([*types], dtype=object)[t], np.array([*compounds, "new"], dtype=object)[c]
    blocks = {
        "cell_type": _onehot(names[0], types),
        "compound": _onehot(names[1], compounds),
        "compound_residual_mean": Block((of_compound[:, :8] + 5).astype(np.float32), c),
        "compound_count": Block(np.array([[2.0]] * COMPOUNDS + [[0.0]], np.float32), c),
        "cell_type_mean": Block((100 * of_type[:, :8]).astype(np.float32), t),
        "morgan": Block(bits.astype(np.float32), c),
    }
    genes = tuple(f"g{i}" for i in range(GENES))
    return Examples(np.arange(len(t)), *names, genes, blocks, y.astype(np.float32))


PAIRS = [(t, c) for t in range(TYPES) for c in range(COMPOUNDS)]
HELD_OUT = [PAIRS[i] for i in (0, 6, 10, 12)]


@pytest.fixture(scope="module")
def train():
    return _examples([pair for pair in PAIRS if pair not in HELD_OUT] * 2)


@pytest.fixture(scope="module")
def asked():
    return _examples([*HELD_OUT, (1, COMPOUNDS)], noise=0).without_y()


def _config(**changes):
    training = EmbeddingTraining(epochs=4, batch=16, lr=3e-3, device="cpu", **changes.pop("training", {}))
    small = {"blocks": STATISTICS, "width": 8, "heads": 2, "layers": 2, "feedforward": 16, "head": 16}
    return TransformerConfig(**{**small, "plain_members": 0, "training": training, **changes})


@pytest.fixture(scope="module")
def fitted(train):
    return Transformer(_config()).fit(train, seed=0)


def _many(asked, n):
    return asked.take(np.random.default_rng(n).integers(0, len(asked), n))


@pytest.mark.parametrize("n", [2, 8, 33, 600])
@pytest.mark.parametrize("readout", ["cls", "mean", "concat"])
def test_a_row_does_not_depend_on_its_batch(train, asked, readout, n):
    """S004-05, R01: one row alone equals the same row among n shuffled ones."""
    model = Transformer(_config(readout=readout, plain_members=1)).fit(train, seed=0)
    rows = _many(asked, n)
    together = model.predict(rows)
    for i in range(0, n, max(1, n // 30)):
        np.testing.assert_allclose(model.predict(rows.take(np.array([i])))[0], together[i], rtol=0, atol=1e-5)


def test_attention_learns(train):
    """R02: queries and keys of every attention block have a gradient."""
    model = Transformer(_config()).fit(train, seed=0)  # gradients of the last step are still there
    for block in model.nets[0].attention:
        query, key, _ = block.qkv.weight.grad.chunk(3)
        assert query.norm() > 0
        assert key.norm() > 0


@pytest.mark.parametrize("name", ["cell_type", "compound", *STATISTICS])
def test_every_token_is_read(fitted, asked, name):
    """R02, S004-06: another content of one token changes the prediction."""
    block = asked.block(name)
    other = replace(asked, blocks={**asked.blocks, name: Block(block.table, (block.index + 1) % len(block.table))})
    assert np.abs(fitted.predict(other) - fitted.predict(asked)).max(axis=1).min() > 1e-3


def test_tokens_are_told_apart(fitted, asked):
    """R02: exchanging the content of two tokens of one width is not the same sample."""
    one, two = STATISTICS
    exchanged = replace(asked, blocks={**asked.blocks, one: asked.block(two), two: asked.block(one)})
    assert np.abs(fitted.predict(exchanged) - fitted.predict(asked)).max() > 1e-3


def test_held_out_targets_are_not_felt(train, asked):
    """S004-03, R03: poisoned targets of the valid rows change no prediction."""
    rows = replace(asked, y=np.full((len(asked), GENES), 1e6, np.float32))
    model = Transformer(_config())
    plain = model.fit(train, seed=0).predict(asked)
    np.testing.assert_array_equal(model.fit(train, rows, seed=0).predict(asked), plain)


def test_the_poison_reaches_early_stopping_alone(train, asked):
    """S004-08: with patience the valid rows choose the epoch; how rows are encoded stays the training's."""
    rows = _examples([*HELD_OUT, (1, COMPOUNDS)])
    model = Transformer(_config(training={"patience": 1})).fit(train, rows, seed=0)
    poisoned = Transformer(_config(training={"patience": 1})).fit(train, replace(rows, y=rows.y + 1e6), seed=0)
    assert {"valid_loss"} <= set(model.history[0])
    assert poisoned.history[0]["valid_loss"] > 1e5 > model.history[0]["valid_loss"]
    np.testing.assert_array_equal(model.encoding.svd.components, poisoned.encoding.svd.components)
    assert model.history[0]["loss"] == poisoned.history[0]["loss"]


def test_early_stopping_without_valid_rows_sets_training_rows_aside(train, asked):
    model = Transformer(_config(training={"patience": 2})).fit(train, seed=0)
    assert "valid_loss" in model.history[0]
    assert np.isfinite(model.predict(asked)).all()


def test_same_seed_same_numbers(train, asked, fitted):
    """R38."""
    np.testing.assert_array_equal(Transformer(_config()).fit(train, seed=0).predict(asked), fitted.predict(asked))
    other = Transformer(_config()).fit(train, seed=1).predict(asked)
    assert np.abs(other - fitted.predict(asked)).max() > 1e-3


def test_save_and_load_predict_the_same(train, asked, tmp_path):
    """Block order of the settings, not of the files, decides; the settings come back too."""
    config = _config(blocks=("morgan", *STATISTICS), members=2, plain_members=1, readout="cls")
    model = Transformer(config).fit(train, seed=0)
    model.save(tmp_path)
    again = Transformer(_config()).load(tmp_path)
    np.testing.assert_array_equal(again.predict(asked), model.predict(asked))
    assert again.config == model.config
    elsewhere = TransformerConfig(training=EmbeddingTraining(device="auto"))
    assert Transformer(elsewhere).load(tmp_path).config.training.device == "auto"


@pytest.mark.parametrize("loss", ["mrrmse", "mse", "huber", "mae", "log_cosh"])
def test_every_loss_learns_an_additive_response(train, loss):
    """S004-08: below half the error of zeros on rows that were held out, whichever loss is chosen."""
    training = EmbeddingTraining(epochs=150, batch=16, lr=5e-3, device="cpu")
    config = _config(loss=loss, dropout=0.05, token_dropout=0.0, layers=1, unknown_rate=0.0)
    config = config.model_copy(update={"training": training})
    rows = _examples(HELD_OUT, noise=0)
    error = np.sqrt(np.square(rows.y - Transformer(config).fit(train, seed=0).predict(rows)).mean(axis=1)).mean()
    zeros = np.sqrt(np.square(rows.y).mean(axis=1)).mean()
    assert error < zeros / 2


def test_training_loss_over_scores_is_that_over_genes(train):
    """The first batch is all rows, before any step: its loss is the MRRMSE of the starting network over the genes."""
    config = _config(dropout=0.0, token_dropout=0.0, unknown_rate=0.0, components=3, head=0, training={"warmup": 0.0})
    one_step = config.training.model_copy(update={"batch": 999, "epochs": 1, "least_batches": 1})
    config = config.model_copy(update={"training": one_step})
    model = Transformer(config).fit(train, seed=0)
    start = Transformer(config)
    start.encoding, start.nets = model.encoding, [new_net(model.encoding, config, seed=0).eval()]
    expected = np.sqrt(np.square(train.y - start.predict(train)).mean(axis=1)).mean()
    assert model.history[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_inputs_are_standardised_by_the_training_rows(fitted, train):
    """Mean 0 per column and mean square 1 per block over the training rows, not over the table."""
    tables = fitted.encoding.tables(train, torch.device("cpu"))
    for name in STATISTICS:
        x = tables[name].numpy()[train.block(name).index]
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-5)
        assert np.square(x).mean() == pytest.approx(1, rel=1e-5)


def test_members_are_averaged(train, asked):
    both = Transformer(_config(members=2)).fit(train, seed=0)
    first = Transformer(_config()).fit(train, seed=0)
    second = Transformer(_config())
    second.encoding, second.nets = both.encoding, both.nets[1:]
    mean = (first.predict(asked) + second.predict(asked)) / 2
    np.testing.assert_allclose(both.predict(asked), mean, atol=1e-5)
    assert np.abs(first.predict(asked) - second.predict(asked)).max() > 1e-3


def test_plain_members_read_names_alone(train, asked):
    """No statistic reaches them; they are trained beside those that attend."""
    model = Transformer(_config(plain_members=2)).fit(train, seed=0)
    assert [len(net.attention) for net in model.nets] == [2, 0, 0]
    assert {facts["member"] for facts in model.history} == {0, 1, 2}
    model.nets = model.nets[1:]
    blocks = {name: asked.block(name) for name in ("cell_type", "compound")}
    blank = {name: Block(0 * asked.block(name).table, asked.block(name).index) for name in STATISTICS}
    np.testing.assert_array_equal(model.predict(replace(asked, blocks={**blocks, **blank})), model.predict(asked))


def test_published_settings_can_be_built(train):
    """S004-06: width 128, heads 8, layers 6, feed-forward 2048, dropout 0.3."""
    published = {"width": 128, "heads": 8, "layers": 6, "feedforward": 2048, "dropout": 0.3}
    training = EmbeddingTraining(epochs=1, batch=64, device="cpu")
    config = _config(**published, readout="mean", head=0).model_copy(update={"training": training})
    model = Transformer(config).fit(train, seed=0)
    assert len(model.nets[0].attention) == 6
    assert model.nets[0].attention[0].feedforward[0].out_features == 2048


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_tiny_tables(rows):
    """R39: 37 genes, 5 compounds, 3 cell types; training on a handful of rows, predicting four."""
    train = _examples(PAIRS[: rows + 1])
    model = Transformer(_config()).fit(train, seed=0)
    predicted = model.predict(_examples(HELD_OUT))
    assert predicted.shape == (4, GENES)
    assert np.isfinite(predicted).all()


def test_settings_by_name():
    """One setting of the training changed by name leaves the others at this model's defaults."""
    model = build("transformer", {"layers": 1, "training": {"optimizer": "lion", "schedule": "plateau"}})
    assert model.config.training == EmbeddingTraining(optimizer="lion", schedule="plateau")
    with pytest.raises(InputError, match="'training.optimizer'"):
        build("transformer", {"training": {"optimizer": "lionn"}})


def test_unfitted_model_refuses(asked, tmp_path):
    with pytest.raises(NotFittedError, match="predict before `fit`"):
        Transformer(_config()).predict(asked)
    with pytest.raises(NotFittedError, match="save before `fit`"):
        Transformer(_config()).save(tmp_path)


def test_missing_block_is_named(train):
    with pytest.raises(InputError, match="Feature block 'descriptors' is needed"):
        Transformer(_config(blocks=("descriptors",))).fit(train, seed=0)


def test_rows_of_another_vocabulary_are_refused(fitted, asked):
    block = asked.block("compound")
    longer = replace(asked, blocks={**asked.blocks, "compound": Block(np.eye(9, dtype=np.float32), block.index)})
    with pytest.raises(InputError, match="'compound' has 9 codes, but the model was fitted with 6"):
        fitted.predict(longer)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_predicts_what_the_cpu_predicts(train, asked, tmp_path):
    """R40: to 1e-3, from the same weights."""
    config = _config()
    on_gpu = config.model_copy(update={"training": config.training.model_copy(update={"device": "cuda"})})
    model = Transformer(on_gpu).fit(train, seed=0)
    model.save(tmp_path)
    on_cpu = Transformer(config).load(tmp_path)
    np.testing.assert_allclose(on_cpu.predict(asked), model.predict(asked), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("recipe", "factor", "patience", "optimizer"),
    [("system-004-transformer", 0.1, 10, "adamw"), ("second-place", 0.9999, 500, "lion")],
)
def test_published_training_is_a_recipe(recipe, factor, patience, optimizer):
    """S004-08, S004-06: plateau, clipping, loss and sizes as the system and its ancestor had them."""
    config = build("transformer", load_recipe(recipe).settings).config
    training = config.training
    assert (training.schedule, training.plateau_factor, training.plateau_patience) == ("plateau", factor, patience)
    assert (training.clip, training.optimizer) == (1.0, optimizer)
    assert (config.loss, config.delta) == ("huber", 1.0)
    assert (config.width, config.heads, config.layers, config.dropout) == (128, 8, 6, 0.3)
