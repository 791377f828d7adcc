"""Any compound in any known cell type, from a run's folder alone: the same numbers as the run's own test rows."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from cases import SMILES, make_question
from command_line import pertcast, refused
from pertcast.config import FeatureConfig, Recipe
from pertcast.errors import InputError
from pertcast.features.assemble import BLOCKS as ALL
from pertcast.features.assemble import assemble
from pertcast.features.fitted import Features
from pertcast.predict import Compound, Forecaster, read_smiles_file
from pertcast.runs import open_run
from pertcast.validation import cross_validate as cv
from pertcast.validation.folds import make_folds

BLOCKS = ("cell_type", "compound", "compound_residual_mean", "compound_count", "morgan", "descriptors", "cluster")
NETWORK = {
    "blocks": ["compound_residual_mean", "morgan"], "width": 8, "heads": 2, "feedforward": 8, "head": 8, "members": 1,
    "components": 4, "training": {"epochs": 2, "device": "cpu"},
}  # fmt: skip
RECIPES = {
    "additive": Recipe(name="additive", model="additive", reason="test"),
    "ridge": Recipe(
        name="ridge", model="ridge", reason="test",
        features=FeatureConfig(blocks=BLOCKS, components=4), settings={"blocks": BLOCKS},
    ),
    "in-t": Recipe(
        name="in-t", model="ridge", reason="test", space="t", degrees_of_freedom=5,
        features=FeatureConfig(blocks=("cell_type", "morgan")), settings={"blocks": ("cell_type", "morgan")},
    ),
    "transformer": Recipe(
        name="transformer", model="transformer", reason="test",
        features=FeatureConfig(blocks=BLOCKS, components=4), settings=NETWORK,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def question():
    return make_question(genes=20)[0]


@pytest.fixture(scope="module")
def runs(question, tmp_path_factory):
    """Finished runs of several kinds; two seeds of the one that draws at random."""
    made = cv.cross_validate(
        question, list(RECIPES.values()), make_folds("random", question)[:1], strategy="random", seeds=1, refit_seeds=2,
        out=tmp_path_factory.mktemp("runs"), data_digest="d" * 64,
    )  # fmt: skip
    return {run.recipe.name: run for run in made}


def forecaster(runs, name) -> Forecaster:
    return Forecaster(open_run(runs[name].folder))


@pytest.mark.parametrize("name", RECIPES)
def test_the_test_rows_of_the_run_come_out_bit_for_bit(name, runs, question):
    """Loaded, described and averaged again from the folder: the numbers that the run wrote."""
    written = cv.test_predictions([runs[name]])[name]
    own = forecaster(runs, name)
    assert len(own.models) == (2 if name == "transformer" else 1)
    values = own.values(question.test_cell_type, question.test_compound, question.test_smiles)
    assert_array_equal(values, written.values)
    assert own.features.genes == written.genes
    one = own.predict(question.test_cell_type[0], [Compound(smiles=question.test_smiles[2])])[0]
    assert_allclose(one.values, written.values[2], atol=1e-5)


def test_a_new_structure_is_what_a_run_that_was_asked_for_it_says(runs, question, tmp_path):
    """Oracle: the same recipe on the same rows, with the new compound among the rows to predict. Learned in t."""
    asked = replace(
        question,
        test_smiles=np.array([*question.test_smiles[:3], "CCCCCN"], dtype=object),
        test_compound=np.array([*question.test_compound[:3], "new"], dtype=object),
    )
    (run,) = cv.cross_validate(
        asked, [RECIPES["in-t"]], make_folds("random", asked)[:1], strategy="random", seeds=1, out=tmp_path,
        data_digest="e" * 64,
    )  # fmt: skip
    (given,) = forecaster(runs, "in-t").predict(asked.test_cell_type[3], [Compound(smiles="NCCCCC")])
    assert_allclose(given.values, cv.test_predictions([run])["in-t"].values[3], atol=1e-5)
    assert (given.compound, given.smiles) == (None, "CCCCCN")


def test_a_training_compound_is_known_however_it_is_written(runs):
    """Another spelling, a salt and the name are one compound; a neighbour of it is not."""
    own = forecaster(runs, "ridge")
    asked = [Compound(smiles="OC(C)=O"), Compound(smiles="CC(=O)[O-].[Na+]"), Compound(name="drug 2")]
    given = own.predict("type 0", [*asked, Compound(smiles="CCC(=O)O")])
    assert [f.compound for f in given] == ["drug 2", "drug 2", "drug 2", None]
    for forecast in given[:3]:
        assert_array_equal(forecast.values, given[0].values)
        assert (forecast.similarity, forecast.out_of_domain) == (1.0, False)
        assert forecast.measured_in == ("type 0", "type 1", "type 2")
        assert forecast.remarks() == ["drug 2 was measured in type 0: this is a fit of training rows."]
    assert np.abs(given[3].values - given[0].values).max() > 1e-3
    assert (given[3].measured_in, given[3].remarks()) == ((), [])


def test_neighbours_and_threshold_are_rdkits(runs):
    """Oracle: RDKit's own Tanimoto similarity; the threshold is a quantile over compounds, each without itself."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in SMILES]
    new = generator.GetFingerprint(Chem.MolFromSmiles("CCCO"))
    similarity = np.array(DataStructs.BulkTanimotoSimilarity(new, prints))
    own = forecaster(runs, "additive")
    (forecast,) = own.predict("type 1", [Compound(smiles="CCCO")])
    best = np.argsort(-similarity, kind="stable")[:3]
    names = sorted(f"drug {i}" for i in range(12))
    assert_allclose([value for _, value in forecast.nearest], similarity[best], rtol=1e-6)
    assert forecast.nearest[0][0] == f"drug {best[0]}"
    nearest = [max(DataStructs.BulkTanimotoSimilarity(p, prints[:i] + prints[i + 1 :])) for i, p in enumerate(prints)]
    assert own.threshold == pytest.approx(np.quantile(nearest, 0.05), rel=1e-6)
    assert own.features.compounds.names == tuple(names)
    assert forecast.out_of_domain == (similarity.max() < own.threshold)


