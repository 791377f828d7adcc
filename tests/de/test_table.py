"""Tables of simulated samples: rows by hand, planted effects, faults named for every group."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pertcast.de.compare import Comparison, compare, plan_comparison
from pertcast.de.linear_model import fit_contrasts, fit_linear
from pertcast.de.moderated_t import moderated_t
from pertcast.de.normalization import log2_cpm, tmm_factors
from pertcast.de.pseudobulk import Pseudobulk
from pertcast.de.table import carry, de_table
from pertcast.errors import InputError

HOW = Comparison("drug", "dmso", ("donor",))
GENES = 200


def make_bulk(*, seed: int = 0, replicates: int = 2) -> Pseudobulk:
    """Simulate two types x dmso, x, y x three donors; gene 0 of T cells rises under x, gene 1 of B cells falls."""
    obs = pd.MultiIndex.from_product(
        [["B", "T"], ["dmso", "x", "y"], [1, 2, 3], range(replicates)], names=["type", "drug", "donor", "well"]
    ).to_frame(index=False)
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.normal(4, 1, GENES)) * np.exp(rng.normal(0, 0.3, (len(obs), 1)))
    mean *= np.exp(0.5 * rng.normal(size=(4, GENES)))[obs["donor"].to_numpy()]
    mean[(obs["type"] == "T") & (obs["drug"] == "x"), 0] *= 16
    mean[(obs["type"] == "B") & (obs["drug"] == "x"), 1] /= 16
    counts = rng.poisson(mean * rng.gamma(20, 1 / 20, mean.shape))
    counts[:, -1] = 0
    counts[obs["type"] == "B", -2] = 0
    genes = tuple(f"g{j}" for j in range(GENES))
    return Pseudobulk(counts, obs.assign(n_cells=30), genes, obs[:0])


@pytest.mark.parametrize("weights", [True, False])
def test_planted_effects_lead_their_rows(weights):
    table = de_table(make_bulk(), "type", Comparison("drug", "dmso", ("donor",), weights=weights))
    assert [tuple(row) for row in table.keys.to_numpy()] == [("B", "x"), ("B", "y"), ("T", "x"), ("T", "y")]
    assert table.signed_log10_p[2].argmax() == 0
    assert table.signed_log10_p[0].argmin() == 1
    assert_allclose([table.log_fc[2, 0], table.log_fc[0, 1]], [4, -4], atol=0.7)
    assert table.adjusted_p[2, 0] < 1e-4
    assert np.nanmin(table.adjusted_p[1::2]) > 1e-3  # y does nothing


def test_genes_without_counts_are_not_tested():
    table = de_table(make_bulk(), "type", Comparison("drug", "dmso", expressed_only=False))
    assert_array_equal(table.tested[:, -2:], [[False, False]] * 2 + [[True, False]] * 2)
    assert table.tested[:, :-2].all()
    assert_array_equal(table.signed_log10_p[~table.tested], 0)
    for layer in (table.t, table.log_fc, table.p, table.log10_p, table.adjusted_p, table.log_odds, table.mean_log2_cpm):
        assert_array_equal(np.isnan(layer), ~table.tested)


def test_without_weights_equals_the_steps_by_hand():
    bulk = make_bulk()
    part = bulk.take(np.flatnonzero(bulk.obs["type"] == "T"))
    got = compare(part, Comparison("drug", "dmso", weights=False, expressed_only=False))
    counts = part.counts[:, :-1]
    y = log2_cpm(counts, counts.sum(axis=1) * tmm_factors(counts), prior_count=3)
    drug = part.obs["drug"].to_numpy()
    design = np.column_stack([drug == level for level in ("dmso", "x", "y")]).astype(float)
    fit = fit_contrasts(fit_linear(y, design), np.array([[-1.0, -1], [1, 0], [0, 1]]))
    assert_allclose(got.t[:, :-1], moderated_t(fit, trend=y.mean(axis=0)).t)
    assert_allclose(got.log_fc[0, :-1], y[drug == "x"].mean(axis=0) - y[drug == "dmso"].mean(axis=0))


def test_the_order_of_samples_and_genes_does_not_matter():
    """R23 and the rule that genes go by name."""
    bulk = make_bulk()
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(bulk)), rng.permutation(GENES)
    mixed = Pseudobulk(
        bulk.counts[rows][:, columns], bulk.obs.iloc[rows].reset_index(drop=True),
        tuple(bulk.genes[j] for j in columns), bulk.dropped,
    )  # fmt: skip
    one, other = (de_table(b, "type", HOW) for b in (bulk, mixed))
    frames = [
        pd.DataFrame(t.signed_log10_p, pd.MultiIndex.from_frame(t.keys), t.genes).sort_index() for t in (one, other)
    ]
    pd.testing.assert_frame_equal(frames[0], frames[1][list(one.genes)], rtol=1e-7, atol=1e-9)


def test_scaling_all_counts_of_a_sample_hardly_changes_its_fold_changes():
    bulk = make_bulk()
    deep = Pseudobulk(bulk.counts * 10, bulk.obs, bulk.genes, bulk.dropped)
    one, other = (de_table(b, "type", Comparison("drug", "dmso", ("donor",), weights=False)) for b in (bulk, deep))
    both = one.tested & other.tested
    assert np.median(np.abs(one.log_fc - other.log_fc)[both]) < 0.05


def test_swapping_control_and_condition_turns_the_sign():
    bulk = make_bulk()
    two = bulk.take((bulk.obs["drug"] != "y").to_numpy())
    one, other = (de_table(two, "type", Comparison("drug", control, ("donor",))) for control in ("dmso", "x"))
    assert_allclose(one.signed_log10_p, -other.signed_log10_p, rtol=1e-6, atol=1e-9)


def test_long_lists_tested_genes_alone():
    table = de_table(make_bulk(), "type", HOW)
    long = table.long()
    assert len(long) == table.tested.sum()
    row = long[(long["cell_type"] == "T") & (long["sm_name"] == "x") & (long["gene"] == "g0")].iloc[0]
    assert row["t"] == table.t[2, 0]
    assert_allclose(-np.log10(row["p"]), table.signed_log10_p[2, 0])
    assert row["log10_adjusted_p"] == table.log10_adjusted_p[2, 0]


def test_numbers_that_are_no_floats_are_labels():
    obs = make_bulk().obs.assign(age=np.linspace(20, 60, 36))
    plan = plan_comparison(obs, Comparison("drug", "dmso", ("donor", "age")))
    assert plan.design.names == ("drugdmso", "drugx", "drugy", "donor2", "donor3", "age")
    assert plan.conditions == ["x", "y"]


def test_columns_that_others_determine_are_left_out_and_named():
    """Plates within donors: the competition's design ~ 0 + compound + donor + plate has such columns."""
    obs = make_bulk().obs
    obs["plate"] = obs["donor"].astype(str) + np.where(obs["well"] == 0, "a", "b")
    obs["lab"] = "one"
    bulk = Pseudobulk(make_bulk().counts, obs, make_bulk().genes, obs[:0])
    table = de_table(bulk, "type", Comparison("drug", "dmso", ("donor", "plate", "lab")))
    assert table.groups[0].left_out == ("lab", "plate2b", "plate3b")
    plate_alone = de_table(bulk, "type", Comparison("drug", "dmso", ("plate",)))
    assert_allclose(table.log_fc, plate_alone.log_fc, rtol=1e-6, atol=1e-9)


