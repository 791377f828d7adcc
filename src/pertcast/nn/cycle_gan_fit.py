"""Training of the cycle-GAN: balanced batches of unpaired single cells, weights chosen by a held-out distance."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pertcast.nn.cycle_gan import UNKNOWN, CycleNets, Translated, condition_loss
from pertcast.nn.cycle_gan_batches import AdaptTraining, Batch, CycleGanTraining, Pair, draw_batch, find_pairs
from pertcast.nn.film import gradient_penalty
from pertcast.nn.film_gan import detect
from pertcast.nn.fit import Progress, choose_device, seeded
from pertcast.nn.gan_fit import AXES, IDENTITY, NO_CHANGE_BATCHES, SCORED, GanCells, GanTrainer, principal_axes
from pertcast.nn.sample_losses import energy_loss, marginal_loss

STAGES = (  # parts of the translators by name, in the order in which a new context unfreezes them
    ("context.",), ("out.", "of_condition."), ("decode.",), ("heads.", "encode.", "condition."),
)  # fmt: skip


def fit_cycle_gan(
    nets: CycleNets,
    cells: GanCells,
    settings: CycleGanTraining,
    *,
    seed: int,
    checkpoint: Path | None = None,
    digest: str = "",
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train all networks in place; return what was measured: after the first step, then once an evaluation.

    cells       values on the log1p scale; contexts are numbered as the networks' embeddings, without the unknown one
    checkpoint  folder whose state is taken up if there is one, and written every `checkpoint_every` steps
    digest      names settings and cells; a checkpoint of others is refused
    progress    called after every step
    Raises InputError for cells without untreated or perturbed ones, and where a loss is not finite.
    Sources: system 003 (CycSeq); Zhu et al. 2017, arXiv:1703.10593; Mao et al. 2017, arXiv:1611.04076.
    """
    device = choose_device(settings.device)
    with seeded(seed, device):
        trainer = _Trainer(nets.to(device), cells.to(device), settings, seed=seed)
        trainer.run(checkpoint=checkpoint, digest=digest, progress=progress)
    nets.eval()
    return trainer.history


