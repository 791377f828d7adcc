"""How rows become tensors for a network and its outputs become responses; learned from the training rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pertcast.errors import InputError
from pertcast.features.target_svd import TargetSVD
from pertcast.nn.losses import SCORE_LOSSES, make_loss
from pertcast.types import Examples, Floats

CODES = ("cell_type", "compound")  # one-hot blocks; their row index is the code, 0 for a name training did not show

ResponseLoss = Callable[[Tensor, Mapping[str, Tensor]], Tensor]  # (standardised scores (n, k), rows) -> ()


@dataclass(frozen=True, slots=True)
class Encoding:
    """Standardised feature tables, codes and principal scores of the response."""

    svd: TargetSVD
    unit: float  # root mean square of a score: the network's outputs are in this unit
    centers: Mapping[str, Floats]  # {block: (d,)}  column means over the training rows
    spreads: Mapping[str, float]  # {block: root mean square of its centred values}: columns keep their relative weight
    codes: Mapping[str, int]  # {cell_type, compound: number of codes}

    @classmethod
    def of(cls, train: Examples, *, blocks: Iterable[str], components: int) -> Encoding:
        """Learn centers, spreads and up to `components` principal scores from rows that carry `y`."""
        svd = TargetSVD.fit(train.y, components)
        unit = float(np.sqrt(np.square(svd.encode(train.y)).mean()))
        centers, spreads = {}, {}
        for name in blocks:
            block = train.block(name)
            share = np.bincount(block.index, minlength=len(block.table)) / len(train)  # (k,) of the rows, per table row
            centers[name] = (share @ block.table).astype(np.float32)
            squares = share @ np.square(block.table - centers[name]).mean(axis=1)
            spreads[name] = float(np.sqrt(squares)) or 1.0
        return cls(svd, unit, centers, spreads, {name: len(train.block(name).table) for name in CODES})

    def tables(self, rows: Examples, device: torch.device) -> dict[str, Tensor]:
        """Standardise each block's table: {block: (., d)}."""
        tables = {name: (rows.block(name).table - self.centers[name]) / self.spreads[name] for name in self.centers}
        return {name: torch.tensor(table, dtype=torch.float32, device=device) for name, table in tables.items()}

    def index(self, rows: Examples, device: torch.device) -> dict[str, Tensor]:
        """Codes and table rows of each row: {name: (n,)}.

        Raises InputError where the rows were encoded with another vocabulary than the training rows.
        """
        for name, known in self.codes.items():
            got = len(rows.block(name).table)
            if got != known:
                raise InputError(
                    f"Block '{name}' has {got} codes, but the model was fitted with {known}. "
                    "Encode the rows with the vocabulary of the training rows."
                )
        return {name: torch.tensor(rows.block(name).index, device=device) for name in (*CODES, *self.centers)}

    def targets(self, train: Examples, *, loss: str) -> dict[str, Tensor]:
        """What `response_loss` compares with: scores and what they leave out, or the genes."""
        if loss not in SCORE_LOSSES:
            return {"y": torch.tensor(train.y, dtype=torch.float32)}  # (n, g)
        values = {"scores": self.svd.encode(train.y), "residual": self.svd.residual_norm2(train.y)}  # (n, k), (n,)
        return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}

    def response_loss(self, name: str, *, delta: float, genes: int, device: torch.device) -> ResponseLoss:
        """Losses of squares are taken over scores, exactly; the others over the decoded genes of a batch.

        Rows weigh as `weight` (n,) says, where the rows carry one.
        """
        unit = self.unit
        if name in SCORE_LOSSES:
            over_scores = SCORE_LOSSES[name]
            return lambda outputs, rows: over_scores(
                unit * outputs.float(), rows["scores"], rows["residual"], genes=genes, weight=rows.get("weight")
            )
        over_genes = make_loss(name, delta=delta)
        mean, components = (
            torch.tensor(array, dtype=torch.float32, device=device) for array in (self.svd.mean, self.svd.components)
        )
        return lambda outputs, rows: over_genes(
            mean + unit * outputs.float() @ components, rows["y"], weight=rows.get("weight")
        )

    def widths(self, blocks: Iterable[str]) -> dict[str, int]:
        """Columns of each block."""
        return {name: len(self.centers[name]) for name in blocks}

    def arrays(self) -> dict[str, Floats]:
        """Numbers of `of`, by name, for saving."""
        arrays = {f"svd.{key}": value for key, value in self.svd.arrays().items()}
        return arrays | {f"center.{name}": value for name, value in self.centers.items()}

    def facts(self) -> dict[str, object]:
        """What `arrays` does not hold, for JSON."""
        return {"unit": self.unit, "spreads": dict(self.spreads), "codes": dict(self.codes)}

    @classmethod
    def restored(cls, arrays: Mapping[str, Floats], facts: Mapping, *, blocks: Iterable[str]) -> Encoding:
        """Rebuild what `arrays` and `facts` gave; `blocks` in the order of the settings, not of the file."""
        centers = under("center", arrays)
        names = list(blocks)
        return cls(
            TargetSVD.from_arrays(under("svd", arrays)),
            facts["unit"],
            {name: centers[name] for name in names},
            {name: facts["spreads"][name] for name in names},
            facts["codes"],
        )


def under(prefix: str, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    """Pick the arrays whose name starts with `prefix.`, without it."""
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
