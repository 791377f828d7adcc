"""FiLM-GAN: a cell's genes are scaled and shifted by what a conditional generator makes of that very cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array, vstack

from pertcast.cells.found_contexts import found_contexts
from pertcast.cells.log_scale import as_log1p, checkpoint_digest, from_log1p, single_counts
from pertcast.cells.registry import register
from pertcast.cells.rest_genes import RestGenes
from pertcast.cells.transferred_start import number_of, restored_start, transferred_start
from pertcast.errors import InputError, NotFittedError, shorten, unknown
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.nn.conditions import ConditionSpace
from pertcast.nn.film_gan import Critic, FilmGanSizes, Generator, detect
from pertcast.nn.film_gan_batches import FilmGanTraining
from pertcast.nn.film_gan_fit import fit_film_gan
from pertcast.nn.fit import Progress, choose_device, seeded
from pertcast.nn.gan_fit import GanCells, principal_axes
from pertcast.nn.sparse_rows import SparseRows
from pertcast.types import Cells, Floats

BLOCK = 512  # cells a block of prediction


class FilmGanConfig(FilmGanSizes):
    """Sizes of the networks, and how they are trained."""

    numbers: Literal["log", "linear"] = "log"  # how doses and times of conditions count
    most_genes: int = Field(2000, ge=0)  # that networks see, those that vary most; others move in closed form; 0: all
    find_contexts: int = Field(0, ge=0)  # so many groups of like cells are found and take the place of labels; 0: none
    training: FilmGanTraining = FilmGanTraining()


@register("film-gan", config=FilmGanConfig, seeded=True)
class FilmGan:
    """Conditional GAN whose generator modulates the source cell: max(0, gamma * x + beta), gene by gene.

    Cells begin at the means that `context-transfer` gives their context; one that training did not know is, cell by
    cell, taken for the context that the cell's profile is nearest to, and labels may be found from the cells themselves
    (S000-08). All else is read from the profile alone, so contexts never treated, or never seen, can be asked for.
    Counts are read as log1p of counts per 10,000 and turned back; log1p values are taken as they are. The critic is one
    objective beside others that compare samples of cells directly; weights are chosen by the energy distance from
    held-out treated cells. Of large panels the networks see the genes that vary most, and `RestGenes` moves the others.
    Conditions: `A`, `A+B`, `A@0.5` (a dose or a time); see `ConditionSpace`.

    Sources: system 000 (CellGen); Perez et al. 2018, arXiv:1709.07871; Gulrajani et al. 2017, arXiv:1704.00028.
    """

    resumable = True  # `fit` takes a folder for the state of training

    def __init__(self, config: FilmGanConfig):
        self.config = config
        self.genes: tuple[str, ...] = ()
        self.unit = ""
        self.homes: tuple[str, ...] = ()  # contexts of which the networks' start knows means
        self.rest: RestGenes | None = None
        self.space: ConditionSpace | None = None
        self.net: Generator | None = None
        self.vectors: Mapping[str, Floats] | None = None
        self.history: list[dict[str, float]] = []  # one entry per evaluation

    def describe(self, vectors: Mapping[str, Floats]) -> FilmGan:
        """Say what factors of conditions are, by vectors (d,) such as fingerprints; call it before `fit`.

        Factors that are described but not in the training cells can then be predicted.
        """
        self.vectors = dict(vectors)
        return self

    def fit(
        self, cells: Cells, *, seed: int, checkpoint: Path | None = None, progress: Progress | None = None
    ) -> FilmGan:
        """Learn from cells before and after; which cell became which is not asked.

        checkpoint  folder from which training is taken up, and in which its state is kept
        progress    called after every step
        Raises InputError for cells without control or treatment, unreadable conditions, or a loss that is not finite.
        """
        _check(cells)
        config, settings = self.config, self.config.training
        self.genes, self.unit = cells.genes, cells.unit
        self.space = ConditionSpace.of(
            cells.condition, control=cells.control, vectors=self.vectors, log=config.numbers == "log"
        )
        self.rest = RestGenes.of(cells, config.most_genes)
        if config.find_contexts:
            found = found_contexts(self._read(cells), cells, count=config.find_contexts, seed=seed)
            cells = replace(cells, context=found).take(found != "stray")
        x = self._read(cells)
        start, self.homes = None, ()
        if settings.warm_start == "transferred":
            relabelled = config.find_contexts > 0
            start, self.homes = transferred_start(cells, self.rest, self.space.table, relabelled=relabelled)
        data = _gan_cells(x, cells, self.space, self.homes)
        mean = torch.tensor(np.asarray(x.mean(axis=0)).ravel(), dtype=torch.float32)
        with seeded(seed):
            axes = _axes(data, config.axes) if config.axes else None
            self.net = Generator(config, centre=mean, axes=axes, code_width=self.space.width, start=start)
            critic = Critic(config, centre=mean, code_width=self.space.width)
        digest = checkpoint_digest(config, cells, seed, self.space.vectors) if checkpoint else ""
        self.history = fit_film_gan(
            self.net, critic, data, settings, seed=seed, checkpoint=checkpoint, digest=digest, progress=progress
        )
        self.net.requires_grad_(False)
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Predict these cells under a condition: drawn with noise if `sample`, else the mean over genes' noise.

        Cells may carry any known condition, the control is only the usual one. Genes and order of the result are those
        of the training cells, its unit is that of the given ones; drawn counts are whole, and mean ones are not.
        Raises InputError for an unknown condition, and for cells in another unit than those of training.
        """
        cells = self._matched(control_cells)
        known = sorted(set(cells.condition))
        table = torch.tensor(self.space.table([*known, condition]))
        place = {name: number for number, name in enumerate(known)}
        before = torch.tensor([place[name] for name in cells.condition])
        x, least = SparseRows.of(self._read(cells)), torch.tensor(single_counts(cells))
        home = number_of(cells.context, self.homes)
        device = choose_device(self.config.training.device)
        parts, rng = [], np.random.default_rng(seed) if sample else None
        with seeded(seed, device), torch.no_grad():
            for rows in torch.arange(len(cells)).split(BLOCK):
                codes = table[before[rows]].to(device), table[[len(known)] * len(rows)].to(device)
                at = home[rows].to(device)
                out = self.net.generate(x[rows].dense().to(device), *codes, sample=sample, home=at).cpu()
                if sample and self.config.noise and self.config.training.detection:
                    out = detect(out, least[rows])
                parts.append(csr_array(from_log1p(out.numpy(), cells.take(rows.numpy()), rng=rng)))
        return self.rest.whole(csr_array(vstack(parts)), cells, condition, codes=self.space.table, rng=rng)

    def attention(self, cells: Cells, condition: str, *, genes: tuple[str, ...] | None = None) -> Floats:
        """How much genes look at genes in these cells on the way to a condition: (r, k), rows sum to 1.

        genes  (r,)  that look; None: all that the networks see, `rest.names`
        Mean over cells and heads. Raises InputError for unknown genes or conditions, and where heads are 0.
        """
        cells = self._matched(cells)
        if self.net.trunk.mix is None:
            raise InputError("This FiLM-GAN has no attention over genes: heads is 0. Fit one with heads of at least 1.")
        place = {gene: number for number, gene in enumerate(self.rest.names)}
        rows = tuple(place if genes is None else genes)
        if lost := [gene for gene in rows if gene not in place]:
            raise InputError(f"{unknown('gene', lost[0], place)} Attention is over genes that the networks see.")
        device = choose_device(self.config.training.device)
        code = [self.space.table(cells.condition), self.space.table([condition] * len(cells))]
        x = torch.tensor(self._read(cells).toarray(), device=device) - self.net.trunk.centre
        found = self.net.trunk.mix.attention.weights(
            x, torch.tensor(np.concatenate(code, axis=1), device=device),
            rows=torch.tensor([place[gene] for gene in rows], device=device),
        )  # fmt: skip
        return found.cpu().numpy()

    def save(self, folder: Path) -> None:
        net, (arrays, space), (others, rest) = self._fitted("save"), self.space.parts(), self.rest.parts()
        weights = {f"net.{name}": value.cpu().numpy() for name, value in net.state_dict().items()}
        facts = {
            "config": self.config.model_dump(mode="json"), "genes": self.genes, "unit": self.unit,
            "homes": self.homes, "space": space, "rest": rest, "history": self.history,
        }  # fmt: skip
        save_arrays(folder, "film-gan", {**weights, **arrays, **others}, facts)

    def load(self, folder: Path) -> FilmGan:
        """Restore what `save` wrote, settings included; only the device stays that of this machine's settings."""
        arrays, facts = load_arrays(folder, "film-gan")
        device = self.config.training.device
        config = FilmGanConfig.model_validate(facts["config"])
        self.config = config.model_copy(update={"training": config.training.model_copy(update={"device": device})})
        self.genes, self.unit, self.history = tuple(facts["genes"]), facts["unit"], facts["history"]
        self.homes, self.space = tuple(facts["homes"]), ConditionSpace.restored(arrays, facts["space"])
        self.rest = RestGenes.restored(self.genes, arrays, facts["rest"])
        weights = {name[4:]: torch.tensor(value) for name, value in arrays.items() if name.startswith("net.")}
        centre, axes = weights["trunk.centre"], weights.get("trunk.axes")
        start, width = restored_start(weights, "start"), self.space.width
        self.net = Generator(self.config, centre=centre, axes=axes, code_width=width, start=start)
        self.net.load_state_dict(weights)
        self.net.to(choose_device(device)).eval().requires_grad_(False)
        return self

    def _read(self, cells: Cells) -> csr_array:
        """Log values of the genes that the networks see, of cells with all genes: (n, k)."""
        return self.rest.seen(as_log1p(cells))

    def _matched(self, cells: Cells) -> Cells:
        self._fitted("read cells")
        _check(cells)
        if cells.unit != self.unit:
            fix = "Give cells in the unit of the training cells."
            raise InputError(f"FiLM-GAN was trained on {self.unit} values, got {cells.unit} values. {fix}")
        return cells.select(self.genes)

    def _fitted(self, verb: str) -> Generator:
        if self.net is None:
            raise NotFittedError(f"FiLM-GAN was asked to {verb} before `fit`. Call `fit` or `load` first.")
        return self.net


