"""Groups of like cells where no label says which they are: untreated cells are clustered, treated ones follow."""

from __future__ import annotations

import numpy as np

from pertcast.errors import InputError
from pertcast.types import Cells, Floats, Strings

AXES = 20  # principal axes in which cells are compared
ROUNDS = 20  # of assigning treated cells and measuring their shift, at most
LEAST = 0.25  # of the share that a cluster has of the control cells: fewer treated cells than that are strays


def found_contexts(values: Floats, cells: Cells, *, count: int, seed: int) -> Strings:
    """Name a group for every cell from its profile alone: (n,).

    Control cells are clustered by k-means in principal axes. The cells of a condition go to the nearest cluster once
    all are moved back by one shift, the mean over clusters of what its cells lie off their centre; shift and clusters
    are found in turns. Treated cells that seem to belong to a cluster of which the condition has next to none are left
    out: they get a group of their own, without control cells (`stray`), and train nothing.

    values  (n, g) float  log1p values, dense or sparse
    count   clusters; more than there are kinds of cells does little harm, fewer mixes them
    Raises InputError for fewer control cells than clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD

    control = cells.untreated
    if control.sum() < count:
        raise InputError(f"{count} contexts cannot be found among {control.sum()} control cells. Ask for fewer.")
    axes = min(AXES, values.shape[1] - 1, int(control.sum()) - 1)
    if axes < 1:
        return np.full(len(cells), "found0", dtype=object)
    codes = TruncatedSVD(axes, random_state=seed).fit(values[control]).transform(values)
    means = KMeans(count, n_init=5, random_state=seed).fit(codes[control])
    label = np.zeros(len(cells), np.int64)
    label[control] = means.labels_
    share = np.bincount(means.labels_, minlength=count) / control.sum()
    for condition in cells.conditions:
        rows = np.flatnonzero(cells.condition == condition)
        label[rows] = _follow(codes[rows], means.cluster_centers_, share)
    return np.array(["stray" if number < 0 else f"found{number}" for number in label], dtype=object)


def _follow(codes: Floats, centres: Floats, share: Floats) -> np.ndarray:
    """Cluster of each treated cell, -1 for strays: (m, d), (k, d), (k,) -> (m,)."""
    shift, label = np.zeros(codes.shape[1]), np.full(len(codes), -2)
    kept = np.ones(len(centres), bool)
    for _ in range(ROUNDS):
        distance = np.square(codes[:, None] - shift - centres).sum(axis=2)  # (m, k)
        before, label = label, distance.argmin(axis=1)
        kept = np.bincount(label, minlength=len(centres)) >= LEAST * share * len(codes)
        if np.array_equal(before, label):
            break
        shift = np.mean([(codes[label == k] - centres[k]).mean(axis=0) for k in np.flatnonzero(kept)], axis=0)
    return np.where(kept[label], label, -1)
