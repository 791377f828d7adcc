"""Rules that every registered model of cells obeys; a new file joins by existing."""

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from cell_cases import make_cells
from pertcast.cells.registry import build, entries, entry
from pertcast.errors import InputError, NotFittedError

NAMES = list(entries())
QUICK = {  # settings that make a model fit in a second on a few hundred cells
    "zinb-vae": {"hidden": 8, "latent": 3, "training": {"epochs": 4}},
    "gene-regression": {"hidden": 4, "training": {"epochs": 3}},
    "cycle-gan": {"hidden": [8], "latent": 3, "training": {"steps": 6, "cells": 8, "evaluate_every": 3}},
    "masked-autoencoder": {"hidden": [8, 4], "training": {"epochs": 3}},
    "film-gan": {"hidden": 8, "latent": 3, "training": {"steps": 6, "cells": 8, "evaluate_every": 3}},
}
ASKED = {"gene-regression": "GENE0002=12"}  # a condition in the model's own grammar; the others know `up`
LOGS = {  # read log1p values as well as counts
    "context-transfer", "cycle-gan", "film-gan", "masked-autoencoder", "no-change", "mean-shift", "quantile-map",
    "log-mean-shift", "nearest-context", "additive", "ridge-shift", "pca-shift", "entropic-ot",
}  # fmt: skip


def quick(name):
    return build(name, QUICK.get(name, {}))


def asked(name):
    return ASKED.get(name, "up")


def dense(cells):
    return cells.x.toarray()


@pytest.fixture(scope="module")
def cells():
    return make_cells()


@pytest.fixture(scope="module")
def fitted(cells):
    return {name: quick(name).fit(cells, seed=0) for name in NAMES}


@pytest.fixture
def control():
    cells = make_cells(seed=1)
    return cells.take(cells.untreated)


