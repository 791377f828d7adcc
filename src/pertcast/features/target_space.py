"""The space in which a model learns: the response as it is, or t-scores recovered from signed -log10 p.

Signed -log10 p grows with the square of t, so a few strong rows and genes weigh most in it, and what is additive in t
(an effect over its standard error) is not additive there. Learning in t and mapping back is what place 18 of the
competition did; where values are no p-values the map is merely a signed, square-root-like compression.

There, too, rows can be cleaned of what each strays by itself along directions that rows share (`decomposition`): no
model can tell it of a further row, and it hides what compounds do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pertcast.config import Recipe
from pertcast.de.log10_p import signed_log10_p, t_from_signed_log10_p
from pertcast.features.decomposition import DecompositionConfig, decompose
from pertcast.types import Floats, Ints, Question

CLEANING = DecompositionConfig()


def learned_question(question: Question, recipe: Recipe, *, train: Ints) -> Question:
    """Return the question with its responses in the space that the recipe learns in, and weights if it wants them.

    train   (n_train,)  rows that may be learned from: they alone are cleaned, and nothing else is looked at for it
    """
    if recipe.row_weights == "equal" and question.reliability is not None:
        question = replace(question, reliability=None)
    if recipe.space == "response" and recipe.row_noise == "kept":
        return question
    y = t_from_signed_log10_p(question.y, _df(recipe)).astype(np.float32)
    if recipe.row_noise == "removed":
        known = y[train]
        y[train] -= decompose(known, question.cell_type[train], question.compound[train], CLEANING).row_part()
    if recipe.space == "response":
        y = signed_log10_p(y, _df(recipe)).astype(np.float32)
    return replace(question, y=y)


def to_response(values: Floats, recipe: Recipe) -> Floats:
    """Map predictions (n, g) from the space that the recipe learns in back to the unit of the response."""
    if recipe.space == "response":
        return values
    return signed_log10_p(values, _df(recipe)).astype(np.float32)


def _df(recipe: Recipe) -> float:
    return np.inf if recipe.degrees_of_freedom is None else recipe.degrees_of_freedom
