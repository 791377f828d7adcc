"""The space that a recipe learns in, against scipy's distributions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cases import make_question
from pertcast.config import Recipe
from pertcast.features import target_space
from pertcast.features.target_space import learned_question, to_response
from pertcast.io.cache import Cache
from pertcast.types import Question
from planted_tables import GENES, planted


def recipe(**fields):
    return Recipe(name="r", model="ridge", reason="test", **fields)


def learned(asked, chosen):
    return learned_question(asked, chosen, train=np.arange(len(asked)))


@pytest.mark.parametrize(("df", "law"), [(None, stats.norm), (257.0, stats.t(257))])
def test_t_scores_have_the_p_value_of_the_response(df, law):
    """Learning in t (COMPETITION 7.3): the two-sided p of each score is what the response says."""
    asked, _ = make_question()
    t = learned(asked, recipe(space="t", degrees_of_freedom=df)).y
    p = 2 * law.sf(np.abs(t.astype(float)))
    np.testing.assert_allclose(-np.log10(p) * np.sign(t), asked.y, rtol=1e-4, atol=1e-5)


def test_there_and_back_is_the_response():
    (asked, _), chosen = make_question(), recipe(space="t", degrees_of_freedom=420.0)
    np.testing.assert_allclose(to_response(learned(asked, chosen).y, chosen), asked.y, rtol=1e-4, atol=1e-5)


def test_the_response_itself_is_left_alone():
    (asked, _), chosen = make_question(), recipe()
    assert learned(asked, chosen) is asked
    assert to_response(asked.y, chosen) is asked.y


def strayed():
    """A question whose rows stray along one direction, and the planted rows that do not."""
    train, _, _ = planted(np.random.default_rng(0), noise=1.0, gains=False)
    rng = np.random.default_rng(1)
    stray = 3 * rng.normal(size=(len(train), 1)) * rng.normal(size=GENES)
    y = to_response((train.y + stray).astype(np.float32), recipe(space="t"))
    nothing = np.array([], dtype=object)
    names = (train.genes, train.cell_type, train.compound, np.full(len(train), None))
    return Question(*names, y, np.arange(0), nothing, nothing, nothing), train


@pytest.mark.parametrize("space", ["response", "t"])
def test_rows_are_cleaned_of_what_each_strays_by_itself(space):
    """R02: of the rows learned from, and from them alone; all other rows stay as they were measured."""
    chosen, kept = recipe(space=space, row_noise="removed"), recipe(space="t")
    asked, train = strayed()
    some = np.arange(len(asked)) % 4 > 0
    cleaned = learned_question(asked, chosen, train=np.flatnonzero(some)).y
    plain = learned_question(asked, recipe(space=space), train=np.flatnonzero(some)).y
    np.testing.assert_allclose(cleaned[~some], plain[~some], rtol=1e-4, atol=1e-5)
    truth = train.y if space == "t" else to_response(train.y, kept)
    assert np.abs(cleaned - truth)[some].mean() < 0.6 * np.abs(plain - truth)[some].mean()
    other = asked.y.copy()
    other[~some] = 7.0
    again = learned_question(replace(asked, y=other), chosen, train=np.flatnonzero(some)).y
    np.testing.assert_array_equal(again[some], cleaned[some])


def test_what_rows_stray_by_is_kept_once_for_all_recipes(tmp_path, monkeypatch):
    """The same numbers with a cache and without; the second recipe takes the table apart no more."""
    (asked, _), train = strayed(), np.arange(60)
    chosen, other = recipe(space="t", row_noise="removed"), recipe(space="response", row_noise="removed")
    plain = [learned_question(asked, one, train=train).y for one in (chosen, other)]
    first = learned_question(asked, chosen, train=train, cache=Cache(tmp_path)).y
    monkeypatch.setattr(target_space, "decompose", None)
    second = learned_question(asked, other, train=train, cache=Cache(tmp_path)).y
    np.testing.assert_array_equal(first, plain[0])
    np.testing.assert_array_equal(second, plain[1])
