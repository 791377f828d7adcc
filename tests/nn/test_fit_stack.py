"""A member of a stack is trained as if it were alone."""

import numpy as np
import pytest
import torch
from torch import nn

from pertcast.errors import InputError
from pertcast.nn.fit import FitSettings, fit_network
from pertcast.nn.fit_stack import clip_each_member, fit_stack, members_at_once
from pertcast.nn.losses import mse
from pertcast.nn.stacked import (
    StackedBatchNorm,
    StackedDropout,
    StackedEmbedding,
    StackedLayerNorm,
    StackedLinear,
    Streams,
)
from pertcast.nn.stacked_sequence import StackedConv1d, StackedGRU, StackedLSTM

SEEDS = [3, 11, 12, 40]
N, STEPS, D, HIDDEN, K = 50, 3, 4, 16, 5
LAYERS = {
    "linear": lambda streams: [StackedLinear(D, HIDDEN, streams)],
    "batch_norm": lambda streams: [
        StackedLinear(D, HIDDEN, streams, bias=False),
        Flat(StackedBatchNorm(len(streams), HIDDEN)),
    ],
    "layer_norm": lambda streams: [StackedLinear(D, HIDDEN, streams), StackedLayerNorm(len(streams), HIDDEN)],
    "dropout": lambda streams: [StackedLinear(D, HIDDEN, streams), StackedDropout(0.3)],
    "gru": lambda streams: [StackedGRU(D, HIDDEN, streams)],
    "lstm": lambda streams: [StackedLSTM(D, HIDDEN, streams)],
    "convolution": lambda streams: [StackedConv1d(D, HIDDEN, 3, streams)],
}


class Flat(nn.Module):
    """Read steps as rows."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(1, 2)).view(x.shape)


class Net(nn.Module):
    """A code's vector added to a short sequence, the layer in question, a linear head."""

    def __init__(self, kind, streams):
        super().__init__()
        self.embed = StackedEmbedding(6, D, streams, scale=0.5, unknown_rate=0.1)
        self.layers = nn.Sequential(*LAYERS[kind](streams))
        self.head = StackedLinear(STEPS * HIDDEN, K, streams)

    def forward(self, rows):
        x = rows["x"] + self.embed(rows["code"])[:, :, None]
        return self.head(torch.tanh(self.layers(x)).flatten(2))


def loss_fn(net, rows):
    return mse(net(rows).flatten(0, 1), rows["y"].flatten(0, 1))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x, code = rng.normal(size=(N, STEPS, D)), rng.integers(0, 6, N)
    y = np.tanh(x.sum(1) @ rng.normal(size=(D, K))) + rng.normal(size=(6, K))[code]
    return {"x": torch.tensor(x).float(), "code": torch.tensor(code), "y": torch.tensor(y).float()}


def settings(**changes):
    return FitSettings(**{"epochs": 5, "batch": 16, "lr": 3e-3, "device": "cpu", **changes})


def train(kind, seeds, data, subsets, **changes):
    net = Net(kind, Streams(seeds))
    fit_stack(net, data, loss_fn, settings(**changes), rows=subsets, seeds=seeds)
    with torch.no_grad():
        return net({name: tensor.expand(len(seeds), *tensor.shape) for name, tensor in data.items()})  # (M, N, K)


@pytest.fixture(scope="module")
def subsets():
    """Each member has 40 rows of its own, drawn with repeats."""
    return torch.randint(0, N, (len(SEEDS), 40), generator=torch.Generator().manual_seed(1))


