"""Every mechanism against its formula written as a loop, and what is refused."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pertcast.errors import InputError
from pertcast.simulate.equations import (
    KINDS,
    Hill,
    Interaction,
    Linear,
    Polynomial,
    Threshold,
    TimeDependent,
    WeightedDispersion,
    checked_mean,
    mechanism_as_dict,
    mechanism_faults,
    mechanism_from_dict,
)

EXAMPLES = {
    "linear": (Linear((0.5, -2.0), intercept=1.0), lambda x, y, t: max(0.1, 1 + 0.5 * x - 2 * y)),
    "polynomial": (
        Polynomial(((0.5, 0.1), (-1.0, 0.02)), intercept=2.0),
        lambda x, y, t: max(0.1, 2 + 0.5 * x + 0.1 * x**2 - y + 0.02 * y**2),
    ),
    "hill": (
        Hill((1.0, 0.5), most=20.0, half=4.0, exponent=3.0, base=0.2),
        lambda x, y, t: 0.2 + 20 * (x + y / 2) ** 3 / (4**3 + (x + y / 2) ** 3),
    ),
    "interaction": (Interaction((0.3, 0.2), ((0, 1, 0.4),)), lambda x, y, t: max(0.1, 0.3 * x + 0.2 * y + 0.4 * x * y)),
    "threshold": (Threshold((1.0, 1.0), cut=5.0, low=0.3, high=9.0), lambda x, y, t: 9.0 if x + y > 5 else 0.3),
    "time": (TimeDependent(0.1), lambda x, y, t: max(0.1, (x + y**2) * 0.1 * t)),
}


def test_every_kind_has_an_example():
    """S002-13."""
    assert set(EXAMPLES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_means_follow_the_formula(kind):
    """S002-13: a slow loop over parents 0, 1, 4 and 30 and three times."""
    mechanism, formula = EXAMPLES[kind]
    cells = [(x, y, t) for x in (0, 1, 4, 30) for y in (0, 1, 4, 30) for t in (0.0, 0.5, 3.0)]
    parents, time = np.array([cell[:2] for cell in cells], float), np.array([cell[2] for cell in cells])
    assert_allclose(mechanism.mean(parents, time), [formula(*cell) for cell in cells], rtol=1e-12)
    assert mechanism.n_parents == 2


@pytest.mark.parametrize("kind", KINDS)
def test_json_there_and_back(kind):
    mechanism = EXAMPLES[kind][0]
    assert mechanism_from_dict(json.loads(json.dumps(mechanism_as_dict(mechanism)))) == mechanism


def test_a_kind_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="Unknown kind of mechanism 'hil'. Did you mean 'hill'?"):
        mechanism_from_dict({"kind": "hil", "weights": [1.0]})


def test_hill_is_off_below_zero_and_half_at_half():
    hill = Hill((1.0,), most=10.0, half=4.0, exponent=2.0, base=0.5)
    assert_allclose(hill.mean(np.array([[-3.0], [0.0], [4.0], [1e9]])), [0.5, 0.5, 5.5, 10.5])


def test_dispersion_as_a_weighted_average():
    dispersion = WeightedDispersion((1.0, 3.0))
    assert_allclose(dispersion.values(np.array([[4.0, 0.0], [0.0, 0.1], [0, 0]])), [1.0, 0.1, 0.1])


@pytest.mark.parametrize("weights", [(1.0, -1.0), (1.0, -1.001, 0.0), (0.0, 0.0)])
def test_weights_that_cancel_are_refused(weights):
    """S002-02: a weighted average needs weights that sum to something."""
    with pytest.raises(InputError, match=r"cancel: they sum to .* Take another seed"):
        WeightedDispersion(weights)


def test_numbers_that_make_no_mechanism_are_named():
    assert mechanism_faults(EXAMPLES["hill"][0]) == []
    assert "finite" in mechanism_faults(Linear((np.nan,)))[0]
    assert "above 0" in mechanism_faults(Hill((1.0,), most=1.0, half=0.0))[0]
    assert "beyond the 2" in mechanism_faults(Interaction((1.0, 1.0), ((0, 2, 1.0),)))[0]
    assert "unequal" in mechanism_faults(Polynomial(((1.0,), (1.0, 2.0))))[0]
    assert "floor" in mechanism_faults(Linear((1.0,), floor=-1))[0]


def test_means_that_no_count_has_are_refused():
    with pytest.raises(InputError, match="Gene 'x': its mechanism gives a mean of 1e\\+10"):
        checked_mean("x", np.array([1.0, 1e10]))
    with pytest.raises(InputError, match="needs the time"):
        TimeDependent(1.0).mean(np.ones((2, 2)))
