"""The training loop: which weights come back, what decides, what stays untouched."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pertcast.errors import InputError
from pertcast.nn.fit import FitSettings, _multiplies_bfloat16, choose_device, fit_network, mean_loss, seeded

DRAWS = 40


def _data(n=DRAWS, seed=0):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=draws)
    return {"x": x, "y": x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3}


def _squared(net, rows):
    return (net(rows["x"]) - rows["y"]).square().mean()


def _net(seed=0, dropout=0.0):
    with seeded(seed):
        return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 1))


def _settings(**changes):
    return FitSettings(**{"epochs": 5, "batch": 16, "device": "cpu", "lr": 0.01, **changes})


def _weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_a_network_learns_a_linear_map():
    losses = []
    net = fit_network(_net(), _data(), _squared, _settings(epochs=200), seed=0, log=lambda f: losses.append(f["loss"]))
    assert losses[-1] < 0.01 < 1 < losses[0]
    assert not net.training


class _Counter(nn.Module):
    """A network whose one weight counts the steps, so that it says when it was copied."""

    def __init__(self):
        super().__init__()
        self.steps = nn.Parameter(torch.zeros(1))


def _counting(valid_losses):
    """The gradient of the training loss is -1, so SGD-like steps grow the weight; valid losses are as given."""
    left = iter(valid_losses)

    def loss_fn(net, rows):
        return -net.steps.sum() if net.training else torch.tensor(next(left))

    return loss_fn


@pytest.mark.parametrize(("losses", "best"), [((3.0, 1.0, 2.0), 2), ((1.0, 3.0, 2.0), 1), ((3.0, 2.0, 1.0), 3)])
def test_weights_of_the_best_epoch_come_back(losses, best):
    """R09: after valid losses 3, 1, 2 the weights are those of epoch 2."""
    settings = FitSettings(
        epochs=3, batch=8, patience=3, lr=1.0, optimizer="lion", schedule="constant", warmup=0, weight_decay=0,
        device="cpu",
    )  # fmt: skip
    rows = {"x": torch.zeros(8)}
    net = fit_network(_Counter(), rows, _counting(losses), settings, seed=0, valid=rows)
    assert net.steps.item() == best  # Lion moves by lr = 1 in every epoch's single step


def test_training_stops_when_patience_is_spent():
    settings = _settings(epochs=10, patience=2)
    rows, seen = {"x": torch.zeros(8)}, []
    losses = _counting([3.0, 1.0, 2.0, 2.0, 0.0, 0.0])
    fit_network(_Counter(), rows, losses, settings, seed=0, valid=rows, log=lambda f: seen.append(f["valid_loss"]))
    assert seen == [3.0, 1.0, 2.0, 2.0]


def test_average_of_the_last_epochs():
    """Weights 1, 2, ..., 10 after each epoch; the last 30 % are 8, 9, 10."""
    settings = FitSettings(
        epochs=10, average_last=0.3, lr=1.0, optimizer="lion", schedule="constant", warmup=0, weight_decay=0,
        device="cpu",
    )  # fmt: skip
    net = fit_network(_Counter(), {"x": torch.zeros(8)}, _counting([]), settings, seed=0)
    assert net.steps.item() == pytest.approx(9.0)


def test_running_mean_of_the_steps():
    """Weights 1, 2, 3 after each step; forgetting half a step they count 1 : 2 : 4, so 17 / 7."""
    settings = FitSettings(
        epochs=3, ema=0.5, lr=1.0, optimizer="lion", schedule="constant", warmup=0, weight_decay=0, device="cpu",
    )  # fmt: skip
    net = fit_network(_Counter(), {"x": torch.zeros(8)}, _counting([]), settings, seed=0)
    assert net.steps.item() == pytest.approx(17 / 7)


def test_same_seed_same_weights_bit_for_bit():
    """R38."""
    first, again = (fit_network(_net(1, 0.3), _data(), _squared, _settings(), seed=1) for _ in range(2))
    other = fit_network(_net(1, 0.3), _data(), _squared, _settings(), seed=2)
    assert torch.equal(_weights(first), _weights(again))
    assert not torch.equal(_weights(first), _weights(other))


def test_random_state_of_the_caller_is_untouched():
    before = torch.get_rng_state()
    fit_network(_net(dropout=0.3), _data(), _squared, _settings(), seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_result_does_not_depend_on_the_random_state_of_the_caller():
    """R38."""
    torch.manual_seed(5)
    first = fit_network(_net(dropout=0.3), _data(), _squared, _settings(), seed=1)
    torch.manual_seed(6)
    again = fit_network(_net(dropout=0.3), _data(), _squared, _settings(), seed=1)
    assert torch.equal(_weights(first), _weights(again))


def test_valid_rows_mean_nothing_without_patience():
    """S004-03."""
    poisoned = {name: torch.full_like(tensor, 1e6) for name, tensor in _data().items()}
    plain = fit_network(_net(), _data(), _squared, _settings(schedule="plateau"), seed=1)
    with_valid = fit_network(_net(), _data(), _squared, _settings(schedule="plateau"), seed=1, valid=poisoned)
    assert torch.equal(_weights(plain), _weights(with_valid))


def test_gradients_are_clipped():
    """One step of SGD-like size: Adam would hide the clip, so the gradients are read after the step."""
    net, data = _net(), {name: 1e4 * tensor for name, tensor in _data().items()}
    fit_network(net, data, _squared, _settings(epochs=1, batch=64, clip=0.5), seed=0)
    norm = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("n", "least", "sizes"), [(33, 1, [11, 11, 11]), (33, 4, [9, 8, 8, 8]), (33, 9, [9, 8, 8, 8]), (5, 9, [5])]
)
def test_an_epoch_is_cut_into_even_batches(n, least, sizes):
    """33 rows in batches of at most 16 are three of 11, never one of a single row; more, if of at least 8 rows."""
    got = []

    def loss_fn(net, rows):
        got.append(len(rows["x"]))
        return _squared(net, rows)

    fit_network(_net(), _data(n), loss_fn, _settings(epochs=1, least_batches=least), seed=0)
    assert got == sizes


def test_mean_loss_weighs_blocks_by_their_rows():
    data, net = _data(33), _net()
    whole = _squared(net, data).item()
    assert mean_loss(net, data, _squared, block=10) == pytest.approx(whole, rel=1e-6)


def test_patience_without_valid_rows_is_refused():
    with pytest.raises(InputError, match="needs valid rows"):
        fit_network(_net(), _data(), _squared, _settings(patience=3), seed=0)


def test_two_choices_of_weights_are_refused():
    with pytest.raises(ValidationError, match="set one of them"):
        FitSettings(patience=3, average_last=0.2)
    with pytest.raises(ValidationError, match="set one of them"):
        FitSettings(ema=0.9, average_last=0.2)


def test_tensors_of_different_lengths_are_refused():
    with pytest.raises(InputError, match=r"same number of rows.*'x': 40, 'y': 3"):
        fit_network(_net(), {**_data(), "y": torch.zeros(3, 1)}, _squared, _settings(), seed=0)


def test_a_loss_that_explodes_is_named():
    data = {**_data(), "y": torch.full((DRAWS, 1), float("nan"))}
    with pytest.raises(InputError, match="Training loss is nan in epoch 1"):
        fit_network(_net(), data, _squared, _settings(), seed=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_devices_without_a_gpu():
    """R40."""
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="finds no GPU"):
        choose_device("cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_predicts_what_the_cpu_predicts():
    """R40."""
    net = fit_network(_net(), _data(), _squared, _settings(device="cuda", epochs=50), seed=0)
    x = _data()["x"]
    torch.testing.assert_close(net(x.cuda()).cpu(), net.cpu()(x), rtol=0, atol=1e-3)


@pytest.mark.skipif(not _multiplies_bfloat16(), reason="this CPU has no bfloat16 products")
def test_bfloat16_products_learn_what_float32_learns():
    """Half the time on a CPU that has them; rounding of 8 bits must not change what is learned."""
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    data = {"x": x, "y": x @ torch.randn(6, 3)}

    def loss_fn(net, rows):
        return (net(rows["x"]).float() - rows["y"]).square().mean()

    losses = {}
    for precision in ("float32", "bfloat16"):
        with seeded(1):
            net = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.GELU(), torch.nn.Linear(32, 3))
        settings = FitSettings(epochs=60, batch=50, lr=1e-2, device="cpu", precision=precision)
        fitted = fit_network(net, data, loss_fn, settings, seed=0)
        with torch.no_grad():
            losses[precision] = float(loss_fn(fitted, data))
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] < 2 * losses["float32"] + 1e-3
