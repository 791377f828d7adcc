"""The space in which a model learns: the response as it is, or t-scores recovered from signed -log10 p.

Signed -log10 p grows with the square of t, so a few strong rows and genes weigh most in it, and what is additive in t
(an effect over its standard error) is not additive there. Learning in t and mapping back is what place 18 of the
competition did; where values are no p-values the map is merely a signed, square-root-like compression.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pertcast.config import Recipe
from pertcast.de.log10_p import signed_log10_p, t_from_signed_log10_p
from pertcast.types import Floats, Question


def learned_question(question: Question, recipe: Recipe) -> Question:
    """Return the question with its responses in the space that the recipe learns in, and weights if it wants them."""
    if recipe.row_weights == "equal" and question.reliability is not None:
        question = replace(question, reliability=None)
    if recipe.space == "response":
        return question
    return replace(question, y=t_from_signed_log10_p(question.y, _df(recipe)).astype(np.float32))


def to_response(values: Floats, recipe: Recipe) -> Floats:
    """Map predictions (n, g) from the space that the recipe learns in back to the unit of the response."""
    if recipe.space == "response":
        return values
    return signed_log10_p(values, _df(recipe)).astype(np.float32)


def _df(recipe: Recipe) -> float:
    return np.inf if recipe.degrees_of_freedom is None else recipe.degrees_of_freedom
