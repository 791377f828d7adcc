"""Batch correction against planted batch effects, plain standardisation, and its own iteration written as loops."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from cell_cases import make_cells
from pertcast.cells.batch_correction import correct_batches, fit_batches
from pertcast.errors import InputError
from pertcast.types import Cells

G = 12


def batched(seed: int = 0, *, n: int = 900) -> tuple[Cells, np.ndarray]:
    """Three batches that shift and stretch genes, drugged cells unequally spread over them; and cells without that."""
    rng = np.random.default_rng(seed)
    batch, treated = np.arange(n) % 3, rng.random(n) < np.array([0.2, 0.5, 0.8])[np.arange(n) % 3]
    clean = 4 + rng.normal(0, 0.5, (n, G))
    clean[treated, :4] += 2
    shift, stretch = rng.normal(0, 1, (3, G)), rng.uniform(0.5, 2, (3, G))
    mean = np.where(treated[:, None] & (np.arange(G) < 4), 6.0, 4.0)
    x = mean + (clean - mean) * stretch[batch] + shift[batch]
    names = lambda kind, numbers: np.array([f"{kind}{i}" for i in numbers], dtype=object)  # noqa: E731
    cells = Cells(
        names("cell", range(n)), tuple(f"GENE{j}" for j in range(G)), csr_array(x.astype(np.float32)), "log1p",
        np.where(treated, "drug", "control").astype(object), np.full(n, "type", dtype=object), names("b", batch),
        "control",
    )  # fmt: skip
    return cells, clean


def spread_about_groups(cells: Cells) -> np.ndarray:
    """Variance around the mean of batch and condition, per batch: (b, g)."""
    x, found = cells.x.toarray(), []
    for name in sorted(set(cells.batch)):
        parts = [x[(cells.batch == name) & (cells.condition == c)] for c in ("control", "drug")]
        found.append(np.concatenate([part - part.mean(axis=0) for part in parts]).var(axis=0))
    return np.array(found)


@pytest.mark.parametrize("empirical_bayes", [False, True])
def test_means_and_variances_per_batch_agree_and_biology_is_kept(empirical_bayes):
    """S003-13: batches of unequal drug shares; a plain centring would take a part of the drug with it."""
    cells, clean = batched()
    done = correct_batches(cells, empirical_bayes=empirical_bayes)
    x = done.x.toarray()
    for condition in ("control", "drug"):
        rows = done.condition == condition
        means = np.array([x[rows & (done.batch == b)].mean(axis=0) for b in ("b0", "b1", "b2")])
        assert np.ptp(means, axis=0).max() < 0.35  # by chance; the planted shifts differ by up to 3
    ratio = spread_about_groups(done).max(axis=0) / spread_about_groups(done).min(axis=0)
    before = spread_about_groups(cells).max(axis=0) / spread_about_groups(cells).min(axis=0)
    assert (ratio < 1.15).all()
    assert np.median(before) > 2.5
    change = x[done.condition == "drug"].mean(axis=0) - x[done.condition == "control"].mean(axis=0)
    assert_allclose(change, np.where(np.arange(G) < 4, 2, 0), atol=0.15)
    code = np.unique(done.batch, return_inverse=True)[1]
    judge = LogisticRegression(max_iter=1000)
    half = np.arange(len(cells)) < 450
    assert judge.fit(x[half], code[half]).score(x[~half], code[~half]) < 0.57  # who knows the drug gets 0.53
    assert judge.fit(cells.x.toarray()[half], code[half]).score(cells.x.toarray()[~half], code[~half]) > 0.9
    assert judge.fit(x[half], done.condition[half]).score(x[~half], done.condition[~half]) > 0.99


def test_the_reference_stays_as_it_is():
    """S003-13: others take over its location and scale."""
    cells, _ = batched()
    done = correct_batches(cells, reference="b1")
    own = cells.batch == "b1"
    assert_allclose(done.x.toarray()[own], cells.x.toarray()[own], rtol=1e-5, atol=1e-5)
    spread = spread_about_groups(done)
    assert_allclose(spread, np.broadcast_to(spread_about_groups(cells)[1], spread.shape), rtol=0.1)


def test_with_one_group_it_is_standardisation():
    """By numpy: every batch gets the common mean, and the pooled spread."""
    cells, _ = batched()
    cells = replace(cells, condition=np.full(len(cells), "control", dtype=object))
    x, want = cells.x.toarray().astype(float), np.empty((len(cells), G))
    rows = [cells.batch == name for name in ("b0", "b1", "b2")]
    pooled = np.sqrt(sum(((x[r] - x[r].mean(axis=0)) ** 2).sum(axis=0) for r in rows) / len(x))
    for r in rows:
        want[r] = (x[r] - x[r].mean(axis=0)) / x[r].std(axis=0, ddof=1) * pooled + x.mean(axis=0)
    assert_allclose(correct_batches(cells).x.toarray(), want, rtol=1e-4, atol=1e-4)


def test_empirical_bayes_against_loops():
    """Johnson et al. 2007, equations 3.1: the fixed point of location and variance, gene by gene."""
    cells, _ = batched(n=24)
    plain, drawn = fit_batches(cells), fit_batches(cells, empirical_bayes=True)
    group = np.array([plain.groups.index((c, "type")) for c in cells.condition])
    z = (cells.x.toarray().astype(float) - plain.biology[group]) / plain.scale
    for number, name in enumerate(plain.batches):
        part, shift, var = z[cells.batch == name], plain.shift[number], plain.spread[number] ** 2
        m, s2 = var.mean(), var.var(ddof=1)
        lam, theta = (m * m + 2 * s2) / s2, (m**3 + m * s2) / s2
        centre, tau2, n = shift.mean(), shift.var(ddof=1), len(part)
        for gene in range(G):
            g, d = shift[gene], var[gene]
            for _ in range(1000):
                g = (n * tau2 * shift[gene] + d * centre) / (n * tau2 + d)
                d = (theta + 0.5 * sum((value - g) ** 2 for value in part[:, gene])) / (n / 2 + lam - 1)
            assert_allclose([drawn.shift[number, gene], drawn.spread[number, gene] ** 2], [g, d], rtol=1e-4)
    assert (drawn.spread.std(axis=1) < plain.spread.std(axis=1)).all()  # genes drawn together


def test_counts_become_log_values_and_labels_stay():
    cells = make_cells()
    done = correct_batches(cells, clip=True)
    assert done.unit == "log1p"
    assert (done.x.toarray() >= 0).all()
    for name in ("ids", "condition", "context", "batch"):
        assert_array_equal(getattr(done, name), getattr(cells, name))
    assert_array_equal(make_cells().x.toarray(), cells.x.toarray())  # given cells are left alone


def test_what_cannot_be_corrected_is_refused():
    cells, _ = batched(n=60)
    with pytest.raises(InputError, match=r"Unknown batch 'b9'"):
        fit_batches(cells, reference="b9")
    single = replace(cells, batch=np.array(["lone", *cells.batch[1:]], dtype=object))
    with pytest.raises(InputError, match=r"fewer than 2 cells have no spread: lone"):
        fit_batches(single)
    apart = replace(cells, condition=np.where(cells.batch == "b2", "drug", "control").astype(object))
    with pytest.raises(InputError, match=r"Batches b2 share no condition and context with 'b0'"):
        fit_batches(apart)
    with pytest.raises(InputError, match=r"Batches that the fit did not see: b2"):
        fit_batches(cells.take(cells.batch != "b2")).remove(cells)
