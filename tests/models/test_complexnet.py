"""Two stages: the same rows in both, a frozen decoder, genes by name, attention over tokens that learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features.assemble import assemble
from pertcast.models import complexnet
from pertcast.models.complexnet import ComplexNetConfig, ComplexNets
from pertcast.models.registry import build
from pertcast.nn.finetune import FineTune
from pertcast.nn.fit import fit_network
from pertcast.nn.sampling import Sampling

BLOCKS = ("cell_type", "compound", "compound_residual_mean", "cell_type_mean")
ONE_HOT = {"blocks": ("cell_type", "compound"), "hidden": 32, "latent": 8}


@pytest.fixture(scope="module")
def question():
    return make_question()[0]


@pytest.fixture(scope="module")
def rows(question):
    features = FeatureConfig(blocks=BLOCKS, components=8, smooth=1.0)
    return assemble(question, features, train=np.arange(len(question)), valid=np.arange(0))


def _model(*, epochs=5, patience=None, first_patience=None, **changes):
    training = {"epochs": epochs, "device": "cpu", "patience": patience}
    first = {"epochs": epochs, "patience": first_patience}
    small = {
        "blocks": BLOCKS[2:],
        "width": 8,
        "heads": 2,
        "feedforward": 8,
        "head": 16,
        "members": 1,
        "autoencoder": ONE_HOT,
    }
    settings = {**small, "training": training, "autoencoder_training": first, **changes}
    return ComplexNets(ComplexNetConfig.model_validate(settings))


@pytest.fixture(scope="module")
def fitted(rows):
    return _model().fit(rows.train, seed=0)


@pytest.fixture
def stages(monkeypatch):
    """Calls of the training loop: the network, its training rows, its valid rows."""
    calls = []

    def spy(net, data, loss_fn, settings, *, seed, valid=None, log=None):
        calls.append((net, data, valid))
        return fit_network(net, data, loss_fn, settings, seed=seed, valid=valid, log=log)

    monkeypatch.setattr(complexnet, "fit_network", spy)
    return calls


def test_predictions_are_the_decoders_units_by_gene(fitted, rows):
    """S004-07: with one-hot blocks beside the response, gene k is mean k plus the decoded scores' loading on gene k."""
    tables = fitted.encoding.tables(rows.test, torch.device("cpu"))
    index = fitted.encoding.index(rows.test, torch.device("cpu"))
    autoencoder, net = fitted.pairs[0]
    assert set(autoencoder.units) == {"cell_type", "compound", "response"}
    with torch.no_grad():
        scores = autoencoder.decode(net(tables, index)).numpy().astype(float)
    svd, predicted = fitted.encoding.svd, fitted.predict(rows.test)
    for k in range(len(rows.test.genes)):
        by_hand = svd.mean[k] + fitted.encoding.unit * scores @ svd.components[:, k]
        assert_allclose(predicted[:, k], by_hand, atol=1e-5)


@pytest.mark.parametrize("patience", [None, 2])
def test_both_stages_see_the_same_rows_and_no_other(rows, stages, patience):
    """R07: what stage 1 is trained on are the rows of stage 2; rows set aside to stop early are in neither."""
    model = _model(patience=patience, first_patience=patience).fit(rows.train, seed=0)
    (_, first, aside), (_, second, aside_too) = stages
    assert torch.equal(first["scores"], second["scores"])
    if patience is None:
        assert aside is None
        assert aside_too is None
        assert_array_equal(first["scores"].numpy(), model.encoding.svd.encode(rows.train.y))
        return
    assert torch.equal(aside["scores"], aside_too["scores"])
    assert len(first["scores"]) + len(aside["scores"]) == len(rows.train)
    mine = {tuple(row) for row in first["scores"].tolist()}
    assert not mine & {tuple(row) for row in aside["scores"].tolist()}


def test_the_autoencoder_feels_its_own_rows_only(rows):
    """R07, S004-03: poisoned valid targets leave every weight of both stages as it is."""
    train, valid = rows.train.take(np.arange(8, len(rows.train))), rows.train.take(np.arange(8))
    poisoned = replace(valid, y=valid.y + 1e6)
    plain, after = _model().fit(train, seed=0), _model().fit(train, poisoned, seed=0)
    for one, other in zip(plain.pairs[0], after.pairs[0], strict=True):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key])
    stopped = _model(first_patience=1).fit(train, poisoned, seed=0)
    assert stopped.history[0]["valid_loss"] > 1e5  # where they are asked to decide, the poison arrives


def test_the_second_stage_leaves_the_autoencoder_alone(rows, stages):
    """Frozen, dropout off: the same weights as after the first stage, and the same code of the same row."""
    model = _model(epochs=2).fit(rows.train, seed=0)
    longer = _model(training={"epochs": 9, "device": "cpu"}, autoencoder_training={"epochs": 2}).fit(rows.train, seed=0)
    for key, value in model.pairs[0][0].state_dict().items():
        assert torch.equal(value, longer.pairs[0][0].state_dict()[key])
    autoencoder = model.pairs[0][0]
    assert not autoencoder.training
    assert not any(p.requires_grad for p in autoencoder.parameters())


