"""The ZINB-VAE on simulated cells whose truth is known, and what it promises of seeds, batches and held-out cells."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cell_cases import as_cells, make_cells
from pertcast.cells.latent_shift import LatentShift
from pertcast.cells.zinb_vae import MOST_GAIN, ZinbVae, ZinbVaeConfig
from pertcast.errors import InputError, NotFittedError
from pertcast.simulate.base import BaseSettings, simulate_base


@pytest.fixture(scope="module")
def published():
    return simulate_base(10_000, 20, 0.8, seed=42, fixture=True)


@pytest.fixture(scope="module")
def on_all(published):
    return ZinbVae(ZinbVaeConfig(library=False)).fit(as_cells(published), seed=0)


@pytest.fixture(scope="module")
def order():
    return np.random.default_rng(0).permutation(10_000)


@pytest.fixture(scope="module")
def on_most(published, order):
    return ZinbVae(ZinbVaeConfig(library=False)).fit(as_cells(published.take(order[:8000])), seed=0)


@pytest.fixture(scope="module")
def small():
    return ZinbVae(quick()).fit(make_cells(), seed=0)


def quick(*, epochs: int = 4, **settings) -> ZinbVaeConfig:
    training = {"epochs": epochs, **settings.pop("training", {})}
    return ZinbVaeConfig(**{"hidden": 8, "latent": 3, "training": training, **settings})


@pytest.mark.slow
def test_parameters_of_the_published_cells_are_recovered(on_all, published):
    """S002-04, R18: per gene, in one unit; a constant has 7.285 / 0.181 / 0.0026."""
    found, truth = on_all.parameters(as_cells(published)), published.model.base
    gaps = {
        "mean": found.mean.mean(0) - truth.means[0],
        "dispersion": found.dispersion.mean(0) - truth.dispersion,
        "zero inflation": found.zero_inflation.mean(0) - truth.zero_inflation,
    }
    mse = {name: float(np.mean(gap**2)) for name, gap in gaps.items()}
    assert mse["mean"] < 0.1
    assert mse["dispersion"] < 0.05
    assert mse["zero inflation"] < 0.0005


@pytest.mark.slow
def test_held_out_likelihood_is_that_of_the_truth(on_most, published, order):
    """S002-03, S002-04: codes integrated out with 500 samples; within 0.002 nats a count of the truth's 1.0138."""
    held = published.take(order[8000:])
    truth = held.nll()
    assert_allclose(truth, 1.0138, atol=5e-4)
    found = on_most.marginal_nll(as_cells(held), samples=500).mean() / 20
    assert truth - 0.002 < found <= truth + 0.002


def batch_and_type(model: ZinbVae, cells) -> tuple[float, float]:
    """Accuracy of linear classifiers on the codes, five-fold cross-validated."""
    codes = model.encode(cells)
    classify = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    batch = cross_val_score(classify, codes, cells.batch, cv=5).mean() if len(set(cells.batch)) > 1 else 1.0
    return batch, cross_val_score(classify, codes, cells.context, cv=5).mean()


@pytest.mark.slow
def test_codes_forget_the_batch_and_keep_the_cell_type():
    """S002-16: +10 counts in half of the cells. A classifier of batches is at chance +- 5 points, one of types within 5
    points of its accuracy where there is no batch effect; without the correction batches are told apart.
    """
    plan = {"populations": 3, "changed_share": 0.5, "mean_range": (3.0, 10.0), "clip": True}
    plain = as_cells(simulate_base(2000, 60, 0.6, seed=1, settings=BaseSettings(**plan)))
    shifted = as_cells(simulate_base(2000, 60, 0.6, seed=1, settings=BaseSettings(**plan, batches=2)))
    settings = {"library": False, "inputs": "scaled", "hidden": 128}
    _, types = batch_and_type(ZinbVae(ZinbVaeConfig(**settings)).fit(plain, seed=0), plain)
    corrected = ZinbVae(ZinbVaeConfig(**settings, correct_batches=True)).fit(shifted, seed=0)
    batch, kept = batch_and_type(corrected, shifted)
    assert abs(batch - 0.5) <= 0.05
    assert types > 0.9
    assert kept >= types - 0.05
    left = ZinbVae(ZinbVaeConfig(**settings, training={"epochs": 10})).fit(shifted, seed=0)
    assert batch_and_type(left, shifted)[0] > 0.9


def test_the_batch_effect_can_be_taken_out_of_the_counts():
    """S002-16: cells of both batches, seen as of the first, have the first one's means."""
    cells = as_cells(simulate_base(1500, 15, 0.5, seed=1, settings=BaseSettings(batches=2, clip=True)))
    model = ZinbVae(quick(epochs=40, hidden=32, library=False, correct_batches=True, inputs="scaled"))
    seen = model.fit(cells, seed=0).reconstruct(cells, batch="batch0").x.toarray()
    first, second = (cells.x.toarray()[cells.batch == name].mean() for name in ("batch0", "batch1"))
    assert second - first > 8
    assert abs(seen[cells.batch == "batch1"].mean() - first) < 0.15 * (second - first)


def test_predictions_are_deterministic_unless_sampled(small):
    """S002-06, R21: two of the codes' means are identical, two of one seed as well, of another seed not."""
    cells = make_cells(1)
    untreated = cells.take(cells.untreated)
    ask = lambda seed, sample: small.predict(untreated, "up", seed=seed, sample=sample).x.toarray()  # noqa: E731
    assert_array_equal(ask(0, False), ask(1, False))
    assert_array_equal(ask(1, True), ask(1, True))
    assert not np.array_equal(ask(1, True), ask(2, True))
    assert_array_equal(ask(1, True), np.round(ask(1, True)))


