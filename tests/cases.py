"""Small made-up questions that several tests ask."""

import numpy as np

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
    question = Question(names, *columns(train), y(train), np.arange(asked), *columns(hidden), contexts)
    return question, y(hidden)
