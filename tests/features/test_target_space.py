"""The space that a recipe learns in, against scipy's distributions."""

import numpy as np
import pytest
from scipy import stats

from cases import make_question
from pertcast.config import Recipe
from pertcast.features.target_space import learned_question, to_response


def recipe(**fields):
    return Recipe(name="r", model="ridge", reason="test", **fields)


@pytest.mark.parametrize(("df", "law"), [(None, stats.norm), (257.0, stats.t(257))])
def test_t_scores_have_the_p_value_of_the_response(df, law):
    """Learning in t (COMPETITION 7.3): the two-sided p of each score is what the response says."""
    asked, _ = make_question()
    learned = learned_question(asked, recipe(space="t", degrees_of_freedom=df))
    p = 2 * law.sf(np.abs(learned.y.astype(float)))
    np.testing.assert_allclose(-np.log10(p) * np.sign(learned.y), asked.y, rtol=1e-4, atol=1e-5)


def test_there_and_back_is_the_response():
    (asked, _), chosen = make_question(), recipe(space="t", degrees_of_freedom=420.0)
    np.testing.assert_allclose(to_response(learned_question(asked, chosen).y, chosen), asked.y, rtol=1e-4, atol=1e-5)


def test_the_response_itself_is_left_alone():
    (asked, _), chosen = make_question(), recipe()
    assert learned_question(asked, chosen) is asked
    assert to_response(asked.y, chosen) is asked.y
