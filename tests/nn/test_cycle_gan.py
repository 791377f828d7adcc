"""Pieces of the cycle-GAN against closed forms, torch's distributions, numpy and counts by hand."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pydantic import ValidationError
from torch import nn
from torch.testing import assert_close

from pertcast.config import load_cell_recipe
from pertcast.errors import InputError
from pertcast.nn import cycle_gan_fit
from pertcast.nn.cycle_gan import Critic, CycleGanSizes, CycleNets, Recogniser, Translator, condition_loss
from pertcast.nn.cycle_gan_batches import CycleGanTraining, draw_batch, find_pairs
from pertcast.nn.cycle_gan_fit import fit_cycle_gan
from pertcast.nn.gan_fit import GanCells
from pertcast.nn.sparse_rows import SparseRows

G, C, K = 20, 3, 2  # genes, numbers of a code, contexts
SMALL = {"hidden": (16, 8), "latent": 4, "embedding": 3, "critic_hidden": (8,), "recogniser_hidden": 8, "axes": 5}


def translator(**sizes) -> Translator:
    torch.manual_seed(0)
    found = CycleGanSizes(**{**SMALL, **sizes})
    axes = torch.randn(G, found.axes) if found.axes else None
    return Translator(found, centre=torch.ones(G), axes=axes, code_width=C, contexts=K)


def shaken(net: nn.Module) -> nn.Module:
    """Weights away from their start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def rows(n: int = 33) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    x = torch.rand(n, G) * (torch.rand(n, G) < 0.6) * 4
    return x, torch.eye(C)[torch.arange(n) % C], torch.arange(n) % (K + 1)


def gan_cells() -> GanCells:
    """90 cells, contexts 0 to 2, conditions 0 (control) to 2; context 2 was never treated, 1 not with condition 2."""
    torch.manual_seed(3)
    context, condition = torch.arange(90) % 3, (torch.arange(90) // 3) % 3
    condition[context == 2] = 0
    condition[(context == 1) & (condition == 2)] = 1
    x = torch.rand(90, G) + condition[:, None] * (torch.arange(G) < 5)
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    from scipy.sparse import csr_array

    return GanCells(SparseRows.of(csr_array(x.numpy())), condition, context, torch.zeros(90, 1), table, 0, context)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_published_sizes_are_a_preset():
    """S003-02: 1024-512-256, three latents of 128, embeddings of 32, 2 residual blocks; parameters counted by hand."""
    settings = load_cell_recipe("system-003").settings
    sizes = CycleGanSizes(**{k: v for k, v in settings.items() if k in CycleGanSizes.model_fields}, use_context=True)
    net = Translator(sizes, centre=torch.zeros(50), axes=None, code_width=7, contexts=4)
    line = lambda a, b: a * b + b  # noqa: E731
    block = 2 * line(256, 256) + 2 * 2 * 256 + 2  # two layers, two norms, two PReLU
    attention = 4 * 64 + 2 * 2 * 64 + line(64, 192) + line(64, 64) + 2 * line(64, 64)
    body = lambda width: line(width, 1024) + line(1024, 512) + line(512, 256) + 3 + 2 * block + attention  # noqa: E731
    want = line(7, 32) + 5 * 32 + body(50 + 64) + 3 * line(256, 256) + body(3 * 128 + 64) + line(256, 50)
    assert count(net) == want
    training = CycleGanTraining(**settings["training"])
    assert (training.lr, training.betas, training.cycle, training.kl) == (2e-4, (0.5, 0.9), 10.0, 0.01)
    assert training.penalty_weight == 10.0


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": (8, 8)}, {"latent": 5}, {"embedding": 4}, {"residual_blocks": 2}, {"attention": True},
        {"batch_norm": True}, {"axes": 0}, {"output": "identity"},
    ],
)  # fmt: skip
def test_every_size_changes_the_translator(change):
    """S003-02, R30."""
    base, other = translator(), translator(**change)
    assert count(base) != count(other)
    assert shaken(other)(*rows()).x.shape == (33, G)


