"""Small made-up questions that several tests ask."""

from dataclasses import replace

import numpy as np

from pertcast.de.presets import NEGATIVE_CONTROL
from pertcast.types import Profiles, Question

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "c1ccncc1", "CCCl", "CCBr", "OCCO", "c1ccsc1", "CC#N", "CCS", "CNC"]


def make_question(seed=0, types=4, compounds=12, genes=37, asked=4, noise=0.3):
    """Additive truth plus an interaction, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    pairs = [(t, c) for c in range(compounds) for t in range(types)]
    hidden = [(types - 1, c) for c in range(asked)]
    train = [pair for pair in pairs if pair not in hidden]
    programs = rng.normal(size=(3, genes))
    of_type, of_compound = rng.normal(size=(types, 3)), rng.normal(size=(compounds, 3)) * 2

    def y(rows):
        scores = np.array([0.3 * of_type[t] + of_compound[c] * (1 + 0.1 * of_type[t]) for t, c in rows])
        return (scores @ programs + noise * rng.normal(size=(len(rows), genes))).astype(np.float32)

    def columns(rows):
        names = ([f"type {t}" for t, _ in rows], [f"drug {c}" for _, c in rows], [SMILES[c] for _, c in rows])
        return [np.array(column, dtype=object) for column in names]

    def untreated(width):
        return (of_type @ np.random.default_rng(width).normal(size=(3, width))).astype(np.float32)

    names = tuple(sorted(f"G{i}" for i in range(genes)))
    types_named = np.array([f"type {t}" for t in range(types)], dtype=object)
    contexts = {
        name: Profiles(types_named, untreated(width))
        for name, width in (("cell_baseline", 20), ("cell_accessibility", 9))
    }
    mechanisms = {f"drug {c}": frozenset({f"moa: {c % 3}", f"target: {c}"}) for c in range(compounds) if c % 4}
    question = Question(
        names, *columns(train), y(train), np.arange(asked), *columns(hidden), contexts, annotations=mechanisms
    )
    return question, y(hidden)


def with_cells(question, truth, folder, cells=6):
    """The same question with single cells: log2 fold changes are a quarter of the responses, those asked for left out.

    truth  (m, g)  of the rows that are asked for; their cells lie in the file, too, for nobody to read
    Two donors have two plates each, and every compound a well on each of them.
    """
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(7)
    genes, n = question.genes, len(question.genes)
    types = sorted({*question.cell_type, *question.test_cell_type})
    base = {name: rng.normal(3.5, 0.5, n) for name in types}
    treated = [*zip(question.cell_type, question.compound, question.y, strict=True)]
    treated += zip(question.test_cell_type, question.test_compound, truth, strict=True)
    wells = [(name, NEGATIVE_CONTROL, np.zeros(n), k) for name in types for k in range(3)]
    wells += [(name, drug, y, 3) for name, drug, y in treated]
    obs, counts = [], []
    for name, drug, y, place in wells:
        mean = np.exp(base[name] + np.log(2) * y / 4)
        for plate in range(4):
            counts.append(rng.poisson(mean / cells * rng.gamma(20, 1 / 20, (cells, n))))
            row = {
                "cell_type": name,
                "sm_name": drug,
                "plate_name": f"plate_{plate}",
                "donor_id": f"donor_{plate // 2}",
            }
            obs += [row | {"well": f"{drug}{place}"}] * cells
    x = sparse.csr_matrix(np.concatenate(counts).astype(np.float32))
    obs = pd.DataFrame(obs, index=[f"cell-{k}" for k in range(len(obs))])
    path = folder / "cells.h5ad"
    ad.AnnData(x, obs, pd.DataFrame(index=pd.Index(genes, dtype=object))).write_h5ad(path)
    return replace(question, cells=path)
