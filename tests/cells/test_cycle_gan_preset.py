"""The published sizes at work: the preset trains, translates and comes back."""

import numpy as np

from cell_cases import make_cells
from pertcast.cells.registry import build
from pertcast.config import load_cell_recipe


def test_the_published_preset_trains_and_predicts():
    """S003-01, S003-02, S003-05: softplus of the full depth, a few steps; losses finite, counts never negative."""
    recipe = load_cell_recipe("system-003", ["training.steps=4", "training.cells=16", "training.evaluate_every=2"])
    assert recipe.model == "cycle-gan"
    cells = make_cells()
    model = build(recipe.model, recipe.settings).fit(cells, seed=0)
    assert [entry["step"] for entry in model.history] == [1, 2, 4]
    assert all(np.isfinite(list(entry.values())).all() for entry in model.history)
    assert not {"moment", "energy", "marginal", "sober", "identity"} & set(model.history[-1])  # none of it is published
    made = model.predict(cells.take(cells.untreated), "up", seed=0, sample=True).x.toarray()
    assert np.isfinite(made).all()
    assert (made >= 0).all()
