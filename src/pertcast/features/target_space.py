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
from pertcast.features.decomposition import DecompositionConfig, decompose, row_part
from pertcast.io.cache import Cache
from pertcast.types import Floats, Ints, Question, Strings

CLEANING = DecompositionConfig()


def learned_question(question: Question, recipe: Recipe, *, train: Ints, cache: Cache | None = None) -> Question:
    """Return the question with its responses in the space that the recipe learns in, and weights if it wants them.

    train   (n_train,)  rows that may be learned from: they alone are cleaned, and nothing else is looked at for it
    cache               where what they were cleaned of is kept: it takes seconds, and many recipes want it
    """
    if recipe.row_weights == "equal" and question.reliability is not None:
        question = replace(question, reliability=None)
    if recipe.space == "response" and recipe.row_noise == "kept":
        return question
    y = t_from_signed_log10_p(question.y, _df(recipe)).astype(np.float32)
    if recipe.row_noise == "removed":
        y[train] -= _row_part(y[train], question.cell_type[train], question.compound[train], cache=cache)
    if recipe.space == "response":
        y = signed_log10_p(y, _df(recipe)).astype(np.float32)
    return replace(question, y=y)


def _row_part(y: Floats, cell_type: Strings, compound: Strings, *, cache: Cache | None) -> Floats:
    """What each of the rows y (n, g) strays by itself: (n, g)."""

    def build() -> dict[str, Floats]:
        return decompose(y, cell_type, compound, CLEANING).row_factors()

    if cache is None:
        return row_part(cell_type, **build())
    inputs = {"y": y, "cell_type": cell_type, "compound": compound, "config": CLEANING.model_dump()}
    return row_part(cell_type, **cache.get_or_build("row_factors", inputs=inputs, build=build))


def to_response(values: Floats, recipe: Recipe) -> Floats:
    """Map predictions (n, g) from the space that the recipe learns in back to the unit of the response."""
    if recipe.space == "response":
        return values
    return signed_log10_p(values, _df(recipe)).astype(np.float32)


def _df(recipe: Recipe) -> float:
    return np.inf if recipe.degrees_of_freedom is None else recipe.degrees_of_freedom
