"""Designs against R's model.matrix, contrasts against means of groups."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from de.limma_case import case, samples
from pertcast.de import design as de
from pertcast.de.linear_model import fit_linear
from pertcast.errors import InputError


def test_equals_model_matrix():
    got = de.design_from_formula("~ 0 + compound + donor + age", samples())
    assert list(got.names) == case()["design_names"]
    assert_allclose(got.matrix, case()["design"])
    assert got.terms == ("compound",) * 4 + ("donor",) * 2 + ("age",)
    assert list(de.design_from_formula("~compound+donor+age", samples()).names) == case()["relative_names"]


def test_booleans_blanks_and_numbers_before_factors():
    """Without an intercept the first factor has all its levels, also after a number, as in R."""
    table = pd.DataFrame({"old": [True, False, True], "cell type": ["b", "a", "a"], "dose": [1, 2, 4]})
    got = de.design_from_formula("~ 0 + dose + `cell type` + old", table)
    assert got.names == ("dose", "cell typea", "cell typeb", "oldTRUE")
    assert_array_equal(got.matrix, [[1, 0, 1, 1], [2, 1, 0, 0], [4, 1, 0, 1]])
    assert de.design_from_formula("~ 1 + dose", table).names == ("(Intercept)", "dose")


def test_levels_that_no_sample_has_are_left_out():
    table = pd.DataFrame({"a": pd.Categorical(["x", "y", "x"], ["z", "y", "x"])})
    assert de.design_from_formula("~0+a", table).names == ("ay", "ax")


@pytest.mark.parametrize("formula", ["~ 0 + compound + donor", "~ compound + donor", "~ donor + compound"])
@pytest.mark.parametrize("control", ["dmso", "b"])
def test_contrasts_are_the_same_however_the_design_is_written(formula, control):
    """Also against a level that treatment contrasts do not compare to."""
    y = np.random.default_rng(0).normal(size=(18, 3))
    design = de.design_from_formula(formula, samples())
    contrasts, labels = de.contrasts_against(design, "compound", control)
    got = dict(zip(labels, contrasts.T @ fit_linear(y, design.matrix).coefficients, strict=True))
    full = fit_linear(y, de.design_from_formula("~ 0 + compound + donor", samples()).matrix).coefficients
    level = {name: full[i] for i, name in enumerate(["dmso", "a", "b", "c"])}
    assert set(got) == set(level) - {control}
    for name, effect in got.items():
        assert_allclose(effect, level[name] - level[control], atol=1e-12)


def test_contrasts_that_the_design_cannot_tell():
    """B and c stand on a plate of their own: against dmso they cannot be told from it, against each other they can."""
    table = pd.DataFrame({"compound": ["dmso", "a", "dmso", "a", "b", "c", "b", "c"], "plate": list("11112222")})
    design = de.design_from_formula("~ 0 + compound + plate", table)
    assert [design.names[j] for j in design.aliased()] == ["plate2"]
    contrasts, labels = de.contrasts_against(design, "compound", "dmso")
    assert labels == ["a", "b", "c"]
    assert de.inestimable(design.matrix, contrasts) == [1, 2]
    against_b, labels = de.contrasts_against(design, "compound", "b")
    assert [labels[k] for k in de.inestimable(design.matrix, against_b)] == ["a", "dmso"]


def test_columns_can_be_left_out():
    design = de.design_from_formula("~ 0 + compound + donor", samples())
    less = design.without([4])
    assert less.names == (*design.names[:4], design.names[5])
    assert_array_equal(less.matrix, np.delete(design.matrix, 4, axis=1))


@pytest.mark.parametrize(
    ("formula", "message"),
    [("compound", "must start with '~'"), ("y ~ compound", "must start with '~'"),
     ("~ compound:donor", "only sums of columns are understood, got 'compound:donor'"),
     ("~ 0 + 1 + compound", "both 0"), ("~ donor + donor", "more than once: donor"),
     ("~ compound +", "got ''"), ("~ compound * donor + log(age)", r"(?s)'compound \* donor', 'log\(age\)'.*backticks"),
     ("~ plate + row", "lacks the columns plate, row; it has compound, donor, age"), ("~ 0", "needs one of each")],
)  # fmt: skip
def test_formulas_that_are_not_understood(formula, message):
    with pytest.raises(InputError, match=message):
        de.design_from_formula(formula, samples())


def test_all_faults_at_once():
    table = pd.DataFrame({"a": ["x", None], "b": ["u", "u"], "c": [1.0, np.inf], "d": ["v", "w"]})
    with pytest.raises(InputError, match=r"(?s)3 problems.*lacks.*'a' has no value in 1 of 2.*'c' has no value"):
        de.design_from_formula("~ a + b + c + e", table)
    with pytest.raises(InputError, match="'b' has one level only, 'u': nothing to compare"):
        de.design_from_formula("~ 0 + d + b", table)
    with pytest.raises(InputError, match="would be called ab1"):
        de.build_design(pd.DataFrame({"a": ["b1", "a"], "ab": ["1", "2"]}), ["ab", "a"])


def test_contrasts_name_what_is_known():
    design = de.design_from_formula("~ 0 + compound + age", samples())
    with pytest.raises(InputError, match="Unknown level of 'compound' 'dmsp'.*Did you mean 'dmso'"):
        de.contrasts_against(design, "compound", "dmsp")
    with pytest.raises(InputError, match="Unknown factor of the design 'age'"):
        de.contrasts_against(design, "age", "1")
