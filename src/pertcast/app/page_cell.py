"""Page: pick a cell, turn genes up or down, watch where the virtual cell goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st

from pertcast.app.common import csv, figure, plain, sentences
from pertcast.app.figures import curves_figure, picked_figure
from pertcast.app.places import Places
from pertcast.app.world import Picked, World, virtual_cells
from pertcast.cell_tasks.runs import open_cell_run
from pertcast.cells.trajectory import MODES, Change, Trajectory, roll_out
from pertcast.errors import InputError
from pertcast.report.trajectory import atlas_figure, places_table, states_table

TABS = ("Atlas", "Top genes", "Gene curves", "Downloads")
MOST_CHANGES = 5  # genes at once
MOST_STEPS = 100
CURVES = 4  # genes drawn before anyone chooses
TARGETS = {"set": "Value to reach, log1p (0: knock-out)", "add": "Amount to add, log1p", "fold": "Fold change"}
START = {"add": 1.0, "fold": 2.0}  # targets offered first


@st.cache_resource(max_entries=2, show_spinner="Reading cells and model")
def world(data: str, run: str, changed: int) -> World:
    """Read cells and model once; `changed` is when they were written."""
    return World.open(Path(data), open_cell_run(Path(run)))


def show() -> None:
    """Draw the page."""
    places = Places.from_environment()
    st.title("Virtual cell")
    if places.data is None:
        st.info(
            "SIMULATED cells: each `reg-i` is a regulator; `reg-i-up-k` rises with it, `reg-i-down-k` falls, "
            "`free-k` follows nothing. So you see where the model errs. "
            "`pertcast app --data FILE.h5ad --runs RUNS` shows your own cells."
        )
    left, right = st.columns([1, 2.4], gap="large")
    with sentences():
        with left:
            runs = {run.folder.name: run for run in virtual_cells(places.cell_runs)}
            name = next(iter(runs)) if len(runs) == 1 else st.selectbox("Model", list(runs), key="model")
            folder = runs[name].folder
            changed = max(path.stat().st_mtime_ns for path in (places.cells, folder))
            loaded = world(str(places.cells), str(folder), changed)
            picked = _picked(loaded)
            changes = _changes(loaded, picked.row)
            steps = st.slider("Steps", 1, MOST_STEPS, 20, key="steps")
            run = st.button("Run", type="primary", key="run", width="stretch")
        with right:
            bar = st.empty()
            if run:
                st.session_state["trajectory"] = _rolled(loaded, picked.row, changes, steps=steps, bar=bar)
            _results(loaded, picked.row, st.session_state.get("trajectory"))


def _picked(loaded: World) -> Picked:
    """Ask for a query, and show the cell that was drawn by it."""
    query = st.text_input(
        "Cells to pick from", loaded.example(), key="query", help="Columns and genes: batch == 'B1' and reg-3 > 2"
    )
    if st.button("Another cell", key="another"):
        st.session_state["draw"] = st.session_state.get("draw", 0) + 1
    picked = loaded.pick(query, seed=st.session_state.get("draw", 0))
    if picked.remark:
        st.warning(picked.remark)
    matched = f"one of {picked.found} cells" if picked.found else "taken at random"
    st.markdown(f"**{plain(str(loaded.cells.ids[picked.row]))}**, {matched}")
    st.caption(plain(loaded.about(picked.row)))
    return picked


def _changes(loaded: World, row: int) -> list[Change]:
    """Ask which genes are changed, and how."""
    genes = loaded.cells.genes
    values = dict(zip(genes, loaded.values(row), strict=True))
    chosen = st.multiselect(
        "Genes to change", genes, default=[genes[0]], key="genes", max_selections=MOST_CHANGES,
        accept_new_options=True, select_all=False,
    )  # fmt: skip
    changes = []
    for gene in chosen:
        if gene not in values:
            changes.append(Change(gene, 0.0))  # refused by name when it is run
            continue
        how, what = st.columns([1, 1.6])
        mode = how.selectbox(plain(gene), MODES, key=f"mode {gene}", help=f"{values[gene]:.3f} in this cell (log1p)")
        start = START.get(mode, loaded.high(gene))
        target = what.number_input(TARGETS[mode], value=round(start, 2), step=0.1, key=f"target {gene} {mode}")
        changes.append(Change(gene, target, mode))
    return changes


def _rolled(loaded: World, row: int, changes: list[Change], *, steps: int, bar: st.delta_generator) -> Trajectory:
    """Run the virtual cell under a progress bar."""
    cell = loaded.cells.take(np.array([row]))
    try:
        told = bar.progress(0.0, "Rolling out")
        return roll_out(
            loaded.model, cell, changes, steps=steps, progress=lambda done, of: told.progress(done / of, "Rolling out")
        )
    finally:
        bar.empty()


def _results(loaded: World, row: int, trajectory: Trajectory | None) -> None:
    """Show the tabs; of the atlas alone while nothing was run."""
    if trajectory is not None and trajectory.genes != loaded.cells.genes:
        trajectory = None  # of another file
    atlas, top, curves, downloads = st.tabs(TABS)
    with atlas:
        drawing = atlas_figure(loaded.atlas, trajectory)
        figure(drawing if trajectory is not None else picked_figure(drawing, loaded.atlas.places[row]), key="atlas")
    if trajectory is None:
        for tab in (top, curves, downloads):
            tab.markdown("Press **Run** to see what follows from the change.")
        return
    told = ", ".join(f"{one.gene} {one.mode} {one.target:g}" for one in trajectory.changes)
    atlas.caption(plain(f"{trajectory.ids[0]}: {told}. Red: as observed; green: the last state."))
    with top:
        _top(trajectory)
    with curves:
        _curves(trajectory)
    with downloads:
        _downloads(loaded, trajectory)


def _top(trajectory: Trajectory) -> None:
    st.markdown("The 20 genes that rose most and the 20 that fell most; **effect** is the perturbed cell less the same "
                "cell rolled out without the change. Changed genes are not ranked.")  # fmt: skip
    table = trajectory.top()[["gene", "direction", "before", "after", "effect"]]
    for side, direction in zip(st.columns(2, gap="medium"), ("rose", "fell"), strict=True):
        part = table[table["direction"] == direction].drop(columns="direction")
        part = part if direction == "rose" else part[::-1]
        side.markdown(f"**{direction.capitalize()}**")
        shown = {name: st.column_config.NumberColumn(format="%.4f") for name in ("before", "after", "effect")}
        side.dataframe(part, hide_index=True, column_config=shown, height=36 + 35 * max(len(part), 1))


def _curves(trajectory: Trajectory) -> None:
    first = [one.gene for one in trajectory.changes] + list(trajectory.top(CURVES // 2)["gene"])
    genes = st.multiselect(
        "Genes to draw", trajectory.genes, default=list(dict.fromkeys(first)), key="curves", select_all=False
    )
    if not genes:
        raise InputError("No gene is chosen. Choose at least one to draw.")
    columns = [trajectory.genes.index(gene) for gene in genes]
    perturbed, unperturbed = (part[:, 0, columns] for part in (trajectory.perturbed, trajectory.unperturbed))
    figure(curves_figure(trajectory.steps, perturbed, unperturbed, genes), key="curves figure")


def _downloads(loaded: World, trajectory: Trajectory) -> None:
    tables = {
        "trajectory.csv": ("Every state of every gene", lambda: csv(states_table(trajectory))),
        "top_genes.csv": ("The genes that moved most", lambda: csv(trajectory.top())),
        "genes.csv": ("All genes: before, after, effect", lambda: csv(trajectory.summary())),
        "places.csv": ("The path on the atlas", lambda: csv(places_table(loaded.atlas, trajectory))),
    }
    for name, (what, made) in tables.items():
        st.download_button(f"{what} ({name})", made, name, "text/csv", on_click="ignore", key=f"save {name}")
    page = atlas_figure(loaded.atlas, trajectory)
    st.download_button(
        "The atlas with the path (atlas.html)", lambda: page.to_html(include_plotlyjs=True), "atlas.html", "text/html",
        on_click="ignore", key="save atlas.html",
    )  # fmt: skip
