"""Means at which networks of cells begin: those of `context-transfer`, for measured and unmeasured contexts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from cell_cases import make_cells
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.registry import build
from pertcast.cells.rest_genes import RestGenes
from pertcast.cells.transfer_means import ContextMeans, Measured
from pertcast.cells.transferred_start import number_of, transferred_start
from pertcast.nn.conditions import ConditionSpace

STILL = {"lr": 1e-12, "critic_lr": 1e-12, "steps": 1, "cells": 8, "detection": False}
QUICK = {
    "film-gan": {"hidden": 8, "latent": 3, "noise": False, "training": STILL},
    "cycle-gan": {"hidden": [8], "latent": 3, "training": STILL},
}
each = pytest.mark.parametrize("name", list(QUICK))


def codes(cells):
    return ConditionSpace.of(cells.condition, control=cells.control).table


def log_means(cells):
    return as_log1p(cells).toarray().mean(axis=0)


@pytest.mark.parametrize(("genes", "most"), [(40, 0), (40, 20), (240, 20)])
def test_changes_are_those_of_the_closed_form(genes, most):
    """Each condition in each context; `down` was not measured in `type2`, and where drugs do the same to all contexts
    the mean over these tells left-out ones better than transfer does.
    """
    cells = make_cells(cells=600, genes=genes)
    rest = RestGenes.of(cells, most)
    start, homes = transferred_start(cells, rest, codes(cells))
    means = ContextMeans.of(as_log1p(cells), cells, seed=0)
    assert homes == means.contexts == ("type0", "type1", "type2")
    assert not ((cells.context == "type2") & (cells.condition == "down")).any()
    for condition in ("up", "down"):
        code = codes(cells)([condition])[0]
        for number, context in enumerate(homes):
            unmeasured = (condition, context) == ("down", "type2")
            want = (means.mean_shift(condition) if unmeasured else means.shift(condition, context))[rest.chosen]
            assert_allclose(code @ start.change[number].numpy(), want, atol=1e-5)
    assert np.abs(start.change.numpy()).max() > 0.3
    assert_array_equal(number_of(["type1", "new"], homes), [1, -1])


def two_kinds(same: bool) -> tuple[ContextMeans, np.ndarray]:
    """Seven contexts of two kinds by their untreated means; a drug raises other genes in each kind, or the same."""
    rng = np.random.default_rng(5)
    kind, g = np.array([0, 1, 0, 1, 0, 1, 0]), 60
    centre = rng.uniform(0.3, 2, (2, g))[kind] + rng.normal(0, 0.03, (7, g))
    shift = rng.uniform(0, 1, (2, g))[kind * (not same)] + rng.normal(0, 0.02, (7, g))
    cells = np.full(6, 100.0)
    known = Measured(np.arange(6), shift[:6], np.full((6, g), 4e-4), cells, True)
    return ContextMeans(tuple("abcdefg"), centre, np.full((7, g), 0.02), {"drug": known}), shift[6]


@pytest.mark.parametrize("same", [False, True])
def test_left_out_contexts_say_whether_shifts_are_transferred(same, monkeypatch):
    """A slow loop that leaves contexts out; the better of both ways is the nearer one to the truth, too."""
    means, truth = two_kinds(same)
    monkeypatch.setattr(ContextMeans, "of", lambda *_, **__: means)
    cells = make_cells(genes=60)
    start, _ = transferred_start(cells, RestGenes.of(cells, 0), lambda names: np.ones((len(names), 1)))
    ways = {"shift": lambda m, context: m.shift("drug", context), "mean": lambda m, _: m.mean_shift("drug")}
    errors = dict.fromkeys(ways, 0.0)
    for number in range(6):
        known = means.measured["drug"]
        keep = np.arange(6) != number
        left = Measured(*(getattr(known, n)[keep] for n in ("contexts", "shift", "noise", "cells")), True)
        without = ContextMeans(means.contexts, means.centre, means.error, {"drug": left})
        for way, guess in ways.items():
            errors[way] += np.square(guess(without, means.contexts[number]) - known.shift[number]).sum()
    best = min(errors, key=errors.get)
    assert best == ("mean" if same else "shift")
    got = start.change[6, 0].numpy()
    assert_allclose(got, ways[best](means, "g"), atol=1e-6)
    other = next(guess for way, guess in ways.items() if way != best)
    assert np.square(got - truth).sum() < np.square(other(means, "g") - truth).sum()


def test_conditions_of_one_code_begin_at_what_is_linear_in_it():
    """Two doses, one number: least squares by numpy; and a sum of two conditions is not measured but known."""
    cells = make_cells(cells=600)
    dosed = replace(
        cells, condition=np.array([{"up": "A@1", "down": "A@3"}.get(c, c) for c in cells.condition], object)
    )
    start, _ = transferred_start(dosed, RestGenes.of(dosed, 0), codes(dosed))
    means = ContextMeans.of(as_log1p(dosed), dosed, seed=0)
    at = codes(dosed)(["A@1", "A@3"])
    want = np.linalg.lstsq(at, np.stack([means.shift(c, "type0") for c in ("A@1", "A@3")]), rcond=None)[0]
    assert_allclose(start.change[0].numpy(), want, atol=1e-5)


def test_nothing_measured_beside_untreated_cells_is_no_start():
    cells = make_cells()
    treated = cells.take(~cells.untreated)
    assert transferred_start(treated, RestGenes.of(treated, 0), codes(cells)) == (None, ())


@each
def test_an_untrained_network_moves_means_as_the_closed_form_does(name):
    """Training cells of a context under their own label, and under one that is not known: each cell as the nearest."""
    cells = make_cells(cells=900)
    model = build(name, QUICK[name]).fit(cells, seed=0)
    start, homes = transferred_start(cells, model.rest, model.space.table)
    code = model.space.table(["down"])[0]
    for context in ("type0", "type2"):
        control = cells.take(cells.untreated & (cells.context == context))
        want = code @ start.change[homes.index(context)].numpy()
        stranger = replace(control, context=np.full(len(control), "elsewhere", dtype=object))
        for given, share in ((control, 0.01), (stranger, 0.6)):
            x = torch.tensor(as_log1p(given).toarray())
            made = moved(model, name, x, given)
            apart = np.abs(made.mean(axis=0) - x.numpy().mean(axis=0) - want).max()
            assert apart < share * np.abs(want).max()


def moved(model, name, x, cells):
    """What the network makes of untreated cells on the log scale."""
    home = number_of(cells.context, model.homes)
    if name == "cycle-gan":
        return model._carry(x, cells, "down", sample=False).numpy()
    here, there = (torch.tensor(model.space.table([one] * len(x))) for one in ("control", "down"))
    return model.net.generate(x, here, there, sample=False, home=home).numpy()


@each
def test_the_start_is_saved_with_the_network(name, tmp_path):
    cells = make_cells()
    model = build(name, QUICK[name]).fit(cells, seed=0)
    model.save(tmp_path)
    loaded, control = build(name, {}).load(tmp_path), cells.take(cells.untreated)
    assert loaded.homes == model.homes == ("type0", "type1", "type2")
    assert_array_equal(*(one.predict(control, "down", seed=0).x.toarray() for one in (loaded, model)))


@each
def test_a_start_that_is_switched_off_leaves_the_identity(name):
    key, none = ("warm_start", "none") if name == "film-gan" else ("start", "identity")
    cells = make_cells()
    model = build(name, {**QUICK[name], "training": {**STILL, key: none}}).fit(cells, seed=0)
    control = cells.take(cells.untreated)
    assert model.homes == ()
    assert_allclose(model.predict(control, "up", seed=0).x.toarray(), control.x.toarray(), rtol=1e-3, atol=1e-3)
