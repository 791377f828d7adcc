"""The whole way on measured cells against R: pseudobulks, filter, TMM, voom or a variance trend, moderated t."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.de.compare import Comparison
from pertcast.de.log10_p import log10_p
from pertcast.de.normalization import filter_by_expression, library_sizes, tmm_factors
from pertcast.de.pseudobulk import Pseudobulk, pseudobulk
from pertcast.de.table import de_table
from pertcast.de.voom import voom
from pertcast.io.counts import read_counts

pytestmark = pytest.mark.real_data
TYPES = ["B cells", "CD14+ Monocytes", "CD4 T cells", "CD8 T cells", "FCGR3A+ Monocytes"]


@pytest.fixture(scope="module")
def limma() -> dict:
    return json.loads((Path(__file__).parent / "kang_fixture.json").read_text())


@pytest.fixture(scope="module")
def bulk(real_data) -> Pseudobulk:
    cells = read_counts(real_data / "kang" / "kang_donors_1556.h5ad")
    return pseudobulk(cells.values, cells.obs, ["cell_type", "condition", "sample"], genes=cells.genes)


def equal(got, row: int, want: dict) -> None:
    """Compare one row of a table, or of one comparison, with what R said of some genes and of all."""
    genes = [list(got.genes).index(gene) for gene in want["genes"]]
    tested = got.tested[row]
    t, response = got.t[row], got.signed_log10_p[row]
    assert tested.sum() == want["tested"]
    assert_allclose(got.log_fc[row][genes], want["log_fc"], rtol=1e-6, atol=1e-9)
    assert_allclose(t[genes], want["t"], rtol=1e-6, atol=1e-9)
    assert_allclose(t[tested].sum(), want["t_sum"], rtol=1e-6)
    assert_allclose(np.abs(t[tested]).sum(), want["abs_t_sum"], rtol=1e-6)
    assert_allclose(10 ** -np.abs(response[genes]), want["p"], rtol=1e-6)
    assert_array_equal(np.sign(response[genes]), np.sign(want["t"]))
    assert_allclose(10 ** got.log10_adjusted_p[row][genes], want["adjusted"], rtol=1e-6)
    assert (got.log10_adjusted_p[row][tested] < np.log10(0.05)).sum() == want["found"]
    assert_allclose(got.log_odds[row][genes], want["lods"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["voom", "trend"])
def test_every_cell_type_equals_limma(bulk, limma, kind):
    assert len(bulk) == limma["samples"]
    assert bulk.counts.sum() == limma["count_sum"]
    table = de_table(bulk, "cell_type", Comparison("condition", "control", weights=kind == "voom"))
    assert list(table.keys["cell_type"]) == TYPES
    assert list(table.keys["sm_name"]) == ["stimulated"] * 5
    for row, facts in enumerate(table.groups):
        want = limma[kind][facts.group]
        equal(table, row, want)
        assert_allclose(facts.prior_df, float(want["prior_df"].replace("Inf", "inf")), rtol=1e-6)
        assert_allclose(facts.df, want["df_total"], rtol=1e-6)
        assert_allclose(10 ** log10_p(table.t[row, table.tested[row]], facts.df), table.p[row, table.tested[row]])


def test_cell_types_as_a_covariate_equal_limma(bulk, limma):
    """All types in one model: weights are uneven over columns that share samples, so contrasts.fit approximates."""
    bulk.obs["all"] = "all"
    table = de_table(bulk, "all", Comparison("condition", "control", ("cell_type",)))
    equal(table, 0, limma["together"])


def test_exact_contrasts_equal_limmas_coefficients(bulk, limma):
    """A contrast that is a coefficient is exact in limma too; here contrasts.fit is off by a tenth in many genes."""
    bulk.obs["all"] = "all"
    exact, approximate = (
        de_table(bulk, "all", Comparison("condition", "control", ("cell_type",), contrast_sd=sd))
        for sd in ("exact", "limma")
    )
    equal(exact, 0, limma["together_exact"])
    gap = np.abs(exact.t / approximate.t - 1)[0, exact.tested[0]]
    assert np.median(gap) > 0.05


@pytest.mark.parametrize("cell_type", TYPES)
def test_factors_and_weights_equal_those_of_edger_and_limma(bulk, limma, cell_type):
    want = limma["voom"][cell_type]
    part = bulk.take((bulk.obs["cell_type"] == cell_type).to_numpy())
    stimulated = (part.obs["condition"] == "stimulated").to_numpy()
    counts = part.counts[:, filter_by_expression(part.counts, stimulated)]
    factors = tmm_factors(counts)
    assert_allclose(factors, want["tmm"], rtol=1e-8)
    got = voom(
        counts, np.column_stack([~stimulated, stimulated]).astype(float), lib_size=library_sizes(counts) * factors
    )
    assert_allclose(got.log2_cpm.sum(), want["e_sum"], rtol=1e-8)
    assert_allclose(got.weights.sum(), want["w_sum"], rtol=1e-6)


def test_interferon_genes_lead_in_every_type(bulk):
    """The cells were stimulated with interferon beta; these genes are known to answer it in every type."""
    table = de_table(bulk, "cell_type", Comparison("condition", "control"))
    columns = [table.genes.index(gene) for gene in ("ISG15", "IFI6", "ISG20") if gene in table.genes]
    assert len(columns) >= 2
    rank = (table.signed_log10_p[:, :, None] > table.signed_log10_p[:, None, columns]).sum(axis=1)  # (5, genes)
    assert (rank < 0.1 * table.tested.sum(axis=1, keepdims=True)).all()
