"""What comes with the app: small, simulated by the present code, and made again by one call."""

import json
import re

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_array

from pertcast.app import bundle
from pertcast.app.places import BUNDLED, CELLS, RUNS
from pertcast.leaderboard import read_boards
from pertcast.simulate.cells import draw_cells


def test_it_is_small():
    """The weights of all models stay below 2 MB, and the whole below 4 MB."""
    sizes = {path: path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if path.suffix == ".safetensors") < 2_000_000
    assert sum(sizes.values()) < 4_000_000


def test_the_cells_are_those_of_the_present_simulator():
    found = anndata.read_h5ad(BUNDLED / CELLS)
    again = draw_cells(bundle.regulatory_model(), bundle.N_FITTED, seed=bundle.SEED, as_sparse=True)
    again = again.take(slice(0, bundle.N_CELLS))
    assert tuple(found.var_names) == again.genes
    np.testing.assert_array_equal(csr_array(found.X).toarray(), again.dense)
    assert json.loads(found.uns["pertcast"])["simulated"]


def test_genes_follow_the_regulator_in_their_name():
    """Correlation of counts, which knows nothing of the plan."""
    cells = anndata.read_h5ad(BUNDLED / CELLS).to_df()
    for gene in cells:
        if "-up-" in gene or "-down-" in gene:
            regulator, direction = "-".join(gene.split("-")[:2]), 1 if "-up-" in gene else -1
            assert direction * np.corrcoef(cells[regulator], cells[gene])[0, 1] > 0.1, gene  # 3.5 standard errors


def test_the_run_that_predicts_stands_on_the_board():
    (board,) = read_boards(BUNDLED / RUNS)
    assert board.simulated
    (shown,) = (one for one in board.standings if one.name == bundle.SHOWN)
    assert (BUNDLED / RUNS / shown.run).is_dir()
    assert shown.v_floor < 0


@pytest.mark.slow
def test_it_can_be_made_again(tmp_path):
    """The same files from the same seeds, the cells byte for byte; an older bundle gives way as a whole."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    (folder / "old").touch()
    bundle.remake(folder)
    names = [sorted(path.relative_to(root).as_posix() for path in root.rglob("*")) for root in (folder, BUNDLED)]
    again, found = (sorted(re.sub("[0-9a-f]{8}", "", name) for name in some) for some in names)  # digests of settings
    assert again == found
    assert (folder / CELLS).read_bytes() == (BUNDLED / CELLS).read_bytes()
