"""What all pages share: errors as sentences, tables as CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import streamlit as st

from pertcast.errors import PertcastError

MARKUP = re.compile(r"([\[\]$*_~])")  # of Markdown; a SMILES or a gene is to be shown as it is


@contextmanager
def sentences() -> Iterator[None]:
    """Show what is wrong with the user's input as a sentence, and end the page there."""
    try:
        yield
    except PertcastError as error:
        st.error(plain(str(error)))
        st.stop()


def plain(text: str) -> str:
    """Keep a text from being read as Markdown."""
    return MARKUP.sub(r"\\\1", text)


def csv(table: pd.DataFrame) -> bytes:
    """Lay a table out as CSV."""
    return table.to_csv(index=False, float_format="%.6g").encode()


def figure(drawing: object, *, key: str) -> None:
    """Show a plotly figure over the full width, with no more tools than a reader needs."""
    config = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}
    st.plotly_chart(drawing, key=key, config=config, theme=None)
