"""The read-off shift against ridge regression in its primal form, and its choice of how much a profile counts."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from pertcast.nn import profile_shift
from pertcast.nn.profile_shift import NOISE, STRENGTHS, fit_profile_shift


def pairs(*, slope: float, contexts: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two conditions in each context; the change is shared, plus `slope` times what lies along the first axis."""
    rng = np.random.default_rng(seed)
    context = np.repeat(np.arange(contexts), 2)
    change = np.tile(np.eye(2), (contexts, 1))
    profile = rng.standard_normal((contexts, 3))[context]
    shared, own = rng.standard_normal((2, 5)), rng.standard_normal((2, 5))
    shift = change @ shared + slope * profile[:, :1] * (change @ own) + 0.05 * rng.standard_normal((2 * contexts, 5))
    weight = rng.uniform(0.2, 1, 2 * contexts)
    found = {"change": change, "profile": profile, "shift": shift, "weight": weight}
    return {name: torch.tensor(value) for name, value in found.items()} | {"context": torch.tensor(context)}


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_it_is_weighted_ridge_regression(slope):
    """Primal: minimise sum w |y - X b|^2 / NOISE + |b_shared|^2 + |b_own|^2 / strength."""
    data = pairs(slope=slope)
    shared, own, strength = fit_profile_shift(**data)
    change, profile, shift, weight = (data[name].numpy() for name in ("change", "profile", "shift", "weight"))
    crossed = np.einsum("pc,pk->pck", change, profile).reshape(len(change), -1) * np.sqrt(strength)
    design = np.column_stack([change, crossed])
    normal = design.T @ (design * weight[:, None]) / NOISE + np.eye(design.shape[1])
    wanted = np.linalg.solve(normal, design.T @ (shift * weight[:, None]) / NOISE)
    assert_allclose(shared, wanted[:2], atol=1e-9)
    assert_allclose(own.reshape(-1, 5), wanted[2:] * np.sqrt(strength), atol=1e-9)


def test_contexts_left_out_say_how_much_a_profile_counts():
    assert fit_profile_shift(**pairs(slope=1.0))[2] >= 0.1
    assert fit_profile_shift(**pairs(slope=0.0))[2] <= 0.01
    assert fit_profile_shift(**pairs(slope=1.0, contexts=2))[2] == 0  # nothing can be left out


def test_the_choice_is_that_of_a_slow_loop(monkeypatch):
    """Fit anew without each context, at every strength."""
    data, errors = pairs(slope=0.3, contexts=8, seed=4), {}
    chosen = fit_profile_shift(**data)[2]
    for strength in STRENGTHS:
        monkeypatch.setattr(profile_shift, "_strength", lambda *_, s=strength, **__: s)
        errors[strength] = 0.0
        for out in range(8):
            held = data["context"] == out
            shared, own, _ = fit_profile_shift(**{name: value[~held] for name, value in data.items()})
            guess = data["change"] @ shared + torch.einsum("pc,pk,ckg->pg", data["change"], data["profile"], own)
            gap = (guess - data["shift"])[held].square().sum(1)
            errors[strength] += float(data["weight"][held] @ gap)
    assert chosen == min(errors, key=errors.get)
