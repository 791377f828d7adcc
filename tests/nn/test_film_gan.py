"""Pieces of the FiLM-GAN against closed forms, slow loops and scipy: modulation, penalties, samplers, losses, codes."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.spatial.distance import cdist
from torch.testing import assert_close

from pertcast.errors import InputError
from pertcast.nn.conditions import ConditionSpace, other_code, other_condition
from pertcast.nn.film import Film, InjectNoise, ScaledLeakyReLU, divergence_penalty, gradient_penalty
from pertcast.nn.film_gan import Critic, FilmGanSizes, Generator, Modulation, detect
from pertcast.nn.film_gan_batches import FilmGanTraining, draw_batch, make_pairs
from pertcast.nn.gan_fit import GanCells
from pertcast.nn.sample_losses import energy_loss, marginal_loss
from pertcast.nn.sparse_rows import SparseRows

G, C = 30, 3


def generator(**sizes) -> Generator:
    torch.manual_seed(0)
    axes = torch.randn(G, 4)
    return Generator(FilmGanSizes(**{"hidden": 8, "latent": 4, **sizes}), centre=torch.ones(G), axes=axes, code_width=C)


def shaken(net: torch.nn.Module) -> torch.nn.Module:
    """Weights away from their start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


def cells_and_codes(n: int = 33) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.rand(n, G) * (torch.rand(n, G) < 0.6) * 4, torch.zeros(n, C), torch.eye(C)[torch.arange(n) % C]


def test_a_cell_is_modulated_and_never_negative():
    """S000-01: gamma and beta are (n, G); gamma = 1, beta = 0 gives the cell back, bit for bit."""
    x, source, target = cells_and_codes()
    change = shaken(generator())(x, source, target)
    assert change.gamma.shape == change.beta.shape == (33, G)
    assert (change.gamma >= 0).all()
    assert (change.gamma <= 4).all()
    assert (change.apply(x) >= 0).all()
    assert (change.apply(x, torch.randn_like(x)) >= 0).all()
    assert torch.equal(Modulation(torch.ones_like(x), torch.zeros_like(x)).apply(x), x)
    by_hand = Modulation(torch.tensor([[2.0, 0.5]]), torch.tensor([[1.0, -3.0]])).apply(torch.tensor([[3.0, 4.0]]))
    assert_close(by_hand, torch.tensor([[7.0, 0.0]]))


def test_without_noise_a_modulation_gives_its_mean_over_noise():
    """Mean of a rectified normal, by scipy's integral."""
    for centre, spread in ((1.0, 0.5), (-0.4, 0.8), (2.0, 0.01)):
        law = stats.norm(centre, spread)
        wanted = law.expect(lambda v: v, lb=0, ub=centre + 20 * spread)
        made = Modulation(torch.tensor([[0.0]]), torch.tensor([[centre]]), torch.tensor([[spread]]))
        assert_allclose(made.apply(torch.zeros(1, 1)).item(), wanted, rtol=1e-5)


def test_before_training_the_generator_is_near_the_identity():
    """S000-02, R35: correlation of output and input, drawn and mean, with every size of attention."""
    x, source, target = cells_and_codes()
    for heads in (0, 1, 4):
        for sample in (False, True):
            made = generator(heads=heads).eval().generate(x, source, target, sample=sample).detach()
            assert np.corrcoef(made.ravel(), x.ravel())[0, 1] >= 0.99


@pytest.mark.parametrize("size", [1, 2, 8, 33])
def test_a_cell_does_not_see_its_neighbours(size):
    """R01, for generator and critic."""
    x, source, target = cells_and_codes()
    net = shaken(generator(heads=2))
    critic = shaken(Critic(FilmGanSizes(hidden=8, latent=4, critic_heads=2), centre=torch.ones(G), code_width=C))
    rows = torch.randperm(33)[:size]
    with torch.no_grad():
        alone = torch.cat([net.generate(x[[i]], source[[i]], target[[i]], sample=False) for i in rows.tolist()])
        assert_close(net.generate(x[rows], source[rows], target[rows], sample=False), alone, atol=1e-5, rtol=0)
        alone = torch.cat([critic(x[[i]], target[[i]]) for i in rows.tolist()])
        assert_close(critic(x[rows], target[rows]), alone, atol=1e-5, rtol=0)


def test_only_the_condition_changed_changes_the_output():
    """S000-03, of weights away from their start."""
    x, source, target = cells_and_codes()
    net = shaken(generator())
    one, other = (net.generate(x, source, code, sample=False) for code in (target, target.flip(1)))
    assert ((one - other).abs().amax(dim=1) > 1e-4)[target[:, 1] == 0].all()


def test_noise_gives_several_outcomes_and_can_be_switched_off():
    """S000-13."""
    x, source, target = cells_and_codes()
    net = shaken(generator())
    draws = torch.stack([net.generate(x, source, target, sample=True) for _ in range(20)])
    assert (draws.std(dim=0).mean(dim=1) > 0.01).all()
    fixed = [net.generate(x, source, target, sample=False) for _ in range(2)]
    assert torch.equal(*fixed)
    off = shaken(generator(noise=False))
    assert torch.equal(*(off.generate(x, source, target, sample=True) for _ in range(2)))