class _Trainer(GanTrainer):
    """Translators there and back, critics and a recogniser."""

    def __init__(self, nets: CycleNets, cells: GanCells, settings: CycleGanTraining, *, seed: int) -> None:
        super().__init__(cells, settings, seed=seed)
        self.nets = nets
        self.pairs = find_pairs(cells, valid_share=settings.valid_share)
        self.scored = any(len(pair.held) for pair in self.pairs)
        self.generator = nets.translators()
        self.critic = nn.ModuleList([nets.critic_x, nets.critic_y, nets.recogniser])
        common = {"betas": settings.betas, "weight_decay": settings.weight_decay, "fused": True}
        groups = [{"params": list(self.generator.parameters()), "full": settings.lr}]
        self.optimizer = torch.optim.AdamW(groups, **common)
        critics = [{"params": list(self.critic.parameters()), "full": settings.critic_lr}]
        self.critic_optimizer = torch.optim.AdamW(critics, **common)
        self.start = {name: value.detach().clone() for name, value in self.generator.named_parameters()}
        self.axes = principal_axes(cells.x, AXES)[0]
        self.means = {
            pair.key: (self.mean_of(pair.source), self.mean_of(pair.target)) for pair in self.pairs if pair.known
        }
        self._measure_no_change()

    def take_step(self) -> None:
        """Move the translators together, then critics and recogniser; score the weights when it is time."""
        self._set_rates()
        self._unfreeze()
        self.nets.train()
        batch = draw_batch(self.pairs, self.cells, self.settings)
        facts: dict[str, float] = {}
        fakes = self._move_translators(batch, facts)
        self._move_critics(batch, fakes, facts)
        self.running.see(self.generator)
        self.step += 1
        last = self.step == self.settings.steps
        if self.step == 1 or last or self.step % self.settings.evaluate_every == 0:
            self.evaluate(facts)

    def tired(self) -> bool:
        """Whether patience is at its end."""
        patience = self.settings.patience
        return patience is not None and self.scored and self.best.age >= patience

    def finish(self) -> None:
        """As ever, and set all weights free."""
        super().finish()
        self.generator.requires_grad_(True)

    def _move_translators(self, batch: Batch, facts: dict[str, float]) -> tuple[Tensor, Tensor]:
        """One step of both translators; returns the cells they made before it, detached: Y and X."""
        nets, weight, n = self.nets, self.settings, len(batch.y)
        made = nets.forth(batch.x, batch.code, batch.told, home=batch.home_x)  # (n + u, g): u cells of no measured pair
        undone = nets.back(batch.y, batch.code[:n], batch.told[:n], home=batch.home_y)
        fake_y, fake_x = self._shown(made.x[:n], batch.least_x[:n]), self._shown(undone.x, batch.least_y)
        terms: dict[str, Tensor] = {}
        if weight.cycle:
            there_back = nets.back(made.x, batch.code, batch.told, home=batch.home_x).x
            back_there = nets.forth(undone.x, batch.code[:n], batch.told[:n], home=batch.home_y).x
            terms["cycle_x"] = functional.mse_loss(there_back, batch.x)
            terms["cycle_y"] = functional.mse_loss(back_there, batch.y)
        if weight.kl:
            terms["kl"] = made.kl + undone.kl
        if weight.recognise:
            terms["recognise"] = self._recognised(batch, made.x)
        if weight.identity:
            terms["identity"] = self._identity(batch, n)
        if weight.sober:
            terms["sober"] = (made.own.mean() + undone.own.mean()) / self.no_change["moment"]
        terms |= self._matched(batch, made, undone, fake_y, fake_x)
        if weight.adversarial:
            terms["adversarial"] = self._fooled(batch, fake_y, fake_x)
        loss = sum(getattr(weight, name.split("_")[0]) * value for name, value in terms.items())
        if isinstance(weight, AdaptTraining) and weight.anchor:
            loss = loss + weight.anchor * self._drift()
        facts |= {name: float(value.detach()) for name, value in terms.items()}
        facts["loss"] = self.move("translators", _free(self.generator), self.optimizer, loss)
        return fake_y.detach(), fake_x.detach()

    def _matched(
        self, batch: Batch, made: Translated, undone: Translated, fake_y: Tensor, fake_x: Tensor
    ) -> dict[str, Tensor]:
        """Distances of groups of translated cells from measured ones, both ways, per condition and context."""
        weight, size, n, terms = self.settings, self.settings.cells, len(batch.y), {}
        ways = ((made.x[:n], batch.x[:n], fake_y, batch.y, 1), (undone.x, batch.y, fake_x, batch.x[:n], -1))
        wanted = torch.stack([self.means[key][1] - self.means[key][0] for key in batch.keys])  # (k, g)
        for made_x, source, fake, real, sign in ways:
            groups = [part.view(len(wanted), size, -1) for part in (fake, real)]
            if weight.moment:
                moved = (made_x - source).view(len(wanted), size, -1).mean(dim=1)  # what sources differ in cancels
                _add(terms, "moment", (moved - sign * wanted).square().sum(1).mean() / self.no_change["moment"])
            if weight.energy:
                found = energy_loss(*(part @ self.axes for part in groups)).mean()
                _add(terms, "energy", found / self.no_change["energy"])
        terms = {name: value / len(ways) for name, value in terms.items()}
        if weight.marginal:  # the dearest term, hence only for what is asked of the model
            groups = (part.view(len(wanted), size, -1) for part in (fake_y, batch.y))
            terms["marginal"] = marginal_loss(*groups).mean() / self.no_change["marginal"]
        return terms

    def _recognised(self, batch: Batch, x: Tensor) -> Tensor:
        condition, context = self.nets.recogniser(x)
        return condition_loss(condition, batch.code) + functional.cross_entropy(context, batch.context)

    def _identity(self, batch: Batch, n: int) -> Tensor:
        """What cells lose that are of the domain already."""
        x, y, code, told = (part[:n:IDENTITY] for part in (batch.x, batch.y, batch.code, batch.told))
        home_x, home_y = batch.home_x[:n:IDENTITY], batch.home_y[:n:IDENTITY]
        same_y = self.nets.forth(y, code, told, home=home_y).x
        same_x = self.nets.back(x, code, told, home=home_x).x
        return functional.mse_loss(same_y, y) + functional.mse_loss(same_x, x)

    def _fooled(self, batch: Batch, fake_y: Tensor, fake_x: Tensor) -> Tensor:
        scores = [critic(fake, *labels) for critic, fake, _, labels in self._trials(batch, fake_y, fake_x)]
        if self.settings.loss == "lsgan":
            return sum((score - 1).square().mean() for score in scores)
        return -sum(score.mean() for score in scores)

    def _move_critics(self, batch: Batch, fakes: tuple[Tensor, Tensor], facts: dict[str, float]) -> None:
        n, loss = len(batch.y), batch.x.new_zeros(())
        if self.settings.adversarial:
            for critic, fake, real, labels in self._trials(batch, *fakes):
                loss = loss + self._critic_loss(lambda x, c=critic, told=labels: c(x, *told), real, fake)
        if self.settings.recognise:
            cells = torch.cat([batch.x[:n], batch.y])
            condition, context = self.nets.recogniser(cells)
            truth = torch.cat([torch.zeros_like(batch.code[:n]), batch.code[:n]])
            loss = loss + condition_loss(condition, truth)
            loss = loss + functional.cross_entropy(context, batch.context[:n].repeat(2))
        if loss.requires_grad:
            facts["critic_loss"] = self.move("critics", _free(self.critic), self.critic_optimizer, loss)

    def _critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        score_real, score_fake = critic(real), critic(fake)
        if self.settings.loss == "lsgan":
            return 0.5 * ((score_real - 1).square().mean() + score_fake.square().mean())
        penalty = gradient_penalty(critic, real, fake)
        return score_fake.mean() - score_real.mean() + self.settings.penalty_weight * penalty

    def _trials(self, batch: Batch, fake_y: Tensor, fake_x: Tensor) -> list[tuple]:
        """Each critic with what it compares, and the labels it is told."""
        n = len(batch.y)
        labels = batch.code[:n], batch.context[:n] + 1
        return [(self.nets.critic_y, fake_y, batch.y, labels), (self.nets.critic_x, fake_x, batch.x[:n], labels)]

    def _shown(self, x: Tensor, least: Tensor) -> Tensor:
        """Cells as a measurement would show them."""
        return detect(x, least) if self.settings.detection else x

    def _set_rates(self) -> None:
        settings, factor = self.settings, 1.0
        if settings.schedule == "cosine":
            factor = (1 + math.cos(math.pi * self.step / settings.steps)) / 2
        elif settings.schedule == "halving":
            factor = 0.5 ** (self.step // settings.halve_every)
        for group in (*self.optimizer.param_groups, *self.critic_optimizer.param_groups):
            group["lr"] = group["full"] * factor

    def _unfreeze(self) -> None:
        """Set free what an adaptation has come to; a first training moves everything."""
        if not isinstance(self.settings, AdaptTraining):
            return
        parts = sum(STAGES[: 1 + self.step // self.settings.unfreeze_every], ())
        for name, p in self.generator.named_parameters():  # names are `0.out.weight`, `1.decode.3.bias`
            p.requires_grad_(name.partition(".")[2].startswith(parts))

    def _drift(self) -> Tensor:
        """Squared distance of the weights that an adaptation began with; embeddings of contexts are free."""
        free = ((name, p) for name, p in self.generator.named_parameters() if p.requires_grad)
        apart = [(p - self.start[name]).square().sum() for name, p in free if "context" not in name]
        return torch.stack(apart).sum() if apart else next(self.generator.parameters()).new_zeros(())

    @torch.no_grad()
    def held_out_energy(self) -> float:
        """Energy distance of translated cells from held-out perturbed ones, mean over pairs; no change costs 1."""
        self.nets.eval()
        torch.manual_seed(self.seed)  # the same noise every time: weights are compared, not draws
        found = []
        for pair in (pair for pair in self.pairs if len(pair.held)):
            rows = pair.source[:SCORED]
            made = self.nets.forth(*self._inputs(pair, rows), home=self.cells.home[rows]).x
            fake, real = self._shown(made, self.cells.least[rows]), self.cells.x[pair.held].dense()
            found.append(energy_loss((fake @ self.axes)[None], (real @ self.axes)[None])[0])
        return float(torch.stack(found).mean() / self.no_change["energy"])

    def _inputs(self, pair: Pair, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        told = torch.full_like(rows, pair.context + 1 if pair.told else UNKNOWN)
        return self.cells.x[rows].dense(), self.cells.table[pair.condition].expand(len(rows), -1), told

    def _measure_no_change(self) -> None:
        """What each distance would be if every cell stayed as it is."""
        moment = torch.stack([(after - before).square().sum() for before, after in self.means.values()]).mean()
        groups = []
        for _ in range(NO_CHANGE_BATCHES):
            batch = draw_batch(self.pairs, self.cells, self.settings)
            parts = (part[: len(batch.y)] for part in (batch.x, batch.y))
            groups.append(tuple(part.view(len(batch.keys), self.settings.cells, -1) for part in parts))
        self.set_no_change(moment, groups)


def _free(net: nn.Module) -> list[Tensor]:
    """Parameters that an adaptation has not frozen."""
    return [p for p in net.parameters() if p.requires_grad]


def _add(terms: dict[str, Tensor], name: str, value: Tensor) -> None:
    terms[name] = terms[name] + value if name in terms else value
