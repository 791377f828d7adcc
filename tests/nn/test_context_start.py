"""The start of networks of cells: means of a context change as given, drawn as measured values or not."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from pertcast.nn.context_start import NOWHERE, ContextStart
from pertcast.nn.cycle_gan import CycleGanSizes, Translator
from pertcast.nn.film_gan import FilmGanSizes, Generator, detect

G, C, K, N = 12, 2, 3, 4000


def start(seed: int = 0) -> ContextStart:
    """Contexts of different means; change of each by up to a third of these, up and down."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0.5, 3, (K, G))
    change = rng.uniform(-1, 1, (K, C, G)) * centre[:, None] / 3
    return ContextStart(*(torch.tensor(part, dtype=torch.float32) for part in (centre, change)))


def cells_of(net: ContextStart, home: int) -> torch.Tensor:
    """Draw cells whose values are 0 or a whole number of steps of 1, with just the context's means."""
    torch.manual_seed(home)
    x = torch.poisson(net.centre[home].expand(N, -1))
    return x * net.centre[home] / x.mean(dim=0)


def code(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32).expand(N, -1)


@pytest.mark.parametrize("home", range(K))
@pytest.mark.parametrize("noisy", [False, True])
def test_means_of_a_context_change_as_given(home, noisy):
    """Against the table itself; also where what is less than a single count is shown as one or none."""
    net = start()
    x, at = cells_of(net, home), torch.full((N,), home)
    gain, shift = net(x, code(0, 0), code(1, 0.5), at)
    made = gain * x + shift
    assert (made >= 0).all()
    if noisy:
        made = detect(made, torch.full((N, 1), 1.5))
        assert ((made == 0) | (made >= 1.5)).all()
    want = net.change[home, 0] + 0.5 * net.change[home, 1]
    assert_allclose((made - x).mean(dim=0), want, atol=0.08 if noisy else 1e-4)
    assert (want.abs() > 0.2).any()


def test_the_way_back_undoes_the_way_there_and_none_is_no_way():
    net = start()
    x, at = cells_of(net, 1), torch.full((N,), 1)
    gain, shift = net(x, code(0, 0), code(1, 0), at)
    there = gain * x + shift
    gain, shift = net(there, code(1, 0), code(0, 0), at)
    assert_allclose((gain * there + shift).mean(dim=0), x.mean(dim=0), rtol=1e-4)
    gain, shift = net(x, code(1, 1), code(1, 1), at)
    assert_close(gain * x + shift, x)


def test_cells_of_no_known_context_begin_as_the_nearest_centre():
    """A slow loop over cells; other cells of the batch have no say."""
    net, at = start(), torch.tensor([0, 2] * (N // 2))
    x = torch.cat([cells_of(net, number) for number in range(K)])[torch.arange(N) * 3 % (K * N)]
    nearest = torch.tensor([int((row - net.centre).square().sum(dim=1).argmin()) for row in x])
    for home, want in ((None, nearest), (torch.where(at == 0, NOWHERE, at), torch.where(at == 0, nearest, at))):
        for got, expected in zip(
            net(x, code(0, 0), code(1, 0), home), net(x, code(0, 0), code(1, 0), want), strict=True
        ):
            assert_close(got, expected)
    assert_close(net(x[:1], code(0, 0)[:1], code(1, 0)[:1])[1], net(x, code(0, 0), code(1, 0))[1][:1])
    assert len(nearest.unique()) == K


def test_a_silent_gene_does_not_fall_below_0():
    net = ContextStart(torch.tensor([[0.0, 1.0]]), torch.tensor([[[-1.0, -3.0]]]))
    x = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    gain, shift = net(x, torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, dtype=torch.int64))
    assert_close(gain * x + shift, torch.zeros(2, 2))


def test_networks_begin_at_the_start():
    """Both GANs before any step, there and back, against gain and shift put on by hand."""
    net, at = start(), torch.zeros(N, dtype=torch.int64)
    x, here, there = cells_of(net, 0), code(0, 0), code(1, 0)
    gain, shift = net(x, here, there, at)
    common = {"centre": x.mean(dim=0), "axes": torch.eye(G)[:, :4], "code_width": C, "start": net}
    film = Generator(FilmGanSizes(hidden=8, latent=4, noise=False), **common).eval()
    assert_close(film.generate(x, here, there, sample=False, home=at), gain * x + shift)
    sizes = CycleGanSizes(hidden=(8,), latent=3, axes=4)
    forth, back = (Translator(sizes, contexts=K, leads_back=way, **common).eval() for way in (False, True))
    assert_close(forth(x, there, at, home=at).x, gain * x + shift)
    gain, shift = net(x, there, here, at)
    assert_close(back(x, there, at, home=at).x, gain * x + shift)