def spoil(bulk: Pseudobulk) -> Pseudobulk:
    """B cells keep one sample of each drug, T cells lose their control."""
    obs = bulk.obs
    first = (obs["donor"] == 1) & (obs["well"] == 0)
    return bulk.take((((obs["type"] == "B") & first) | ((obs["type"] == "T") & (obs["drug"] != "dmso"))).to_numpy())


def test_every_group_at_fault_is_named():
    with pytest.raises(InputError) as caught:
        de_table(spoil(make_bulk()), "type", Comparison("drug", "dmso"))
    message = str(caught.value)
    assert "2 problems" in message
    assert "type 'B': 3 samples leave no residual degrees of freedom for 3 independent columns" in message
    assert "one replicate only" in message
    assert "type 'T': no sample of the control 'dmso', only of x, y" in message


def test_groups_at_fault_can_be_skipped_unless_all_are():
    bulk = make_bulk()
    keep = ~((bulk.obs["type"] == "T") & (bulk.obs["drug"] == "dmso")).to_numpy()
    table = de_table(bulk.take(keep), "type", HOW, skip=True)
    assert set(table.keys["cell_type"]) == {"B"}
    assert table.remarks == ("Skipped: type 'T': no sample of the control 'dmso', only of x, y",)
    with pytest.raises(InputError, match="2 problems"):
        de_table(spoil(bulk), "type", Comparison("drug", "dmso"), skip=True)


def test_a_condition_that_a_covariate_holds_alone_is_refused():
    bulk = make_bulk()
    obs = bulk.obs.assign(run=np.where(bulk.obs["drug"] == "y", "late", "early"))
    bulk = Pseudobulk(bulk.counts, obs, bulk.genes, bulk.dropped)
    with pytest.raises(InputError, match=r"type 'B': y cannot be told from 'dmso' once the covariates run"):
        de_table(bulk, "type", Comparison("drug", "dmso", ("run",)))


def test_what_cannot_be_a_comparison():
    bulk = make_bulk()
    with pytest.raises(InputError, match="lack the columns plate"):
        de_table(bulk, "type", Comparison("drug", "dmso", ("plate",)))
    with pytest.raises(InputError, match="Unknown label of 'drug' 'dsmo'. Did you mean 'dmso'"):
        de_table(bulk, "type", Comparison("drug", "dsmo"))
    with pytest.raises(InputError, match="columns of their own"):
        de_table(bulk, "drug", Comparison("drug", "dmso"))
    twice = Pseudobulk(bulk.counts, bulk.obs, ("SMILES", "a", "a", *bulk.genes[3:]), bulk.dropped)
    with pytest.raises(InputError, match=r"(?s)2 problems.*several times: a.*may not be called SMILES"):
        de_table(twice, "type", HOW)
    alone = bulk.take((bulk.obs["drug"] == "dmso").to_numpy())
    with pytest.raises(InputError, match="every sample is of the control"):
        de_table(alone, "type", HOW)
    few = Pseudobulk(np.minimum(bulk.counts, 1), bulk.obs, bulk.genes, bulk.dropped)
    with pytest.raises(InputError, match="0 genes have enough counts to be tested, 2 are needed"):
        de_table(few, "type", HOW)


def test_what_the_cells_say_of_a_compound_is_carried_along():
    cells = pd.DataFrame({
        "drug": ["dmso", "x", "y", "y"], "SMILES": ["CS(C)=O", "C", "CC", "CC"], "sm_lincs_id": ["0", "1", "2", "3"],
        "control": [False, True, False, False],
    })  # fmt: skip
    keys = carry(de_table(make_bulk(), "type", HOW), cells, "drug").keys
    assert list(keys.columns) == ["cell_type", "sm_name", "SMILES", "control"]  # y has two ids: none is carried
    assert list(keys["SMILES"]) == ["C", "CC", "C", "CC"]
    assert list(keys["control"]) == [True, False, True, False]
    labels = carry(de_table(make_bulk(), "type", HOW), cells.assign(control="yes"), "drug").keys
    assert "control" not in labels  # a word is no flag
