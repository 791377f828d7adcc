"""The OpenProblems form, against files written and read by anndata itself."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from numpy.testing import assert_array_equal

from pertcast.errors import InputError
from pertcast.io.cells import gene_names, read_openproblems, write_openproblems_prediction
from pertcast.io.tables import check_competition, read_competition, read_template


def write_h5ad(tables, folder, *, sparse=False):
    """Write training in the OpenProblems form: numbers in layers, twice as large in the second one."""
    obs = tables.train.assign(split="train").set_index(pd.Index([f"row {k}" for k in range(len(tables.train))]))
    values = tables.y.to_numpy()
    second = scipy.sparse.csr_matrix(2 * values) if sparse else 2 * values
    adata = anndata.AnnData(
        obs=obs.astype({"cell_type": "category", "split": "category"}),
        var=pd.DataFrame(index=tables.y.columns),
        layers={"clipped_sign_log10_pval": values, "sign_log10_pval": second},
    )
    folder.mkdir(exist_ok=True)
    adata.write_h5ad(folder / "de_train.h5ad")
    tables.id_map[["id", "sm_name", "cell_type"]].to_csv(folder / "id_map.csv", index=False)
    return folder


def test_both_forms_hold_the_same_competition(tables, tmp_path):
    """S004-01; the Kaggle form is the oracle of the OpenProblems form."""
    kaggle = read_competition(tables.write(tmp_path / "kaggle"))
    folder = write_h5ad(tables, tmp_path / "openproblems")
    assert check_competition(folder) == []
    ours = read_competition(folder)
    assert ours.genes == kaggle.genes
    assert_array_equal(ours.y, kaggle.y)
    pd.testing.assert_frame_equal(ours.train, kaggle.train)
    assert ours.digest == kaggle.digest
    assert read_template(folder).genes == kaggle.genes


@pytest.mark.parametrize("sparse", [False, True])
def test_layer_is_selectable(tables, tmp_path, sparse):
    folder = write_h5ad(tables, tmp_path, sparse=sparse)
    competition = read_competition(folder, layer="sign_log10_pval")
    assert_array_equal(competition.y, (2 * tables.y.to_numpy()).astype(np.float32))


def test_unknown_layer_lists_the_layers(tables, tmp_path):
    path = write_h5ad(tables, tmp_path) / "de_train.h5ad"
    with pytest.raises(InputError, match=r"Did you mean 'sign_log10_pval'\? Known: clipped_sign_log10_pval, sign_log"):
        read_openproblems(path, "sign_log10_pvalue")


def test_faults_of_an_h5ad_table_are_found(tables, tmp_path):
    tables.y.iloc[3, 2] = np.nan
    tables.train = tables.train.drop(columns="sm_lincs_id")
    (text,) = check_competition(write_h5ad(tables, tmp_path))
    assert "column 'sm_lincs_id' is missing" in text
    assert f"got 1 value NaN or missing: first gene '{tables.y.columns[2]}', row 3" in text


def test_damaged_h5ad(tables, tmp_path):
    path = write_h5ad(tables, tmp_path) / "de_train.h5ad"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="is not a whole h5ad file"):
        read_competition(tmp_path)
    with pytest.raises(InputError, match="is not a whole h5ad file"):
        gene_names(path)


def test_a_layer_needs_an_h5ad_file(tables, tmp_path):
    with pytest.raises(InputError, match="has no de_train.h5ad, which the layer 't' was asked of"):
        read_competition(tables.write(tmp_path), layer="t")


def test_prediction_is_what_the_benchmark_reads(tmp_path):
    """Read back by anndata: layers['prediction'], obs named by id, var by gene, both ids in uns."""
    values = np.arange(6.0).reshape(2, 3)
    path = tmp_path / "prediction.h5ad"
    write_openproblems_prediction(
        path, ids=np.array([7, 3]), genes=("G2", "G0", "G1"), values=values, dataset_id="demo", method_id="ridge"
    )
    adata = anndata.read_h5ad(path)
    assert adata.obs_names.tolist() == ["7", "3"]
    assert adata.var_names.tolist() == ["G2", "G0", "G1"]
    assert_array_equal(adata.layers["prediction"], values)
    assert dict(adata.uns) == {"dataset_id": "demo", "method_id": "ridge"}
    assert [item.name for item in tmp_path.iterdir()] == ["prediction.h5ad"]
    _, again, genes = read_openproblems(path, "prediction")
    assert_array_equal(again, values)
    assert genes == gene_names(path) == ("G2", "G0", "G1")