def test_far_is_out_of_domain(runs):
    """A structure that shares nothing with training, and one that training nearly has."""
    far, near = forecaster(runs, "ridge").predict("type 1", [Compound(smiles="[Fe]"), Compound(smiles="CCCCl")])
    assert (far.similarity, far.out_of_domain) == (0.0, True)
    assert (near.out_of_domain, near.similarity > 0.3) == (False, True)
    assert forecaster(runs, "additive").predict("type 1", [Compound(smiles="[Fe]")])[0].remarks() == [
        "The recipe reads no structure: every compound that training never saw is predicted alike."
    ]


def test_too_few_structures_to_tell(tmp_path):
    """One compound has no neighbours: no threshold, and no verdict."""
    question = make_question(compounds=1, asked=1, types=4)[0]
    folds = make_folds("random", question)[:1]
    (run,) = cv.cross_validate(
        question, [RECIPES["additive"]], folds, strategy="random", seeds=1, out=tmp_path, data_digest="d" * 64
    )
    (forecast,) = Forecaster(run).predict("type 0", [Compound(smiles="CCN")])
    assert (forecast.threshold, forecast.out_of_domain) == (None, None)


def test_features_come_back_as_they_were(question, tmp_path):
    """Every block, row by row, from the stored tables: the bits of the fold's own test and new rows."""
    config = FeatureConfig(blocks=ALL, components=4)
    rows = assemble(question, config, train=np.arange(len(question)), valid=np.arange(0))
    rows.features.save(tmp_path)
    again = Features.load(tmp_path)
    assert again.names == ALL
    strange = (np.array(["type 9"], object), np.array(["other"], object), np.array(["CCCCCCc1ccccc1.Cl"], object))
    for i in range(len(rows.test)):
        given = again.describe(
            np.arange(1), cell_type=rows.test.cell_type[[i]], compound=rows.test.compound[[i]],
            smiles=question.test_smiles[[i]],
        )  # fmt: skip
        for name in ALL:
            assert_array_equal(given.block(name).dense()[0], rows.test.block(name).dense()[i], err_msg=name)
    one, two = (
        f.describe(np.arange(1), cell_type=strange[0], compound=strange[1], smiles=strange[2])
        for f in (rows.features, again)
    )
    assert_array_equal(one.dense(ALL), two.dense(ALL))


