"""Untreated cells of measured cell types and lines: read as they lie there, and what they are worth."""

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform

from pertcast import workflow
from pertcast.features.context import context_scores
from pertcast.io.tables import question_of, read_competition

pytestmark = pytest.mark.real_data


def test_untreated_expression_of_the_competitions_cell_types(real_data, tmp_path):
    """6 x 18,211 under its own file name; T cells are nearer to each other than to B or myeloid cells."""
    name = "baseline_expression_by_cell_type.csv"
    shutil.copy(real_data / "op2" / name, tmp_path / name)
    pairs = pd.read_csv(real_data / "op2" / "train_pairs.csv").head(8)
    table = pairs[["cell_type", "sm_name"]].assign(sm_lincs_id="LSM-0", SMILES="CCO", control=False, A1BG=1.0, ZYX=-1.0)
    table.to_parquet(tmp_path / "de_train.parquet")
    (tmp_path / "id_map.csv").write_text("id,cell_type,sm_name\n0,Myeloid cells,unknown\n")
    profiles = question_of(read_competition(tmp_path)).contexts["cell_baseline"]
    assert profiles.values.shape == (6, 18_211)
    distance = pd.DataFrame(squareform(pdist(context_scores(profiles.values))), *[list(profiles.cell_types)] * 2)
    t_cells = ["T cells CD4+", "T cells CD8+", "T regulatory cells"]
    within = distance.loc[t_cells, t_cells].to_numpy()
    assert within.max() < distance.loc[t_cells, ["B cells", "Myeloid cells"]].to_numpy().min()


@pytest.mark.slow
def test_untreated_cells_help_on_lines_that_training_never_saw(real_data, tmp_path):
    """Paired over compounds and over lines: ridge with untreated expression against ridge without, on whole lines."""
    result = workflow.cross_validate(
        ["ridge", "ridge-context"],
        real_data / "l1000",
        folds="celltype",
        out=tmp_path / "runs",
        cache=tmp_path / "cache",
    )
    paired = {one.name: one for one in result.table.paired("ridge", result.scope.cell_type)}["ridge-context"]
    assert paired.difference < -0.01
    assert paired.over_compounds[1] < 0
    assert np.isfinite(paired.over_cell_types).all()
