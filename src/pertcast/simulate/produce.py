"""What `pertcast simulate` does: simulate, write the file with its truth, and say what is in it as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from pertcast.errors import InputError, unknown
from pertcast.metrics.count_fit import fit_zinb
from pertcast.metrics.count_likelihood import zinb_log_likelihood
from pertcast.simulate.base import BaseSettings, base_plan, simulate_base
from pertcast.simulate.cells import SimulatedCells, draw_cells
from pertcast.simulate.composition import CLASSES, as_one, score_baselines, simulate_composition
from pertcast.simulate.equations import KINDS
from pertcast.simulate.files import About, stream_cells, write_cells
from pertcast.simulate.mechanisms import StructuralModel
from pertcast.simulate.planted import add_mechanistic_gene, mechanism_model, with_mechanistic_gene
from pertcast.simulate.timecourse import TIMES, cell_times, evaluate_times, simulate_timecourse, split_times

FIXTURE_SEEDS = (43, 11)  # of the published mechanistic gene
Facts = dict[str, object]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be simulated, and where to."""

    out: Path  # *.h5ad
    cells: int
    genes: int
    zero_share: float
    seed: int
    fixture: bool = False  # the published draws
    settings: BaseSettings = field(default_factory=BaseSettings)

    def __post_init__(self) -> None:
        if self.out.suffix != ".h5ad":
            raise InputError(f"'{self.out}' must end in .h5ad: simulated cells are written in that form.")
        if self.out.is_dir():
            raise InputError(f"'{self.out}' is a folder, a file is to be written there. Choose another name.")
        if not self.out.absolute().parent.is_dir():
            raise InputError(f"'{self.out}': its folder does not exist. Create the folder first.")


def produce_base(request: Request) -> Facts:
    """Simulate independent genes into a file, however many: memory holds one block of cells.

    Returns the facts of the file. Raises InputError for whatever cannot be simulated or written.
    """
    about = About("base", request.seed)
    if request.fixture:
        cells = simulate_base(
            request.cells, request.genes, request.zero_share, seed=request.seed, fixture=True, settings=request.settings
        )
        return _facts(request, about, cells.model, write_cells(request.out, cells, about=about))
    plan = base_plan(request.genes, request.zero_share, seed=request.seed, settings=request.settings)
    model = StructuralModel(plan)
    return _facts(request, about, model, stream_cells(request.out, model, request.cells, about=about))


def produce_mechanism(request: Request, kinds: Sequence[str], *, parents: int | None = None) -> Facts:
    """Simulate independent genes and one mechanistic gene of each kind ("all": one of every kind).

    Returns the facts of the file; for every mechanistic gene the likelihood of its truth beside that of the best
    zero-inflated negative binomial that ignores other genes. Raises as `produce_base`.
    """
    kinds = tuple(KINDS) if list(kinds) == ["all"] else tuple(kinds)
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(unknown("kind of mechanism", kind, [*KINDS, "all"]))
    about = About("mechanism", request.seed, {"kinds": list(kinds)})
    cells = _published(request, kinds) if request.fixture else _planted(request, kinds, parents)
    written = write_cells(request.out, cells, about=about)
    scores = {name: _against_independent(cells, name) for name in cells.model.names}
    return {**_facts(request, about, cells.model, written), "mechanistic": scores}


def produce_timecourse(request: Request, times: Sequence[float] = TIMES) -> Facts:
    """Simulate cells at several times, and evaluate references at times that they do not see.

    Returns the facts of the file. Raises as `produce_base`, and for less than five times.
    """
    _no_fixture(request, "time course")
    split = split_times(np.asarray(times, float))
    cells = simulate_timecourse(
        request.cells, request.genes, request.zero_share, seed=request.seed, times=times, settings=request.settings
    )
    held = {"train": split.train, "interpolation": split.interpolation, "extrapolation": split.extrapolation}
    about = About("timecourse", request.seed, {"times": held})
    part = np.full(len(cells), "train", object)
    for name in ("interpolation", "extrapolation"):
        part[np.isin(cells.context.time, held[name])] = name
    written = write_cells(request.out, cells, about=about, obs=pd.DataFrame({"part": pd.Categorical(part)}))
    errors = evaluate_times(cells, split=split)
    return {**_facts(request, about, cells.model, written), "times": held, "errors": _plain(errors)}