def test_attention_over_tokens_learns(fitted):
    """R02: queries and keys have a gradient after the last step, through the frozen decoder."""
    for block in fitted.pairs[0][1].attention:
        query, key, _ = block.qkv.weight.grad.chunk(3)
        assert query.norm() > 0
        assert key.norm() > 0


@pytest.mark.parametrize("n", [2, 8, 33, 300])
def test_a_row_does_not_depend_on_its_batch(fitted, rows, n):
    """S004-05, R01: attention is over a sample's tokens; also across blocks of prediction."""
    many = rows.train.without_y().take(np.random.default_rng(n).integers(0, len(rows.train), n))
    together = fitted.predict(many)
    for i in range(0, n, max(1, n // 20)):
        assert_allclose(fitted.predict(many.take(np.array([i])))[0], together[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_token_is_read(fitted, rows, name):
    """R02."""
    block = rows.test.block(name)
    other = replace(block, index=(block.index + 1) % len(block.table))
    turned = replace(rows.test, blocks={**rows.test.blocks, name: other})
    assert np.abs(fitted.predict(turned) - fitted.predict(rows.test)).max(axis=1).min() > 1e-4


@pytest.mark.parametrize("target", ["response", "code"])
@pytest.mark.parametrize("loss", ["mrrmse", "huber"])
def test_every_target_and_loss_learns(question, rows, target, loss):
    """S004-07, S004-08: far below the error of zeros on rows that were held out."""
    truth = make_question()[1]
    model = _model(epochs=80, target=target, loss=loss, dropout=0.0, token_dropout=0.0, unknown_rate=0.0)
    error = np.sqrt(np.square(model.fit(rows.train, seed=0).predict(rows.test) - truth).mean(axis=1)).mean()
    assert error < 0.6 * np.sqrt(np.square(truth).mean(axis=1)).mean()


def test_codes_are_standardised_by_the_training_rows(fitted, rows):
    """Center and spread of the codes that the second stage aims at, from the first stage's own codes."""
    autoencoder, net = fitted.pairs[0]
    scores = torch.tensor(fitted.encoding.svd.encode(rows.train.y) / fitted.encoding.unit, dtype=torch.float32)
    tables = fitted.encoding.tables(rows.train, torch.device("cpu"))
    blocks = {name: tables[name][rows.train.block(name).index] for name in ONE_HOT["blocks"]}
    codes = autoencoder.encode({**blocks, "response": scores}).numpy()
    assert_allclose(net.center, codes.mean(axis=0), atol=1e-5)
    assert_allclose(net.spread, codes.std(axis=0), rtol=1e-4)


def test_members_are_averaged(rows):
    both = _model(members=2).fit(rows.train, seed=0)
    alone = [_model(), _model()]
    for model, pair in zip(alone, both.pairs, strict=True):
        model.encoding, model.pairs = both.encoding, [pair]
    mean = np.mean([model.predict(rows.test) for model in alone], axis=0)
    assert_allclose(both.predict(rows.test), mean, atol=1e-5)
    assert {(facts["member"], facts["stage"]) for facts in both.history} == {(0, 1), (0, 2), (1, 1), (1, 2)}


def test_rare_rows_are_repeated_in_the_second_stage_alone(rows, stages):
    """S004-16."""
    _model(sampling=Sampling(rarest=1, least_rows=40, weight=2.0)).fit(rows.train, seed=0)
    (_, first, _), (_, second, _) = stages
    n, rare = len(rows.train), int((rows.train.cell_type == "type 3").sum())
    assert len(first["scores"]) == n
    assert len(second["scores"]) == n - rare + 40
    assert sorted(set(second["weight"].tolist())) == [1.0, 2.0]
    assert int((second["weight"] == 2).sum()) == 40


def test_fine_tuning_moves_the_head_alone(rows):
    """S004-17."""
    plain, tuned = (_model(finetune=f).fit(rows.train, seed=0).pairs[0] for f in (None, FineTune(epochs=2, lr=1e-2)))
    assert all(torch.equal(a, b) for a, b in zip(plain[0].parameters(), tuned[0].parameters(), strict=True))
    states = plain[1].state_dict(), tuned[1].state_dict()
    moved = {key.split(".")[0] for key in states[0] if not torch.equal(states[0][key], states[1][key])}
    assert moved == {"head"}


def test_save_and_load_with_features_rebuilt(rows, tmp_path):
    model = _model(members=2, loss="huber").fit(rows.train, seed=0)
    model.save(tmp_path)
    loaded = build("complexnet").load(tmp_path)
    assert_array_equal(loaded.predict(rows.test), model.predict(rows.test))
    assert loaded.config.autoencoder == model.config.autoencoder


def test_early_stopping_needs_rows_to_part_with(rows):
    with pytest.raises(InputError, match="at least 2 training rows"):
        _model(patience=1).fit(rows.train.take(np.array([0])), seed=0)
