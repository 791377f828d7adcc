"""Losses of a predicted response, over genes or, exactly, over its principal scores.

Every loss is a mean over rows of one number per row, so batches of rows average to the loss of all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from pertcast.errors import InputError, unknown

EPS = 1e-12  # inside the square root: a finite slope at zero error, 1e-6 at most in the value

Loss = Callable[..., Tensor]  # (predicted (n, g), target (n, g), weight=(n,) or None) -> ()


def mse(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error: (n, g), (n, g) -> ()."""
    return row_mean((predicted - target).square().mean(dim=1), weight)


def mae(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error: (n, g), (n, g) -> ()."""
    return row_mean((predicted - target).abs().mean(dim=1), weight)


def huber(predicted: Tensor, target: Tensor, weight: Tensor | None = None, *, delta: float = 1.0) -> Tensor:
    """Half the squared error up to `delta`, linear beyond: (n, g), (n, g) -> (). Source: Huber 1964."""
    loss = functional.huber_loss(predicted, target, delta=delta, reduction="none")  # (n, g)
    return row_mean(loss.mean(dim=1), weight)


def log_cosh(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of log cosh of the error: (n, g), (n, g) -> ().

    Written as |e| + softplus(-2|e|) - log 2, which neither overflows nor loses its slope at large errors.
    """
    size = (predicted - target).abs()  # (n, g)
    return row_mean((size + functional.softplus(-2 * size) - math.log(2)).mean(dim=1), weight)


def mixed(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """0.32 MSE + 0.24 MAE + 0.24 log-cosh + 0.20 cross-entropy of sigmoids: (n, g), (n, g) -> ().

    The cross-entropy is taken less the entropy of the target, which no prediction changes: zero at no error.
    Source: first place of the competition.
    """
    error = predicted - target  # (n, g)
    size = error.abs()
    log_cosh_ = size + functional.softplus(-2 * size) - math.log(2)
    entropy = functional.softplus(predicted) - functional.softplus(target) - target.sigmoid() * error
    values = 0.32 * error.square() + 0.24 * (size + log_cosh_) + 0.2 * entropy
    return row_mean(values.mean(dim=1), weight)


def mrrmse(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over rows of the root of the mean over genes of the squared error: (n, g), (n, g) -> () (S004-09)."""
    return row_mean(((predicted - target).square().mean(dim=1) + EPS).sqrt(), weight)


def score_mse(
    predicted: Tensor, target: Tensor, residual_norm2: Tensor, *, genes: int, weight: Tensor | None = None
) -> Tensor:
    """Mean squared error over genes, computed over principal scores.

    predicted, target  (n, k)  scores in an orthonormal basis of k directions in gene space
    residual_norm2     (n,)    squared length of what the k directions leave out of each target row
    genes                      number of genes g
    returns            ()      `mse` of the decoded rows: by Pythagoras, to rounding
    """
    squared = (predicted - target).square().sum(dim=1) + residual_norm2  # (n,)
    return row_mean(squared / genes, weight)


def score_mrrmse(
    predicted: Tensor, target: Tensor, residual_norm2: Tensor, *, genes: int, weight: Tensor | None = None
) -> Tensor:
    """MRRMSE over genes, computed over principal scores: arguments as `score_mse`."""
    squared = (predicted - target).square().sum(dim=1) + residual_norm2  # (n,)
    return row_mean((squared / genes + EPS).sqrt(), weight)


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"huber": huber, "mse": mse, "mae": mae, "log_cosh": log_cosh, "mrrmse": mrrmse, "mixed": mixed}
)
SCORE_LOSSES: Mapping[str, Loss] = MappingProxyType({"mse": score_mse, "mrrmse": score_mrrmse})


def make_loss(name: str, *, delta: float = 1.0) -> Loss:
    """Pick a loss over genes by name; `delta` is the bend of `huber` and means nothing to the others."""
    if name not in LOSSES:
        raise InputError(unknown("loss", name, LOSSES))
    return partial(huber, delta=delta) if name == "huber" else LOSSES[name]


def row_mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Average one number per row: (n,) and optional weights (n,) -> ()."""
    if weight is None:
        return values.mean()
    if weight.shape != values.shape:
        expected, got = tuple(values.shape), tuple(weight.shape)
        raise InputError(f"Row weights must have one number per row: expected shape {expected}, got {got}.")
    return (weight * values).sum() / weight.sum().clamp_min(torch.finfo(values.dtype).tiny)
