"""Both families of masked networks: what they can tell apart, what they never mix, and where they begin."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pydantic import ValidationError
from scipy.sparse import csr_array

from pertcast.nn.masked_fit import Hiding, MaskedLoss, fixed_hidden, has_single_counts, rows_of, start_of
from pertcast.nn.masked_net import MaskedNet, MaskedNetSizes, facts_of

FAMILIES = {
    "one hidden layer": {"hidden": (1024,), "dropout": 0.0},
    "mirrored": {"hidden": (64, 16, 4), "dropout": 0.3},
    "transformer": {"family": "transformer", "width": 8, "heads": 2, "landmarks": 4, "blocks": 1},
}
GENES = 30


def network(name: str, *, genes: int = GENES, codes: int = 0, above: bool = False, zeros: bool = False) -> MaskedNet:
    torch.manual_seed(0)
    start = {"mean": torch.rand(genes), "rise": torch.rand(genes), "spread": torch.ones(genes)}
    net = MaskedNet(MaskedNetSizes(**FAMILIES[name]), **start, zeros=zeros, above=above, codes=codes)
    for parameter in net.parameters():  # outputs begin at zero: stir them
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def cells(n: int = 33, genes: int = GENES) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    x = torch.rand(n, genes) * (torch.rand(n, genes) < 0.6)
    return x, (torch.rand(n, genes) < 0.4) & (x > 0)


def tell(net, x, hidden, code=None):
    visible = x.masked_fill(hidden, 0)
    return net(visible, hidden, facts_of(visible, hidden, net.mean), code)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cell_alone_is_told_as_in_any_batch(name):
    """R01, S001-03: the published transformer looked across the cells of a batch, 0.82 apart."""
    net, (x, hidden) = network(name), cells()
    whole = tell(net, x, hidden)
    order = torch.randperm(33)
    for rows in ([4], [4, 7], list(range(8)), order):
        assert_allclose(tell(net, x[rows], hidden[rows]).detach(), whole[rows].detach(), atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_hidden_and_observed_zero_are_told_apart(name):
    """S001-02: the same visible values, one gene hidden or observed at 0."""
    net, (x, _) = network(name), cells(4)
    x[:, 3] = 0
    hidden = torch.zeros_like(x, dtype=torch.bool)
    facts = facts_of(x, hidden, net.mean)  # the same for both, so that only the mark differs
    marked = hidden.clone()
    marked[:, 3] = True
    others = [k for k in range(GENES) if k != 3]
    assert (net(x, hidden, facts) - net(x, marked, facts)).abs()[:, others].max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_hidden_is_never_read(name):
    net, (x, hidden) = network(name), cells()
    poisoned = torch.where(hidden, 1e6, x)
    assert_allclose(tell(net, poisoned, hidden).detach(), tell(net, x, hidden).detach())


@pytest.mark.parametrize("name", FAMILIES)
def test_only_hidden_entries_enter_the_loss(name):
    """S001-01: by a loop over hidden entries; a change of the others' truth moves nothing but what is read."""
    net, (x, hidden) = network(name), cells()
    rows = rows_of(csr_array(x.numpy()), np.full(33, -1), csr_array(hidden.numpy().astype(np.float32)))
    batch = {key: value[torch.arange(33)] for key, value in rows.items()}
    said = tell(net, x, hidden)
    errors = [(said[i, j] - x[i, j]).item() ** 2 for i in range(33) for j in range(GENES) if hidden[i, j]]
    assert_allclose(MaskedLoss(Hiding())(net, batch).item(), np.mean(errors), rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_of_attention_and_layers_learns(name):
    """R02: after one step there is a slope everywhere; queries and keys of both looks included."""
    net, (x, hidden) = network(name), cells()
    net.train()
    tell(net, x, hidden).square().sum().backward()
    still = [key for key, p in net.named_parameters() if p.numel() and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert still == []


def test_an_untrained_network_says_what_it_starts_from():
    """Gene means; or, of counts on a log scale, a single count of the cell and the gene's usual rise above it."""
    x, hidden = cells()
    mean, rise = torch.rand(GENES), torch.rand(GENES) + 0.1
    for above in (False, True):
        net = MaskedNet(
            MaskedNetSizes(), mean=mean, rise=rise, spread=torch.ones(GENES), zeros=False, above=above
        ).eval()
        least = torch.where(hidden | (x == 0), torch.inf, x).amin(1, keepdim=True)
        want = least + rise if above else mean.expand_as(x)
        assert_allclose(tell(net, x, hidden).detach(), want, rtol=1e-4, atol=1e-5)


def test_values_above_a_single_count_stay_above_it():
    """No output is cut off, and none says less than one count: R20 for inputs far out."""
    net, (x, hidden) = network("mirrored", above=True), cells()
    for scale in (1, 1e4):
        said = tell(net, x * scale, hidden)
        least = torch.where(hidden | (x == 0), torch.inf, x * scale).amin(1, keepdim=True)
        assert torch.isfinite(said).all()
        assert (said >= least).all()


def test_a_condition_that_is_not_told_is_a_code_of_its_own():
    net, (x, hidden) = network("mirrored", codes=3), cells(2)
    untold, none = tell(net, x, hidden, torch.tensor([-1, -1])), tell(net, x, hidden)
    assert_allclose(untold.detach(), none.detach())
    assert (tell(net, x, hidden, torch.tensor([2, 2])) - untold).abs().max() > 1e-3


def test_genes_of_a_transformer_grow_its_memory_in_proportion():
    """S001-03: 15,000 gene tokens; attention of genes to genes would take 900 MB a cell and head."""
    net, (x, hidden) = network("transformer", genes=15_000), cells(2, 15_000)
    assert tell(net, x, hidden).shape == (2, 15_000)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="width must be a multiple of heads, got 10 and 4"):
        MaskedNetSizes(width=10, heads=4)
    with pytest.raises(ValidationError, match=r"low must be at most high, got 0.9 and 0.5"):
        Hiding(low=0.9, high=0.5)


def test_what_a_network_begins_with():
    """By hand: gene 0 is 2 and 4, gene 1 is 3 in the first cell only; smallest values are 2 and 4."""
    x = csr_array(np.array([[2, 3, 0], [4, 0, 0]], np.float32))
    start = start_of(x, zeros=False)
    assert_allclose(start["mean"], [3, 3, 0])
    assert_allclose(start["rise"], [0, 1, 0])
    assert_allclose(start["spread"], [1, 0.25, 0.25])
    assert_allclose(start_of(x, zeros=True)["mean"], [3, 1.5, 0])


def test_single_counts_are_recognised():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (50, 300))
    log = csr_array(np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)).astype(np.float32))
    assert has_single_counts(log)
    assert not has_single_counts(csr_array(rng.random((50, 300)).astype(np.float32)))


def test_fixed_hidden_genes_are_fixed():
    """S001-04: same seed, same genes; another seed, others; zeros only where they are scored."""
    x = csr_array(cells()[0].numpy())
    one, same, other = (fixed_hidden(x, Hiding(), seed).toarray() for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()
    assert not one[x.toarray() == 0].any()
    assert fixed_hidden(x, Hiding(zeros=True), 0).toarray()[x.toarray() == 0].any()