def test_film_noise_and_activation_start_as_they_should():
    """S000-02: FiLM is 1 + gamma, its gain at the start 1 and not 0.7; noise has weight 0; the activation by hand."""
    x = torch.randn(5, 4)
    film = Film(4, 2)
    assert torch.equal(film(x, torch.randn(5, 2)), x)
    torch.nn.init.constant_(film.modulation.bias, 1.0)
    assert_close(film(x, torch.zeros(5, 2)), 2 * x + 1)
    noise = InjectNoise(4)
    assert torch.equal(noise(x, torch.randn(5, 4)), x)
    assert torch.equal(noise(x), x)
    torch.nn.init.constant_(noise.weight, 2.0)
    assert_close(noise(x, torch.ones(5, 4)), x + 2)
    assert_close(ScaledLeakyReLU()(torch.tensor([-1.0, 2.0])), torch.tensor([-0.2, 2.0]) * math.sqrt(2))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("detached", [True, False])
def test_penalties_of_a_linear_critic_in_closed_form(device, detached):
    """S000-05, R32, R33: with weight norm w, (w - 1)^2 and k / 2 * 2 * w^p; detached or with gradients."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    weight = torch.tensor([3.0, 4.0], device=device, dtype=torch.float64, requires_grad=True)  # norm 5
    real, fake = torch.randn(2, 6, 2, device=device, dtype=torch.float64, requires_grad=not detached)

    def critic(x):
        return x @ weight

    penalty = gradient_penalty(critic, real, fake)
    assert_close(penalty.item(), 16.0)
    for k, p in ((2.0, 2.0), (2.0, 6.0), (0.5, 3.0)):
        assert_close(divergence_penalty(critic, real, fake, k=k, p=p).item(), k * 5.0**p)
    penalty.backward()
    assert_close(weight.grad, 2 * 4 * weight.detach() / 5)  # slope of (w - 1)^2


def test_other_conditions_are_never_the_own_and_uniform_over_the_rest():
    """S000-06: chi-square over 60,000 draws; vectorised; one condition is refused."""
    torch.manual_seed(0)
    own = torch.arange(60_000) % 5
    drawn = other_condition(own, 5)
    assert (drawn != own).all()
    for condition in range(5):
        counts = torch.bincount(drawn[own == condition], minlength=5)
        counts = counts[torch.arange(5) != condition].numpy()
        assert stats.chisquare(counts).pvalue > 1e-3
    with pytest.raises(InputError, match="No other condition can be drawn from 1. Give cells of at least 2"):
        other_condition(torch.zeros(4, dtype=torch.int64), 1)


def test_other_codes_of_several_factors_doses_and_times():
    """S000-06, R36."""
    torch.manual_seed(0)
    names = ["control", "A", "B", "A+B", "A@0.5", "A@2", "A@2+B"]
    table = torch.tensor(ConditionSpace.of(names, control="control").table(names))
    assert len(table.unique(dim=0)) == len(names)
    own = torch.arange(7000) % 7
    drawn = other_code(table[own], table)
    place = (drawn[:, None] == table).all(2).int().argmax(1)
    assert (place != own).all()
    assert stats.chisquare(torch.bincount(place[own == 3], minlength=7)[[0, 1, 2, 4, 5, 6]].numpy()).pvalue > 1e-3
    with pytest.raises(InputError, match="1 of 1 codes are no row"):
        other_code(torch.full((1, table.shape[1]), 0.3), table)
    with pytest.raises(InputError, match="from 1"):
        other_code(table[:1], table[:1])


def test_codes_of_conditions_by_hand():
    """R36: factors add up, numbers scale, the control is 0, plain names with signs stay whole."""
    space = ConditionSpace.of(["control", "A@4", "B", "CD4+", "x@home"], control="control")
    assert space.factors == ("A", "B", "CD4+", "x@home")
    assert space.scale == 4
    assert space.width == 8
    assert_allclose(space.code("control"), np.zeros(8))
    assert_allclose(space.code("A@2+B"), [1, 1, 0, 0, 0.5, 0, 0, 0])
    by_log = ConditionSpace.of(["A@4", "B"], control="control", log=True)
    assert_allclose(by_log.code("A@2"), [1, 0, math.log(3) / math.log(5), 0], rtol=1e-6)
    assert_allclose(space.code("CD4+"), [0, 0, 1, 0, 0, 0, 0, 0])
    with pytest.raises(InputError, match=r"Unknown condition 'C'"):
        space.code("C")
    with pytest.raises(InputError, match="has a number, but no condition of the training cells had"):
        ConditionSpace.of(["A"], control="control").code("A@2")
    with pytest.raises(InputError, match="must be finite"):
        space.code("A@inf")


def test_factors_can_be_described_by_vectors():
    vectors = {"A": np.array([1.0, 0.0]), "B": np.array([0.5, 2.0]), "new": np.array([3.0, 1.0])}
    space = ConditionSpace.of(["A", "B"], control="control", vectors=vectors)
    assert_allclose(space.code("A+new"), [4.0, 1.0])
    arrays, facts = space.parts()
    assert_allclose(ConditionSpace.restored(arrays, facts).code("B"), [0.5, 2.0])
    with pytest.raises(InputError, match=r"(?s)no vector for C.*one length, found shapes"):
        ConditionSpace.of(["A", "C"], control="control", vectors={"A": np.ones(2), "B": np.ones(3)})


def test_energy_loss_is_the_energy_distance_without_bias():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 9, 4)), rng.standard_normal((2, 7, 4)) + 1
    found = energy_loss(torch.tensor(a), torch.tensor(b))
    for k in range(2):
        within = cdist(a[k], a[k]).sum() / 72 + cdist(b[k], b[k]).sum() / 42
        assert_allclose(found[k], 2 * cdist(a[k], b[k]).mean() - within)
    same = torch.zeros(1, 3, 2, requires_grad=True)  # cells on one spot
    energy_loss(same, torch.ones(1, 3, 2)).sum().backward()
    assert same.grad.isfinite().all()


def test_marginal_loss_is_the_energy_distance_gene_by_gene():
    rng = np.random.default_rng(1)
    a, b = torch.tensor(rng.poisson(1.0, (3, 9, 4)) * 1.0), torch.tensor(rng.standard_normal((3, 7, 4)))
    wanted = sum(energy_loss(a[:, :, [j]], b[:, :, [j]]) for j in range(4))
    assert_close(marginal_loss(a, b), wanted)


def test_detection_keeps_the_mean_and_shows_whole_counts_only():
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 0.3, 1.0, 2.5]]).repeat(40_000, 1).requires_grad_(True)
    seen = detect(x, torch.full((40_000, 1), 1.2))
    assert_close(seen.mean(dim=0), x[0], atol=0.02, rtol=0)
    assert_allclose(np.unique(seen.detach().numpy()[:, :3].round(3)), [0.0, 1.2])
    seen.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert torch.equal(detect(x, torch.zeros(40_000, 1)), x)  # nothing known of the measurement


def gan_cells(sizes: dict[tuple[int, int], int]) -> GanCells:
    """Cells of one gene: (context, condition) -> how many."""
    both = torch.tensor([pair for pair, count in sizes.items() for _ in range(count)])
    from scipy.sparse import csr_array

    x = SparseRows.of(csr_array(np.ones((len(both), 1), np.float32)))
    table = torch.eye(3)[: int(both[:, 1].max()) + 1]
    return GanCells(x, both[:, 1], both[:, 0], torch.zeros(len(both), 1), table, control=0, home=both[:, 0])


def test_batches_are_balanced_whatever_the_cells_are():
    """S000-14: 95 treated cells of one kind and 5 of another share a batch by halves; unbalanced they do not."""
    torch.manual_seed(0)
    cells = gan_cells({(0, 0): 50, (0, 1): 950, (0, 2): 50})
    shares = {}
    for balanced in (True, False):
        settings = FilmGanTraining(balanced=balanced, valid_share=0)
        batches = [draw_batch(make_pairs(cells, settings), settings) for _ in range(200)]
        every = torch.cat([cells.condition[batch.target] for batch in batches])
        shares[balanced] = [float((batch.after == 2).float().mean()) for batch in batches]
        assert torch.equal(every, torch.cat([batch.after for batch in batches]))
    assert all(0.45 <= share <= 0.55 for share in shares[True])
    assert np.mean(shares[False]) < 0.1


def test_pairs_stay_within_contexts_and_hold_cells_out():
    """R29: the cells that score the weights are in no batch."""
    torch.manual_seed(0)
    cells = gan_cells({(0, 0): 40, (0, 1): 40, (1, 0): 30, (1, 2): 3, (2, 1): 20})
    pairs = make_pairs(cells, FilmGanTraining())
    assert [(p.before, p.after, len(p.target), len(p.held)) for p in pairs] == [
        (0, 1, 36, 4),
        (0, 2, 3, 0),
        (0, 1, 18, 2),
    ]
    assert len(pairs[2].source) == 70  # a context without control cells starts from all of them
    for pair in pairs:
        assert not set(pair.target.tolist()) & set(pair.held.tolist())
        assert len(set(cells.context[torch.cat([pair.target, pair.held])].tolist())) == 1
    both_ways = make_pairs(cells, FilmGanTraining(directions="any"))
    assert {(p.before, p.after) for p in both_ways} == {(0, 1), (1, 0), (0, 2), (2, 0)}
    with pytest.raises(InputError, match="got 5 control cells and 0 treated ones"):
        make_pairs(gan_cells({(0, 0): 5}), FilmGanTraining())
