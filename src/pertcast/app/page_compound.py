"""Page: type a compound, see the response that a run predicts, and how far the compound is from training."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from pertcast.app import responses
from pertcast.app.common import csv, figure, plain, sentences
from pertcast.app.figures import waterfall_figure
from pertcast.app.molecule import molecule_svg
from pertcast.app.places import Places
from pertcast.predict import Forecast, Forecaster
from pertcast.report.forecast import domain, standing
from pertcast.runs import Run, open_run

EXAMPLE = "CC(=O)Oc1ccccc1C(=O)O"  # acetylsalicylic acid


@st.cache_resource(max_entries=4, show_spinner="Loading the run")
def forecaster(folder: str, changed: int) -> Forecaster:
    """Load the refits of a run once; `changed` is when they were written."""
    return Forecaster(open_run(Path(folder)))


def show() -> None:
    """Draw the page."""
    places = Places.from_environment()
    st.title("Compound")
    if places.runs is None:
        st.info("SIMULATED data: the bundled run was fitted to a simulated competition. `--runs` names your own.")
    left, right = st.columns([1, 2.4], gap="large")
    with sentences():
        with left:
            run = _chosen_run(places.compound_runs)
            loaded = forecaster(str(run.folder), run.folder.stat().st_mtime_ns)
            text = st.text_input("SMILES, or the name of a training compound", EXAMPLE, key="compound")
            cell_type = st.selectbox("Cell type", loaded.features.cell_types.names, key="cell type")
            found = responses.ask(loaded, cell_type, text)
            if found.smiles is not None:
                st.image(molecule_svg(found.smiles), caption=found.compound or None)
        with right:
            _answer(found)


def _chosen_run(folder: Path) -> Run:
    runs = responses.answering_runs(folder)
    names = {run.folder.name: run for run in runs}
    run = names[st.selectbox("Run", list(names), key="run")]
    told = responses.standing_of(run, folder)
    if told:
        st.caption(plain(told))
    return run


def _answer(found: Forecast) -> None:
    """Show the verdict on the compound, the response, and what can be taken away."""
    verdict = [standing(found), *domain(found), *found.remarks()]
    (st.warning if found.out_of_domain else st.success)(plain("  \n".join(verdict)))
    figure(waterfall_figure(found), key="waterfall")
    near, genes = st.columns([1, 1.2], gap="large")
    near.markdown("**Nearest training compounds** (Tanimoto similarity)")
    near.dataframe(responses.neighbour_table(found).round(3), hide_index=True)
    table = responses.gene_table(found)
    genes.markdown("**All genes**, the most raised first")
    genes.dataframe(table.round(3), hide_index=True, height=180)
    st.download_button("Response (CSV)", csv(table), "response.csv", "text/csv", key="save response")
