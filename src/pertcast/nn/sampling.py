"""Rows that count more: weights and repeats of the rare cell types, made after the split and nowhere else (S004-16).

Both are made from the rows that a network trains on, inside `fit`: a fold was cut before, and rows that a model sets
aside for early stopping are taken away first. So a repeated row is repeated on the training side alone.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pertcast.config import Config
from pertcast.errors import InputError, unknown
from pertcast.nn.fit import Rows
from pertcast.types import Examples, Ints, Strings

ASIDE = 10  # one training row in so many is set aside to stop early


class ChosenTypes(Config):
    """Cell types by name, or those that the fewest training rows show."""

    cell_types: tuple[str, ...] = ()  # empty: the rarest
    rarest: int = Field(1, ge=1)  # how many of the rarest; equally rare ones in the order of their names

    def rows(self, cell_type: Strings) -> NDArray[np.bool_]:
        """Mark the training rows (n,) of the chosen cell types: (n,).

        Raises InputError for a name that no training row has.
        """
        names, counts = np.unique(cell_type.astype(str), return_counts=True)  # sorted by name
        for name in self.cell_types:
            if name not in names:
                raise InputError(unknown("cell type of the training rows", name, names))
        chosen = self.cell_types or tuple(names[np.argsort(counts, kind="stable")[: self.rarest]])
        return np.isin(cell_type.astype(str), chosen)


class Sampling(ChosenTypes):
    """How rows of the chosen cell types count more. Source: system 004 had weight 2, and tried 200 rows of each."""

    weight: float = Field(1.0, gt=0)  # of each of their rows in the loss; other rows have 1
    least_rows: int = Field(0, ge=0)  # their rows are repeated until each of these cell types has so many; 0: once


def sampled(data: Rows, train: Examples, sampling: Sampling | None) -> dict[str, Tensor]:
    """Repeat rows as the settings say, and add `weight` (N,) where rows differ in it: their own times the settings'.

    data       tensors of n training rows each
    train      the n rows
    returns    the same tensors with N >= n rows: all rows once, in order, then the repeats
    """
    result, rows = dict(data), torch.arange(len(train))
    weight = np.ones(len(train)) if train.weight is None else train.weight
    if sampling is not None:
        chosen = sampling.rows(train.cell_type)  # (n,)
        rows = torch.from_numpy(_repeated(train.cell_type, chosen, sampling.least_rows))
        result = {name: tensor[rows.to(tensor.device)] for name, tensor in data.items()}
        weight = np.where(chosen, sampling.weight, 1.0) * weight
    if (weight != 1.0).any():
        weights = torch.from_numpy(weight.astype(np.float32))
        result["weight"] = weights[rows].to(next(iter(data.values())).device)
    return result


def set_aside(train: Examples, seed: int) -> tuple[Examples, Examples]:
    """Part a tenth of the rows, at least one, from those that are trained on: (rest, aside)."""
    if len(train) < 2:
        raise InputError("Early stopping (training.patience) needs at least 2 training rows. Leave patience unset.")
    rows = np.random.default_rng(seed).permutation(len(train))
    aside = max(1, len(train) // ASIDE)
    return train.take(rows[aside:]), train.take(rows[:aside])


def _repeated(cell_type: Strings, chosen: NDArray[np.bool_], least: int) -> Ints:
    """Row numbers (N,): each once, then those of the chosen cell types over and over, as evenly as can be."""
    parts = [np.arange(len(cell_type))]
    for name in sorted(set(cell_type[chosen])):
        own = np.flatnonzero(cell_type == name)
        parts.append(np.resize(own, max(0, least - len(own))))
    return np.concatenate(parts)
