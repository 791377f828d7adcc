"""Sums over rows of the same group, as one sparse product."""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import csr_array

from pertcast.types import Floats, Ints


def group_sums(values: Floats, group: Ints, count: int) -> Floats:
    """Add up rows of the same group: (n, ...) -> (count, ...), zeros for a group without rows.

    group   (n,)  number of each row's group, 0 to count - 1
    """
    member = csr_array((np.ones(len(group)), (group, np.arange(len(group)))), shape=(count, len(group)))
    return (member @ values.reshape(len(values), math.prod(values.shape[1:]))).reshape(count, *values.shape[1:])
