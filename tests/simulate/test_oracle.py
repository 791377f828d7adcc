"""The oracle against sums over scipy's distribution, repeated draws, and numerical integration."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

from pertcast.de.log10_p import signed_log10_p
from pertcast.de.normalization import log2_cpm_voom
from pertcast.simulate import oracle, plates

DEPTH_SD = 0.25


@pytest.mark.parametrize("dispersion", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("mean", [0.01, 1.0, 20.0, 59.0, 61.0, 900.0])
def test_moments_of_a_log_count_equal_the_sum_over_scipys_distribution(mean, dispersion):
    size = 1 / dispersion
    law = stats.nbinom(size, size / (size + mean))
    counts = np.arange(int(law.isf(1e-14)) + 1)
    value, weight = np.log2(counts + 0.5), law.pmf(counts)
    first = weight @ value
    got = oracle.log2_count_moments(np.array([mean]), dispersion)
    assert_allclose(got[0], first, atol=5e-3)
    assert_allclose(got[1], weight @ value**2 - first**2, rtol=0.03)


def test_moments_of_log_cpm_equal_those_of_the_wells_that_are_drawn():
    """400 genes in 6,000 wells of one kind, so that a mean is known to 0.02 and a variance to 8 %."""
    rng = np.random.default_rng(0)
    log_mean = rng.normal(1.5, 2.0, 400)
    dispersion = np.array([0.05, 0.2])[np.arange(400) % 2]
    total = np.log(np.exp(log_mean).sum())
    counts = plates.draw_counts(np.tile(log_mean, (6000, 1)), dispersion, depth_sd=DEPTH_SD, rng=rng)
    drawn = log2_cpm_voom(counts)
    mean, variance = oracle.log_cpm_moments(log_mean[None], dispersion, depth_sd=DEPTH_SD)
    per_million = np.log2(1e6) - total / np.log(2)
    assert np.abs(drawn.mean(0) - mean[0] - per_million).max() < 0.08
    heaviest = np.exp(log_mean - total) > 0.03  # these move the total, which the oracle takes as expected
    assert_allclose(drawn.var(0)[~heaviest], variance[0, ~heaviest], rtol=0.08, atol=0.035)


def test_expected_response_equals_numerical_integration():
    t, sd, df = np.array([[0.0, 0.7, -3.0, 12.0, 45.0]]), np.array([[1.0, 0.3, 1.5, 0.8, 2.0]]), 120.0
    got = oracle.expected_signed_log10_p(t, sd, df)

    def integrand(z, centre, spread):
        return stats.norm.pdf(z) * signed_log10_p(np.array([centre + spread * z]), df)[0]

    pairs = zip(t[0], sd[0], strict=True)
    want = [integrate.quad(integrand, -9, 9, args=pair, points=[-pair[0] / pair[1]], limit=200)[0] for pair in pairs]
    assert_allclose(got[0], want, rtol=1e-3, atol=1e-4)
    assert got[0, 2] < signed_log10_p(t[0, 2], df) - 0.2  # noise in t takes a response further out: it is convex there


def test_prediction_is_the_mean_over_the_noise_of_treated_wells_with_controls_as_measured():
    """Draw the treated wells 4,000 times beside the same controls; the residual variance is known to both sides."""
    rng = np.random.default_rng(1)
    wells = plates.lay_out(np.array([0]), np.arange(1, 5), donors=3, plates=1, dmso_wells=6, positive_wells=3)
    compounds, genes = np.arange(5), 40
    maps = plates.compare(rng.normal(size=(len(wells), genes)), wells, compounds)[1]
    treated = np.flatnonzero(wells.compound != plates.DMSO)
    control = np.flatnonzero(wells.compound == plates.DMSO)
    mean, sd = rng.normal(5, 1, (len(treated), genes)), rng.uniform(0.2, 0.8, (len(treated), genes))
    y = rng.normal(5, 1, (len(wells), genes))
    scale, df = rng.uniform(0.3, 0.6, (5, genes)), 60.0
    got = oracle.oracle_rows(maps, y, (mean, sd**2), treated, scale=scale, df=df)
    redrawn = mean + sd * rng.normal(size=(4000, len(treated), genes))
    t = (maps[:, control] @ y[control] + maps[:, treated] @ redrawn) / scale  # (4000, 5, g)
    response = signed_log10_p(t, df)
    error = response.std(0) / np.sqrt(4000)
    assert (np.abs(got - response.mean(0)) < 5 * error).all()


def test_prediction_never_sees_the_treated_wells():
    rng = np.random.default_rng(2)
    wells = plates.lay_out(np.array([0]), np.arange(1, 4), donors=2, plates=1, dmso_wells=4, positive_wells=2)
    y = rng.normal(size=(len(wells), 12))
    maps = plates.compare(y, wells, np.arange(4))[1]
    treated = np.flatnonzero(wells.compound != plates.DMSO)
    moments = np.zeros((len(treated), 12)), np.ones((len(treated), 12))
    poisoned = y.copy()
    poisoned[treated] = 1e6
    one, two = (oracle.oracle_rows(maps, z, moments, treated, scale=np.ones((4, 12)), df=20.0) for z in (y, poisoned))
    assert_allclose(one, two, rtol=0, atol=0)
