"""How the change of gene means hangs on what untreated cells are like: kernel ridge over contexts, in advance."""

from __future__ import annotations

import torch
from torch import Tensor

STRENGTHS = (0.0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # of the profile beside the change that contexts share
NOISE = 0.05  # of a pair of weight 1, in units of the shared change's variance
MOST_FOLDS = 20


def fit_profile_shift(
    change: Tensor, profile: Tensor, shift: Tensor, *, weight: Tensor, context: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Explain changes by condition, and by condition times profile: (c, g), (c, k, g) and the profile's strength.

    change   (p, c)  code after less code before, of each pair of groups
    profile  (p, k)  mean profile of the source cells, centred over pairs
    shift    (p, g)  difference of gene means
    weight   (p,)    above 0: how well each is known
    context  (p,) int64  pairs of one context leave together

    A shift is predicted as change @ shared + (change x profile) @ own. How much the profile counts is chosen by leaving
    contexts out, and may be nothing: with one context alone it is 0. Ridge regression in its dual form, so that the
    cost grows with pairs and not with conditions times axes.
    """
    strength = _strength(change, profile, shift, weight=weight, context=context)
    alpha = torch.linalg.solve(_kernel(change, profile, strength) + torch.diag(NOISE / weight), shift)  # (p, g)
    own = strength * torch.einsum("pc,pk,pg->ckg", change, profile, alpha)
    return change.T @ alpha, own, strength


def _strength(change: Tensor, profile: Tensor, shift: Tensor, *, weight: Tensor, context: Tensor) -> float:
    """The strength whose predictions for contexts left out are the best; of equal ones the least."""
    names = context.unique()
    if len(names) < 3:
        return 0.0
    fold = torch.searchsorted(names, context) % MOST_FOLDS
    errors = []
    for strength in STRENGTHS:
        kernel, error = _kernel(change, profile, strength), 0.0
        for number in fold.unique():
            out = fold == number
            inside = kernel[~out][:, ~out] + torch.diag(NOISE / weight[~out])
            guess = kernel[out][:, ~out] @ torch.linalg.solve(inside, shift[~out])
            error += float(weight[out] @ (guess - shift[out]).square().sum(dim=1))
        errors.append(error)
    return STRENGTHS[errors.index(min(errors))]


def _kernel(change: Tensor, profile: Tensor, strength: float) -> Tensor:
    """How alike pairs are: (p, p)."""
    return (change @ change.T) * (1 + strength * (profile @ profile.T))