def test_refits_of_other_code_are_not_averaged(runs, tmp_path):
    """Seeds that an earlier version left behind say something else."""
    folder = tmp_path / "run"
    shutil.copytree(runs["transformer"].folder, folder)
    path = next(folder.glob("*/refit/seed1/inputs.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "old"}))
    assert len(Forecaster(open_run(folder)).models) == 1
    shutil.rmtree(next(folder.glob("*/refit/seed0/features")))
    with pytest.raises(InputError, match="was made before features were kept with it. Run `pertcast cv` with the same"):
        Forecaster(open_run(folder))


def test_a_run_in_an_older_form_is_a_sentence(runs, tmp_path):
    """Of other code, it is the user's to fit again; of this code it would be a defect of ours, and stays one."""
    folder = shutil.copytree(runs["ridge"].folder, tmp_path / "old")
    old = open_run(folder)
    unit = next(folder.glob("*/refit/seed0"))
    about = unit / "features" / "features.json"
    told = json.loads(about.read_text())
    del told["facts"]["smiles"]
    about.write_text(json.dumps(told))
    with pytest.raises(KeyError, match="smiles"):
        Forecaster(old)
    inputs = json.loads((unit / "inputs.json").read_text())
    (unit / "inputs.json").write_text(json.dumps({**inputs, "code": "other"}))
    with pytest.raises(InputError, match=r"with other code, and cannot be read: KeyError\('smiles'\).* again"):
        Forecaster(old)


def test_files_of_structures(tmp_path):
    path = tmp_path / "list.smi"
    path.write_text("CCO ethanol\n\n# a remark\nc1ccccc1\tbenzene\n")
    assert read_smiles_file(path) == [Compound(smiles="CCO"), Compound(smiles="c1ccccc1")]
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no compound. Write one SMILES a line."):
        read_smiles_file(path)


@pytest.fixture(scope="module")
def cli(tmp_path_factory) -> Path:
    """Return the run of a recipe that reads structure, fitted by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    assert pertcast("demo", "--size", "tiny", "--out", folder / "demo").code == 0
    places = ("--data", folder / "demo", "--out", folder / "runs", "--cache", folder / "cache", "--jobs", "1")
    assert pertcast("cv", "ridge-chemistry", *places).code == 0
    (run,) = (folder / "runs").glob("ridge-chemistry-*")
    shutil.rmtree(folder / "demo")  # the run alone is enough
    return run


def test_predict_on_the_command_line(cli, tmp_path):
    """R37: one object with every gene; a table of those that move most; files; messages on stderr."""
    asked = ("predict", "--run", cli, "--cell-type", "NK cells")
    done = pertcast(*asked, "--smiles", "CC(=O)Oc1ccccc1C(=O)O", "--json")
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    said = json.loads(done.out)
    assert len(said["genes"]) == 60
    assert (said["cell_type"], said["compound"], said["out_of_domain"]) == ("NK cells", None, True)
    assert said["similarity"] == said["nearest"][0]["similarity"] < said["threshold"]
    text = pertcast(*asked, "--smiles", "CC(=O)Oc1ccccc1C(=O)O").out
    assert "OUT OF DOMAIN: 95% of the training compounds have a neighbour among themselves of at least" in text
    top = max(said["genes"], key=said["genes"].get)
    assert f"{top}" in text.split("-----\n")[1].splitlines()[0]
    assert max(map(len, text.splitlines())) <= 100
    (tmp_path / "list.smi").write_text("CCO\n")
    for name in ("out.csv", "out.parquet"):
        more = ("--compound", "DEMO-001", "--file", tmp_path / "list.smi", "--out", tmp_path / name, "--json")
        both = pertcast(*asked, *more)
        assert "DEMO-001 was measured in NK cells: this is a fit of training rows." in both.err
        predictions = json.loads(both.out)["predictions"]
        assert [p["asked"] for p in predictions] == ["DEMO-001", "CCO"]
        read = pd.read_csv if name.endswith("csv") else pd.read_parquet
        table = read(tmp_path / name)
        assert table["sm_name"].tolist() == ["DEMO-001", "CCO"]
        assert_allclose(table[list(predictions[1]["genes"])].iloc[1], list(predictions[1]["genes"].values()), rtol=1e-5)


FAULTS = {
    ("--cell-type", "NK cel", "--smiles", "CCO"): "Unknown cell type 'NK cel'. Did you mean 'NK cells'\\? Known: B cel",
    ("--smiles", "C1CC(("): "SMILES: 'C1CC\\(\\(' cannot be parsed\nCheck ring closures, brackets and valences.",
    ("--smiles", "x", "--smiles", ""): "SMILES has 2 problems:\n  - 'x' cannot be parsed\n  - '' cannot",
    ("--compound", "DEMO-01"): "Unknown training compound 'DEMO-01'. Did you mean 'DEMO-0\\d\\d' or .* give its struct",
    (): "No compound is named. Give --smiles, --compound or --file.",
    ("--file", "nowhere.smi"): "File 'nowhere.smi' cannot be read: .* Give a text file with one SMILES a line.",
    ("--smiles", "CCO", "--out", "x.txt"): "Predictions are written as .parquet or .csv, got 'x.txt'.",
    ("--smiles", "CCO", "--device", "gpu"): "Unknown device 'gpu'.",
}


@pytest.mark.parametrize("arguments", FAULTS)
def test_faults_of_predict(cli, arguments):
    type_of = () if "--cell-type" in arguments else ("--cell-type", "NK cells")
    refused(pertcast("predict", "--run", cli, *type_of, *arguments), FAULTS[arguments])


def test_runs_that_cannot_predict(cli, tmp_path):
    """No folder, a folder of runs, a run whose refit was never finished, a damaged one."""
    asked = ("--cell-type", "NK cells", "--smiles", "CCO")
    refused(pertcast("predict", "--run", tmp_path / "no", *asked), "Run '.*no': no finished unit in it.")
    refused(pertcast("predict", "--run", cli.parent, *asked), "is a folder of runs, not a run. Name one of them: ")
    shutil.copytree(cli, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "ridge" / "refit")
    done = pertcast("predict", "--run", tmp_path / "run", *asked)
    refused(done, "has no finished refit on all training rows. Run `pertcast cv` with the same recipe, data and --out")
    shutil.copytree(cli, tmp_path / "bad")
    (tmp_path / "bad" / "ridge" / "refit" / "seed0" / "features" / "features.safetensors").write_bytes(b"x")
    refused(pertcast("predict", "--run", tmp_path / "bad", *asked), "features.safetensors' is damaged")
