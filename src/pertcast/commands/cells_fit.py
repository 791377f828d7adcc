"""`pertcast cells fit`, `adapt` and `pairs`: runs of models, and what a run can do beside predicting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertcast.commands.cells_common import (
    FORMS,
    BatchKey,
    ConditionKey,
    ContextKey,
    Control,
    LayerToRead,
    Seed,
    Threads,
)
from pertcast.commands.common import Device, Json, answer, say


def fit(
    model: Annotated[str, typer.Argument(help="A name of `pertcast cells models`, or `default`.")],
    data: Annotated[Path, typer.Argument(help=f"Untreated and treated cells: {FORMS}.")],
    condition_key: ConditionKey,
    control: Control,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    context_key: ContextKey = None,
    batch_key: BatchKey = None,
    layer: LayerToRead = None,
    preset: Annotated[str | None, typer.Option(help="Settings by name, as system-002, or a TOML file.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="Such as training.epochs=30.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    stream: Annotated[
        bool, typer.Option("--stream", help="Leave cells on disk; DATA: h5ad, zarr, .npz, or a folder of such shards.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit a model to cells; a finished run of the same content is not fitted again.

    A fit that was cut off goes on where it was when the same command is given again: models that train a network for
    long (film-gan, cycle-gan, zinb-vae, masked-autoencoder) keep the state of training in OUT.unfinished, as often as
    `--set training.checkpoint_every=N` says (steps of the GANs, epochs of the others). Training curves for TensorBoard
    go to `tensorboard/` beside OUT. An empty value, as `--set training.patience=`, unsets what is optional.

    Cells larger than memory: `masked-autoencoder --stream` reads one file, or a folder of shards, piece by piece
    into files beside OUT (up to 24 bytes for each number other than 0, removed at the end), and cuts its batches
    from these: the same batches as in memory, and the same network while at most 10,000 cells are held out. Of an
    .npz file of `scipy.sparse.save_npz`, labels lie beside it in <name>.obs.csv and gene names in genes.txt. The
    mean shift is measured in a sample of 10,000 cells.

    Batch effects: `zinb-vae --set correct_batches=true` learns codes that do not know the batch; for any model that
    reads log values, `pertcast cells correct` takes them off beforehand.
    """
    from pertcast.cell_tasks import verbs
    from pertcast.cell_tasks.runs import Columns

    columns = Columns(condition_key, control, context_key, batch_key, layer)
    done = verbs.fit_cells(
        model, data, columns, out=out, preset=preset, changes=change or (), seed=seed, device=device, threads=threads,
        stream=stream,
    )  # fmt: skip
    facts = done.facts
    if facts["fitted"]:
        say(f"{facts['cells']} cells ({facts['untreated']} untreated), {facts['genes']} genes as {facts['unit']}, "
            f"{facts['conditions']} conditions, {facts['contexts']} contexts")  # fmt: skip
        if facts["taken_up"]:
            say("A fit that was cut off was taken up.")
    else:
        say("The run is finished already; nothing was fitted.")
    answer(facts, f"Run of {facts['model']}, {facts['digest']}: {out}", as_json=as_json)


def adapt(
    run: Annotated[Path, typer.Argument(help="Folder that `pertcast cells fit` wrote.")],
    data: Annotated[Path, typer.Argument(help="Cells of new contexts, and of known ones to rehearse, in any form.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Such as steps=400, unfreeze_every=20 or anchor=10.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Let a fitted cycle-GAN learn contexts that it was not shown, part after part of its networks set free."""
    from pertcast.cell_tasks import steps

    done = steps.adapt_cells(run, data, out=out, changes=change or (), seed=seed, device=device, threads=threads)
    facts = done.facts
    if facts["fitted"]:
        new = ", ".join(facts["new_contexts"]) or "none"
        say(f"{facts['cells']} cells; new contexts: {new}; {facts['contexts']} contexts in all")
    else:
        say("The run is finished already; nothing was fitted.")
    answer(facts, f"Run of {facts['model']}, {facts['digest']}: {out}", as_json=as_json)


def pairs(
    run: Annotated[Path, typer.Argument(help="Folder that `pertcast cells fit` wrote.")],
    data: Annotated[Path, typer.Argument(help="Untreated cells, in any form, columns as in training.")],
    condition: Annotated[str, typer.Option(help="What is done to the cells.")],
    out: Annotated[Path, typer.Option(help="h5ad file: counterparts in X, layers `source` and `back`.")],
    context: Annotated[str | None, typer.Option(help="Only untreated cells of this context.")] = None,
    sample: Annotated[bool, typer.Option("--sample/--mean", help="Draw latents and counts, or take means.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Pair each untreated cell with its counterpart under a condition, and with the way back (cycle-GAN).

    Pairs are made by the model: they can train another one, and are evidence of nothing.
    """
    from pertcast.cell_tasks import steps

    facts = steps.pair_cells(run, data, condition=condition, out=out, context=context, seed=seed, sample=sample)
    text = f"{facts['cells']} pseudo-pairs, mean cycle error {facts['cycle_error']:.3g}: {out}"
    answer(facts, text, as_json=as_json)