def test_options_without_weights_of_their_own_change_what_comes_out():
    """S003-02, R30: dropout in training, the softplus, and whether the context is told."""
    x, code, context = rows()
    plain, blind = shaken(translator()), shaken(translator(use_context=False))
    other = torch.zeros_like(context)
    assert not torch.equal(plain(x, code, context, sample=False).x, plain(x, code, other, sample=False).x)
    assert torch.equal(blind(x, code, context, sample=False).x, blind(x, code, other, sample=False).x)
    soft, straight = shaken(translator(output="softplus")), shaken(translator(output="identity"))
    assert_close(
        soft(x, code, context, sample=False).x, nn.functional.softplus(straight(x, code, context, sample=False).x)
    )
    for rate, same in ((0.0, True), (0.5, False)):
        net = shaken(translator(dropout=rate)).train()
        first, second = (net(x, code, context, sample=False).x for _ in range(2))
        assert torch.equal(first, second) == same


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_cell_alone_is_the_cell_among_others(attention, batch_norm):
    """R01."""
    net, (x, code, context) = shaken(translator(attention=attention, batch_norm=batch_norm)), rows()
    whole = net(x, code, context, sample=False).x
    for some in (torch.tensor([4]), torch.tensor([7, 2]), torch.randperm(33)):
        assert_close(net(x[some], code[some], context[some], sample=False).x, whole[some], rtol=1e-5, atol=1e-5)


def test_attention_is_alive_after_a_step():
    """R02: slopes of queries and keys; a single token would have none."""
    net, (x, code, context) = translator(attention=True, output="identity"), rows()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(x, code, context, sample=False).x.square().mean().backward()
        optimizer.step()
    qkv = net.encode[-1].block.qkv.weight.grad
    assert qkv[:4].abs().sum() > 0  # rows of the queries and of the keys
    assert qkv[2:4].abs().sum() > 0
    with pytest.raises(ValidationError, match=r"attention cuts the last of `hidden` into 4 parts; 6 cannot be"):
        CycleGanSizes(hidden=(8, 6), attention=True)


def test_a_residual_translator_begins_as_the_identity():
    x, code, context = rows()
    start = translator().eval()(x, code, context)
    assert torch.equal(start.x, x)
    assert torch.equal(start.own, torch.zeros(33))


def test_kl_is_that_of_normal_distributions():
    net, (x, code, context) = shaken(translator()), rows()
    h = net.encode(torch.cat([(x - 1) @ net.axes, net.condition(code), net.context(context)], dim=1))
    parts = [head(h).chunk(2, dim=1) for head in net.heads.values()]
    normal, kl = torch.distributions.Normal, torch.distributions.kl_divergence
    want = torch.stack([kl(normal(mean, torch.exp(v / 2)), normal(0, 1)) for mean, v in parts]).mean()
    assert_close(net(x, code, context).kl, want)


def test_values_beyond_1_are_within_reach():
    """S003-05, R26: ten rows in [-5, 12] are fitted to 0.05 in mean square; softplus stays above 0."""
    torch.manual_seed(4)
    net, x = translator(output="identity", dropout=0.0, hidden=(64, 64), axes=0), torch.rand(10, G) * 17 - 5
    code, context = torch.zeros(10, C), torch.zeros(10, dtype=torch.int64)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (net(x, code, context, sample=False).x - x).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert (shaken(translator(output="softplus"))(x, code, context).x > 0).all()


def test_condition_loss_moves_logits_at_zeros_and_ones():
    """S003-04, R24: slope (sigmoid - truth) / n; with the arguments swapped it would be 0 at a truth of 0."""
    truth = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    logits = torch.tensor([[0.3, -0.2, 2.0, -1.0]], requires_grad=True)
    condition_loss(logits, truth).backward()
    want = (1 / (1 + np.exp(-logits.detach().numpy())) - truth.numpy()) / 4
    assert_allclose(logits.grad.numpy(), want, rtol=1e-6)
    assert (logits.grad != 0).all()


