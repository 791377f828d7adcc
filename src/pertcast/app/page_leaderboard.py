"""Page: the runs on disk with their cross-validated scores, beside floors and ceiling."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from pertcast.app.common import csv, figure, plain, sentences
from pertcast.app.figures import board_figure, labels
from pertcast.app.places import Places
from pertcast.errors import InputError
from pertcast.leaderboard import Board, read_boards


def show() -> None:
    """Draw the page."""
    places = Places.from_environment()
    st.title("Leaderboard")
    with sentences():
        boards = read_or_refuse(places.compound_runs)
        titles = [board.title for board in boards]
        board = boards[0]
        if len(boards) > 1:
            board = boards[st.selectbox("Rows scored", range(len(boards)), format_func=titles.__getitem__)]
        if board.simulated:
            st.info("SIMULATED data. The ceiling is the score of the oracle, which knows what was planted.")
        st.subheader(board.title)
        figure(board_figure(board), key="board")
        table = board_table(board)
        st.dataframe(table.round(4), hide_index=True)
        for remark in remarks(board):
            st.markdown(plain(f"- {remark}"))
        st.download_button("Scores (CSV)", csv(table), "scores.csv", "text/csv", key="save scores")


def read_or_refuse(folder: Path) -> list[Board]:
    """Read the boards of a folder of runs. Raises InputError where it has none."""
    boards = read_boards(folder)
    if not boards:
        fix = "`pertcast cv` keeps one; of finished runs it makes it without fitting again."
        raise InputError(f"'{folder}' holds no score table. {fix}")
    return boards


def board_table(board: Board) -> pd.DataFrame:
    """Lay a board out as a table, best first within ceiling, models and floors."""
    shown = {
        "name": labels(board),
        "kind": [one.kind for one in board.standings],
        "MRRMSE": [one.mrrmse for one in board.standings],
        "low": [one.low for one in board.standings],
        "high": [one.high for one in board.standings],
        "Pearson": [one.pearson for one in board.standings],
        "v best floor": [one.v_floor for one in board.standings],
        "run": [one.run for one in board.standings],
    }
    return pd.DataFrame(shown)


def remarks(board: Board) -> list[str]:
    """Say which floor is the best, and of every model below it that it is."""
    lost = [
        f"{name} is worse than the floor '{board.best_floor}' by {one.v_floor:.4f}."
        for name, one in zip(labels(board), board.standings, strict=True)
        if one.kind == "model" and one.v_floor > 0
    ]
    best = f"Lower is better. 'v best floor' is the difference to the floor '{board.best_floor}', below 0 where better."
    return [best, *lost]
