"""Response tables of planted low rank, with gains and holes."""

import numpy as np

from pertcast.types import Examples

TYPES, COMPOUNDS, GENES, RANK = 5, 40, 60, 2


def planted(rng, *, noise=0.1, gains=True):
    """Rows y = gene gain * loading (gain * profile) of a table from which some cells are missing; and the full table.

    The last cell type shows 12 of the compounds only.
    """
    profile, loading = 3 * rng.normal(size=(COMPOUNDS, RANK)), rng.normal(size=(GENES, RANK))
    gain = rng.uniform(0.5, 1.5, (TYPES, RANK)) if gains else np.ones((TYPES, RANK))
    gene_gain = rng.uniform(0.7, 1.3, (TYPES, GENES)) if gains else np.ones((TYPES, GENES))
    truth = np.einsum("tg,ck,tk,gk->tcg", gene_gain, profile, gain, loading)
    shown = rng.random((TYPES, COMPOUNDS)) < 0.8
    shown[0] = True
    shown[-1] = np.arange(COMPOUNDS) < 12
    of_type, of_compound = np.nonzero(shown)
    y = truth[of_type, of_compound] + noise * rng.normal(size=(len(of_type), GENES))
    return rows(of_type, of_compound, y), truth, shown


def rows(of_type, of_compound, y=None):
    cell_type = np.array([f"type {t}" for t in of_type], dtype=object)
    compound = np.array([f"drug {c}" for c in of_compound], dtype=object)
    genes = tuple(f"G{i:02d}" for i in range(GENES))
    return Examples(
        np.arange(len(of_type)), cell_type, compound, genes, {}, None if y is None else y.astype(np.float32)
    )