def test_the_recogniser_never_sees_its_answer():
    """S003-04, R25."""
    assert list(inspect.signature(Recogniser.forward).parameters) == ["self", "x"]
    net = Recogniser(CycleGanSizes(**SMALL), centre=torch.zeros(G), code_width=C, contexts=K)
    assert net.read[0].in_features == G


def test_a_spectral_critic_is_bounded():
    """Largest singular value of every layer by numpy; without the bound it is above 1."""
    for spectral in (True, False):
        torch.manual_seed(0)
        net = Critic(CycleGanSizes(**SMALL), centre=torch.zeros(G), code_width=C, contexts=K, spectral=spectral)
        layers = [layer for layer in net.score if isinstance(layer, nn.Linear)]
        if not spectral:
            for layer in layers:
                layer.weight.data.mul_(5)
        x, code, context = rows()
        for _ in range(50):
            net(x, code, context)
        top = [np.linalg.svd(layer.weight.detach().numpy())[1].max() for layer in layers]
        assert (max(top) < 1.01) == spectral


def test_one_more_context_leaves_the_others_alone():
    """S003-12: the new one begins as the unknown one."""
    torch.manual_seed(0)
    nets = CycleNets(CycleGanSizes(**SMALL), centre=torch.ones(G), axes=torch.randn(G, 5), code_width=C, contexts=K)
    shaken(nets)
    x, code, context = rows()
    before = nets.forth(x, code, context, sample=False).x, nets.recogniser(x)[1]
    nets.add_context()
    nets.eval()
    assert torch.equal(nets.forth(x, code, context, sample=False).x, before[0])
    assert_close(nets.recogniser(x)[1][:, :K], before[1])
    new, unknown = (torch.full_like(context, number) for number in (K + 1, 0))
    assert torch.equal(nets.forth(x, code, new, sample=False).x, nets.forth(x, code, unknown, sample=False).x)


def test_pairs_hold_cells_out_and_know_what_was_not_measured():
    """S003-08: no cell on both sides, resampling inside the training part only."""
    torch.manual_seed(0)
    cells = gan_cells()
    pairs = find_pairs(cells, valid_share=0.3)
    assert {pair.key: (pair.known, pair.told) for pair in pairs} == {
        (0, 1): (True, True), (0, 2): (True, True), (1, 1): (True, True), (1, 2): (False, True),
        (2, 1): (False, False), (2, 2): (False, False),
    }  # fmt: skip
    held = {row for pair in pairs for row in pair.held.tolist()}
    assert len(held) == 12  # three tenths of 10, 10 and 20
    assert not held & {row for pair in pairs for row in (*pair.target.tolist(), *pair.source.tolist())}
    drawn = [draw_batch(pairs, cells, CycleGanTraining(groups=3, cells=40)) for _ in range(5)]
    of_held = {cells.x[torch.tensor([row])].dense().sum().item() for row in held}
    assert not of_held & {value for batch in drawn for value in batch.y.sum(dim=1).tolist()}
    assert drawn[0].x.shape == (160, G)  # 3 measured pairs and an unmeasured one
    assert drawn[0].y.shape == (120, G)


def test_proportional_batches_follow_the_cells_and_context_is_dropped():
    """S003-02, R30: context 1 has 20 perturbed cells of condition 1, the others 10 each."""
    torch.manual_seed(0)
    cells = gan_cells()
    pairs = find_pairs(cells, valid_share=0)
    share = {}
    for sampling in ("balanced", "proportional"):
        settings = CycleGanTraining(groups=1, cells=2, sampling=sampling)
        keys = [draw_batch(pairs, cells, settings).keys[0] for _ in range(600)]
        share[sampling] = np.mean([key == (1, 1) for key in keys])
    assert_allclose([share["balanced"], share["proportional"]], [1 / 3, 1 / 2], atol=0.06)
    for rate in (0.0, 1.0):
        told = draw_batch(pairs, cells, CycleGanTraining(context_dropout=rate)).told[: 3 * 32]
        assert bool((told == 0).all()) == bool(rate)


