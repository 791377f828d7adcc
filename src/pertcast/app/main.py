"""What the web server runs: the app's pages. Run again at every click, so that it does nothing but choose a page."""

from __future__ import annotations

import streamlit as st

from pertcast.app import page_cell, page_compound, page_leaderboard

STYLE = """<style>
.block-container { padding: 3.5rem 2.5rem 2rem; }
.stHeading h1 { font-size: 1.9rem; padding: 0.4rem 0; }
</style>"""  # less empty space


def main() -> None:
    """Show the chosen page."""
    st.set_page_config(page_title="pertcast", page_icon="🧫", layout="wide")
    st.html(STYLE)
    pages = [
        st.Page(page_cell.show, title="Virtual cell", icon=":material/biotech:", default=True),
        st.Page(page_compound.show, title="Compound", url_path="compound", icon=":material/science:"),
        st.Page(page_leaderboard.show, title="Leaderboard", url_path="leaderboard", icon=":material/leaderboard:"),
    ]
    st.navigation(pages, position="top").run()


if __name__ == "__main__":
    main()
