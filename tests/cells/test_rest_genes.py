"""Networks that see part of a panel: which genes, what becomes of the others, and that nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from cell_cases import make_cells
from pertcast.cells.log_scale import as_log1p, total_counts
from pertcast.cells.registry import build
from pertcast.cells.rest_genes import RestGenes
from pertcast.cells.variable_genes import variable_genes
from pertcast.config import load_cell_recipe
from pertcast.errors import InputError
from pertcast.nn.conditions import ConditionSpace

MOST, GENES = 20, 60
STEPS = {"steps": 6, "cells": 8, "evaluate_every": 3}
QUICK = {
    "zinb-vae": {"hidden": 8, "latent": 3, "training": {"epochs": 3}},
    "cycle-gan": {"hidden": [8], "latent": 3, "training": STEPS},
    "film-gan": {"hidden": 8, "latent": 3, "training": STEPS},
}
each = pytest.mark.parametrize("name", list(QUICK))


def quick(name, most=MOST):
    return build(name, {**QUICK[name], "most_genes": most})


def panel(seed=0, cells=360):
    return make_cells(seed, cells=cells, genes=GENES)


@pytest.fixture(scope="module")
def fitted():
    return {name: quick(name).fit(panel(), seed=0) for name in QUICK}


@pytest.fixture
def control():
    cells = panel(1)
    return cells.take(cells.untreated)


def dense(cells):
    return cells.x.toarray()


@each
def test_the_network_sees_the_genes_that_vary_most_in_training_and_all_come_back_in_order(name, fitted, control):
    seen = fitted[name].rest
    assert_array_equal(seen.chosen, variable_genes(as_log1p(panel()), MOST))
    assert len(seen.names) == MOST
    got = fitted[name].predict(control, "up", seed=0, sample=True)
    assert got.genes == panel().genes
    assert_array_equal(dense(got), np.round(dense(got)))


@each
def test_all_other_genes_move_as_context_transfer_moves_them(name, fitted, control):
    """Bit for bit the expected counts of the closed form alone; genes it leaves alone keep their counts."""
    alone = build("context-transfer").fit(panel(), seed=0).predict(control, "up", seed=0)
    got = fitted[name].predict(control, "up", seed=0)
    others = np.setdiff1d(np.arange(GENES), fitted[name].rest.chosen)
    assert_array_equal(dense(got)[:, others], dense(alone)[:, others])
    assert not np.array_equal(dense(got)[:, others], dense(control)[:, others])  # some do move
    assert not np.array_equal(dense(got), dense(alone))  # and the network's own are not those of the closed form


@each
def test_panels_no_larger_are_untouched(name):
    """The very numbers of a network that is to see all genes."""
    cells = make_cells()
    control = cells.take(cells.untreated)
    for most in (12, 2000):
        pair = [quick(name, m).fit(cells, seed=0).predict(control, "up", seed=1, sample=True) for m in (0, most)]
        assert_array_equal(dense(pair[0]), dense(pair[1]))
    assert quick(name, 2000).fit(cells, seed=0).rest.shift is None


@each
def test_columns_go_by_name_and_cells_stand_alone(name, fitted, control):
    """R05, R01: shuffled columns and a gene more change nothing; a cell alone equals the cell among all."""
    want = dense(fitted[name].predict(control, "down", seed=0))
    order = np.random.default_rng(2).permutation(GENES)
    turned = control.select(tuple(control.genes[j] for j in order))
    more = replace(turned, genes=(*turned.genes, "EXTRA"), x=csr_array(np.pad(dense(turned), ((0, 0), (0, 1)))))
    for given in (turned, more):
        assert_array_equal(dense(fitted[name].predict(given, "down", seed=0)), want)
    for context in (control.context, np.full(len(control), "elsewhere", dtype=object)):
        given = replace(control, context=context)
        whole = dense(fitted[name].predict(given, "down", seed=0))
        part = fitted[name].predict(given.take(np.array([5, 2])), "down", seed=0)
        assert_allclose(dense(part), whole[[5, 2]], rtol=1e-4, atol=1e-4)


@each
def test_save_and_load(name, fitted, control, tmp_path):
    fitted[name].save(tmp_path)
    loaded = quick(name, 0).load(tmp_path)
    for sample in (False, True):
        got, want = (one.predict(control, "up", seed=5, sample=sample) for one in (loaded, fitted[name]))
        assert_array_equal(dense(got), dense(want))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize(
    ("name", "training"), [("film-gan", {"warm_start": "none"}), ("cycle-gan", {"start": "identity"})]
)
def test_totals_are_those_of_all_genes(name, training, control):
    """A network that has not moved is the identity: counts come back only if both ways know the same totals."""
    still = {"lr": 1e-12, "critic_lr": 1e-12, "steps": 1, "cells": 8, "detection": False, **training}
    settings = {"most_genes": MOST, "hidden": 8 if name == "film-gan" else [8], "training": still}
    model = build(name, {**settings, "noise": False} if name == "film-gan" else settings).fit(panel(), seed=0)
    got = dense(model.predict(control, "up", seed=0))
    seen = model.rest.chosen
    assert_allclose(got[:, seen], dense(control)[:, seen], rtol=1e-3, atol=1e-3)


def test_the_vae_reads_shares_of_the_whole_total(fitted, control):
    """Counts of a gene that the network does not see raise every mean as they raise the total; codes know nothing."""
    model = fitted["zinb-vae"]
    other = np.setdiff1d(np.arange(GENES), model.rest.chosen)[0]
    x = dense(control)
    x[:, other] += 50
    more = replace(control, x=csr_array(x))
    assert_array_equal(model.encode(more), model.encode(control))
    ratio = (total_counts(more) / total_counts(control))[:, None]
    assert_allclose(model.parameters(more).mean, model.parameters(control).mean * ratio, rtol=1e-4)
    assert model.reconstruct(control).genes == model.rest.names


def test_conditions_never_measured_are_sums_of_measured_ones():
    """`up+down` is one of each; measured conditions are themselves, and the untreated is nothing."""
    cells = panel()
    rest = RestGenes.of(cells, MOST)
    codes = ConditionSpace.of(["control", "up", "down"], control="control").table
    asked = {name: rest._weights(name, "control", codes) for name in ("up+down", "down", "control")}
    assert asked["down"] == {"down": 1.0}
    assert asked["control"] == {}
    assert_allclose(sorted(asked["up+down"].values()), [1, 1], rtol=1e-6)
    both = rest.shift._shift(asked["up+down"], "type0")
    assert_allclose(both, sum(rest.shift.means.shift(name, "type0") for name in ("up", "down")), rtol=1e-6)


def test_perturbed_cells_are_carried_from_where_they_are():
    """From `up` back to the untreated: log means of raised genes return; untreated cells under their own name stay."""
    cells = panel(cells=1200)
    rest = RestGenes.of(cells, MOST)
    others = np.setdiff1d(np.arange(GENES), rest.chosen)
    raised = others[others < GENES // 3]
    here = cells.context == "type0"
    treated, control = cells.take(here & (cells.condition == "up")), cells.take(here & cells.untreated)
    log = lambda one: np.log1p(dense(one)[:, raised]).mean()  # noqa: E731
    for rng in (None, np.random.default_rng(0)):
        back = rest.whole(rest.seen(treated.x), treated, "control", rng=rng)
        assert log(treated) - log(control) > 0.3
        assert abs(log(back) - log(control)) < 0.3 * (log(treated) - log(control))
    assert_array_equal(dense(rest.whole(rest.seen(control.x), control, "control", rng=None)), dense(control))


def test_pseudo_pairs_have_all_genes(fitted, control):
    """S003-06 on a large panel: there and back on all genes; the error is that of the genes that the network sees."""
    pairs = fitted["cycle-gan"].make_pairs(control, "up")
    assert pairs.made.genes == pairs.back.genes == control.genes
    seen = fitted["cycle-gan"].rest.chosen
    logs = [as_log1p(one).toarray()[:, seen] for one in (control, pairs.made)]
    assert np.abs(logs[0] - logs[1]).max() > 0
    assert set(pairs.back.condition) == {"control"}
    assert pairs.error.shape == (len(control),)


@pytest.mark.parametrize("name", ["film-gan", "cycle-gan"])
def test_log_values_keep_their_unit(name):
    """log1p in, log1p out; the other genes as the closed form moves recovered counts."""
    cells = replace(panel(), x=as_log1p(panel()), unit="log1p")
    model, control = quick(name).fit(cells, seed=0), cells.take(cells.untreated)
    got = model.predict(control, "up", seed=0)
    others = np.setdiff1d(np.arange(GENES), model.rest.chosen)
    alone = build("context-transfer").fit(cells, seed=0).predict(control, "up", seed=0)
    assert got.unit == "log1p"
    assert_array_equal(dense(got)[:, others], dense(alone)[:, others])


def test_scaled_values_are_refused_with_the_way_out():
    """Values below 0 say nothing of counts; with all genes in the network the same cells train."""
    cells = replace(panel(), x=csr_array(as_log1p(panel()).toarray() - 0.5), unit="log1p")
    with pytest.raises(InputError, match=r"values below 0, so the 20 genes .* among 60.*set most_genes to 0"):
        quick("cycle-gan").fit(cells, seed=0)
    assert quick("cycle-gan", 0).fit(cells, seed=0).rest.shift is None


def test_attention_is_over_the_genes_that_the_network_sees(fitted, control):
    model = fitted["film-gan"]
    few = model.rest.names[:3]
    assert_allclose(model.attention(control.take(np.arange(5)), "up", genes=few).sum(axis=1), 1, rtol=1e-5)
    hidden = next(gene for gene in model.genes if gene not in model.rest.names)
    with pytest.raises(InputError, match=rf"Unknown gene '{hidden}'.*genes that the networks see"):
        model.attention(control, "up", genes=(hidden,))


@pytest.mark.parametrize("preset", ["system-000", "system-002", "system-003", "batch-corrected"])
def test_published_presets_see_all_genes(preset):
    assert load_cell_recipe(preset).settings["most_genes"] == 0


def test_latent_arithmetic_by_name_is_one_shift_for_all():
    """The preset adds the mean over contexts of code differences, worked by hand, in whichever context it is asked."""
    recipe = load_cell_recipe("latent-arithmetic", ["training.epochs=3", "hidden=8", "latent=3"])
    cells = make_cells()
    model = build(recipe.model, recipe.settings).fit(cells, seed=0)
    codes = model._states(cells)
    of = lambda condition, context: codes[(cells.condition == condition) & (cells.context == context)].mean(0)  # noqa: E731
    want = np.mean([of("down", c) - of("control", c) for c in ("type0", "type1")], axis=0)
    for context in ("type0", "type2", "elsewhere"):
        assert_allclose(model.shift.delta("down", context, codes[0]), want, rtol=1e-6)
