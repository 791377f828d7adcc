"""Entropic optimal transport between two samples, in the log domain."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from pertcast.types import Floats

TOLERANCE = 1e-6  # largest total error of a marginal
MOST_ROUNDS = 1000


def transport_plan(cost: Floats, *, entropy: float) -> Floats:
    """Find the plan of least cost less entropy between samples whose members weigh alike: (n, m), sums to 1.

    cost     (n, m)
    entropy  strength, in units of the cost; towards 0 the plan becomes the cheapest one

    Rows sum to 1 / n exactly; columns to 1 / m within TOLERANCE, or as near as MOST_ROUNDS bring them.
    Source: Cuturi 2013, arXiv:1306.0895; log domain: Peyre and Cuturi 2019, doi:10.1561/2200000073, section 4.4.
    """
    n, m = cost.shape
    log_kernel = -cost / entropy
    right = np.zeros(m)
    for _ in range(MOST_ROUNDS):
        left = -np.log(n) - logsumexp(log_kernel + right, axis=1)  # rows become right
        log_plan = log_kernel + left[:, None] + right
        column = logsumexp(log_plan, axis=0)
        if np.abs(np.exp(column) - 1 / m).sum() < TOLERANCE:
            break
        right = right - np.log(m) - column
    return np.exp(log_plan)
