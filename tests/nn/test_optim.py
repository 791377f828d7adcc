"""Lion against the paper's algorithm step by step; schedules against torch's own."""

import numpy as np
import pytest
import torch
from torch import nn

from pertcast.errors import InputError
from pertcast.nn.optim import OPTIMIZERS, SCHEDULES, Lion, Schedule, make_optimizer


def test_first_lion_step_by_hand():
    """S004-08: p = 1, g = 0.5, lr 0.1, decay 0.2: shrink to 0.98, then one step of 0.1 against the sign: 0.88."""
    p = nn.Parameter(torch.tensor([1.0]))
    optimizer = Lion([p], lr=0.1, weight_decay=0.2)
    p.grad = torch.tensor([0.5])
    optimizer.step()
    assert p.item() == pytest.approx(0.88)
    assert optimizer.state[p]["momentum"].item() == pytest.approx(0.005)  # (1 - 0.99) * 0.5


def test_lion_equals_a_slow_loop():
    """S004-08: the update of arXiv:2302.06675 in numpy, entry by entry."""
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5), rng.normal(size=(20, 5))
    lr, decay, b1, b2 = 0.03, 0.1, 0.8, 0.95
    expected, momentum = start.copy(), np.zeros(5)
    for gradient in gradients:
        for i in range(5):
            c = b1 * momentum[i] + (1 - b1) * gradient[i]
            expected[i] -= lr * (np.sign(c) + decay * expected[i])
            momentum[i] = b2 * momentum[i] + (1 - b2) * gradient[i]
    p = nn.Parameter(torch.tensor(start))
    optimizer = Lion([p], lr=lr, betas=(b1, b2), weight_decay=decay)
    for gradient in gradients:
        p.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_lion_leaves_a_parameter_without_gradient_alone():
    p = nn.Parameter(torch.ones(2))
    Lion([p], lr=0.1, weight_decay=0.5).step()
    assert p.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill(name):
    """S004-08."""
    p = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = make_optimizer(name, [p], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        p.square().sum().backward()
        optimizer.step()
    assert p.detach().square().sum() < 13 / 4  # from 9 + 4; Lion's momentum overshoots


def test_unknown_optimizer_names_the_known_ones():
    with pytest.raises(InputError, match="Unknown optimizer 'loin'. Did you mean 'lion'?"):
        make_optimizer("loin", [nn.Parameter(torch.ones(1))], lr=0.1)


def _sgd(lr=0.3):
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr)


def _rates(schedule, steps):
    rates = []
    for _ in range(steps):
        schedule.before_step()
        rates.append(schedule.optimizer.param_groups[0]["lr"])
    return rates


def _torch_rates(scheduler, steps):
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_cosine_equals_torch():
    """S004-08."""
    theirs = _torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR(_sgd(), T_max=20), 20)
    assert _rates(Schedule("cosine", _sgd(), steps=20), 20) == pytest.approx(theirs)


@pytest.mark.parametrize("rise", [0.1, 0.3])
def test_one_cycle_equals_torch(rise):
    """S004-08."""
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        _sgd(), max_lr=0.3, total_steps=40, pct_start=rise, cycle_momentum=False
    )
    assert _rates(Schedule("one_cycle", _sgd(), steps=40, warmup=rise), 40) == pytest.approx(_torch_rates(theirs, 40))


@pytest.mark.parametrize(("factor", "patience"), [(0.1, 10), (0.9999, 500), (0.5, 0)])
def test_plateau_equals_torch(factor, patience):
    """S004-08: with the settings of the system (0.1, 10) and of its ancestor (0.9999, 500)."""
    optimizer = _sgd()
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
    ours = Schedule("plateau", _sgd(), steps=1, plateau_factor=factor, plateau_patience=patience)
    losses = np.random.default_rng(0).normal(size=1200).cumsum() ** 2 + 1
    got, expected = [], []
    for loss in losses:
        ours.before_step()
        got.append(ours.optimizer.param_groups[0]["lr"])
        expected.append(optimizer.param_groups[0]["lr"])
        ours.after_epoch(loss)
        theirs.step(loss)
    # torch does not lower a rate whose change is below 1e-8
    assert got == pytest.approx(expected, rel=1e-6, abs=2e-8)
    assert expected[-1] < expected[0]


def test_warm_up_rises_linearly_to_the_full_rate():
    rates = _rates(Schedule("constant", _sgd(lr=1.0), steps=12, warmup=0.25), 12)
    assert rates == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_short_training_has_finite_rates(name, steps):
    rates = _rates(Schedule(name, _sgd(), steps=steps, warmup=0.5), steps)
    assert all(0 < rate <= 0.3 for rate in rates)


def test_unknown_schedule_names_the_known_ones():
    with pytest.raises(InputError, match="Unknown schedule 'cosin'. Did you mean 'cosine'?"):
        Schedule("cosin", _sgd(), steps=1)