@pytest.mark.parametrize("name", NAMES)
def test_batch_and_order_invariance(name, fitted, control):
    """R01: a cell alone equals the cell among 2, 8 and all others in shuffled order."""
    rng = np.random.default_rng(1)
    whole = dense(fitted[name].predict(control, asked(name), seed=0))
    for size in (1, 2, 8, len(control)):
        rows = rng.choice(len(control), size, replace=False)
        part = fitted[name].predict(control.take(rows), asked(name), seed=0)
        assert_allclose(dense(part), whole[rows], rtol=1e-4, atol=1e-4)
        assert_array_equal(part.ids, control.ids[rows])


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_hangs_on_other_cells_where_nothing_was_measured(name, fitted, control):
    """R01 for a condition in a context that never saw it, and for a context that training does not know at all."""
    condition = ASKED.get(name, "down")
    for context in ("type2", "elsewhere"):
        given = replace(control, context=np.full(len(control), context, dtype=object))
        whole = dense(fitted[name].predict(given, condition, seed=0))
        part = fitted[name].predict(given.take(np.array([3, 0])), condition, seed=0)
        assert_allclose(dense(part), whole[[3, 0]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_two_expectations_are_identical_and_draws_repeat_by_seed(name, fitted, control):
    """R21, R38."""
    ask = lambda seed, sample: dense(fitted[name].predict(control, asked(name), seed=seed, sample=sample))  # noqa: E731
    assert_array_equal(ask(0, False), ask(1, False))
    assert_array_equal(ask(0, True), ask(0, True))
    if name != "no-change":
        assert not np.array_equal(ask(0, True), ask(1, True))
    assert_array_equal(ask(0, True), np.round(ask(0, True)))  # counts in, counts out


@pytest.mark.parametrize("name", NAMES)
def test_seed_of_the_fit_decides(name, fitted, control):
    """R38: same seed, same numbers; another seed, other numbers where the model draws at all."""
    cells = make_cells()
    again, other = (dense(quick(name).fit(cells, seed=s).predict(control, asked(name), seed=0)) for s in (0, 1))
    first = dense(fitted[name].predict(control, asked(name), seed=0))
    assert_array_equal(again, first)
    assert np.array_equal(other, first) != entry(name).seeded


@pytest.mark.parametrize("name", NAMES)
def test_genes_go_by_name(name, fitted, control):
    """R05: shuffled gene columns of the cells to predict, or more genes than training had, change nothing."""
    order = np.random.default_rng(2).permutation(len(control.genes))
    turned = control.select(tuple(control.genes[j] for j in order))
    more = replace(turned, genes=(*turned.genes, "EXTRA"), x=csr_array(np.pad(dense(turned), ((0, 0), (0, 1)))))
    want = fitted[name].predict(control, asked(name), seed=0)
    for given in (turned, more):
        got = fitted[name].predict(given, asked(name), seed=0)
        assert got.genes == want.genes
        assert_array_equal(dense(got), dense(want))


@pytest.mark.parametrize("name", [name for name in NAMES if not entry(name).seeded])
def test_order_of_genes_in_training_changes_nothing(name, fitted, control):
    """R05; models that draw their starts gene by gene are other members of the same family."""
    cells = make_cells()
    turned = cells.select(cells.genes[::-1])
    got = quick(name).fit(turned, seed=0).predict(control, asked(name), seed=0)
    want = fitted[name].predict(control, asked(name), seed=0)
    assert_allclose(dense(got.select(want.genes)), dense(want), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load(name, fitted, control, tmp_path):
    fitted[name].save(tmp_path)
    loaded = quick(name).load(tmp_path)
    for sample in (False, True):
        got, want = (one.predict(control, asked(name), seed=5, sample=sample) for one in (loaded, fitted[name]))
        assert_array_equal(dense(got), dense(want))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".json"}


@pytest.mark.parametrize("name", NAMES)
def test_unfitted_use_is_refused(name, control, tmp_path):
    for use in (lambda model: model.predict(control, asked(name), seed=0), lambda model: model.save(tmp_path)):
        with pytest.raises(NotFittedError, match=r"Call `fit`"):
            use(quick(name))


@pytest.mark.parametrize("name", NAMES)
def test_units_are_never_mixed(name, fitted, cells):
    """Log values are refused by models of counts; the others give back the unit they were fitted to."""
    logs = replace(cells, x=csr_array(np.log1p(dense(cells))), unit="log1p")
    with pytest.raises(InputError, match=r"counts.*got log1p values"):
        fitted[name].predict(logs.take(logs.untreated), asked(name), seed=0)
    if name not in LOGS:
        with pytest.raises(InputError, match=r"reads counts, got log1p values"):
            quick(name).fit(logs, seed=0)
        return
    model = quick(name).fit(logs, seed=0)
    got = model.predict(logs.take(logs.untreated), asked(name), seed=0)
    assert got.unit == "log1p"
    assert (dense(got) >= 0).all()
    with pytest.raises(InputError, match=r"log1p values, got counts"):
        model.predict(cells.take(cells.untreated), asked(name), seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_any_size(name):
    """R39: 37 genes, 3 contexts, 4 cells to predict, of a context that training never saw among them."""
    cells = make_cells(cells=45, genes=37)
    model = quick(name).fit(cells, seed=0)
    few = cells.take(np.flatnonzero(cells.untreated)[:4])
    strange = few.context.copy()
    strange[0] = "elsewhere"
    for given in (few, replace(few, context=strange)):
        got = model.predict(given, asked(name), seed=0, sample=True)
        assert dense(got).shape == (4, 37)
        assert np.isfinite(dense(got)).all()
        assert (dense(got) >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_never_mutated(name):
    cells, same = make_cells(), make_cells()
    model = quick(name).fit(cells, seed=0)
    model.predict(cells.take(np.arange(40)), asked(name), seed=0, sample=True)
    model.predict(cells, asked(name), seed=0)
    for field in fields(cells):
        got, want = getattr(cells, field.name), getattr(same, field.name)
        if field.name == "x":
            assert_array_equal(got.data, want.data)
            assert_array_equal(got.indices, want.indices)
        else:
            assert np.array_equal(got, want)


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_back_is_said_and_typed(name, fitted, control):
    got = fitted[name].predict(control, asked(name), seed=0)
    assert set(got.condition) == {asked(name)}
    assert got.x.dtype == np.float32
    assert got.unit == "counts"
    assert_array_equal(got.context, control.context)
    assert entry(name).summary.endswith(".") or ";" in entry(name).summary


@pytest.mark.parametrize("name", NAMES)
def test_wrong_questions_are_refused_with_a_hint(name, fitted, control):
    wrong = "GENE0000=-1" if name in ASKED else "upp"
    with pytest.raises(InputError, match=r"GENE=count|Did you mean 'up'\?"):
        fitted[name].predict(control, wrong, seed=0)
    with pytest.raises(InputError, match=r"given no cells"):
        fitted[name].predict(control.take(np.arange(0)), asked(name), seed=0)
    with pytest.raises(InputError, match="Cells lack 1 of 12 genes"):
        fitted[name].predict(control.select(control.genes[1:]), asked(name), seed=0)


def test_unknown_names_are_refused_with_a_hint():
    with pytest.raises(InputError, match=r"Unknown model of cells 'zinb'. Did you mean 'zinb-vae'\?"):
        build("zinb")
