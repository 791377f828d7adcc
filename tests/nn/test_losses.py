"""Losses against torch's own, and against numbers worked by hand."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from pertcast.errors import InputError
from pertcast.features.target_svd import TargetSVD
from pertcast.nn.losses import LOSSES, SCORE_LOSSES, log_cosh, make_loss, mrrmse


@pytest.fixture
def pair():
    draws = torch.Generator().manual_seed(0)
    return torch.randn(7, 37, generator=draws) * 3, torch.randn(7, 37, generator=draws) * 3


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("mse", functional.mse_loss),
        ("mae", functional.l1_loss),
        ("huber", functional.huber_loss),
        ("log_cosh", lambda p, y: torch.log(torch.cosh((p - y).double())).mean().float()),
    ],
)
def test_loss_equals_its_textbook_form(name, oracle, pair):
    """S004-08."""
    torch.testing.assert_close(make_loss(name)(*pair), oracle(*pair))


def test_mixed_is_the_sum_of_its_parts(pair):
    """S004-08: torch's own losses; the cross-entropy of sigmoids less its value at no error."""
    p, y = pair
    entropy = functional.binary_cross_entropy(p.sigmoid(), y.sigmoid())
    entropy -= functional.binary_cross_entropy(y.sigmoid(), y.sigmoid())
    log_cosh_ = torch.log(torch.cosh((p - y).double())).mean().float()
    expected = 0.32 * functional.mse_loss(p, y) + 0.24 * functional.l1_loss(p, y) + 0.24 * log_cosh_ + 0.2 * entropy
    torch.testing.assert_close(make_loss("mixed")(p, y), expected)


def test_huber_bends_where_it_is_told(pair):
    """S004-08."""
    torch.testing.assert_close(make_loss("huber", delta=0.25)(*pair), functional.huber_loss(*pair, delta=0.25))


def test_mrrmse_of_zeros_for_threes_is_three():
    """S004-09."""
    assert float(mrrmse(torch.zeros(4, 37), torch.full((4, 37), 3.0))) == pytest.approx(3.0, abs=1e-6)


def test_mrrmse_is_row_wise():
    """S004-09: errors 0 and 4 average to 2, not to the root mean square 2.828."""
    y = torch.tensor([[1.0, 2.0], [5.0, 6.0]])
    p = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    assert float(mrrmse(p, y)) == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_of_no_error_is_zero_with_a_finite_slope(name):
    p = torch.ones(3, 5, requires_grad=True)
    loss = make_loss(name)(p, torch.ones(3, 5))
    loss.backward()
    assert abs(loss.item()) <= 1e-6
    assert p.grad.abs().max() <= 1e-8


def test_log_cosh_neither_overflows_nor_loses_its_slope():
    p = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = log_cosh(p, torch.zeros(1, 2))
    loss.backward()
    assert loss.item() == pytest.approx(1e4 - math.log(2))
    assert p.grad.tolist() == [[0.5, -0.5]]


@pytest.mark.parametrize("name", LOSSES)
def test_row_weights_count_rows_as_often_as_they_say(name, pair):
    p, y = pair
    weight = torch.tensor([2.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    repeated = [0, 0, 1, 4]
    torch.testing.assert_close(make_loss(name)(p, y, weight=weight), make_loss(name)(p[repeated], y[repeated]))


@pytest.mark.parametrize("k", [3, 12])
@pytest.mark.parametrize("name", SCORE_LOSSES)
def test_loss_over_scores_equals_loss_over_genes(name, k):
    """The error of predicted scores plus what the basis leaves out is the error over genes."""
    rng = np.random.default_rng(1)
    y = rng.normal(size=(13, 37)).astype(np.float32) * 2
    svd = TargetSVD.fit(y, k)
    scores, residual = svd.encode(y), svd.residual_norm2(y)
    predicted = (scores + rng.normal(size=scores.shape)).astype(np.float32)
    weight = torch.arange(13.0)
    over_genes = make_loss(name)(torch.tensor(svd.decode(predicted)).float(), torch.tensor(y), weight=weight)
    tensors = [torch.tensor(np.asarray(a, np.float32)) for a in (predicted, scores, residual)]
    over_scores = SCORE_LOSSES[name](*tensors, genes=37, weight=weight)
    torch.testing.assert_close(over_scores, over_genes, rtol=1e-5, atol=1e-5)


def test_unknown_loss_names_the_known_ones():
    with pytest.raises(InputError, match="Unknown loss 'mrmse'. Did you mean 'mrrmse'?"):
        make_loss("mrmse")


def test_weights_of_another_shape_are_refused(pair):
    with pytest.raises(InputError, match=r"expected shape \(7,\), got \(7, 1\)"):
        mrrmse(*pair, weight=torch.ones(7, 1))
