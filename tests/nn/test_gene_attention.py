"""Attention over genes: against a slow loop over tokens, any sizes, cells apart, weights as a read-out."""

import math
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from pertcast.errors import InputError
from pertcast.nn.gene_attention import GatedGeneAttention, GeneAttention


def make(genes: int = 7, heads: int = 3, **sizes) -> GeneAttention:
    torch.manual_seed(0)
    return GeneAttention(genes, heads, **{"landmarks": 2, "head_width": 5, **sizes})


def slowly(net: GeneAttention, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One cell x (g,), tokens built one by one: what every gene reads (g,), and its mean weights on genes (g, g)."""
    genes, heads, width = net.genes, net.heads, net.head_width
    out, weights = torch.zeros(genes), torch.zeros(genes, genes)
    for h in range(heads):
        keys = [x[j] * net.key_scale[h, :, j] + net.key_bias[h, :, j] for j in range(genes)]
        values = [x[j] * net.value_scale[h, :, j] + net.value_bias[h, :, j] for j in range(genes)]
        first, read = [], []
        for query in net.query[h]:
            share = torch.stack([query @ key for key in keys]).div(math.sqrt(width)).softmax(0)
            first.append(share)
            read.append(net.norm(sum(s * value for s, value in zip(share, values, strict=True))))
        for j in range(genes):
            query = x[j] * net.gene_query_scale[h, :, j] + net.gene_query_bias[h, :, j]
            scores = [query @ (pooled @ net.landmark_key[h]) / math.sqrt(width) for pooled in read]
            second = torch.stack(scores).softmax(0)
            for s, pooled, share in zip(second, read, first, strict=True):
                out[j] += s * (pooled @ net.landmark_value[h] @ net.out[h, :, j])
                weights[j] += s * share / heads
    return out, weights


def test_it_is_attention_over_tokens_as_a_slow_loop_has_it():
    net, x = make(), torch.randn(4, 7)
    with torch.no_grad():
        slow = [slowly(net, cell) for cell in x]
        assert_close(net(x), torch.stack([out for out, _ in slow]), atol=1e-5, rtol=1e-5)
    assert_close(net.weights(x), torch.stack([weights for _, weights in slow]).mean(0), atol=1e-6, rtol=1e-5)


def test_read_out_rows_are_shares_and_can_be_asked_for_one_by_one():
    """S000-15: what is exported are weights of a mean over cells and heads."""
    net, x = make(), torch.randn(70, 7)
    every = net.weights(x)
    assert_close(every.sum(1), torch.ones(7))
    assert_close(net.weights(x, rows=torch.tensor([6, 0])), every[[6, 0]])


@pytest.mark.parametrize("size", [1, 2, 8, 33])
def test_cells_of_a_batch_never_mix(size):
    """R01: a cell alone, and among others in any order."""
    net, x = make(genes=50, heads=4), torch.randn(33, 50)
    order = torch.randperm(33)[:size]
    with torch.no_grad():
        assert_close(net(x[order]), torch.cat([net(x[i : i + 1]) for i in order]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
@pytest.mark.parametrize("genes", [7, 200, 202, 6998])
def test_any_number_of_genes_goes_with_any_number_of_heads(genes, heads):
    """S000-04, R34."""
    net = GatedGeneAttention(genes, heads, landmarks=1, head_width=2, code_width=3)
    x, mixed = net(torch.randn(2, genes), torch.randn(2, 3))
    assert x.shape == mixed.shape == (2, genes)
    x.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_queries_keys_and_values_learn():
    """R02: no part of the attention is inert, and permuting genes changes what each reads."""
    net, x = make(), torch.randn(4, 7)
    net(x).square().sum().backward()
    assert all(parameter.grad.norm() > 1e-6 for parameter in net.parameters())
    order = torch.tensor([1, 0, 2, 3, 4, 5, 6])
    assert (net(x[:, order])[:, order] - net(x)).abs().max() > 1e-3


def test_memory_grows_with_genes_not_with_their_square():
    """S000-04: twice the genes hold at most 2.1 times the numbers for the backward pass."""

    def held(genes: int) -> int:
        sizes = []
        net = make(genes=genes, heads=4)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            net(torch.randn(2, genes))
        return sum(sizes)

    assert held(2000) < 2.1 * held(1000)
    assert held(7000) < 7000**2  # one score matrix of one head of one cell, attention over all pairs


STEP = """
import torch
from pertcast.nn.film_gan import Critic, FilmGanSizes, Generator
torch.manual_seed(0)
sizes = FilmGanSizes(heads=4, critic_heads=4)
net = Generator(sizes, centre=torch.zeros(6998), axes=None, code_width=2)
critic = Critic(sizes, centre=torch.zeros(6998), code_width=2)
x, code = torch.rand(32, 6998), torch.eye(2)[torch.arange(32) % 2]
optimizer = torch.optim.AdamW(net.parameters())
before = net.of_condition.weight.clone()
(-critic(net.generate(x, code, code.flip(1), sample=True), code.flip(1)).mean()).backward()
optimizer.step()
assert (net.of_condition.weight != before).any() and net.of_condition.weight.isfinite().all()
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_both_networks_take_a_step_on_6998_genes_with_4_heads():
    """S000-04: generator and critic with attention, 32 cells, in less than 4 GB of a process of its own."""
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4e6  # peak of its memory in kB


def test_wrong_shapes_are_named():
    with pytest.raises(InputError, match=r"expects \(cells, 7\), got shape \(4, 8\)"):
        make()(torch.randn(4, 8))
    with pytest.raises(InputError, match="genes is 0, heads is 0"):
        GeneAttention(0, 0)