def nets_for(cells: GanCells, *, spectral: bool = True, **sizes) -> CycleNets:
    torch.manual_seed(0)
    found = CycleGanSizes(**{**SMALL, **sizes})
    return CycleNets(found, centre=torch.ones(G), axes=torch.randn(G, 5), code_width=2, contexts=3, spectral=spectral)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "wgan-gp"}, {"adversarial": 0.5}, {"cycle": 3.0}, {"recognise": 0.5}, {"kl": 0.5}, {"identity": 2.0},
        {"moment": 0.1}, {"energy": 0.1}, {"marginal": 0.1}, {"sober": 3.0}, {"context_dropout": 0.0},
        {"detection": False}, {"lr": 1e-2}, {"betas": (0.9, 0.99)}, {"weight_decay": 0.5}, {"critic_lr": 1e-2},
        {"schedule": "constant"}, {"schedule": "halving", "halve_every": 2}, {"clip": 0.01}, {"ema": 0.0},
        {"valid_share": 0.0}, {"groups": 1}, {"cells": 8}, {"sampling": "proportional"}, {"steps": 9},
    ],
)  # fmt: skip
def test_every_setting_of_training_changes_the_result(change, base):
    """S003-02, R30. (Counts of single molecules are told here, so that detection has something to do.)"""
    assert not torch.equal(trained(change), base)


@pytest.fixture(scope="module")
def base() -> torch.Tensor:
    return trained({})


def trained(change: dict) -> torch.Tensor:
    cells = gan_cells()
    cells = replace(cells, least=cells.least + 0.5)
    settings = CycleGanTraining(**{"steps": 6, "groups": 2, "cells": 6, "evaluate_every": 4, **change})
    nets = nets_for(cells, spectral=settings.loss == "lsgan")
    history = fit_cycle_gan(nets, cells, settings, seed=0)
    assert all(np.isfinite(list(entry.values())).all() for entry in history)
    return torch.cat([p.detach().flatten() for p in nets.translators().parameters()])


def test_weights_are_those_of_the_best_held_out_distance(monkeypatch):
    """R09, R29, S003-10: of 3, 1, 2 the second evaluation's weights come back; no loss of a GAN has a say."""
    seen, values = [], iter([3.0, 1.0, 2.0])

    def noted(trainer) -> float:
        seen.append([p.detach().clone() for p in trainer.generator.parameters()])
        return next(values)

    monkeypatch.setattr(cycle_gan_fit._Trainer, "held_out_energy", noted)
    cells = gan_cells()
    nets = nets_for(cells)
    history = fit_cycle_gan(nets, cells, CycleGanTraining(steps=8, evaluate_every=4, groups=2, cells=6), seed=0)
    assert [entry["held_out_energy"] for entry in history] == [3.0, 1.0, 2.0]
    for got, want in zip(nets.translators().parameters(), seen[1], strict=True):
        assert torch.equal(got, want)
    values = iter([1.0, 2.0, 3.0, 4.0])
    tired = CycleGanTraining(steps=100, evaluate_every=4, groups=2, cells=6, patience=2)
    assert len(fit_cycle_gan(nets_for(cells), cells, tired, seed=0)) == 3


def test_losses_that_are_not_finite_and_one_domain_alone_are_refused():
    cells = gan_cells()
    alone = replace(cells, condition=torch.zeros_like(cells.condition))
    with pytest.raises(InputError, match=r"both domains; got 90 untreated and 0 perturbed cells"):
        fit_cycle_gan(nets_for(cells), alone, CycleGanTraining(steps=2), seed=0)
    broken = nets_for(cells)
    broken.forth.out.bias.data.fill_(float("nan"))
    with pytest.raises(InputError, match=r"Loss of the translators is nan in step 1\. Lower the learning rates"):
        fit_cycle_gan(broken, cells, CycleGanTraining(steps=2, groups=2, cells=6), seed=0)
