"""The blocks of one fold, block by block against loops and direct calls; what may depend on `y`, and on whose."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import OneHotEncoder

from cases import make_question
from pertcast.config import FeatureConfig
from pertcast.errors import InputError
from pertcast.features import assemble as module
from pertcast.features import chemistry
from pertcast.features.assemble import BLOCKS, CHEMISTRY, ONE_HOT, PARTS, STATISTICS, assemble
from pertcast.features.target_svd import TargetSVD
from pertcast.io.cache import Cache

SMOOTH = 3.0
K = 4


@pytest.fixture(scope="module")
def question():
    return make_question()[0]


@pytest.fixture(scope="module")
def split(question):
    """Hold out some rows of seen compounds and every row of `drug 9`."""
    valid = np.flatnonzero((question.compound == "drug 9") | (np.arange(len(question)) % 7 == 0))
    return np.setdiff1d(np.arange(len(question)), valid), valid


def built(question, split, *blocks, cache=None):
    config = FeatureConfig(blocks=blocks, components=K, smooth=SMOOTH)
    return assemble(question, config, train=split[0], valid=split[1], cache=cache)


def parts_of(rows):
    return {"train": rows.train, "valid": rows.valid, "test": rows.test}


def scores_of(question, split):
    y = question.y[split[0]]
    return TargetSVD.fit(y, K).encode(y)


def test_the_parts_are_the_rows_named(question, split):
    """Who is where; only the training rows carry y."""
    rows = built(question, split, "cell_type")
    assert_array_equal(rows.train.ids, split[0])
    assert_array_equal(rows.valid.ids, split[1])
    assert_array_equal(rows.test.ids, question.test_ids)
    assert_array_equal(rows.train.y, question.y[split[0]])
    assert rows.valid.y is None
    assert rows.test.y is None
    assert_array_equal(rows.valid.compound, question.compound[split[1]])
    assert_array_equal(rows.test.cell_type, question.test_cell_type)
    assert rows.train.genes == question.genes


def test_blocks_come_in_the_order_asked_for(question, split):
    names = ("morgan", "compound_mean", "cell_type", "compound_count")
    for rows in parts_of(built(question, split, *names)).values():
        assert tuple(rows.blocks) == names


@pytest.mark.parametrize("name", ONE_HOT)
def test_one_hot_is_scikit_learns(question, split, name):
    """Categories of the training rows; an unseen one is a row of zeros."""
    rows = built(question, split, name)
    oracle = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    oracle.fit(getattr(question, name)[split[0]].astype(str)[:, None])
    for part in parts_of(rows).values():
        assert_array_equal(part.block(name).dense(), oracle.transform(getattr(part, name).astype(str)[:, None]))
    if name == "compound":
        assert not rows.valid.block(name).dense()[rows.valid.compound == "drug 9"].any()


def shrunk(own, everything):
    return (own.sum(0) + SMOOTH * everything.mean(0)) / (len(own) + SMOOTH) if len(own) else everything.mean(0)


def test_compound_mean_against_a_loop(question, split):
    """S004-04: a training row is told of its compound by other cell types only; new rows by all training rows."""
    rows, z = built(question, split, "compound_mean"), scores_of(question, split)
    cell_type, compound = question.cell_type[split[0]], question.compound[split[0]]
    expected = []
    for i in range(len(z)):
        others = cell_type != cell_type[i]
        expected.append(shrunk(z[others & (compound == compound[i])], z[others]))
    assert_allclose(rows.train.block("compound_mean").dense(), expected, atol=1e-5)
    for part in (rows.valid, rows.test):
        expected = [shrunk(z[compound == name], z) for name in part.compound]
        assert_allclose(part.block("compound_mean").dense(), expected, atol=1e-5)


def test_cell_type_mean_against_a_loop(question, split):
    """S004-04: a training row is told of its cell type by compounds of other parts only."""
    rows, z = built(question, split, "cell_type_mean"), scores_of(question, split)
    cell_type, compound = question.cell_type[split[0]], question.compound[split[0]]
    part = np.array([sorted(set(compound)).index(name) % PARTS for name in compound])
    expected = []
    for i in range(len(z)):
        others = part != part[i]
        expected.append(shrunk(z[others & (cell_type == cell_type[i])], z[others]))
    assert_allclose(rows.train.block("cell_type_mean").dense(), expected, atol=1e-5)


def test_compound_count_by_hand(question, split):
    """Logarithm of one plus the training rows of the compound: in other cell types, for a training row."""
    rows = built(question, split, "compound_count")
    compound = question.compound[split[0]]
    assert_allclose(
        rows.valid.block("compound_count").dense()[:, 0],
        [np.log1p((compound == name).sum()) for name in rows.valid.compound], rtol=1e-6,
    )  # fmt: skip
    assert_allclose(
        rows.train.block("compound_count").dense()[:, 0],
        [np.log1p((compound == name).sum() - 1) for name in compound], rtol=1e-6,
    )  # fmt: skip


def test_unseen_names_get_what_is_known_of_all(question, split):
    """A compound without training rows: count 0, the mean of all rows, no one-hot."""
    rows, z = built(question, split, "compound_mean", "compound_count"), scores_of(question, split)
    unseen = rows.valid.compound == "drug 9"
    assert unseen.sum() == 4
    assert not rows.valid.block("compound_count").dense()[unseen].any()
    expected = np.tile(z.mean(0), (4, 1))
    assert_allclose(rows.valid.block("compound_mean").dense()[unseen], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["morgan", "count_fingerprint"])
def test_fingerprints_are_looked_up_row_by_row(question, split, name):
    """S004-13: against the direct call for each row's own structure."""
    direct = {"morgan": chemistry.morgan_bits, "count_fingerprint": chemistry.count_fingerprint}[name]
    for part, smiles in zip(
        parts_of(built(question, split, name)).values(),
        (question.smiles[split[0]], question.smiles[split[1]], question.test_smiles), strict=True,
    ):  # fmt: skip
        assert_array_equal(part.block(name).dense(), direct(list(smiles)))


