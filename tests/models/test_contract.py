"""Rules that every registered model obeys; a new file joins by existing."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cases import make_question, with_cells
from pertcast.config import FeatureConfig
from pertcast.errors import InputError, NotFittedError
from pertcast.features.assemble import ONE_HOT, STATISTICS, assemble
from pertcast.models.registry import build, entries, entry, register

BLOCKS = (*ONE_HOT, *STATISTICS, "morgan")
NAMES = list(entries())
QUICK = {  # settings that make a model fit in a second on forty rows
    "transformer": {"training": {"epochs": 6}, "members": 1},
    "complexnet": {"training": {"epochs": 6}, "autoencoder_training": {"epochs": 6}, "members": 1},
    "lightgbm": {"rounds": 10, "min_rows": 3},
    "extra-trees": {"trees": 20},
    "attention-translation": {"training": {"epochs": 6}, "members": 2, "head": 64},
    "network": {"training": {"epochs": 6}, "members": 2, "head": 64},
    "pseudo-labels": {"training": {"epochs": 6}, "settings": {"members": 2, "head": 64}},
}


def rows_of(question, train=None, valid=None):
    train = np.arange(len(question)) if train is None else train
    valid = np.arange(0) if valid is None else valid
    return assemble(question, FeatureConfig(blocks=BLOCKS, components=8, smooth=1.0), train=train, valid=valid)


def quick(name):
    return build(name, QUICK.get(name, {}))


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    return with_cells(*make_question(), tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def fitted(question):
    rows = rows_of(question)
    return {name: quick(name).fit(rows.train, seed=0) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_batch_invariance(name, fitted, question):
    """S004-05, R01: a row alone equals the row inside 2, 8 and 33 rows in shuffled order."""
    train = rows_of(question).train.without_y()
    rng = np.random.default_rng(1)
    for size in (2, 8, 33):
        picked = rng.choice(len(train), size, replace=False)
        together = fitted[name].predict(train.take(picked))
        alone = np.concatenate([fitted[name].predict(train.take(np.array([row]))) for row in picked])
        assert_allclose(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_held_out_targets_change_nothing(name, question):
    """S004-03, R03: held-out rows poisoned with 1e6 change neither their features nor their predictions."""
    valid = np.arange(0, len(question), 5)
    train = np.setdiff1d(np.arange(len(question)), valid)
    before = rows_of(question, train, valid)
    poisoned = question.y.copy()
    poisoned[valid] = 1e6
    after = rows_of(replace(question, y=poisoned), train, valid)
    for block in BLOCKS:
        assert_array_equal(before.valid.block(block).dense(), after.valid.block(block).dense())
        assert_array_equal(before.train.block(block).dense(), after.train.block(block).dense())
    predictions = [quick(name).fit(rows.train, seed=0).predict(rows.valid) for rows in (before, after)]
    assert_array_equal(*predictions)
    poisoned[train] += 1.0  # the poison would show if training rows were touched
    moved = rows_of(replace(question, y=poisoned), train, valid)
    if name != "zeros":
        assert np.abs(quick(name).fit(moved.train, seed=0).predict(moved.valid) - predictions[0]).max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_valid_targets_change_nothing(name, question):
    """Valid rows passed to `fit` may not steer it by default."""
    rows = rows_of(question)
    train, valid = rows.train.take(np.arange(8, len(question))), rows.train.take(np.arange(8))
    with_valid = quick(name).fit(train, valid, seed=0).predict(valid)
    assert_array_equal(with_valid, quick(name).fit(train, seed=0).predict(valid))


@pytest.mark.parametrize("name", NAMES)
def test_seed_decides(name, question, fitted):
    """R38: same seed, same numbers; another seed, other numbers where the model draws at all."""
    rows = rows_of(question)
    again = quick(name).fit(rows.train, seed=0).predict(rows.test)
    assert_array_equal(again, fitted[name].predict(rows.test))
    other = quick(name).fit(rows.train, seed=1).predict(rows.test)
    assert np.array_equal(again, other) != entry(name).seeded


@pytest.mark.parametrize("name", NAMES)
def test_genes_go_by_name(name, question, fitted):
    """S004-02, R05: shuffled gene columns give the same named output, up to rounding."""
    order = np.random.default_rng(2).permutation(len(question.genes))
    shuffled = replace(question, y=question.y[:, order], genes=tuple(question.genes[i] for i in order))
    rows = rows_of(shuffled)
    predicted = quick(name).fit(rows.train, seed=0).predict(rows.test)
    original = fitted[name].predict(rows_of(question).test)
    tolerance = 0.1 if entry(name).seeded else 1e-4  # training amplifies the rounding of another order of summation
    assert_allclose(predicted, original[:, order], atol=tolerance * np.abs(original).max() + 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_any_size(name, tmp_path):
    """R39: 37 genes, 5 compounds, 3 cell types and 4 rows to predict."""
    question = with_cells(*make_question(types=3, compounds=5, genes=37, asked=4), tmp_path)
    rows = rows_of(question)
    predicted = quick(name).fit(rows.train, seed=0).predict(rows.test)
    assert predicted.shape == (4, 37)
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load(name, question, fitted, tmp_path):
    fitted[name].save(tmp_path)
    loaded = build(name, QUICK.get(name, {})).load(tmp_path)
    test = rows_of(question).test
    assert_array_equal(loaded.predict(test), fitted[name].predict(test))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".json"}


@pytest.mark.parametrize("name", NAMES)
def test_unfitted_use_is_refused(name, question):
    with pytest.raises(NotFittedError, match=r"Call `fit`"):
        quick(name).predict(rows_of(question).test)


@pytest.mark.parametrize("name", [name for name in NAMES if not entry(name).floor])
def test_beats_its_floor_on_learnable_data(name, tmp_path):
    """A model that loses to the gene mean where the truth is simple is broken."""
    question, truth = make_question(seed=3, types=6, compounds=12, asked=8)
    question = with_cells(question, truth, tmp_path)
    rows = rows_of(question)
    settings = {**QUICK.get(name, {})}
    if name == "transformer":
        settings = {"training": {"epochs": 40, "lr": 1e-2}, "members": 1}
    elif name == "complexnet":
        settings = {"members": 1}
    elif name in ("network", "attention-translation"):
        settings = {"members": 2, "head": 64}
    elif name == "pseudo-labels":
        settings = {"settings": {"members": 2, "head": 64}}
    elif name == "lightgbm":
        settings = {"rounds": 60, "min_rows": 3}
    error = np.sqrt(((build(name, settings).fit(rows.train, seed=0).predict(rows.test) - truth) ** 2).mean(1)).mean()
    floor = np.sqrt(((build("gene-mean").fit(rows.train, seed=0).predict(rows.test) - truth) ** 2).mean(1)).mean()
    assert error < 0.9 * floor


def test_unseen_names_are_predicted(question, fitted):
    """A compound and a cell type that training lacks get an answer of finite size from every model."""
    strange = np.array(["drug from elsewhere"] * 4, dtype=object)
    rows = rows_of(replace(question, test_compound=strange, test_smiles=np.array([None] * 4, dtype=object))).test
    for name, model in fitted.items():
        predicted = model.predict(rows)
        assert np.isfinite(predicted).all(), name
        assert np.abs(predicted).max() <= 3 * np.abs(question.y).max(), name


def test_unknown_names_are_refused_with_a_hint():
    with pytest.raises(InputError, match=r"Unknown model 'ridg'. Did you mean 'ridge'\?"):
        build("ridg")
    with pytest.raises(InputError, match=r"(?s)'widht'.*Extra inputs.*Known fields: "):
        build("transformer", {"widht": 3})


def test_a_name_is_taken_once():
    with pytest.raises(InputError, match="Two models are called 'zeros'"):

        @register("zeros")
        class Other:
            """Another."""
