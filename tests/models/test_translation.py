"""Linear translation between cell types: laws, a slow loop, planted gains."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pertcast.models.registry import build
from pertcast.models.translation import _Posterior
from pertcast.types import Examples

TYPES, COMPOUNDS, GENES, RANK = 5, 40, 60, 2


def planted(rng, *, noise=0.1, gains=True):
    """Rows y = gene gain * loading (gain * profile) of a table from which some cells are missing; and the full table.

    The last cell type shows 12 of the compounds only.
    """
    profile, loading = 3 * rng.normal(size=(COMPOUNDS, RANK)), rng.normal(size=(GENES, RANK))
    gain = rng.uniform(0.5, 1.5, (TYPES, RANK)) if gains else np.ones((TYPES, RANK))
    gene_gain = rng.uniform(0.7, 1.3, (TYPES, GENES)) if gains else np.ones((TYPES, GENES))
    truth = np.einsum("tg,ck,tk,gk->tcg", gene_gain, profile, gain, loading)
    shown = rng.random((TYPES, COMPOUNDS)) < 0.8
    shown[0] = True
    shown[-1] = np.arange(COMPOUNDS) < 12
    of_type, of_compound = np.nonzero(shown)
    y = truth[of_type, of_compound] + noise * rng.normal(size=(len(of_type), GENES))
    return rows(of_type, of_compound, y), truth, shown


def rows(of_type, of_compound, y=None):
    cell_type = np.array([f"type {t}" for t in of_type], dtype=object)
    compound = np.array([f"drug {c}" for c in of_compound], dtype=object)
    genes = tuple(f"G{i:02d}" for i in range(GENES))
    return Examples(
        np.arange(len(of_type)), cell_type, compound, genes, {}, None if y is None else y.astype(np.float32)
    )


def relative_error(model, truth, shown):
    """Error over what was never shown, as a share of its size."""
    of_type, of_compound = np.nonzero(~shown)
    wanted = truth[of_type, of_compound]
    predicted = model.predict(rows(of_type, of_compound))
    return np.sqrt(((predicted - wanted) ** 2).sum() / (wanted**2).sum())


def test_planted_gains_are_translated():
    """With gains per component and per gene the missing cells are nearly those planted; without, they cannot be."""
    train, truth, shown = planted(np.random.default_rng(0))
    full = build("translation", {"components": 4, "rounds": 60, "gain_rows": 1.0}).fit(train, seed=0)
    stiff = build("translation", {"components": 4, "rounds": 60, "gain_rows": 1e9, "gene_gains": False}).fit(
        train, seed=0
    )
    assert relative_error(full, truth, shown) < 0.12
    assert relative_error(stiff, truth, shown) > 2 * relative_error(full, truth, shown)


def test_superfluous_components_do_little_harm():
    train, truth, shown = planted(np.random.default_rng(1), noise=1.0, gains=False)
    errors = [
        relative_error(build("translation", {"components": r}).fit(train, seed=0), truth, shown) for r in (RANK, 20)
    ]
    assert errors[1] < 1.25 * errors[0] + 0.02


def test_noise_shrinks_a_compound_to_the_cell_type_effect():
    """Rows that are noise about the cell type's own effect: of a compound's own part nothing is left to speak of."""
    rng = np.random.default_rng(2)
    own = rng.normal(size=(TYPES, GENES))
    of_type, of_compound = np.indices((TYPES, COMPOUNDS)).reshape(2, -1)
    train = rows(of_type, of_compound, own[of_type] + rng.normal(size=(TYPES * COMPOUNDS, GENES)))
    predicted = build("translation").fit(train, seed=0).predict(train.without_y())
    assert np.sqrt(((predicted - own[of_type]) ** 2).mean()) < 0.35  # noise has size 1


def test_profiles_are_the_posterior_mean_of_a_slow_loop():
    train, _, _ = planted(np.random.default_rng(3))
    of_type, of_compound = (
        np.unique(column.astype(str), return_inverse=True)[1] for column in (train.cell_type, train.compound)
    )
    learned = _Posterior.start(train.y, of_type, of_compound, 3)
    learned.gain[:] = np.random.default_rng(4).uniform(0.5, 1.5, learned.gain.shape)
    learned.relative[:] = np.random.default_rng(5).uniform(0.5, 2.0, len(train))
    spread, noise = learned.profile_spread.copy(), learned.noise
    learned.second = np.stack([learned.loading.T @ learned.loading] * TYPES)  # loadings taken as certain
    learned.update_profiles()
    for compound in (0, 7, 39):
        precision, total = np.eye(3) / spread[compound], np.zeros(3)
        for row in np.flatnonzero(of_compound == compound):
            design = learned.loading * learned.gain[of_type[row]]  # (g, r)
            weight = 1 / (noise * learned.relative[row])
            precision += weight * design.T @ design
            total += weight * design.T @ (train.y[row] - learned.mean[of_type[row]])
        assert_allclose(learned.profile[compound], np.linalg.solve(precision, total), rtol=1e-6)


def test_what_is_a_rows_own_is_the_joint_posterior():
    """Profile and rows' own scores of a compound: mean and covariance of one Gaussian over all of them at once."""
    train, _, _ = planted(np.random.default_rng(8), noise=1.0)
    of_type, of_compound = (
        np.unique(column.astype(str), return_inverse=True)[1] for column in (train.cell_type, train.compound)
    )
    learned = _Posterior.start(train.y, of_type, of_compound, 3)
    learned.add_row_components(2)
    learned.gain[:] = np.random.default_rng(9).uniform(0.5, 1.5, learned.gain.shape)
    spread, noise = learned.profile_spread.copy(), learned.noise
    learned.second = np.stack([learned.loading.T @ learned.loading] * TYPES)  # loadings taken as certain
    learned.update_profiles()
    own = np.flatnonzero(of_compound == 7)
    unknowns = 3 + 2 * len(own)  # the profile, then two scores a row
    precision = np.diag([1 / spread[7]] * 3 + [1.0] * 2 * len(own))
    total = np.zeros(unknowns)
    for place, row in enumerate(own):
        chosen = [0, 1, 2, 3 + 2 * place, 4 + 2 * place]
        design = np.zeros((GENES, unknowns))
        design[:, chosen] = learned.loading * learned.gain[of_type[row]]
        precision += design.T @ design / noise
        total += design.T @ (train.y[row] - learned.mean[of_type[row]]) / noise
    covariance = np.linalg.inv(precision)
    for place, row in enumerate(own):
        chosen = [0, 1, 2, 3 + 2 * place, 4 + 2 * place]
        assert_allclose(learned.score[row], (covariance @ total)[chosen], rtol=1e-6, atol=1e-9)
        assert_allclose(learned.score_cov[row], covariance[np.ix_(chosen, chosen)], rtol=1e-6, atol=1e-9)