def test_descriptors_are_those_of_all_structures_at_once(question, split):
    """S004-13: scaled over the structures of training and test rows together, which are no targets."""
    structures = sorted(set(chemistry.canonical_smiles([*question.smiles], [*question.smiles])))
    table = chemistry.descriptors(structures).values
    given = built(question, split, "descriptors").train.block("descriptors").dense()
    rows = [structures.index(s) for s in chemistry.canonical_smiles([*question.smiles], [*question.smiles])]
    assert_array_equal(given, table[np.array(rows)[split[0]]])


@pytest.mark.parametrize("name", ["cluster", "scaffold"])
def test_groups_of_structures_are_one_hot(question, split, name):
    """S004-13: one column per group, two rows share it if and only if their structures share the group."""
    written = sorted(set(question.smiles))
    label = {
        "cluster": lambda: chemistry.cluster_ids(chemistry.morgan_bits(written)),
        "scaffold": lambda: chemistry.scaffolds(written),
    }[name]()
    of = dict(zip(written, label, strict=True))
    table = built(question, split, name).train.block(name).dense()
    assert_array_equal(table.sum(1), 1)
    groups = np.array([of[smiles] for smiles in question.smiles[split[0]]])
    assert_array_equal(table @ table.T, groups[:, None] == groups)


def test_spellings_of_one_structure_are_one(question, split):
    """However a SMILES is written, its features are the same."""
    smiles = question.smiles.copy()
    first = np.flatnonzero(question.compound == "drug 0")[0]
    smiles[first] = "OCC"  # drug 0 is written CCO elsewhere
    given = built(replace(question, smiles=smiles), split, *CHEMISTRY)
    before = built(question, split, *CHEMISTRY)
    for name in CHEMISTRY:
        for part in parts_of(given):
            own, other = (parts_of(rows)[part].block(name).dense() for rows in (given, before))
            assert_array_equal(own, other)


