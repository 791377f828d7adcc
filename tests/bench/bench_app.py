"""Speed of the app in a real browser: its first page from a fresh start, and a trajectory through 2,000 genes.

SIMULATED cells. With `--pictures docs` the pages that the README shows are taken anew.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from PIL import Image
from scipy.sparse import csr_matrix

from pertcast.cell_tasks.runs import Columns
from pertcast.cell_tasks.verbs import fit_cells

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser import BACKSPACE, ENTER, ESCAPE, Browser, chromium, running_app  # noqa: E402 - it lies beside the tests

DRAWN = "//*[contains(@class, 'js-plotly-plot')]//*[contains(@class, 'main-svg')]"
CELLS, GENES, STEPS = 2000, 2000, 20


def pages(pictures: Path | None) -> None:
    """From the command to the first picture; then a run, from the click to the path on the atlas."""
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as browser:
        start = time.perf_counter()
        with running_app() as url:
            browser.open(url)
            browser.find(DRAWN)
            browser.settled()
            print(f"first page from a fresh start: {time.perf_counter() - start:.1f} s; to reach: 10 s")
            start = time.perf_counter()
            browser.open(url)
            browser.find(DRAWN)
            browser.settled()
            print(f"the same page again: {time.perf_counter() - start:.1f} s")
            print(f"a run of {STEPS} steps, bundled cells, from click to path: {from_click_to_path(browser):.1f} s")
            if pictures is not None:
                take_pictures(browser, url, pictures)


def from_click_to_path(browser: Browser) -> float:
    """Seconds from the click on Run until the path is drawn and the page rests."""
    start = time.perf_counter()
    browser.click("//button[contains(., 'Run')]")
    browser.find("//*[contains(@class, 'legendtext')][text()='trajectory']")
    browser.settled()
    return time.perf_counter() - start


def two_thousand_genes() -> None:
    """A virtual cell of one's own: one cell of 2,000 genes, from the click on Run to the path over the atlas."""
    rng = np.random.default_rng(0)
    x = csr_matrix(rng.poisson(0.5 * rng.gamma(1.0, 1.0, (1, GENES)), (CELLS, GENES)).astype(np.float32))
    obs = pd.DataFrame({"condition": "control"}, index=[f"c{i}" for i in range(CELLS)])
    var = pd.DataFrame(index=[f"g{j}" for j in range(GENES)])
    with tempfile.TemporaryDirectory() as name, chromium(Path(name)) as browser:
        data, runs = Path(name) / "cells.h5ad", Path(name) / "runs"
        AnnData(x, obs, var).write_h5ad(data)
        settings = ("hiding.zeros=true", "hidden=[1024]", "training.epochs=1")
        fit_cells("masked-autoencoder", data, Columns("condition", "control"), out=runs / "virtual", changes=settings)
        with running_app("--data", data, "--runs", runs) as url:
            browser.open(url)
            browser.find(DRAWN)
            browser.settled()
            seconds = [from_click_to_path(browser)]
            browser.click("//button[contains(., 'Another cell')]")
            browser.settled()
            seconds.append(from_click_to_path(browser))
    told = ", ".join(f"{one:.1f} s" for one in seconds)
    print(f"{STEPS} steps of one cell of {GENES} genes, from click to path, twice: {told}; to reach: 3 s")


def take_pictures(browser: Browser, url: str, folder: Path) -> None:
    """Take each page as the README shows it."""
    shown = {"cell": "Red: as observed", "compound": "Nearest training compounds", "leaderboard": "Lower is better"}
    for page, text in shown.items():
        browser.open(url if page == "cell" else f"{url}/{page}")
        browser.find(DRAWN)
        if page == "cell":
            browser.type("//input[@aria-label='Cells to pick from']", 'population == "P1" and reg-5 < 2.5')
            browser.settled()
            browser.press("//input[@aria-label='Genes to change']", f"{BACKSPACE}reg-5{ENTER}{ESCAPE}")
            browser.settled()
            browser.click("//button[contains(., 'Run')]")
        browser.sees(text)
        browser.settled()
        time.sleep(2)  # until what slides and fades has come to rest
        path = folder / f"app_{page}.png"
        browser.picture(path)
        Image.open(path).quantize(256, Image.Quantize.FASTOCTREE).save(path, optimize=True)  # half the bytes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="Folder for a PNG of each page.")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    two_thousand_genes()
    pages(asked.pictures)
