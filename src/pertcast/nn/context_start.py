"""Where networks that move cells begin: at a change of gene means that is given for every context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NOWHERE = -1  # number of the context of a cell whose context has no means
LEAST_MEAN = 1e-6  # of a gene that can be lowered

Start = tuple[Tensor, Tensor]  # gain and shift of every gene of every cell: (n, g) each


class ContextStart(nn.Module):
    """Gain and shift of genes by which the means of a context change as given; nothing of it is trained.

    A gene that falls is scaled, since its zeros stay zeros, and one that rises is shifted. So the mean of a context's
    cells changes by just what is given, also where `detect` shows values as measured ones.

    centre  (k, g)     gene means of the untreated cells of k contexts
    change  (k, c, g)  what each number of a condition's code adds to them
    """

    def __init__(self, centre: Tensor, change: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("change", change)

    def forward(self, x: Tensor, source: Tensor, target: Tensor, home: Tensor | None = None) -> Start:
        """Gain, from 0 to 1, and shift, at least 0, on the way from one condition to another.

        x               (n, g)  log1p values
        source, target  (n, c)  codes of the conditions that cells carry, and that are asked for
        home            (n,) int64  number of each cell's context; NOWHERE, or None for all cells: the one whose
                        untreated mean is nearest to the cell
        """
        home = self._home(x, home)
        before, change = torch.empty_like(x), torch.empty_like(x)
        for number in home.unique().tolist():
            rows, table = home == number, self.change[number]
            before[rows] = self.centre[number] + source[rows] @ table
            change[rows] = (target[rows] - source[rows]) @ table
        gain = 1 + change.clamp_max(0) / before.clamp_min(LEAST_MEAN)
        return gain.clamp_min(0), change.clamp_min(0)

    def _home(self, x: Tensor, home: Tensor | None) -> Tensor:
        nearest = (x @ self.centre.T - self.centre.square().sum(dim=1) / 2).argmax(dim=1)
        return nearest if home is None else torch.where(home == NOWHERE, nearest, home)
