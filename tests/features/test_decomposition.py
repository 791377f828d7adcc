"""A table taken apart: posteriors against slow loops and one joint Gaussian, planted noise."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pertcast.features.decomposition import Decomposition, DecompositionConfig, decompose, row_part
from planted_tables import GENES, RANK, TYPES, planted, rows


def test_profiles_are_the_posterior_mean_of_a_slow_loop():
    train, _, _ = planted(np.random.default_rng(3))
    of_type, of_compound = (
        np.unique(column.astype(str), return_inverse=True)[1] for column in (train.cell_type, train.compound)
    )
    learned = Decomposition.start(train.y, of_type, of_compound, 3)
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
    learned = Decomposition.start(train.y, of_type, of_compound, 3)
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
        shared = np.concatenate([learned.profile_cov[7], learned.mixed_cov[row]])
        score_cov = np.concatenate([shared, np.concatenate([learned.mixed_cov[row].T, learned.own_cov[row]])], axis=1)
        assert_allclose(score_cov, covariance[np.ix_(chosen, chosen)], rtol=1e-6, atol=1e-9)


def test_the_noise_of_rows_is_found():
    """Half of the rows three times as noisy: they are believed to be nine times as variable."""
    rng = np.random.default_rng(6)
    train, _, _ = planted(rng, noise=0.0, gains=False)
    loud = np.arange(len(train)) % 2 == 0
    size = np.where(loud, 1.5, 0.5)[:, None]
    of_type, of_compound = (
        np.unique(column.astype(str), return_inverse=True)[1] for column in (train.cell_type, train.compound)
    )
    learned = Decomposition.start(train.y + size * rng.normal(size=train.y.shape), of_type, of_compound, RANK)
    for _ in range(20):
        learned.update_profiles()
        learned.update_genes(gains=False)
        learned.update_means()
        learned.update_noise()
    variance = (learned.relative * GENES + 200 * (learned.relative - 1)) / GENES  # less what draws it to the typical
    assert variance[loud].mean() / variance[~loud].mean() == pytest.approx(9, rel=0.35)


def parts_of_rows(train, y, *, rounds):
    found = decompose(y, train.cell_type, train.compound, DecompositionConfig(rounds=rounds))
    return row_part(train.cell_type, **found.row_factors())


def test_the_parts_of_rows_are_found():
    """What each row was made to stray by is what the table's row part says, up to the size of its noise."""
    rng = np.random.default_rng(11)
    train, _, _ = planted(rng, noise=1.0, gains=False)
    stray = 3 * rng.normal(size=(len(train), 1)) * rng.normal(size=GENES)
    found = parts_of_rows(train, train.y + stray, rounds=60)
    assert np.corrcoef(found.ravel(), stray.ravel())[0, 1] > 0.9
    plain = parts_of_rows(train, train.y, rounds=60)
    assert np.square(plain).mean() < 0.1 * np.square(found).mean()


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_table_that_does_not_vary(value):
    train = rows(np.arange(6) % 3, np.arange(6) // 3, np.full((6, GENES), value))
    found = decompose(train.y, train.cell_type, train.compound, DecompositionConfig(components=2))
    assert all(np.isfinite(part).all() for part in found.arrays().values())
    assert_allclose(row_part(train.cell_type, **found.row_factors()), 0, atol=0.2)