def test_rows_without_a_structure_are_zeros(question, split):
    """Missing SMILES: zeros in every block of structure, and nobody else's features move."""
    smiles = question.smiles.copy()
    missing = np.flatnonzero(question.cell_type == "type 0")[:3]  # their compounds stand elsewhere too
    smiles[missing] = None
    given = built(replace(question, smiles=smiles), (np.arange(len(question)), np.arange(0)), *CHEMISTRY).train
    whole = built(question, (np.arange(len(question)), np.arange(0)), *CHEMISTRY).train
    rest = np.setdiff1d(np.arange(len(question)), missing)
    for name in CHEMISTRY:
        assert not given.block(name).dense()[missing].any()
        assert_array_equal(given.block(name).dense()[rest], whole.block(name).dense()[rest])
    bare = replace(question, smiles=np.full_like(smiles, None), test_smiles=np.full(4, None, dtype=object))
    with pytest.raises(InputError, match="Feature block 'morgan' needs SMILES, but no row has one. Take it out"):
        built(bare, split, "morgan")


def test_an_unknown_block_is_refused(question, split):
    with pytest.raises(InputError, match=r"Unknown feature block 'morgn'\. Did you mean 'morgan'\? Known: annotation"):
        built(question, split, "cell_type", "morgn")


def test_static_blocks_never_see_y(question, split):
    """S004-03: other responses, same bits. Fitted blocks do move, so the comparison can fail."""
    other = replace(question, y=np.random.default_rng(5).normal(size=question.y.shape).astype(np.float32))
    before, after = built(question, split, *BLOCKS), built(other, split, *BLOCKS)
    for part in ("train", "valid", "test"):
        for name in BLOCKS:
            one, two = (parts_of(rows)[part].block(name).dense() for rows in (before, after))
            fitted = name in STATISTICS and not name.endswith("count")
            assert np.array_equal(one, two) != fitted, name


def test_held_out_responses_are_never_read(question, split):
    """S004-03, R03: targets of the held-out rows become a million, and not one bit of any block moves."""
    poisoned = question.y.copy()
    poisoned[split[1]] = 1e6
    before, after = built(question, split, *BLOCKS), built(replace(question, y=poisoned), split, *BLOCKS)
    for part in ("train", "valid", "test"):
        for name in BLOCKS:
            assert_array_equal(*(parts_of(rows)[part].block(name).dense() for rows in (before, after)), err_msg=name)


def test_blocks_stay_small_tables(question, split):
    """Looked up, not copied out: a table has a row per compound or per pair of labels, never one per row and gene."""
    rows = built(question, split, "compound", "morgan", "compound_mean")
    for part in parts_of(rows).values():
        for name in ("compound", "morgan"):
            assert len(part.block(name).table) <= 12 + 1
            assert part.block(name).index.shape == (len(part),)
    assert rows.train.block("morgan").table is rows.test.block("morgan").table


def test_the_cache_is_used_and_follows_the_structures(question, split, tmp_path, monkeypatch):
    """Equal structures: read, not built again. Another structure: another table."""
    cache, calls = Cache(tmp_path), []
    direct = CHEMISTRY["morgan"]
    monkeypatch.setitem(module.CHEMISTRY, "morgan", lambda smiles: (calls.append(len(smiles)), direct(smiles))[1])
    first = built(question, split, "morgan", cache=cache)
    again = built(question, (split[1], split[0]), "morgan", cache=cache)
    assert calls == [12]
    assert len(list(tmp_path.iterdir())) == 1
    assert_array_equal(first.train.block("morgan").dense(), again.valid.block("morgan").dense())
    assert_array_equal(first.train.block("morgan").dense(), built(question, split, "morgan").train.dense(("morgan",)))
    smiles = question.smiles.copy()
    smiles[smiles == "CNC"] = "CCCCCC"
    built(replace(question, smiles=smiles), split, "morgan", cache=cache)
    assert calls == [12, 12, 12]
    assert len(list(tmp_path.iterdir())) == 2
