"""The app in a real browser: it loads, queries, selects, runs, changes tabs, downloads, and shows no defect."""

import pandas as pd
import pytest

from browser import chromium, need_chromium, running_app

TAB = "//*[@role='tab'][contains(., '{}')]"
BUTTON = "//button[contains(., '{}')]"
DRAWN = "//*[contains(@class, 'js-plotly-plot')]//*[contains(@class, 'main-svg')]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    need_chromium()
    with running_app() as url, chromium(tmp_path_factory.mktemp("downloads")) as window:
        window.home = url
        yield window


def test_virtual_cell_from_query_to_download(browser, tmp_path):
    """S001-11, -12, -14, R15: a trajectory is drawn over the atlas, and its tables can be taken away."""
    browser.open(browser.home)
    browser.find(DRAWN)
    browser.sees("SIMULATED cells", "one of ")
    browser.type("//input[@aria-label='Cells to pick from']", 'population == "P1" and reg-0 < 3')
    browser.settled()
    browser.click(BUTTON.format("Run"))
    browser.sees("Red: as observed; green: the last state")
    browser.settled()
    browser.find("//*[contains(@class, 'legendtext')][text()='trajectory']")
    browser.click(TAB.format("Top genes"))
    browser.sees("Rose", "Fell")
    browser.click(TAB.format("Gene curves"))
    browser.sees("dashed: the same cell, unchanged")
    browser.click(TAB.format("Downloads"))
    browser.click(BUTTON.format("top_genes.csv"))
    top = pd.read_csv(browser.downloaded("top_genes.csv"))
    assert list(top["direction"]) == ["rose"] * 20 + ["fell"] * 20
    assert top["effect"].is_monotonic_decreasing
    browser.click(BUTTON.format("trajectory.csv"))
    states = pd.read_csv(browser.downloaded("trajectory.csv"))
    assert len(states) == 2 * 21
    assert states["reg-0"].iloc[0] < 3
    browser.click(BUTTON.format("atlas.html"))
    assert "trajectory" in browser.downloaded("atlas.html").read_text()
    browser.picture(tmp_path / "cell.png")
    assert (tmp_path / "cell.png").stat().st_size > 20_000  # an empty page has about 5,000 bytes


def test_code_in_a_query_is_a_sentence_on_the_page(browser):
    """S001-13."""
    browser.open(browser.home)
    browser.type("//input[@aria-label='Cells to pick from']", "__import__('os').getcwd() == 1")
    browser.sees("Query, character 11: expected a comparison", "No code is run.")
    browser.settled()
    assert "Traceback" not in browser.text()


def test_compound_and_leaderboard(browser):
    """A pasted structure is drawn, answered and judged; the scores stand beside floors and ceiling."""
    browser.open(browser.home)
    browser.click("//a[contains(., 'Compound')]")
    browser.sees("OUT OF DOMAIN", "Nearest training compounds")
    browser.type("//input[contains(@aria-label, 'SMILES')]", "C1CC")
    browser.sees("'C1CC' cannot be parsed")
    browser.type("//input[contains(@aria-label, 'SMILES')]", "DEMO-013")
    browser.sees("Training saw this compound in")
    browser.find("//img[contains(@src, 'svg')]")
    browser.find(DRAWN)
    browser.click(BUTTON.format("Response (CSV)"))
    assert list(pd.read_csv(browser.downloaded("response.csv"))) == ["gene", "signed_log10_p"]
    browser.click("//a[contains(., 'Leaderboard')]")
    browser.sees("Lower is better.", "oracle", "zeros")
    browser.find(DRAWN)