def test_expected_counts_are_the_mean_of_drawn_ones(small):
    """S002-06: both modes are of one distribution, that of `parameters` but for a factor per condition and gene."""
    cells = make_cells(1, cells=30)
    drawn = np.mean([small.reconstruct(cells, seed=seed).x.toarray() for seed in range(300)], axis=0)
    expected = small.reconstruct(cells).x.toarray()
    assert_allclose(drawn.mean(0), expected.mean(0), rtol=0.1)
    found = small.parameters(cells)
    factor = expected / ((1 - found.zero_inflation) * found.mean)
    for condition in set(cells.condition):
        rows = factor[cells.condition == condition]
        assert_allclose(rows, np.tile(rows[0], (len(rows), 1)), rtol=1e-4)


def test_reconstructed_means_are_those_of_training():
    """The factor makes up for what a decoder of mean codes misses: means per condition and gene, worked from counts."""
    cells = make_cells(0, cells=600)
    model = ZinbVae(quick(epochs=40, hidden=32, library=False)).fit(cells, seed=0)
    seen = model.reconstruct(cells).x.toarray().astype(float)
    for number, condition in enumerate(sorted(set(cells.condition))):
        rows = cells.condition == condition
        free = np.abs(model.log_gain[number]) < MOST_GAIN - 1e-6
        assert free.sum() >= 10
        assert_allclose(seen[rows].mean(0)[free], cells.x.toarray()[rows].mean(0)[free], rtol=1e-3)


@pytest.mark.parametrize("library", [True, False])
def test_a_drug_moves_the_genes_that_it_moves(library):
    """S002-06: `up` doubles a third of the genes and so the total count; in cells that were not trained on."""
    model = ZinbVae(quick(epochs=60, hidden=32, library=library)).fit(make_cells(0, cells=1800), seed=0)
    new = make_cells(7, cells=900)
    base = new.take(new.untreated)
    ratio = model.predict(base, "up", seed=0).x.mean(0) / base.x.mean(0)
    assert_allclose(ratio[:4], 2.0, rtol=0.25)
    assert_allclose(ratio[4:], 1.0, rtol=0.3)


def test_warm_up_and_weight_of_the_kl_term_matter():
    """S002-06: more weight, codes nearer to their prior."""
    spread = [
        np.square(ZinbVae(quick(epochs=15, kl_weight=weight)).fit(make_cells(), seed=0).encode(make_cells())).mean()
        for weight in (0.01, 10.0)
    ]
    assert spread[1] < 0.5 * spread[0]
    one, other = (ZinbVae(quick(kl_warmup=share)).fit(make_cells(), seed=0) for share in (0.0, 0.9))
    assert one.history[0]["loss"] > other.history[0]["loss"]


def test_held_out_cells_decide_when_to_stop():
    """S002-06: with patience, a share of the cells is held out, and its loss is in the history."""
    config = quick(epochs=60, training={"patience": 3, "average_last": 0.0})
    model = ZinbVae(config).fit(make_cells(), seed=0)
    assert len(model.history) < 60
    losses = [epoch["valid_loss"] for epoch in model.history]
    assert np.isfinite(losses).all()
    assert len(losses) - 1 - int(np.argmin(losses)) == 3
    assert "valid_loss" not in ZinbVae(quick()).fit(make_cells(), seed=0).history[0]


def test_mini_batches_cover_the_cells_once_an_epoch():
    """S002-06: the number of steps follows from cells and batch, and the loss falls."""
    model = ZinbVae(quick(epochs=20, training={"batch": 32})).fit(make_cells(), seed=0)
    losses = [epoch["loss"] for epoch in model.history]
    assert len(losses) == 20
    assert losses[-1] < 0.9 * losses[0]


def test_treated_cells_in_any_order_give_the_same_shift():
    """S002-10, R23: the shift of a fitted model does not ask which cell became which."""
    cells = make_cells()
    model = ZinbVae(quick(library=False)).fit(cells, seed=0)
    rows = np.random.default_rng(0).permutation(len(cells))
    again = LatentShift.of(model.encode(cells.take(rows)), cells.take(rows))
    for condition in cells.conditions:
        assert_allclose(again.shifts[condition][1], model.shift.shifts[condition][1], atol=1e-6)


def test_unknown_batches_are_refused_where_batches_matter():
    cells = make_cells()
    strange = replace(cells, batch=np.full(len(cells), "elsewhere", dtype=object))
    for settings in ({"correct_batches": True}, {"dispersion": "gene-batch"}):
        model = ZinbVae(quick(**settings)).fit(cells, seed=0)
        with pytest.raises(InputError, match="Batches that training did not show: elsewhere. Known: plate0, plate1"):
            model.encode(strange)
    assert ZinbVae(quick()).fit(cells, seed=0).encode(strange).shape == (240, 3)


def test_wrong_use_is_refused(small):
    cells = make_cells()
    with pytest.raises(NotFittedError, match="asked to encode before `fit`"):
        ZinbVae(quick()).encode(cells)
    with pytest.raises(InputError, match=r"Unknown condition 'upp'. Did you mean 'up'\?"):
        small.predict(cells, "upp", seed=0)
    with pytest.raises(InputError, match="no cells"):
        small.predict(cells.take(np.arange(0)), "up", seed=0)
