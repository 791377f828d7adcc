"""Speed of the app: its first page from a fresh start in a real browser, and a trajectory through 2,000 genes.

SIMULATED cells. With `--pictures docs` the pages that the README shows are taken anew.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.sparse import csr_array

from pertcast.cells.atlas import Atlas
from pertcast.cells.registry import build
from pertcast.cells.trajectory import Change, roll_out
from pertcast.report.trajectory import atlas_figure
from pertcast.types import Cells

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
            start = time.perf_counter()
            browser.click("//button[contains(., 'Run')]")
            browser.find("//*[contains(@class, 'legendtext')][text()='trajectory']")
            browser.settled()
            print(f"a run of {STEPS} steps, from click to path: {time.perf_counter() - start:.1f} s; to reach: 3 s")
            if pictures is not None:
                take_pictures(browser, url, pictures)


def trajectory() -> None:
    """Without a browser: one cell of 2,000 genes, and its figure as the page is sent it."""
    rng = np.random.default_rng(0)
    x = csr_array(rng.poisson(0.5 * rng.gamma(1.0, 1.0, (1, GENES)), (CELLS, GENES)).astype(np.float32))
    same = np.full(CELLS, "all", dtype=object)
    ids, genes = np.array([f"c{i}" for i in range(CELLS)], dtype=object), tuple(f"g{j}" for j in range(GENES))
    cells = Cells(ids, genes, x, "counts", same, same, same, control="all")
    model = build("masked-autoencoder", {"hidden": [1024], "training": {"epochs": 1}}).fit(cells, seed=0)
    atlas = Atlas.of(cells)
    start = time.perf_counter()
    rolled = roll_out(model, cells.take(np.array([0])), [Change("g0", 3.0)], steps=STEPS)
    middle = time.perf_counter()
    size = len(atlas_figure(atlas, rolled).to_json())
    end = time.perf_counter()
    print(f"{STEPS} steps of one cell of {GENES} genes: {middle - start:.2f} s")
    print(f"its atlas of {CELLS} cells, as the page is sent it: {end - middle:.2f} s, {size / 1e6:.1f} MB")
    print(f"together {end - start:.2f} s; to reach: 3 s")


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
    trajectory()
    pages(asked.pictures)