def assert_members_are_alone(together, data, subsets, **settings):
    for m, seed in enumerate(SEEDS):
        alone = train(settings["kind"], [seed], data, subsets[m : m + 1], **settings["changes"])
        torch.testing.assert_close(together[m], alone[0], rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-2  # members are not the same


@pytest.mark.parametrize("kind", LAYERS)
def test_a_member_predicts_what_it_predicts_alone(kind, data, subsets):
    """Every layer, own rows, own masks: to 1e-4 in float32."""
    together = train(kind, SEEDS, data, subsets)
    assert_members_are_alone(together, data, subsets, kind=kind, changes={})


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lion"])
@pytest.mark.parametrize("changes", [{}, {"average_last": 0.5, "schedule": "one_cycle"}, {"clip": 0.05}, {"ema": 0.9}])
def test_every_optimiser_and_average_keeps_members_apart(optimizer, changes, data, subsets):
    """S004-08."""
    changes = {"optimizer": optimizer, **changes}
    together = train("dropout", SEEDS, data, subsets, **changes)
    assert_members_are_alone(together, data, subsets, kind="dropout", changes=changes)


def test_another_members_data_is_not_felt(data, subsets):
    """R03: poisoned targets of rows that only other members learn from change nothing."""
    other = torch.arange(40, 50)
    subsets = torch.stack([torch.arange(40)] + [torch.arange(10, 50)] * 3)
    poisoned = {**data, "y": data["y"].clone()}
    poisoned["y"][other] = 1e3
    before, after = (train("linear", SEEDS, given, subsets) for given in (data, poisoned))
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=0)
    assert (before[1] - after[1]).abs().max() > 0.1


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lion"])
def test_a_stack_of_one_is_the_ordinary_network(optimizer, data):
    """One batch an epoch, so that the order of rows does not matter: the same steps as `fit_network` takes."""
    streams = Streams([0])
    stacked = nn.Sequential(StackedLinear(D, HIDDEN, streams), nn.Tanh(), StackedLinear(HIDDEN, K, streams))
    single = nn.Sequential(nn.Linear(D, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, K))
    with torch.no_grad():
        for ours, theirs in ((stacked[0], single[0]), (stacked[2], single[2])):
            theirs.weight.copy_(ours.weight[0].T)
            theirs.bias.copy_(ours.bias[0, 0])
    given = {"x": data["x"][:, 0], "y": data["y"]}
    chosen = settings(batch=N, optimizer=optimizer, epochs=20, clip=0.1, average_last=0.3)
    fit_network(single, given, lambda net, rows: mse(net(rows["x"]), rows["y"]), chosen, seed=0)

    def stack_loss(net, rows):
        return mse(net(rows["x"]).flatten(0, 1), rows["y"].flatten(0, 1))

    fit_stack(stacked, given, stack_loss, chosen, rows=torch.arange(N)[None], seeds=[0])
    with torch.no_grad():
        torch.testing.assert_close(stacked(given["x"][None])[0], single(given["x"]), rtol=0, atol=1e-4)


def test_each_gradient_is_clipped_to_its_own_norm():
    """Norms 5 (over two parameters, 3 and 4) and 0.5 against a limit of 1."""
    one, two = nn.Parameter(torch.zeros(2, 1)), nn.Parameter(torch.zeros(2, 1, 1))
    one.grad, two.grad = torch.tensor([[3.0], [0.3]]), torch.tensor([[[4.0]], [[0.4]]])
    clip_each_member([one, two], 1.0)
    torch.testing.assert_close(one.grad, torch.tensor([[0.6], [0.3]]))
    torch.testing.assert_close(two.grad, torch.tensor([[[0.8]], [[0.4]]]))


def test_same_seed_same_bytes_and_the_callers_state_is_untouched(data, subsets):
    """R38."""
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    first = train("dropout", SEEDS, data, subsets)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    torch.testing.assert_close(train("dropout", SEEDS, data, subsets), first, rtol=0, atol=0)


def test_epochs_are_logged(data, subsets):
    seen, net = [], Net("linear", Streams(SEEDS))
    fit_stack(net, data, loss_fn, settings(epochs=60), rows=subsets, seeds=SEEDS, log=seen.append)
    assert [facts["epoch"] for facts in seen] == list(range(1, 61))
    assert seen[-1]["loss"] < seen[0]["loss"] / 2


def test_a_budget_decides_how_many_members_train_at_once():
    """16 bytes a weight: 65,536 weights are a megabyte."""
    assert members_at_once(65_536, megabytes=45) == 45
    assert members_at_once(65_537, megabytes=45) == 44
    assert members_at_once(10**9, megabytes=1) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"patience": 3}, "cannot stop early"), ({"schedule": "plateau"}, "Use 'cosine', 'one_cycle' or 'constant'")],
)
def test_settings_that_would_tie_members_are_refused(changes, message, data, subsets):
    with pytest.raises(InputError, match=message):
        train("linear", SEEDS, data, subsets, **changes)


def test_shapes_that_do_not_fit_are_named(data, subsets):
    net = Net("linear", Streams(SEEDS))
    with pytest.raises(InputError, match=r"got 2 seeds, rows of shape \(4, 40\) and parameters of"):
        fit_stack(net, data, loss_fn, settings(), rows=subsets, seeds=[0, 1])


def test_a_loss_that_is_not_finite_is_said(data, subsets):
    with pytest.raises(InputError, match="Training loss of 4 stacked networks is nan in epoch 1"):
        train("linear", SEEDS, {**data, "y": data["y"] * float("nan")}, subsets)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_members_as_if_alone(data, subsets):
    """R40: bfloat16 products, so to 3e-2."""
    together = train("gru", SEEDS, data, subsets, device="cuda").cpu()
    alone = train("gru", SEEDS[:1], data, subsets[:1], device="cuda").cpu()
    torch.testing.assert_close(together[0], alone[0], rtol=0, atol=3e-2)
