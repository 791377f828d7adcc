"""Responses from generated cells: whose cells are read, what becomes of them, and what is refused."""

import shutil
from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cases import make_question, with_cells
from pertcast.config import FeatureConfig, load_recipe
from pertcast.errors import InputError
from pertcast.features.assemble import assemble
from pertcast.io.tables import question_of, read_competition
from pertcast.models.from_cells import _hidden
from pertcast.models.registry import build
from pertcast.runs import code_digest, code_of
from pertcast.simulate.demo import write_demo

NETWORKS = {
    "zinb-vae": {"hidden": 8, "latent": 3, "training": {"epochs": 4, "device": "cpu"}},
    "film-gan": {"training": {"steps": 10, "device": "cpu"}},
    "cycle-gan": {"training": {"steps": 10, "device": "cpu"}},
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    question, truth = make_question(seed=1, types=4, compounds=8, asked=4)
    return with_cells(question, truth, tmp_path_factory.mktemp("cells")), truth


def rows_of(question, train=None, valid=None):
    train = np.arange(len(question)) if train is None else train
    valid = np.arange(0) if valid is None else valid
    return assemble(question, FeatureConfig(), train=train, valid=valid)


def rmse(y, prediction):
    return np.sqrt(np.square(y - prediction).mean(axis=1)).mean()


def poisoned(question, folder, rows):
    """The same file where the cells of some training rows, and all that are asked for, hold nonsense."""
    adata = ad.read_h5ad(question.cells)
    pairs = {*zip(question.cell_type[rows], question.compound[rows], strict=True)}
    pairs |= {*zip(question.test_cell_type, question.test_compound, strict=True)}
    hit = np.array([pair in pairs for pair in zip(adata.obs["cell_type"], adata.obs["sm_name"], strict=True)])
    dense = adata.X.toarray()
    dense[hit] = np.nan
    adata.X = dense
    adata.write_h5ad(folder / "cells.h5ad")
    return replace(question, cells=folder / "cells.h5ad")


def test_cells_of_held_out_pairs_are_never_read(asked, tmp_path):
    """S004-03, R03: NaN in place of every held-out cell changes no bit; in place of a training pair's it is seen."""
    question, _ = asked
    valid = np.arange(0, len(question), 4)
    train = np.setdiff1d(np.arange(len(question)), valid)
    after = poisoned(question, tmp_path, valid)
    predictions = []
    for each in (question, after):
        rows = rows_of(each, train, valid)
        model = build("from-cells").fit(rows.train, seed=0)
        predictions.append([model.predict(rows.valid), model.predict(rows.test)])
    assert_array_equal(predictions[0][0], predictions[1][0])
    assert_array_equal(predictions[0][1], predictions[1][1])
    with pytest.raises(InputError, match="values that are no counts"):
        build("from-cells").fit(rows_of(after).train, seed=0)  # the guard: these rows' cells are nonsense


def test_only_training_rows_carry_the_file(asked):
    rows = rows_of(asked[0])
    assert rows.train.cells == asked[0].cells
    assert rows.test.cells is rows.valid.cells is None


def test_what_cells_tell_goes_over_to_the_cell_type_that_is_asked_for(asked):
    """Planted: a quarter of the response is the log2 fold change, so t follows it in every gene."""
    question, truth = asked
    rows = rows_of(question)
    predicted = build("from-cells").fit(rows.train, seed=0).predict(rows.test)
    assert np.corrcoef(predicted.ravel(), truth.ravel())[0, 1] > 0.9
    assert rmse(truth, predicted) < 0.6 * rmse(truth, 0)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_take_the_place_of_the_closed_form(name, asked, tmp_path):
    """Any model of cells will do; after so few steps it must beat zeros, be the same twice and come back from disk."""
    question, truth = asked
    rows = rows_of(question)
    settings = {"model": name, "settings": NETWORKS[name]}
    model = build("from-cells", settings).fit(rows.train, seed=0)
    predicted = model.predict(rows.test)
    assert rmse(truth, predicted) < 0.9 * rmse(truth, 0)
    assert_array_equal(build("from-cells", settings).fit(rows.train, seed=0).predict(rows.test), predicted)
    model.save(tmp_path)
    assert_array_equal(build("from-cells", settings).load(tmp_path).predict(rows.test), predicted)


def test_a_cell_type_without_treated_cells_is_predicted_from_its_untreated_ones(asked):
    """Folds of whole cell types: the type's wells say nothing of variance, so the others' stands in."""
    question, _ = asked
    unseen = question.cell_type == question.cell_type[0]
    rows = rows_of(question, np.flatnonzero(~unseen), np.flatnonzero(unseen))
    predicted = build("from-cells").fit(rows.train, seed=0).predict(rows.valid)
    assert rmse(question.y[unseen], predicted) < 0.7 * rmse(question.y[unseen], 0)


def test_a_compound_without_cells_changes_nothing(asked):
    """All that is left is the cell type's own offset, the same for every such compound."""
    question, _ = asked
    rows = rows_of(replace(question, test_compound=np.array([f"new {k}" for k in range(4)], dtype=object)))
    predicted = build("from-cells").fit(rows.train, seed=0).predict(rows.test)
    assert_array_equal(predicted, np.repeat(predicted[:1], 4, axis=0))


def test_a_compound_without_cells_is_predicted_from_compounds_that_look_like_it(tmp_path):
    """Planted: twins by structure respond alike. Whole compounds are hidden; their twins stand in for them."""
    question, truth = make_question(seed=1, types=3, compounds=6, asked=1)
    twin = np.array([name.replace("drug", "twin") for name in question.compound], dtype=object)
    both = {
        "cell_type": np.tile(question.cell_type, 2),
        "compound": np.concatenate([question.compound, twin]),
        "smiles": np.tile(question.smiles, 2),
        "y": np.tile(question.y, (2, 1)),
    }
    question = with_cells(replace(question, **both), truth, tmp_path)
    unseen = question.compound == "twin 2"
    train, valid = np.flatnonzero(~unseen), np.flatnonzero(unseen)
    rows = assemble(question, FeatureConfig(blocks=("morgan",)), train=train, valid=valid)
    y = question.y[valid]
    errors = {}
    for structure in ((), ("morgan",)):
        model = build("from-cells", {"structure": structure}).fit(rows.train, seed=0)
        predicted = model.predict(rows.valid)
        errors[structure] = rmse(y, predicted)
        model.save(tmp_path)
        assert_array_equal(build("from-cells", {"structure": structure}).load(tmp_path).predict(rows.valid), predicted)
    assert errors[("morgan",)] < 0.6 * min(errors[()], rmse(y, 0))


def test_rows_to_calibrate_on_are_of_every_strength(asked):
    """A share of each cell type's rows, one out of each few that are alike in strength."""
    rows = rows_of(asked[0]).train
    hidden = _hidden(rows, 0.25, np.random.default_rng(0))
    size = np.square(rows.y).sum(axis=1)
    for name in set(rows.cell_type):
        own = np.flatnonzero(rows.cell_type == name)
        picked = hidden[np.isin(hidden, own)]
        assert len(picked) == round(len(own) / 4)
        quarter = size[own] >= np.sort(size[own])[-4]
        assert np.isin(picked, own[quarter]).any()


def test_a_folder_with_cells_hands_them_on(tmp_path):
    """cells.h5ad beside the tables is found, and is part of the digest by which runs are known."""
    write_demo(tmp_path / "demo", size="tiny", cells=True)
    with_them = read_competition(tmp_path / "demo")
    assert question_of(with_them).cells == tmp_path / "demo" / "cells.h5ad"
    (tmp_path / "demo" / "cells.h5ad").unlink()
    without = read_competition(tmp_path / "demo")
    assert question_of(without).cells is None
    assert without.digest != with_them.digest


def test_what_is_missing_is_named_at_once(asked, tmp_path):
    question, _ = asked
    rows = rows_of(replace(question, cells=None))
    with pytest.raises(InputError, match=r"needs the single cells behind the table, which the data folder lacks"):
        build("from-cells").fit(rows.train, seed=0)
    adata = ad.read_h5ad(question.cells)
    adata.obs = adata.obs.rename(columns={"plate_name": "plate"})
    path = tmp_path / "cells.h5ad"
    adata[:, 1:].write_h5ad(path)
    with pytest.raises(InputError, match=r"(?s)Unknown column of obs 'plate_name'.*1 of 37 genes are missing"):
        build("from-cells").fit(rows_of(replace(question, cells=path)).train, seed=0)
    first = (question.cell_type[0], question.compound[0])
    adata = ad.read_h5ad(question.cells)
    gone = ((adata.obs["cell_type"] == first[0]) & (adata.obs["sm_name"] == first[1])).to_numpy()
    adata[~gone].write_h5ad(path)
    with pytest.raises(InputError, match=rf"1 of \d+ pairs of training have no cell: {first[0]} / {first[1]}"):
        build("from-cells").fit(rows_of(replace(question, cells=path)).train, seed=0)
    with pytest.raises(InputError, match=r"no cell is untreated: Unknown label of sm_name 'DMSO'"):
        build("from-cells", {"control": "DMSO"}).fit(rows_of(question).train, seed=0)
    shutil.copy(question.cells, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="is not a whole h5ad file"):
        build("from-cells").fit(rows_of(replace(question, cells=path)).train, seed=0)
    adata = ad.read_h5ad(question.cells)
    adata[adata.obs["cell_type"] != question.test_cell_type[0]].write_h5ad(path)
    few = np.flatnonzero(question.cell_type != question.test_cell_type[0])
    rows = rows_of(replace(question, cells=path), few)
    with pytest.raises(InputError, match="Unknown cell type with untreated cells"):
        build("from-cells").fit(rows.train, seed=0).predict(rows.test)


def test_other_code_of_cells_makes_its_units_anew():
    """Units are known by the source that their numbers follow from: here models of cells and tests of wells, too."""
    recipe = load_recipe("cells-context-transfer")
    assert code_of(recipe) == code_digest("cells", "de") != code_digest()
    assert code_of(load_recipe("ridge")) == code_digest()
