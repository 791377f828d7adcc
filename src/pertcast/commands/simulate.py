"""`pertcast simulate`: cells whose truth is known, as h5ad files that carry it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pertcast.commands.common import Json, answer

if TYPE_CHECKING:
    from pertcast.simulate.produce import Request

simulate_app = typer.Typer(
    no_args_is_help=True, help="Simulate cells with exactly known truth (h5ad).", rich_markup_mode=None
)

Out = Annotated[Path, typer.Option(help="File to write, *.h5ad; an older one is replaced.")]
Cells = Annotated[int, typer.Option(help="Number of cells.")]
Genes = Annotated[int, typer.Option(help="Number of genes.")]
ZeroShare = Annotated[float, typer.Option(help="Wanted share of zeros of every independent gene.")]
Seed = Annotated[int, typer.Option(help="Same seed, same bytes.")]
Fixture = Annotated[bool, typer.Option("--fixture", help="The published benchmark, draw by draw (seed 42).")]
Populations = Annotated[int, typer.Option(help="Cell populations, which differ in a share of the genes.")]
Changed = Annotated[float, typer.Option("--changed-share", help="Share of genes that differ in a population.")]
FoldChange = Annotated[float, typer.Option("--log-fold-change", help="By how much (natural log).")]
Batches = Annotated[int, typer.Option(help="Batches; the first is the reference.")]
BatchKind = Annotated[str, typer.Option(help="additive or multiplicative.")]
BatchShift = Annotated[
    float | None, typer.Option(help="Counts added per batch (10), or sd of the log factors of a batch (0.5).")
]
Library = Annotated[float, typer.Option("--library-sd", help="Sd of the natural log of library size; 0: all equal.")]
Clip = Annotated[bool, typer.Option("--clip", help="Let genes have more zeros than wanted, rather than refuse.")]


@simulate_app.command("base")
def base(
    out: Out, cells: Cells = 10_000, genes: Genes = 20, zero_share: ZeroShare = 0.8, seed: Seed = 42,
    fixture: Fixture = False, populations: Populations = 1, changed: Changed = 0.2, fold_change: FoldChange = 1.5,
    batches: Batches = 1, batch_kind: BatchKind = "additive", batch_shift: BatchShift = None,
    library_sd: Library = 0.0, clip: Clip = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Simulate independent genes: populations, batches, library sizes, zeros."""
    from pertcast.simulate.base import BaseSettings
    from pertcast.simulate.produce import Request, produce_base

    settings = BaseSettings(
        populations=populations, changed_share=changed, log_fold_change=fold_change, batches=batches,
        batch_kind=batch_kind, batch_shift=batch_shift, library_sd=library_sd, clip=clip,
    )  # fmt: skip
    facts = produce_base(Request(out, cells, genes, zero_share, seed, fixture, settings))
    answer(facts, _heading(facts), as_json=as_json)


@simulate_app.command("mechanism")
def mechanism(
    out: Out, cells: Cells = 10_000, genes: Genes = 20, zero_share: ZeroShare = 0.8, seed: Seed = 42,
    fixture: Fixture = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="linear (default), polynomial, hill, interaction, threshold, time, or all; may be repeated."),
    ] = None,
    parents: Annotated[int | None, typer.Option(help="Genes that each one hangs on; default: all or two.")] = None,
    populations: Populations = 1, batches: Batches = 1, batch_kind: BatchKind = "additive",
    library_sd: Library = 0.0, clip: Clip = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Simulate independent genes and mechanistic ones that hang on them."""
    from pertcast.simulate.produce import produce_mechanism

    request = _request(
        out, cells, genes, zero_share, seed, fixture=fixture, populations=populations, batches=batches,
        batch_kind=batch_kind, library_sd=library_sd, clip=clip,
    )  # fmt: skip
    facts = produce_mechanism(request, kind or ["linear"], parents=parents)
    lines = [
        f"{name}: {one['zeros']:.3f} zeros, negative log likelihood {one['nll_truth']:.4f} at the truth (a ceiling), "
        f"{one['nll_independent']:.4f} for the best fit that ignores other genes (a floor)."
        for name, one in facts["mechanistic"].items()
    ]
    answer(facts, "\n".join([_heading(facts), *lines]), as_json=as_json)


@simulate_app.command("timecourse")
def timecourse(
    out: Out, cells: Cells = 10_000, genes: Genes = 20, zero_share: ZeroShare = 0.8, seed: Seed = 42,
    time: Annotated[
        list[float] | None, typer.Option(help="A time at which cells are taken; may be repeated; default 1 to 8.")
    ] = None,
    populations: Populations = 1, batches: Batches = 1, batch_kind: BatchKind = "additive",
    library_sd: Library = 0.0, clip: Clip = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Simulate cells at several times, some to be held out between and beyond the others."""
    from pertcast.simulate.produce import produce_timecourse
    from pertcast.simulate.timecourse import TIMES

    request = _request(
        out, cells, genes, zero_share, seed, populations=populations, batches=batches, batch_kind=batch_kind,
        library_sd=library_sd, clip=clip,
    )  # fmt: skip
    facts = produce_timecourse(request, time or TIMES)
    answer(facts, "\n".join([_heading(facts), *_table(facts["errors"])]), as_json=as_json)


@simulate_app.command("composition")
def composition(
    out: Out, cells: Cells = 10_000, genes: Genes = 40, zero_share: ZeroShare = 0.8, seed: Seed = 42,
    populations: Populations = 1, batches: Batches = 1, batch_kind: BatchKind = "additive",
    library_sd: Library = 0.0, clip: Clip = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Simulate genes of four classes: independent, dependent, seen and unseen compositions."""
    from pertcast.simulate.produce import produce_composition

    request = _request(
        out, cells, genes, zero_share, seed, populations=populations, batches=batches, batch_kind=batch_kind,
        library_sd=library_sd, clip=clip,
    )  # fmt: skip
    facts = produce_composition(request)
    answer(facts, "\n".join([_heading(facts), *_table(facts["errors"])]), as_json=as_json)


def _request(
    out: Path, cells: int, genes: int, zero_share: float, seed: int, *, fixture: bool = False, populations: int,
    batches: int, batch_kind: str, library_sd: float, clip: bool,
) -> Request:  # fmt: skip
    from pertcast.simulate.base import BaseSettings
    from pertcast.simulate.produce import Request

    settings = BaseSettings(
        populations=populations, batches=batches, batch_kind=batch_kind, library_sd=library_sd, clip=clip
    )
    return Request(out, cells, genes, zero_share, seed, fixture, settings)


def _heading(facts: dict) -> str:
    clipped = f" {facts['clipped_genes']} genes have more zeros than wanted." if facts["clipped_genes"] else ""
    return (
        f"SIMULATED cells ({facts['kind']}), seed {facts['seed']}: {facts['file']}\n"
        f"{facts['cells']} cells x {facts['genes']} genes, {facts['populations']} populations, {facts['batches']} "
        f"batches, share of zeros {facts['zero_share']:.4f}.{clipped}\n"
        f"Negative log likelihood of the truth: {facts['nll_truth']:.4f} nats per count; none is better on fresh cells."
    )


def _table(errors: dict) -> list[str]:
    """Mean squared error of expected counts against the truth, a line per reference."""
    parts = list(next(iter(errors.values())))
    rows = [f"{name:<14}" + "".join(f"{one[part]['mse']:>16.4f}" for part in parts) for name, one in errors.items()]
    return ["Mean squared error of expected counts, against the truth:",
            " " * 14 + "".join(f"{part:>16}" for part in parts), *rows]  # fmt: skip
