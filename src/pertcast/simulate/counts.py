"""Negative-binomial counts. Dispersion is always the `a` in variance = mean + a * mean^2."""

import numpy as np

from pertcast.errors import InputError
from pertcast.metrics.count_likelihood import CountParameters
from pertcast.types import Floats, Ints


def negative_binomial(mean: Floats, dispersion: Floats | float, *, rng: np.random.Generator) -> Ints:
    """Draw counts with the given mean and variance = mean + dispersion * mean^2.

    mean        any shape, >= 0
    dispersion  broadcasts to `mean`, >= 0; 0 is the Poisson distribution

    A gamma of mean 1 and variance `dispersion` multiplies the Poisson rate: the same distribution as NB with
    size 1 / dispersion. Raises InputError for negative or non-finite parameters.
    """
    mean = np.asarray(mean, float)
    dispersion = np.broadcast_to(np.asarray(dispersion, float), mean.shape)
    for name, values in (("mean", mean), ("dispersion", dispersion)):
        if not (np.isfinite(values) & (values >= 0)).all():
            raise InputError(f"Counts: {name} must be finite and at least 0, got {values.min()} to {values.max()}.")
    over = dispersion > 0
    size = 1 / np.where(over, dispersion, 1.0)
    gamma = np.where(over, rng.standard_gamma(size) / size, 1.0)
    return rng.poisson(mean * gamma)


def draw_zinb(parameters: CountParameters, *, rng: np.random.Generator) -> Ints:
    """Draw zero-inflated counts in the shape of the parameters' means. Raises as `negative_binomial`."""
    mean, dispersion, zero_inflation = np.broadcast_arrays(
        parameters.mean, parameters.dispersion, parameters.zero_inflation
    )
    kept = rng.random(mean.shape) >= zero_inflation
    counts = np.zeros(mean.shape, np.int64)
    counts[kept] = negative_binomial(mean[kept], dispersion[kept], rng=rng)
    return counts
