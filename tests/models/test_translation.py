"""Linear translation between cell types: laws, planted gains."""

import numpy as np
from numpy.testing import assert_allclose

from pertcast.models.registry import build
from planted_tables import COMPOUNDS, GENES, RANK, TYPES, planted, rows


def relative_error(model, truth, shown):
    """Error over what was never shown, as a share of its size."""
    of_type, of_compound = np.nonzero(~shown)
    wanted = truth[of_type, of_compound]
    predicted = model.predict(rows(of_type, of_compound))
    return np.sqrt(((predicted - wanted) ** 2).sum() / (wanted**2).sum())


def test_planted_gains_are_translated():
    """With gains per component and per gene the missing cells are nearly those planted; without, they cannot be."""
    train, truth, shown = planted(np.random.default_rng(0))
    full = build("translation", {"components": 4, "rounds": 60, "gain_rows": 1.0}).fit(train, seed=0)
    stiff = build("translation", {"components": 4, "rounds": 60, "gain_rows": 1e9, "gene_gains": False}).fit(
        train, seed=0
    )
    assert relative_error(full, truth, shown) < 0.12
    assert relative_error(stiff, truth, shown) > 2 * relative_error(full, truth, shown)


def test_superfluous_components_do_little_harm():
    train, truth, shown = planted(np.random.default_rng(1), noise=1.0, gains=False)
    errors = [
        relative_error(build("translation", {"components": r}).fit(train, seed=0), truth, shown) for r in (RANK, 20)
    ]
    assert errors[1] < 1.25 * errors[0] + 0.02


def test_noise_shrinks_a_compound_to_the_cell_type_effect():
    """Rows that are noise about the cell type's own effect: of a compound's own part nothing is left to speak of."""
    rng = np.random.default_rng(2)
    own = rng.normal(size=(TYPES, GENES))
    of_type, of_compound = np.indices((TYPES, COMPOUNDS)).reshape(2, -1)
    train = rows(of_type, of_compound, own[of_type] + rng.normal(size=(TYPES * COMPOUNDS, GENES)))
    predicted = build("translation").fit(train, seed=0).predict(train.without_y())
    assert np.sqrt(((predicted - own[of_type]) ** 2).mean()) < 0.35  # noise has size 1


def test_what_rows_have_of_their_own_is_not_translated():
    """Every row strays along one direction as far as compounds move: told apart, the missing cells are better known."""
    rng = np.random.default_rng(10)
    train, truth, shown = planted(rng, noise=1.0, gains=False)
    stray = 3 * rng.normal(size=(len(train), 1)) * rng.normal(size=GENES)
    strayed = rows(*np.nonzero(shown), train.y + stray)
    mixed, apart = (
        relative_error(build("translation", {"row_components": count, "rounds": 60}).fit(strayed, seed=0), truth, shown)
        for count in (0, 1)
    )
    clean = relative_error(build("translation", {"row_components": 0}).fit(train, seed=0), truth, shown)
    assert apart - clean < 0.6 * (mixed - clean)


def test_unseen_compound_and_cell_type():
    """R39: the cell type's own effect alone; the mean over the cell types."""
    train, _, _ = planted(np.random.default_rng(7))
    model = build("translation", {"rounds": 5}).fit(train, seed=0)
    strange = model.predict(rows([1, 2], [99, 99]))
    assert_allclose(strange, model.arrays["mean"][[1, 2]], atol=1e-6)
    assert_allclose(model.predict(rows([77], [99]))[0], model.arrays["mean"].mean(0), atol=1e-6)
