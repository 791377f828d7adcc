"""All scores of predicted treated cells: every column against the function it names, draws against their theory."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array
from scipy.spatial.distance import pdist

from pertcast.errors import InputError
from pertcast.metrics.distribution import unbiased_energy_distance, wasserstein
from pertcast.metrics.structure import mmd, r2_of_means, skill_of_means, welch_t
from pertcast.metrics.treated import CARDS, COLUMNS, DE, MEANS, TreatedScorer

GENES, SHOWN = 150, 5


def first(cells):
    """Project cells on a few axes."""
    return cells[:, :SHOWN].toarray() if hasattr(cells, "toarray") else cells[:, :SHOWN]


@pytest.fixture
def sides():
    rng = np.random.default_rng(0)
    level, change = rng.uniform(0.2, 2, GENES), rng.normal(0, 0.7, GENES) * (np.arange(GENES) % 2)
    draw = lambda mean, n: np.maximum(rng.normal(mean, 0.6, (n, GENES)), 0)  # noqa: E731
    return draw(level + change, 60), draw(level + 0.8 * change, 50), draw(level, 40)


def test_columns_are_what_their_cards_say(sides):
    true, predicted, control = sides
    scorer = TreatedScorer(true, control, project=first)
    found = scorer.score(predicted)
    assert tuple(found) == COLUMNS == tuple(card.name for card in CARDS)
    de = np.argsort(-welch_t(true, control))[:DE]
    pair = {"y_true": true, "y_pred": predicted}
    of_de = {"y_true": true[:, de], "y_pred": predicted[:, de]}
    on_axes = {"y_true": first(true), "y_pred": first(predicted)}
    width = np.median(pdist(np.vstack([first(true), first(control)])))
    want = {
        "R2": r2_of_means(**pair),
        "R2 DE": r2_of_means(**of_de),
        "skill": skill_of_means(**pair, y_control=control),
        "skill DE": skill_of_means(**of_de, y_control=control[:, de]),
        "energy distance": unbiased_energy_distance(**on_axes),
        "MMD2": mmd(**on_axes, width=width),
        "Wasserstein DE": wasserstein(**of_de),
        "MSE": np.square(true.mean(0) - predicted.mean(0)).mean(),
        "RMSE": np.sqrt(np.square(true.mean(0) - predicted.mean(0)).mean()),
        "direction DE": np.mean((true - control.mean(0)).mean(0)[de] * (predicted.mean(0) - control.mean(0))[de] > 0),
    }
    for column, value in want.items():
        assert_allclose(found[column], value, rtol=1e-9, err_msg=column)
    sparse = TreatedScorer(csr_array(true), csr_array(control), project=first).score(csr_array(predicted))
    assert_allclose(list(sparse.values()), list(found.values()), rtol=1e-9)


def test_no_change_and_the_truth_itself(sides):
    true, _, control = sides
    scorer = TreatedScorer(true, control, project=first)
    none, best = scorer.score(control), scorer.score(true)
    assert (none["skill"], none["delta cosine"], none["direction DE"]) == (0, 0, 0)
    assert np.isnan(none["delta Pearson"])
    for card in CARDS:
        if card.better != "lower":
            assert_allclose(best[card.name], 1, err_msg=card.name)
        elif card.name not in ("energy distance", "MMD2"):  # which pair no cell with itself
            assert best[card.name] == 0, card.name
    assert scorer.ceiling(seed=0)["skill DE"] > 0.8
    assert scorer.ceiling(seed=0) == scorer.ceiling(seed=0) != scorer.ceiling(seed=1)


def test_draws_spread_as_cells_drawn_anew_do(sides):
    """The sd of a drawn score is that of the score over fresh samples of treated cells, within a quarter."""
    rng = np.random.default_rng(1)
    _, predicted, control = sides
    level, change = rng.uniform(1, 2, GENES), rng.normal(0, 1, GENES)
    fresh = [rng.normal(level + change, 0.6, (60, GENES)) for _ in range(200)]
    sds = []
    scorer = TreatedScorer(fresh[0], control, project=first)
    drawn = scorer.draws(predicted)
    assert drawn.shape == (200, len(MEANS))
    for column, score in (("skill", skill_of_means), ("R2", r2_of_means)):
        more = {"y_control": control} if column == "skill" else {}
        over = np.std([score(y_true=true, y_pred=predicted, **more) for true in fresh])
        sds.append(drawn[:, MEANS.index(column)].std() / over)
    assert_allclose(sds, 1, atol=0.25)
    assert_allclose(scorer.draws(predicted), drawn)


def test_draws_of_cells_that_are_all_alike_are_the_score(sides):
    """Whichever cells are drawn, their means are the same, and every drawn score is the score itself."""
    true, predicted, control = sides
    scorer = TreatedScorer(np.tile(true[:1], (30, 1)), control, project=first)
    found = scorer.score(predicted)
    assert_allclose(scorer.draws(predicted), np.tile([found[name] for name in MEANS], (200, 1)), rtol=1e-9)


def test_alike_cells_are_refused():
    with pytest.raises(InputError, match="alike"):
        TreatedScorer(np.ones((5, 4)), np.ones((5, 4)), project=lambda cells: cells)