def produce_composition(request: Request) -> Facts:
    """Simulate the composition benchmark: training cells and interventions to predict, marked in `obs["part"]`.

    Returns the facts of the file. Raises as `produce_base`.
    """
    _no_fixture(request, "composition benchmark")
    benchmark = simulate_composition(
        request.cells, request.genes, request.zero_share, seed=request.seed, settings=request.settings
    )
    cells, part = as_one(benchmark)
    classes = {name: [g for g, c in zip(cells.genes, benchmark.classes, strict=True) if c == name] for name in CLASSES}
    about = About("composition", request.seed, {"classes": classes})
    written = write_cells(request.out, cells, about=about, obs=pd.DataFrame({"part": pd.Categorical(part)}))
    numbers = {name: len(genes) for name, genes in classes.items()}
    errors = _plain(score_baselines(benchmark))
    return {**_facts(request, about, cells.model, written), "classes": numbers, "errors": errors}


def _facts(request: Request, about: About, model: StructuralModel, written: Facts) -> Facts:
    return {
        "file": str(request.out), "simulated": True, "kind": about.kind, "seed": about.seed,
        "fixture": request.fixture, "populations": len(model.base.means), "batches": len(model.base.batch_effect),
        "zero_share_wanted": request.zero_share,
        "clipped_genes": int((model.base.zero_inflation == 0).sum()), **written,
    }  # fmt: skip


def _published(request: Request, kinds: tuple[str, ...]) -> SimulatedCells:
    if kinds != ("linear",):
        raise InputError(f"The fixture's mechanism is linear, got {', '.join(kinds)}. Leave out one of the two.")
    cells = simulate_base(
        request.cells, request.genes, request.zero_share, seed=request.seed, fixture=True, settings=request.settings
    )
    return with_mechanistic_gene(
        cells, add_mechanistic_gene(cells.dense, seeds=FIXTURE_SEEDS, zero_share=request.zero_share)
    )


def _planted(request: Request, kinds: tuple[str, ...], parents: int | None) -> SimulatedCells:
    plan = base_plan(request.genes, request.zero_share, seed=request.seed, settings=request.settings)
    model = mechanism_model(plan, kinds, seed=request.seed, parents=parents, zero_share=request.zero_share)
    times = cell_times(request.cells, TIMES, seed=request.seed) if "time" in kinds else None
    return draw_cells(model, request.cells, seed=request.seed, times=times, as_sparse=True)


def _against_independent(cells: SimulatedCells, name: str) -> dict[str, float]:
    """Compare the truth of a gene with the best distribution that knows nothing of other genes (nats per count)."""
    own = cells.dense[:, [cells.genes.index(name)]]
    fitted = fit_zinb(own)
    alone = zinb_log_likelihood(own, fitted.mean, fitted.dispersion, fitted.zero_inflation)
    return {"nll_truth": cells.nll((name,)), "nll_independent": float(-alone.mean()), "zeros": float((own == 0).mean())}


def _no_fixture(request: Request, what: str) -> None:
    if request.fixture:
        raise InputError(f"The {what} has no published draws. Leave out --fixture.")


def _plain(errors: dict) -> dict:
    """Named tuples -> dictionaries; what is not defined -> None."""
    if hasattr(errors, "_asdict"):
        errors = errors._asdict()
    if isinstance(errors, dict):
        return {name: _plain(value) for name, value in errors.items()}
    return None if isinstance(errors, float) and math.isnan(errors) else errors