def _axes(data: GanCells, count: int) -> torch.Tensor:
    """Principal axes of the control cells, along which these spread by about 1: (g, k)."""
    axes, spread = principal_axes(data.x.rows((data.condition == data.control).nonzero()[:, 0]), count)
    return axes / spread.square().mean().sqrt().clamp_min(1e-6)


def _gan_cells(x: csr_array, cells: Cells, space: ConditionSpace, homes: tuple[str, ...]) -> GanCells:
    conditions = sorted(set(cells.condition) | {cells.control})
    contexts = sorted(set(cells.context))
    return GanCells(
        x=SparseRows.of(x),
        condition=torch.tensor([conditions.index(name) for name in cells.condition]),
        context=torch.tensor([contexts.index(name) for name in cells.context]),
        least=torch.tensor(single_counts(cells)),
        table=torch.tensor(space.table(conditions)),
        control=conditions.index(cells.control),
        home=number_of(cells.context, homes),
    )


def _check(cells: Cells) -> None:
    problem = None
    if not len(cells):
        problem = "no cells. Give at least one."
    elif cells.x.nnz and (not np.isfinite(cells.x.data).all() or cells.x.data.min() < 0):
        problem = f"values below 0 or not finite, first {shorten(_bad(cells.x.data))}. Give {cells.unit} values."
    if problem:
        raise InputError(f"FiLM-GAN was given {problem}")


def _bad(values: Floats) -> list[float]:
    return values[~np.isfinite(values) | (values < 0)][:1].tolist()
