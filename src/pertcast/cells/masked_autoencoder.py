"""Masked autoencoder: what each gene of a cell is, told from its other genes; the virtual cell of trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor

from pertcast.cells.log_scale import as_log1p, checkpoint_digest, from_log1p
from pertcast.cells.registry import register
from pertcast.cells.seen import Seen, fitted, measured_contexts
from pertcast.errors import InputError
from pertcast.io.arrays import load_arrays, row_pieces, save_arrays
from pertcast.nn.fit import Progress, choose_device, fit_network, seeded
from pertcast.nn.masked_fit import (
    Hiding,
    MaskedLoss,
    MaskedTraining,
    fixed_hidden,
    has_single_counts,
    rows_of,
    start_of,
    tell,
)
from pertcast.nn.masked_net import DEPTH, MaskedNet, MaskedNetSizes, facts_of
from pertcast.nn.sparse_rows import sparse_pieces
from pertcast.nn.training_state import Checkpoint
from pertcast.types import Cells, Floats, Ints
from pertcast.validation.cell_parts import part_cells

NAME = "masked-autoencoder"
MEASURED = 500  # untreated cells of a context in which the network's difference is measured, at most
HALVINGS = 30
ROUNDS = 2  # ways in which genes are parted into two halves, each hidden in turn, for what is expected of them


class MaskedAutoencoderConfig(MaskedNetSizes):
    """A network, which genes are hidden from it, and how it is trained."""

    hiding: Hiding = Hiding()
    valid_share: float = Field(0.1, gt=0, lt=1)  # of the cells, held out to stop by; whole batches where there are 3
    training: MaskedTraining = MaskedTraining()


@dataclass(frozen=True, slots=True)
class Told:
    """Genes hidden in each pass over the observed cells, and how deeply these were read, as the visible ones show."""

    hidden: NDArray[np.bool_]  # (p, n, g)
    depth: tuple[Tensor, ...]  # (p,) of (n, DEPTH)


@register(NAME, config=MaskedAutoencoderConfig, seeded=True)
class MaskedAutoencoder:
    """Hidden genes of a cell predicted from the visible ones; a condition moves what it was seen to move.

    As a virtual cell it says what is expected of every gene given others (`expected`), and `roll_out` moves genes with
    it. As a model of conditions it is told the condition of half of its training cells. To move an untreated cell, the
    half of the genes that the condition moved most is hidden, told under the condition and under none from the other
    half, and the difference is added; what that misses of the mean change of training cells, gene by gene, is added
    to every cell alike. Counts are read as log1p of counts per 10,000 and turned back; log1p values as they are.

    Sources: system 001 (virtual cell line), mended: hidden genes are marked, drawn without replacement; cells of a
    batch never mix; outputs are not cut off.
    """

    resumable = True  # `fit` takes a folder for the state of training
    streams = True  # `fit` leaves on disk what lies there
    learns_conditions = False  # genes are told from genes; untreated cells are all that a virtual cell needs

    def __init__(self, config: MaskedAutoencoderConfig):
        self.config = config
        self.seen: Seen | None = None
        self.net: MaskedNet | None = None
        self.known: tuple[str, ...] = ()  # conditions of training, the control first
        self.moved: NDArray[np.bool_] = np.zeros((0, 0), bool)  # (c, g) genes hidden under each condition
        self.missed: Floats = np.zeros((0, 0), np.float32)  # (c, g) what is added beyond the network's difference
        self.halves: NDArray[np.bool_] = np.zeros((0, 0), bool)  # (2 * ROUNDS, g)
        self.history: list[dict[str, float]] = []  # one entry per epoch

    @property
    def genes(self) -> tuple[str, ...]:
        return fitted(self.seen, NAME, "name its genes").genes

    def fit(
        self,
        cells: Cells,
        *,
        seed: int,
        valid: Cells | None = None,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> MaskedAutoencoder:
        """Learn from all cells given, untreated and treated.

        valid       cells that training stops by; None: a share of the given ones, whole batches where there are 3
        checkpoint  folder from which training is taken up, and in which its state is kept
        progress    called after every epoch
        Raises InputError for values below 0, and where the loss is not finite.
        """
        _check(cells)
        contexts = measured_contexts(cells)
        self.seen = Seen.of(NAME, cells, contexts)
        self.known, hiding, train = (cells.control, *cells.conditions), self.config.hiding, cells
        if valid is None:
            kept, held = part_cells(cells, (1 - self.config.valid_share, self.config.valid_share), seed=seed)
            train, valid = cells.take(kept), cells.take(held)
        x, y = as_log1p(train), as_log1p(valid.select(cells.genes))
        above = not hiding.zeros and has_single_counts(x)
        with seeded(seed):
            self.net = self._network(start_of(x, zeros=hiding.zeros), above=above)
        data, held = rows_of(x, self._codes(train)), rows_of(y, self._codes(valid), fixed_hidden(y, hiding, seed))
        self.history, kept, settings = [], None, self.config.training
        if checkpoint is not None:
            digest = checkpoint_digest(self.config, train, seed, *(getattr(y, name) for name in ("data", "indices")))
            kept = Checkpoint(checkpoint, digest, settings.checkpoint_every)
        fit_network(
            self.net, data, MaskedLoss(hiding), settings, seed=seed, valid=held, log=self.history.append,
            checkpoint=kept, progress=progress,
        )  # fmt: skip
        self.net.requires_grad_(False)
        self.halves = _halves(len(cells.genes), seed)
        self._measure_changes(cells, contexts, seed=seed)
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Predict these cells under a condition: expected values, or whole counts around them if `sample`.

        Raises InputError for a condition that training did not show beside untreated cells.
        """
        cells = fitted(self.seen, NAME, "predict").asked(control_cells, condition)
        x = as_log1p(cells).toarray()
        moved = x + self._difference(x, condition) + self.missed[self.seen.conditions.index(condition)]
        x = from_log1p(np.maximum(moved, 0), cells, rng=np.random.default_rng(seed) if sample else None)
        return replace(cells, x=csr_array(x), condition=np.full(len(cells), condition, dtype=object))

    def reconstruct(self, x: Floats, hidden: NDArray[np.bool_]) -> Floats:
        """Values (n, g) of all genes on the log1p scale, told from the genes of x (n, g) that are not hidden (n, g)."""
        fitted(self.seen, NAME, "reconstruct")
        return tell(self.net, x, hidden)

    def describe(self, x: Floats, held: Ints) -> Told:
        """Note which genes of observed cells (n, g) are hidden in which pass, columns `held` never; and the depth."""
        fitted(self.seen, NAME, "describe cells")
        device = self.net.mean.device
        may = np.ones(x.shape, bool) if self.config.hiding.zeros else x > 0
        may[:, held] = False
        hidden = self.halves[:, None] & may
        depth = []
        for one in hidden:
            mask = torch.from_numpy(one).to(device)
            visible = torch.from_numpy(x).to(device).masked_fill(mask, 0.0)
            depth.append(facts_of(visible, mask, self.net.mean)[:, :DEPTH])
        return Told(hidden, tuple(depth))

    def expected(self, x: Floats, told: Told) -> Floats:
        """Expected value (n, g) of every gene that `told` hides in some pass; other genes come back as they are.

        Trained on expressed genes alone, a network says nothing of genes that were observed at 0: they are not hidden.
        """
        fitted(self.seen, NAME, "expect")
        total, count = np.zeros_like(x), told.hidden.sum(axis=0, dtype=np.float32)
        for hidden, depth in zip(told.hidden, told.depth, strict=True):
            total += np.where(hidden, tell(self.net, x, hidden, depth=depth), 0)
        return np.where(count > 0, total / np.maximum(count, 1), x)

    def save(self, folder: Path) -> None:
        seen = fitted(self.seen, NAME, "save")
        arrays = {f"net.{name}": value.cpu().numpy() for name, value in self.net.state_dict().items()}
        arrays |= {"moved": self.moved, "missed": self.missed, "halves": self.halves}
        facts = {
            "config": self.config.model_dump(mode="json"), "seen": seen.as_dict(), "known": self.known,
            "above": self.net.above, "history": self.history,
        }  # fmt: skip
        save_arrays(folder, NAME, arrays, facts)

    def load(self, folder: Path) -> MaskedAutoencoder:
        """Restore what `save` wrote, settings included; only the device stays that of this machine's settings."""
        arrays, facts = load_arrays(folder, NAME)
        device = self.config.training.device
        config = MaskedAutoencoderConfig.model_validate(facts["config"])
        self.config = config.model_copy(update={"training": config.training.model_copy(update={"device": device})})
        self.seen, self.known, self.history = Seen.restored(facts["seen"]), tuple(facts["known"]), facts["history"]
        self.moved, self.missed, self.halves = (arrays.pop(name) for name in ("moved", "missed", "halves"))
        weights = {name.removeprefix("net."): torch.tensor(value) for name, value in arrays.items()}
        start = {name: weights[name] for name in ("mean", "rise", "spread")}
        self.net = self._network(start, above=facts["above"])
        self.net.load_state_dict(weights)
        self.net.to(choose_device(device)).eval().requires_grad_(False)
        return self

    def _network(self, start: Mapping[str, Tensor], *, above: bool) -> MaskedNet:
        return MaskedNet(self.config, **start, zeros=self.config.hiding.zeros, above=above, codes=len(self.known))

    def _difference(self, x: Floats, condition: str) -> Floats:
        """What the network adds to cells (n, g) when it is told the condition in place of none: (n, g)."""
        hidden = np.broadcast_to(self.moved[self.seen.conditions.index(condition)], x.shape)
        hidden = hidden if self.config.hiding.zeros else hidden & (x > 0)
        after, before = (tell(self.net, x, hidden, code=self.known.index(one)) for one in (condition, self.known[0]))
        return np.where(hidden, after - before, 0)

    def _measure_changes(self, cells: Cells, contexts: Mapping[str, list[str]], *, seed: int) -> None:
        """Note the genes that each condition moves most, and what the network's difference misses of mean changes."""
        x, genes, rng = as_log1p(cells), len(cells.genes), np.random.default_rng(seed)
        self.moved, self.missed = np.zeros((len(contexts), genes), bool), np.zeros((len(contexts), genes), np.float32)
        for number, (condition, where) in enumerate(contexts.items()):
            before = [np.flatnonzero(cells.untreated & (cells.context == name)) for name in where]
            after = [np.flatnonzero((cells.condition == condition) & (cells.context == name)) for name in where]
            start, wanted = (np.mean([_mean(x, rows) for rows in side], axis=0) for side in (before, after))
            order = np.argsort(-np.abs(wanted - start), kind="stable")
            self.moved[number, order[: -(-genes // 2)]] = True
            some = [x[np.sort(rng.permutation(rows)[:MEASURED])].toarray() for rows in before]
            said = [rows + self._difference(rows, condition) for rows in some]
            self.missed[number] = _missed(said, wanted + np.mean([r.mean(axis=0) for r in some], axis=0) - start)

    def _codes(self, cells: Cells) -> Ints:
        place = {name: number for number, name in enumerate(self.known)}
        return np.array([place.get(name, -1) for name in cells.condition], dtype=np.int64)


def _halves(genes: int, seed: int) -> NDArray[np.bool_]:
    """Part genes into two halves, several times: (2 * ROUNDS, g)."""
    rng = np.random.default_rng(seed)
    parted = []
    for _ in range(ROUNDS):
        one = np.zeros(genes, bool)
        one[rng.permutation(genes)[: -(-genes // 2)]] = True
        parted += [one, ~one]
    return np.stack(parted)


def _mean(x: csr_array, rows: Ints) -> Floats:
    """Mean of some rows of a matrix that may lie on disk: (g,)."""
    ends = np.concatenate([[0], np.cumsum(np.diff(x.indptr)[rows])])
    return sum(x[rows[piece]].sum(axis=0, dtype=np.float64) for piece in row_pieces(ends)) / len(rows)


def _missed(said: Sequence[Floats], wanted: Floats) -> Floats:
    """What to add to every gene so that its mean over contexts, nothing below 0, is the wanted one (g,): (g,).

    said  of each context (n, g); found by halving, as values that would fall below 0 stay there
    """
    reach = max(float(np.abs(part).max(initial=1)) for part in said) + float(np.abs(wanted).max(initial=0))
    low, high = np.full(len(wanted), -reach), np.full(len(wanted), reach)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        mean = np.mean([np.maximum(part + middle, 0).mean(axis=0) for part in said], axis=0)
        low, high = np.where(mean < wanted, middle, low), np.where(mean < wanted, high, middle)
    return (low + high) / 2


def _check(cells: Cells) -> None:
    bad = sum(int((~(part.data >= 0) | np.isinf(part.data)).sum()) for part in sparse_pieces(cells.x))
    if bad:
        raise InputError(
            f"Masked autoencoder was given {bad} values below 0 or not finite. Give counts or log1p values."
        )
