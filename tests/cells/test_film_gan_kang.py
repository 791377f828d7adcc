"""The FiLM-GAN on measured blood cells: one type's stimulated cells held out, its controls and all else trained on."""

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.decomposition import TruncatedSVD
from sklearn.metrics import r2_score

from pertcast.cells.film_gan import FilmGan, FilmGanConfig
from pertcast.types import Cells

HELD_OUT = ("CD14 Mono", "B", "CD4 Naive T", "NK")
SCGEN = (0.836, 0.641)  # its own code on these four, 2,000 genes: R2 of gene means, all genes and top 100


def read(path, held_out: str) -> tuple[Cells, np.ndarray]:
    """Log counts per 10,000 of the 1,000 genes that vary most in the training cells; and which cells train."""
    data = ad.read_h5ad(path)
    condition, kind = (data.obs[name].astype(str).to_numpy(object) for name in ("condition", "cell_type"))
    x = csr_array(data.X, dtype=np.float64)
    x.data = np.log1p(x.data * np.repeat(1e4 / data.obs["n_counts_full"].to_numpy(float), np.diff(x.indptr)))
    train = ~((kind == held_out) & (condition == "stimulated"))
    spread = x[train].power(2).mean(axis=0) - np.square(x[train].mean(axis=0))
    genes = np.sort(np.argsort(-spread, kind="stable")[:1000])
    cells = Cells(
        ids=data.obs_names.to_numpy(object), genes=tuple(data.var_names[genes]), x=x[:, genes].astype(np.float32),
        unit="log1p", condition=condition, context=kind, batch=np.full(len(kind), "run", dtype=object),
        control="control",
    )  # fmt: skip
    return cells, train


def latent_arithmetic(cells: Cells, asked: np.ndarray) -> np.ndarray:
    """The idea of scGen on linear codes: move codes by the difference of mean codes, contexts balanced; decode."""
    codes = TruncatedSVD(50, random_state=0).fit(cells.x)
    measured = (cells.untreated, ~cells.untreated)
    kinds = sorted(set(cells.context))
    treated = [kind for kind in kinds if min((part & (cells.context == kind)).sum() for part in measured) >= 5]
    of = {kind: codes.transform(cells.x[cells.context == kind]) for kind in treated}
    after = {kind: ~cells.untreated[cells.context == kind] for kind in treated}
    shift = np.mean([of[kind][after[kind]].mean(0) - of[kind][~after[kind]].mean(0) for kind in treated], axis=0)
    return codes.inverse_transform(codes.transform(asked) + shift)


@pytest.mark.slow
@pytest.mark.real_data
def test_held_out_types_beside_latent_arithmetic(real_data):
    """S000-09: R2 of gene means, all genes and the 100 that change most, mean over four hold-outs; at most 0.02 below
    latent arithmetic (measured: 0.903 and 0.722), and above no change.
    """
    rows = []
    for held_out in HELD_OUT:
        cells, train = read(real_data / "kang" / "kang_ifnb_2000.h5ad", held_out)
        model = FilmGan(FilmGanConfig()).fit(cells.take(train), seed=0)
        asked = cells.take((cells.context == held_out) & cells.untreated)
        truth, control = cells.x[~train].toarray(), asked.x.toarray()
        ours = model.predict(asked, "stimulated", seed=1, sample=True).x.toarray()
        standard = np.sqrt(truth.var(0) / len(truth) + control.var(0) / len(control) + 1e-12)
        top = np.argsort(-np.abs(truth.mean(0) - control.mean(0)) / standard)[:100]
        guesses = (ours, latent_arithmetic(cells.take(train), asked.x), control)
        rows.append([[r2_score(truth.mean(0)[part], g.mean(0)[part]) for part in (slice(None), top)] for g in guesses])
    found, arithmetic, floor = np.mean(rows, axis=0)
    print(f"film-gan {found.round(3)}, latent arithmetic {arithmetic.round(3)}, no change {floor.round(3)}")
    assert (found >= arithmetic - 0.02).all()
    assert (found >= np.array(SCGEN) - 0.02).all()
    assert (found > floor + 0.05).all()
