"""The five stories: that they are told whole, and that their numbers are those they claim."""

import json

import numpy as np
import pytest

from command_line import pertcast, refused
from pertcast.simulate.planted import NAME
from pertcast.stories import shelf
from pertcast.stories.mechanism import fixture
from pertcast.stories.perturb import SHOWN

ROLES = {"floor", "published", "model", "ceiling"}


@pytest.mark.parametrize("name", shelf.NAMES)
def test_a_story_is_one_command(name, tmp_path):
    """S002-17 at a tenth of the size: tables with floor and ceiling, a figure, the same numbers twice."""
    done = pertcast("story", name, "--out", tmp_path, "--cells", 1000, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["simulated"]
    assert "SIMULATED" in told["data"]
    assert {line["role"] for table in told["tables"] for line in table["lines"]} <= ROLES
    assert any(line["role"] == "floor" for table in told["tables"] for line in table["lines"])
    assert any(line["role"] == "ceiling" for table in told["tables"] for line in table["lines"])
    kept = json.loads((tmp_path / f"{name}.json").read_text())
    assert kept["tables"] == told["tables"]
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_story_twice_gives_the_same_numbers():
    first, second = (shelf.tell("mechanism", seed=3, cells=600).as_dict() for _ in range(2))
    assert first == second


def test_unknown_stories_and_too_few_cells_are_refused(tmp_path):
    refused(pertcast("story", "recovery", "--out", tmp_path), "Unknown story 'recovery'. Did you mean 'recover'?")
    refused(pertcast("story", "drug", "--out", tmp_path, "--cells", 20), "at least 500 cells, got 20")
    assert list(tmp_path.iterdir()) == []


def test_curves_are_of_the_gene_that_is_named():
    """R17: the mechanistic gene's curve, not the perturbed gene's own mean, which rises by one a step."""
    story = shelf.tell("perturb", cells=1000)
    panel = story.panels[0]
    truth = next(series.y for series in panel.series if series.name == "truth")
    weights = np.array(fixture(1000).model.mechanistic[0].mechanism.weights)
    assert f"mean of the {NAME} gene" == panel.y
    steps = np.diff(truth[truth > 0.1 + 1e-9])
    np.testing.assert_allclose(steps, weights[SHOWN], rtol=1e-9)


@pytest.mark.slow
class TestPublishedSizes:
    def test_recover(self):
        """S002-04: errors of the autoencoder's parameters below the asked ones, a likelihood at the truth's."""
        (table,) = shelf.tell("recover").tables
        assert table.score("ZINB-VAE", "mean MSE") < 0.1
        assert table.score("ZINB-VAE", "dispersion MSE") < 0.05
        assert table.score("ZINB-VAE", "zero inflation MSE") < 0.0005
        assert table.score("ZINB-VAE", "held-out NLL") < table.score("truth", "held-out NLL") + 0.002

    def test_mechanism(self):
        """S002-07, S002-13: better than any independent model, for the published mechanism and for every other kind."""
        tables = shelf.tell("mechanism").tables
        assert tables[0].score("gene regression", "held-out NLL") < 0.7051
        for table in tables:
            floor, model, ceiling = (line.scores["held-out NLL"] for line in table.lines)
            assert floor - model > 0.7 * (floor - ceiling), table.title

    def test_perturb(self):
        """S002-08, -09, R19, R22: the published curve, and curves of other genes, the first one included."""
        one, several, whole = shelf.tell("perturb").tables
        assert one.score("gene regression", "curve MSE") < 1.0
        assert one.score("gene regression", "Spearman") >= 0.95
        for column in several.columns:
            assert several.score("gene regression", column) < 1.0
        assert whole.score("gene regression, drawn", "wasserstein") < whole.score("no change", "wasserstein")

    def test_drug(self):
        """S002-10, S002-12: means right, nothing impossible from the recommended predictor, a new population better
        than the floors.
        """
        added, new = shelf.tell("drug").tables
        assert added.score("ZINB-VAE, codes shifted, expected", "mae_of_means") < 0.1
        assert added.score("quantile map", "mae_of_means") < 0.1
        assert added.score("quantile map", "below the least possible") < 0.05
        effects = new.score("ZINB-VAE with effects, drawn", "mae_of_means")
        assert effects < 0.5 * min(new.score(floor, "mae_of_means") for floor in ("no change", "mean shift"))