def test_what_rows_have_of_their_own_is_not_translated():
    """Every row strays along one direction as far as compounds move: told apart, the missing cells are better known."""
    rng = np.random.default_rng(10)
    train, truth, shown = planted(rng, noise=1.0, gains=False)
    stray = 3 * rng.normal(size=(len(train), 1)) * rng.normal(size=GENES)
    strayed = rows(*np.nonzero(shown), train.y + stray)
    mixed, apart = (
        relative_error(build("translation", {"row_components": count, "rounds": 60}).fit(strayed, seed=0), truth, shown)
        for count in (0, 1)
    )
    clean = relative_error(build("translation", {"row_components": 0}).fit(train, seed=0), truth, shown)
    assert apart - clean < 0.6 * (mixed - clean)


def test_the_noise_of_rows_is_found():
    """Half of the rows three times as noisy: they are believed to be nine times as variable."""
    rng = np.random.default_rng(6)
    train, _, _ = planted(rng, noise=0.0, gains=False)
    loud = np.arange(len(train)) % 2 == 0
    size = np.where(loud, 1.5, 0.5)[:, None]
    of_type, of_compound = (
        np.unique(column.astype(str), return_inverse=True)[1] for column in (train.cell_type, train.compound)
    )
    learned = _Posterior.start(train.y + size * rng.normal(size=train.y.shape), of_type, of_compound, RANK)
    for _ in range(20):
        learned.update_profiles()
        learned.update_genes(gains=False)
        learned.update_means()
        learned.update_noise()
    variance = (learned.relative * GENES + 200 * (learned.relative - 1)) / GENES  # less what draws it to the typical
    assert variance[loud].mean() / variance[~loud].mean() == pytest.approx(9, rel=0.35)


def test_unseen_compound_and_cell_type():
    """R39: the cell type's own effect alone; the mean over the cell types."""
    train, _, _ = planted(np.random.default_rng(7))
    model = build("translation", {"rounds": 5}).fit(train, seed=0)
    strange = model.predict(rows([1, 2], [99, 99]))
    assert_allclose(strange, model.arrays["mean"][[1, 2]], atol=1e-6)
    assert_allclose(model.predict(rows([77], [99]))[0], model.arrays["mean"].mean(0), atol=1e-6)
