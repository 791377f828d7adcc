"""Stacked layers against torch's own, member by member, and what each member draws."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from pertcast.nn.layers import CodeEmbedding, LookupProjection
from pertcast.nn.stacked import (
    StackedBatchNorm,
    StackedDropout,
    StackedEmbedding,
    StackedLayerNorm,
    StackedLinear,
    StackedLookup,
    Streams,
    give_streams,
)
from pertcast.nn.stacked_sequence import StackedConv1d, StackedGRU, StackedLSTM

SEEDS = [5, 6, 7]
N, D, WIDTH = 11, 4, 6


@pytest.fixture
def streams():
    return Streams(SEEDS)


@pytest.fixture
def x():
    return torch.randn(len(SEEDS), N, D, generator=torch.Generator().manual_seed(0))


def alone(layer, member, own):
    """Give torch's layer of one network the weights of one member: (in, out) becomes torch's (out, in)."""
    with torch.no_grad():
        own.weight.copy_(layer.weight[member].T.reshape(own.weight.shape))
        own.bias.copy_(layer.bias[member].reshape(-1))
    return own


def test_linear_is_torchs_for_each_member(streams, x):
    layer = StackedLinear(D, WIDTH, streams)
    expected = [alone(layer, m, nn.Linear(D, WIDTH))(x[m]) for m in range(3)]
    torch.testing.assert_close(layer(x), torch.stack(expected))


def test_linear_without_bias(streams, x):
    layer = StackedLinear(D, WIDTH, streams, bias=False)
    torch.testing.assert_close(layer(x), torch.stack([x[m] @ layer.weight[m] for m in range(3)]))


def test_linear_takes_further_axes(streams):
    layer, x = StackedLinear(D, WIDTH, streams), torch.randn(3, 5, 2, D)
    torch.testing.assert_close(layer(x)[:, :, 1], layer(x[:, :, 1]))


@pytest.mark.parametrize("rows", [3, N])
def test_lookup_is_the_single_networks_lookup(streams, rows):
    """A table shorter than the batch and a longer one give the same numbers."""
    layer, table = StackedLookup(D, WIDTH, streams), torch.randn(7, D)
    index = torch.randint(0, 7, (3, rows))
    expected = [alone(layer, m, LookupProjection(D, WIDTH))(table, index[m]) for m in range(3)]
    torch.testing.assert_close(layer(table, index), torch.stack(expected))


def test_embedding_looks_up_its_own_member(streams):
    layer, code = StackedEmbedding(5, WIDTH, streams), torch.randint(0, 5, (3, N))
    expected = [functional.embedding(code[m], layer.weight[m]) for m in range(3)]
    torch.testing.assert_close(layer(code), torch.stack(expected))


def test_embedding_starts_at_its_scale(streams):
    layer = StackedEmbedding(400, 50, streams, scale=0.3)
    assert layer.weight.std(dim=(1, 2)).tolist() == pytest.approx([0.3] * 3, rel=0.02)
    assert CodeEmbedding(400, 50, scale=0.3).weight.std().item() == pytest.approx(0.3, rel=0.02)


def test_unknown_stands_in_at_its_rate(streams):
    """S004-06: 5 % of 40,000 rows, in training only."""
    layer, code = StackedEmbedding(2, 1, streams, unknown_rate=0.05), torch.ones(3, 40_000, dtype=torch.long)
    give_streams(layer, Streams(SEEDS))
    unknown = (layer(code) == layer.weight[:, :1]).float().mean(dim=(1, 2))
    assert unknown.tolist() == pytest.approx([0.05] * 3, abs=4 * math.sqrt(0.05 * 0.95 / 40_000))
    assert (layer.eval()(code) == layer.weight[:, 1:]).all()


def test_forgotten_codes_become_the_unknown(streams):
    layer = StackedEmbedding(4, WIDTH, streams)
    before = layer.weight.detach().clone()
    unseen = torch.tensor([[False, True, False, False]] + [[False] * 4] * 2)
    layer.forget(unseen)
    torch.testing.assert_close(layer.weight[0, 1], before[0, 0])
    torch.testing.assert_close(layer.weight[0, 2:], before[0, 2:])
    torch.testing.assert_close(layer.weight[1:], before[1:])


def test_batch_norm_is_torchs_for_each_member(x):
    """Two training batches, then evaluation by the running statistics; members have other weights."""
    layer = StackedBatchNorm(3, D)
    own = [nn.BatchNorm1d(D) for _ in SEEDS]
    with torch.no_grad():
        layer.weight.copy_(torch.rand(3, D))
        for m, one in enumerate(own):
            one.weight.copy_(layer.weight[m])
    for batch in (x, 3 * x + 1):
        torch.testing.assert_close(layer(batch), torch.stack([one(batch[m]) for m, one in enumerate(own)]))
    torch.testing.assert_close(layer.running_var, torch.stack([one.running_var for one in own]))
    expected = torch.stack([one.eval()(x[m]) for m, one in enumerate(own)])
    torch.testing.assert_close(layer.eval()(x), expected)


@pytest.mark.parametrize("shape", [(3, N, D), (3, 2, N, D)])
def test_layer_norm_is_torchs_for_each_member(shape):
    layer, x = StackedLayerNorm(3, D), torch.randn(shape)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(3, D))
        layer.bias.copy_(torch.rand(3, D))
    expected = [functional.layer_norm(x[m], (D,), layer.weight[m], layer.bias[m]) for m in range(3)]
    torch.testing.assert_close(layer(x), torch.stack(expected))


@pytest.mark.parametrize(("stacked", "single"), [(StackedGRU, nn.GRU), (StackedLSTM, nn.LSTM)])
def test_recurrent_layers_are_torchs(streams, stacked, single):
    """Outputs and gradients of every member equal those of the fused layer of one network."""
    layer, x = stacked(D, WIDTH, streams), torch.randn(3, N, 5, D)
    layer(x).square().sum().backward()
    for m in range(3):
        own = single(D, WIDTH, batch_first=True)
        with torch.no_grad():
            own.weight_ih_l0.copy_(layer.weight_in[m].T)
            own.weight_hh_l0.copy_(layer.weight_state[m].T)
            own.bias_ih_l0.copy_(layer.bias_in[m, 0])
            own.bias_hh_l0.copy_(layer.bias_state[m, 0])
        expected = own(x[m])[0]
        torch.testing.assert_close(layer(x)[m], expected)
        expected.square().sum().backward()
        torch.testing.assert_close(layer.weight_state.grad[m].T, own.weight_hh_l0.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_convolution_is_torchs(streams, kernel):
    layer, x = StackedConv1d(D, WIDTH, kernel, streams), torch.randn(3, N, 5, D)
    for m in range(3):
        own = nn.Conv1d(D, WIDTH, kernel)
        with torch.no_grad():
            own.weight.copy_(layer.weight[m].T.reshape(WIDTH, D, kernel))
            own.bias.copy_(layer.bias[m, 0])
        padded = functional.pad(x[m].transpose(1, 2), ((kernel - 1) // 2, kernel // 2))  # the odd one after
        torch.testing.assert_close(layer(x)[m], own(padded).transpose(1, 2))


def test_dropout_keeps_the_mean_at_its_rate():
    """30 % of 3 x 100,000 elements are zero, the others grow so that the mean stays."""
    layer, ones = StackedDropout(0.3), torch.ones(3, 1000, 100)
    give_streams(layer, Streams(SEEDS))
    dropped = layer(ones)
    assert (dropped == 0).float().mean(dim=(1, 2)).tolist() == pytest.approx([0.3] * 3, abs=0.006)
    assert dropped.mean(dim=(1, 2)).tolist() == pytest.approx([1.0] * 3, abs=0.01)
    assert (layer.eval()(ones) == 1).all()


@pytest.mark.parametrize("shape", [(3,), (16,), (7, 9)])
def test_masks_have_any_shape(shape):
    """R39: sizes that are no multiple of eight."""
    assert Streams(SEEDS).keep(*shape, rate=0.5).shape == (3, *shape)


@pytest.mark.parametrize(
    "draw",
    [
        lambda s: s.uniform(5),
        lambda s: s.normal(5, std=2.0),
        lambda s: s.permutations(9).float(),
        lambda s: s.keep(64, rate=0.5),
    ],
)
def test_what_a_member_draws_does_not_depend_on_the_others(draw):
    """R38: member 7 draws alone what it draws in a stack, and nobody draws the same."""
    together = draw(Streams(SEEDS))
    torch.testing.assert_close(together[2:], draw(Streams([7])), rtol=0, atol=0)
    assert not torch.equal(together[0], together[1])
