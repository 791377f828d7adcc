"""The linear start against scikit-learn's kernel ridge, a loop that leaves contexts out, and planted linear effects."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.kernel_ridge import KernelRidge

from pertcast.nn.cycle_gan_start import FREE, GRID, linear_start

C, K, G = 2, 3, 6


def pairs(*, slope: float = 1.0, contexts: int = 8, noise: float = 0.0) -> dict:
    rng = np.random.default_rng(0)
    profile = rng.normal(0, 1, (contexts, K))
    common, per_axis = rng.normal(0, 1, (C, G)), slope * rng.normal(0, 1, (C, K, G))
    context, condition = np.divmod(np.arange(contexts * C), C)
    codes, profiles = np.eye(C)[condition], profile[context]
    changes = common[condition] + np.einsum("pk,pkg->pg", profiles, per_axis[condition])
    changes = changes + noise * rng.normal(0, 1, changes.shape)
    return {
        "codes": codes, "profiles": profiles, "changes": changes, "cells": np.full(len(codes), 10**9),
        "context": context, "truth": (common, per_axis),
    }  # fmt: skip


def fit(case: dict):
    return linear_start(**{name: value for name, value in case.items() if name != "truth"})


def kernel(case: dict, penalty: float) -> np.ndarray:
    near = case["profiles"] @ case["profiles"].T
    return (case["codes"] @ case["codes"].T) * (FREE + near / np.diag(near).mean() * 100 / penalty)


def test_predictions_are_those_of_kernel_ridge():
    case = pairs(noise=0.5)
    found = fit(case)
    got = case["codes"] @ found.common + np.einsum("pc,pk,ckg->pg", case["codes"], case["profiles"], found.profile)
    ridge = KernelRidge(alpha=1.0, kernel="precomputed").fit(kernel(case, found.penalty), case["changes"])
    assert_allclose(got, ridge.predict(kernel(case, found.penalty)), rtol=1e-8, atol=1e-8)


def test_the_penalty_is_the_best_on_contexts_left_out():
    """A loop that fits without each context, by scikit-learn."""
    for slope, noise in ((1.0, 0.1), (0.3, 1.0), (0.0, 1.0)):
        case = pairs(slope=slope, noise=noise)
        errors = []
        for penalty in GRID:
            k, total = kernel(case, penalty), 0.0
            for name in np.unique(case["context"]):
                out = case["context"] == name
                ridge = KernelRidge(alpha=1.0, kernel="precomputed").fit(k[np.ix_(~out, ~out)], case["changes"][~out])
                total += np.square(ridge.predict(k[np.ix_(out, ~out)]) - case["changes"][out]).sum()
            errors.append(total)
        assert fit(case).penalty == GRID[int(np.argmin(errors))]


def test_planted_effects_come_back_and_none_is_made_up():
    case = pairs(contexts=60)
    found = fit(case)
    assert_allclose(found.common, case["truth"][0], atol=0.02)
    assert_allclose(found.profile, case["truth"][1], atol=0.05)
    nothing = fit(pairs(slope=0.0, noise=1.0, contexts=12))
    assert nothing.penalty >= 30
    assert np.abs(nothing.profile).max() < 0.4


def test_small_pairs_count_less_and_two_contexts_give_no_slope():
    case = pairs(slope=0.0)
    case["changes"][0] += 50.0
    small = {**case, "cells": np.where(np.arange(len(case["cells"])) == 0, 1, 10**9)}
    off = [np.abs(fit(one).common[0] - case["truth"][0][0]).max() for one in (case, small)]
    assert off[1] < 0.2 * off[0]
    few = fit(pairs(contexts=2))
    assert few.penalty == GRID[0]
    assert np.abs(few.profile).max() < 1e-4


@pytest.mark.parametrize("both", [False, True])
def test_changes_of_two_factors_add_up(both):
    """Codes of several factors share a change: A, B and A+B."""
    codes = np.array([[1.0, 0], [0, 1.0], [1.0, 1.0]] if both else [[1.0, 0], [0, 1.0]])
    codes = np.tile(codes, (4, 1))
    effect = np.array([[1.0, 2.0], [-3.0, 0.5]])
    found = linear_start(
        codes=codes, profiles=np.zeros((len(codes), 1)), changes=codes @ effect, cells=np.full(len(codes), 10**9),
        context=np.repeat(np.arange(4), len(codes) // 4),
    )  # fmt: skip
    assert_allclose(found.common, effect, rtol=0.01, atol=0.01)
