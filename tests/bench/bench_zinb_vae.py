"""ZINB-VAE training throughput, and the held-out bound, beside scvi-tools' SCVI in the same run where it is installed.

20,000 cells x 2,000 genes, 10 % dense, hidden 128, latent 10, batches of 128, two threads; simulated counts with six
populations, 2,000 further cells held out. Both train on the same cells for the same number of epochs; turns alternate.
"""

import argparse
import time
from importlib.util import find_spec

import numpy as np
import torch
from scipy.sparse import csr_array, csr_matrix, vstack

from pertcast.cells.zinb_vae import VaeTraining, ZinbVae, ZinbVaeConfig
from pertcast.types import Cells

CELLS, HELD_OUT, GENES, POPULATIONS, DENSITY = 20_000, 2_000, 2_000, 6, 0.10
HIDDEN, LATENT, BATCH, THREADS = 128, 10, 128, 2
TARGET = 2.0


def simulated(seed: int = 0) -> Cells:
    """Draw cells of several populations whose genes are seen in about a tenth of the cells."""
    rng = np.random.default_rng(seed)
    n = CELLS + HELD_OUT
    population = rng.integers(POPULATIONS, size=n)
    rate = np.exp(rng.normal(-2.6, 1.0, GENES) + 0.7 * rng.normal(size=(POPULATIONS, GENES)))  # (p, g)
    depth = np.exp(rng.normal(0, 0.3, n))
    blocks = []
    for rows in np.array_split(np.arange(n), 44):
        mean = depth[rows, None] * rate[population[rows]]
        blocks.append(csr_array(rng.poisson(mean * rng.gamma(2.0, 0.5, mean.shape)).astype(np.float32)))
    names = np.array([f"cell{i}" for i in range(n)], dtype=object)
    same = np.full(n, "control", dtype=object)
    context = np.array([f"population{p}" for p in population], dtype=object)
    genes = tuple(f"GENE{j:04d}" for j in range(GENES))
    return Cells(names, genes, vstack(blocks).tocsr(), "counts", same, context, same, "control")


def ours(train: Cells, held: Cells, epochs: int) -> tuple[float, float]:
    """Cells per second and the held-out bound in nats per cell."""
    settings = VaeTraining(epochs=epochs, batch=BATCH, lr=1e-3)
    model = ZinbVae(ZinbVaeConfig(hidden=HIDDEN, latent=LATENT, training=settings))
    start = time.perf_counter()
    model.fit(train, seed=0)
    seconds = time.perf_counter() - start
    return epochs * len(train) / seconds, bound(model, held)


def bound(model: ZinbVae, cells: Cells) -> float:
    """Mean negative bound over cells, one code each."""
    torch.manual_seed(0)
    losses = []
    with torch.no_grad():
        for part in model._blocks(cells):
            log_prob, kl = model.net.elbo(part["x"], batch=part["batch"], log_library=part["log_library"])
            losses.append((kl - log_prob).numpy())
    return float(np.concatenate(losses).mean())


def scvi(train: Cells, held: Cells, epochs: int) -> tuple[float, float]:
    """The same of scvi-tools' SCVI with the sizes given."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    import anndata
    from scvi.model import SCVI

    together = anndata.AnnData(csr_matrix(train.x))
    SCVI.setup_anndata(together)
    model = SCVI(together, n_hidden=HIDDEN, n_latent=LATENT, gene_likelihood="zinb")
    start = time.perf_counter()
    model.train(
        max_epochs=epochs, batch_size=BATCH, train_size=1.0, accelerator="cpu", enable_progress_bar=False, logger=False,
        plan_kwargs={"n_epochs_kl_warmup": max(1, epochs // 3)},
    )  # fmt: skip
    seconds = time.perf_counter() - start
    torch.manual_seed(0)
    value = model.get_elbo(anndata.AnnData(csr_matrix(held.x)))
    return epochs * len(train) / seconds, abs(float(value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    cells = simulated()
    train, held = cells.take(np.arange(CELLS)), cells.take(np.arange(CELLS, CELLS + HELD_OUT))
    print(f"SIMULATED cells: {CELLS} x {GENES}, {train.x.nnz / np.prod(train.x.shape):.1%} dense, {THREADS} threads")
    few = train.take(np.arange(2 * BATCH))
    contestants = {"pertcast": ours, **({"scvi-tools": scvi} if find_spec("scvi") else {})}
    speed = {name: [] for name in contestants}
    for fit in contestants.values():  # what is imported or compiled at the first step is not training
        fit(few, few, 1)
    for _ in range(arguments.turns):
        for name, fit in contestants.items():
            rate, value = fit(train, held, arguments.epochs)
            speed[name].append(rate)
            print(f"{name}: {rate:,.0f} cells/s over {arguments.epochs} epochs, held-out bound {value:.2f} nats a cell")
    if "scvi-tools" in speed:
        ratio = np.median(speed["pertcast"]) / np.median(speed["scvi-tools"])
        print(f"throughput: {ratio:.2f} times SCVI's (target {TARGET:.0f})")
    else:
        print("scvi-tools is not installed: no ratio")


if __name__ == "__main__":
    main()
