"""Cycle-GAN: untreated cells become perturbed ones and back, learned from cells that are not paired."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array, vstack
from torch import Tensor

from pertcast.cells.log_scale import as_log1p, checkpoint_digest, from_log1p, single_counts
from pertcast.cells.registry import register
from pertcast.cells.rest_genes import RestGenes
from pertcast.cells.transferred_start import number_of, restored_start, transferred_start
from pertcast.errors import InputError, NotFittedError, unknown
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.nn.conditions import ConditionSpace
from pertcast.nn.context_start import ContextStart
from pertcast.nn.cycle_gan import UNKNOWN, CycleGanSizes, CycleNets
from pertcast.nn.cycle_gan_batches import AdaptTraining, CycleGanTraining
from pertcast.nn.cycle_gan_fit import fit_cycle_gan
from pertcast.nn.film_gan import detect
from pertcast.nn.fit import Progress, choose_device, seeded
from pertcast.nn.gan_fit import GanCells, principal_axes
from pertcast.nn.sparse_rows import SparseRows
from pertcast.types import Cells, Floats, Strings

NAME = "cycle-gan"
BLOCK = 512  # cells a block of prediction


class CycleGanConfig(CycleGanSizes):
    """Sizes of the networks, how conditions are told, and how all is trained."""

    condition_input: Literal["factors", "names"] = "factors"  # `A+B` is A and B; or a condition of its own
    most_genes: int = Field(2000, ge=0)  # that networks see, those that vary most; others move in closed form; 0: all
    training: CycleGanTraining = CycleGanTraining()


@dataclass(frozen=True, slots=True)
class PseudoPairs:
    """Cells beside what they would be under a condition: made by the model, so evidence of nothing."""

    source: Cells  # (n, g)  as given, genes in the order of training
    made: Cells  # (n, g)  row i is the counterpart of source row i
    back: Cells  # (n, g)  row i is made row i carried back
    error: Floats  # (n,)  root mean square of back - source over genes, log1p scale


@register(NAME, config=CycleGanConfig, seeded=True)
class CycleGan:
    """Two conditional translators and two critics learn from unpaired single cells; what goes there comes back.

    X are untreated cells that carry the wanted condition, Y perturbed ones. Counts are read as log1p of counts per
    10,000 and turned back; log1p values are taken as they are. Cells of a context that was never treated train the
    cycle all the same; asked about, such a context is described by its cells alone. Weights are chosen by the energy
    distance from held-out perturbed cells. Conditions: `A`, `A+B`, `A@0.5`; see `ConditionSpace`.

    By default translators keep a cell's own values and begin at the means that `context-transfer` gives their context:
    means of contexts never treated are right mostly for that, spread and zeros for the training after it.
    Of large panels the networks see the genes that vary most, and `RestGenes` moves the others.

    Sources: system 003 (CycSeq); Zhu et al. 2017, arXiv:1703.10593.
    """

    resumable = True  # `fit` takes a folder for the state of training

    def __init__(self, config: CycleGanConfig):
        self.config = config
        self.genes: tuple[str, ...] = ()
        self.unit = self.control = ""
        self.contexts: tuple[str, ...] = ()  # number i has row i + 1 of the embeddings
        self.treated: frozenset[str] = frozenset()  # contexts with perturbed cells in training
        self.rest: RestGenes | None = None
        self.space: ConditionSpace | None = None
        self.homes: tuple[str, ...] = ()  # contexts of which the networks' start knows means
        self.names: tuple[str, ...] = ()  # conditions of training, the control aside
        self.nets: CycleNets | None = None
        self.history: list[dict[str, float]] = []  # one entry per evaluation

    def fit(
        self, cells: Cells, *, seed: int, checkpoint: Path | None = None, progress: Progress | None = None
    ) -> CycleGan:
        """Learn from untreated and perturbed cells; which cell became which is not asked.

        checkpoint  folder from which training is taken up, and in which its state is kept
        progress    called after every step
        Raises InputError for cells of one domain only, unreadable conditions, or a loss that is not finite.
        """
        _check(cells)
        config = self.config
        self.genes, self.unit, self.control = cells.genes, cells.unit, cells.control
        self.names, self.contexts = tuple(cells.conditions), tuple(sorted(set(cells.context)))
        self.treated = frozenset(cells.context[~cells.untreated])
        self.space = ConditionSpace.of(cells.condition, control=cells.control)
        self.rest = RestGenes.of(cells, config.most_genes)
        start, self.homes = None, ()
        if config.training.start == "transferred" and config.output == "residual":
            start, self.homes = transferred_start(cells, self.rest, self._codes)
        data, log = self._data(cells), self._read(cells)
        with seeded(seed):
            axes = _axes(data, config.axes) if config.axes else None
            centre = torch.tensor(np.asarray(log.mean(axis=0)).ravel(), dtype=torch.float32)
            self.nets = self._networks(centre, axes, start)
        digest = checkpoint_digest(self.config, cells, seed) if checkpoint else ""
        self.history = fit_cycle_gan(
            self.nets, data, config.training, seed=seed, checkpoint=checkpoint, digest=digest, progress=progress
        )
        return self

    def adapt(
        self,
        cells: Cells,
        *,
        seed: int,
        training: AdaptTraining | None = None,
        progress: Progress | None = None,
    ) -> CycleGan:
        """Learn contexts that training did not show, parts of the networks set free one after the other (S003-12).

        cells  of the new contexts, untreated and perturbed; cells of known contexts among them are rehearsed
        Genes that the networks do not see go on as contexts of the first training tell.
        Raises InputError for conditions that training did not show, and as `fit`.
        """
        nets, cells = self._fitted("adapt"), self._matched(cells)
        self._codes(set(cells.condition))
        for name in sorted(set(cells.context) - set(self.contexts)):
            self.contexts = (*self.contexts, name)
            nets.add_context()
        self.treated |= frozenset(cells.context[~cells.untreated])
        training = training or AdaptTraining()
        self.history = self.history + fit_cycle_gan(nets, self._data(cells), training, seed=seed, progress=progress)
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Predict these cells under a condition: latents drawn if `sample`, else at their means.

        Perturbed cells are carried back first; under the control's name they stay there. Genes and order of the result
        are those of training, its unit that of the given cells; drawn counts are whole, others are not.
        Raises InputError for an unknown condition, and for cells in another unit than those of training.
        """
        cells = self._matched(control_cells)
        rng = np.random.default_rng(seed) if sample else None
        with seeded(seed):
            parts = [csr_array(from_log1p(x, part, rng=rng)) for part, x in self._moved(cells, condition, sample)]
        return self._whole(parts, cells, condition, rng=rng)

    def make_pairs(self, control_cells: Cells, condition: str, *, seed: int = 0, sample: bool = False) -> PseudoPairs:
        """Pair each untreated cell with its counterpart under a condition and with the way back (S003-06).

        Raises InputError as `predict`, and for cells that are not untreated.
        """
        cells = self._matched(control_cells)
        if not cells.untreated.all():
            found = f"{int((~cells.untreated).sum())} of {len(cells)} are not"
            raise InputError(f"Pseudo-pairs start from untreated cells; {found}. Select cells of '{self.control}'.")
        rng, made, back, errors = np.random.default_rng(seed) if sample else None, [], [], []
        with seeded(seed):
            for part, x in self._moved(cells, condition, sample):
                perturbed = replace(part, condition=np.full(len(part), condition, dtype=object))
                home = self._carry(torch.tensor(x), perturbed, self.control, sample=sample).numpy()
                made.append(csr_array(from_log1p(x, part, rng=rng)))
                back.append(csr_array(from_log1p(home, part, rng=rng)))
                errors.append(np.sqrt(np.square(home - self._read(part).toarray()).mean(axis=1)))
        there = self._whole(made, cells, condition, rng=rng)
        home = self._whole(back, there, self.control, rng=rng)
        return PseudoPairs(cells, there, home, np.concatenate(errors))

    def latents(self, cells: Cells) -> dict[str, Floats]:
        """Means of the three latents of untreated cells, read without a condition: `expression`, ... -> (n, k)."""
        nets, cells = self._fitted("read cells"), self._matched(cells)
        x, told = torch.tensor(self._read(cells).toarray()), self._told(cells.context)
        code = torch.zeros(len(cells), self._width)
        device = choose_device(self.config.training.device)
        with torch.no_grad():
            found = nets.forth.latents(x.to(device), code.to(device), told.to(device))
        return {name: value.cpu().numpy() for name, value in found.items()}

    def save(self, folder: Path) -> None:
        nets, (arrays, space), (others, rest) = self._fitted("save"), self.space.parts(), self.rest.parts()
        weights = {f"nets.{name}": value.cpu().numpy() for name, value in nets.state_dict().items()}
        facts = {
            "config": self.config.model_dump(mode="json"), "genes": self.genes, "unit": self.unit,
            "control": self.control, "contexts": self.contexts, "treated": sorted(self.treated), "names": self.names,
            "homes": self.homes,
            "space": space, "rest": rest, "history": self.history,
        }  # fmt: skip
        save_arrays(folder, NAME, {**weights, **arrays, **others}, facts)

    def load(self, folder: Path) -> CycleGan:
        """Restore what `save` wrote, settings included; only the device stays that of this machine's settings."""
        arrays, facts = load_arrays(folder, NAME)
        device = self.config.training.device
        config = CycleGanConfig.model_validate(facts["config"])
        self.config = config.model_copy(update={"training": config.training.model_copy(update={"device": device})})
        self.genes, self.contexts = tuple(facts["genes"]), tuple(facts["contexts"])
        self.names, self.homes = tuple(facts["names"]), tuple(facts["homes"])
        self.unit, self.control, self.history = facts["unit"], facts["control"], facts["history"]
        self.treated = frozenset(facts["treated"])
        self.space = ConditionSpace.restored(arrays, facts["space"])
        self.rest = RestGenes.restored(self.genes, arrays, facts["rest"])
        weights = {name[5:]: torch.tensor(value) for name, value in arrays.items() if name.startswith("nets.")}
        start = restored_start(weights, "forth.start")
        self.nets = self._networks(weights["forth.centre"], weights.get("forth.axes"), start)
        self.nets.load_state_dict(weights)
        self.nets.to(choose_device(device)).eval()
        return self

    @property
    def _width(self) -> int:
        return len(self.names) if self.config.condition_input == "names" else self.space.width

    def _networks(self, centre: Tensor, axes: Tensor | None, start: ContextStart | None) -> CycleNets:
        return CycleNets(
            self.config, centre=centre, axes=axes, code_width=max(1, self._width), contexts=len(self.contexts),
            spectral=self.config.training.loss == "lsgan", start=start,
        )  # fmt: skip

    def _codes(self, conditions: Iterable[str]) -> Floats:
        """Codes of conditions by exact name: (k, c)."""
        if self.config.condition_input == "factors":
            return self.space.table(conditions)
        rows = []
        for name in conditions:
            if name not in (*self.names, self.control):
                raise InputError(unknown("condition", name, self.names))
            rows.append([float(name == known) for known in self.names])
        return np.array(rows, dtype=np.float32).reshape(len(rows), -1)

    def _told(self, context: Strings) -> Tensor:
        """Row of the embedding of each context; the unknown one where no perturbed cell has taught it."""
        place = {name: number + 1 for number, name in enumerate(self.contexts) if name in self.treated}
        return torch.tensor([place.get(name, UNKNOWN) for name in context], dtype=torch.int64)

    def _moved(self, cells: Cells, condition: str, sample: bool) -> Iterable[tuple[Cells, Floats]]:
        """Cells block by block, with what they become on the log1p scale."""
        for start in range(0, len(cells), BLOCK):
            part = cells.take(np.arange(start, min(start + BLOCK, len(cells))))
            x = torch.tensor(self._read(part).toarray())
            yield part, self._carry(x, part, condition, sample=sample).numpy()

    @torch.no_grad()
    def _carry(self, x: Tensor, cells: Cells, condition: str, *, sample: bool) -> Tensor:
        """Carry cells from their own condition to another one, over the untreated domain: (n, g) -> (n, g)."""
        nets, device = self._fitted("predict"), choose_device(self.config.training.device)
        known = sorted(set(cells.condition))
        table, number = torch.tensor(self._codes([*known, condition])), {name: i for i, name in enumerate(known)}
        before = torch.tensor([number[name] for name in cells.condition])
        told, least = self._told(cells.context).to(device), torch.tensor(single_counts(cells))
        perturbed, at = torch.tensor(~cells.untreated), number_of(cells.context, self.homes).to(device)
        shown = sample and self.config.training.detection
        if perturbed.any():
            home = nets.back(x.to(device), table[before].to(device), told, sample=sample, home=at).x.cpu()
            x = torch.where(perturbed[:, None], detect(home, least) if shown else home, x)
        if condition == self.control:
            return x
        code = table[-1].expand(len(x), -1).to(device)
        made = nets.forth(x.to(device), code, told, sample=sample, home=at).x.cpu()
        if self.unit == "counts":
            made = made.clamp_min(0.0)
        return detect(made, least) if shown else made

    def _data(self, cells: Cells) -> GanCells:
        conditions = [cells.control, *cells.conditions]
        number = {name: i for i, name in enumerate(conditions)}
        return GanCells(
            x=SparseRows.of(self._read(cells)),
            condition=torch.tensor([number[name] for name in cells.condition]),
            context=torch.tensor([self.contexts.index(name) for name in cells.context]),
            least=torch.tensor(single_counts(cells)),
            table=torch.tensor(self._codes(conditions)),
            control=0,
            home=number_of(cells.context, self.homes),
        )

    def _read(self, cells: Cells) -> csr_array:
        """Log values of the genes that the networks see, of cells with all genes: (n, k)."""
        return self.rest.seen(as_log1p(cells))

    def _whole(self, parts: list[csr_array], cells: Cells, condition: str, *, rng: np.random.Generator | None) -> Cells:
        return self.rest.whole(csr_array(vstack(parts)), cells, condition, codes=self._codes, rng=rng)

    def _matched(self, cells: Cells) -> Cells:
        self._fitted("read cells")
        _check(cells)
        if cells.unit != self.unit:
            fix = "Give cells in the unit of the training cells."
            raise InputError(f"Cycle-GAN was trained on {self.unit} values, got {cells.unit} values. {fix}")
        if cells.control != self.control:
            raise InputError(f"Cycle-GAN was trained with control '{self.control}', got '{cells.control}'. Rename it.")
        return cells.select(self.genes)

    def _fitted(self, verb: str) -> CycleNets:
        if self.nets is None:
            raise NotFittedError(f"Cycle-GAN was asked to {verb} before `fit`. Call `fit` or `load` first.")
        return self.nets


def _axes(data: GanCells, count: int) -> Tensor:
    """Principal axes of the untreated cells, along which these spread by about 1: (g, k)."""
    axes, spread = principal_axes(data.x.rows((data.condition == data.control).nonzero()[:, 0]), count)
    return axes / spread.square().mean().sqrt().clamp_min(1e-6)


def _check(cells: Cells) -> None:
    if not len(cells):
        raise InputError("Cycle-GAN was given no cells. Give at least one.")
    bad = ~np.isfinite(cells.x.data) | ((cells.x.data < 0) & (cells.unit == "counts"))
    if bad.any():
        fix = f"Give finite {cells.unit} values."
        raise InputError(f"Cycle-GAN was given {int(bad.sum())} values that are not finite or negative counts. {fix}")
