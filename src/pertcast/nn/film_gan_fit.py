"""Training of the FiLM-GAN: balanced batches of unpaired cells, several objectives, weights by a held-out distance."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from pertcast.nn.conditions import other_condition
from pertcast.nn.film import divergence_penalty, gradient_penalty
from pertcast.nn.film_gan import Critic, Generator, detect
from pertcast.nn.film_gan_batches import Batch, FilmGanTraining, draw_batch, make_pairs, some_of
from pertcast.nn.fit import Progress, choose_device, seeded
from pertcast.nn.gan_fit import AXES, IDENTITY, NO_CHANGE_BATCHES, SCORED, GanCells, GanTrainer, principal_axes
from pertcast.nn.optim import Schedule, make_optimizer
from pertcast.nn.sample_losses import energy_loss, marginal_loss

PENALTIES = {"gradient": gradient_penalty, "divergence": divergence_penalty}


def fit_film_gan(
    generator: Generator,
    critic: Critic,
    cells: GanCells,
    settings: FilmGanTraining,
    *,
    seed: int,
    checkpoint: Path | None = None,
    digest: str = "",
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train both networks in place; return what was measured, one entry per evaluation.

    checkpoint  folder whose state is taken up if there is one, and written every `checkpoint_every` steps
    digest      names settings and cells; a checkpoint of others is refused
    progress    called after every step
    Raises InputError for cells without control or treatment, and where a loss is not finite.
    """
    device = choose_device(settings.device)
    with seeded(seed, device):
        trainer = _Trainer(generator.to(device), critic.to(device), cells.to(device), settings, seed=seed)
        trainer.run(checkpoint=checkpoint, digest=digest, progress=progress)
    generator.eval()
    return trainer.history


class _Trainer(GanTrainer):
    """A generator, a critic, and pairs of groups of cells."""

    def __init__(
        self, generator: Generator, critic: Critic, cells: GanCells, settings: FilmGanTraining, *, seed: int
    ) -> None:
        super().__init__(cells, settings, seed=seed)
        self.generator, self.critic = generator, critic
        self.pairs = make_pairs(cells, settings)
        self.scored = any(len(pair.held) for pair in self.pairs)
        self.control = (cells.condition == cells.control).nonzero()[:, 0]
        decay = {"weight_decay": settings.weight_decay}
        self.optimizer = make_optimizer("adamw", generator.parameters(), lr=settings.lr, **decay)
        self.critic_optimizer = make_optimizer("adamw", critic.parameters(), lr=settings.critic_lr, **decay)
        self.schedules = [
            Schedule(settings.schedule, optimizer, steps=settings.steps, warmup=0.05)
            for optimizer in (self.optimizer, self.critic_optimizer)
        ]
        self.axes = principal_axes(cells.x, AXES)[0]
        sources = {id(pair.source): pair.source for pair in self.pairs}  # conditions of a context share theirs
        source_means = {name: self.mean_of(rows) for name, rows in sources.items()}
        self.means = [(source_means[id(pair.source)], self.mean_of(pair.target)) for pair in self.pairs]
        self._measure_no_change()

    def take_step(self) -> None:
        """Move the critic, then the generator; score the weights when it is time."""
        for schedule in self.schedules:
            schedule.taken = self.step
            schedule.before_step()
        self.generator.train()
        self.critic.train()
        batch, critic_loss = draw_batch(self.pairs, self.settings), 0.0
        made = self._fake(batch)
        if self.settings.adversarial:
            critic_loss = self._move_critic(self._critic_loss(batch, made[0].detach()))
            for _ in range(self.settings.critic_steps - 1):
                other = draw_batch(self.pairs, self.settings)
                with torch.no_grad():
                    fake = self._fake(other)[0]
                critic_loss = self._move_critic(self._critic_loss(other, fake))
        loss = self.move("generator", self.generator.parameters(), self.optimizer, self._generator_loss(batch, made))
        self.running.see(self.generator)
        self.step += 1
        if self.step % self.settings.evaluate_every == 0 or self.step == self.settings.steps:
            self.evaluate({"loss": loss, "critic_loss": critic_loss})

    def _critic_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        code = self.cells.table[batch.after]
        real = self.cells.x[batch.target].dense()
        penalty = PENALTIES[self.settings.penalty](lambda x: self.critic(x, code), real, fake)
        gap = self.critic(fake, code).mean() - self.critic(real, code).mean()
        return gap + self.settings.penalty_weight * penalty

    def _generator_loss(self, batch: Batch, made: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        weight, (k, size) = self.settings, (len(batch.pairs), self.settings.cells)
        fake, expected, x, own = made
        real = self.cells.x[batch.target].dense()
        loss = x.new_zeros(())
        if weight.moment:
            wanted = torch.stack([self.means[number][1] - self.means[number][0] for number in batch.pairs.tolist()])
            moved = (expected - x).view(k, size, -1).mean(dim=1)  # what the source cells differ in cancels
            loss = loss + weight.moment * (moved - wanted).square().sum(1).mean() / self.no_change["moment"]
        if weight.energy:
            found = energy_loss((fake @ self.axes).view(k, size, -1), (real @ self.axes).view(k, size, -1))
            loss = loss + weight.energy * found.mean() / self.no_change["energy"]
        if weight.marginal:
            found = marginal_loss(fake.view(k, size, -1), real.view(k, size, -1))
            loss = loss + weight.marginal * found.mean() / self.no_change["marginal"]
        if weight.adversarial:
            loss = loss - weight.adversarial * self.critic(fake, self.cells.table[batch.after]).mean()
        if weight.sober:
            own = (own.mean() + self._own_anywhere(batch).mean()) / 2
            loss = loss + weight.sober * own / self.no_change["moment"]
        if weight.identity:
            some, code = x[::IDENTITY], self.cells.table[batch.before[::IDENTITY]]
            same = self.generator.generate(some, code, code, sample=False)
            loss = loss + weight.identity * functional.l1_loss(same, some)
        if weight.cycle:
            loss = loss + weight.cycle * self._cycle(x, batch)
        return loss

    def _fake(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cells drawn, their mean over noise, the cells they come from, (k b, g) each; their own changes (k b,)."""
        x, table, net = self.cells.x[batch.source].dense(), self.cells.table, self.generator
        noise = torch.randn(len(x), net.sizes.latent, device=x.device) if net.sizes.noise else None
        change = net(x, table[batch.before], table[batch.after], noise, self.cells.home[batch.source])
        fake = change.apply(x, None if noise is None else torch.randn_like(x))
        if self.settings.detection and net.sizes.noise:
            fake = detect(fake, self.cells.least[batch.source])
        return fake, change.apply(x), x, change.own

    def _own_anywhere(self, batch: Batch) -> Tensor:
        """Own changes of control cells of whatever context, those that were never treated among them: (cells,)."""
        rows, table = some_of(self.control, self.settings.cells), self.cells.table
        after = table[batch.after[:: len(batch.pairs)][: len(rows)]]
        before = table[[self.cells.control] * len(rows)]
        return self.generator(self.cells.x[rows].dense(), before, after, home=self.cells.home[rows]).own

    def _cycle(self, x: Tensor, batch: Batch) -> Tensor:
        table, home = self.cells.table, self.cells.home[batch.source]
        here, there = table[batch.before], table[other_condition(batch.before, len(table))]
        moved = self.generator.generate(x, here, there, sample=False, home=home)
        return functional.l1_loss(self.generator.generate(moved, there, here, sample=False, home=home), x)

    def _move_critic(self, loss: Tensor) -> float:
        return self.move("critic", self.critic.parameters(), self.critic_optimizer, loss)

    @torch.no_grad()
    def held_out_energy(self) -> float:
        """Energy distance of drawn cells from held-out treated ones, mean over pairs of groups; no change costs 1."""
        self.generator.eval()
        torch.manual_seed(self.seed)  # the same noise every time: weights are compared, not draws
        found = []
        for pair in self.pairs:
            if len(pair.held):
                rows = pair.source[:SCORED]
                x = self.cells.x[rows].dense()
                codes = (self.cells.table[[number] * len(rows)] for number in (pair.before, pair.after))
                fake = self.generator.generate(x, *codes, sample=True, home=self.cells.home[rows])
                if self.settings.detection and self.generator.sizes.noise:
                    fake = detect(fake, self.cells.least[rows])
                real = self.cells.x[pair.held].dense()
                found.append(energy_loss((fake @ self.axes)[None], (real @ self.axes)[None])[0])
        return float(torch.stack(found).mean() / self.no_change["energy"])

    def _measure_no_change(self) -> None:
        """What each distance would be if every cell stayed as it is."""
        weight = torch.tensor([pair.weight(self.settings.cells) for pair in self.pairs], device=self.axes.device)
        moment = torch.stack([(after - before).square().sum() for before, after in self.means]) @ weight / weight.sum()
        groups = []
        for batch in [draw_batch(self.pairs, self.settings) for _ in range(NO_CHANGE_BATCHES)]:
            parts = (self.cells.x[rows].dense() for rows in (batch.source, batch.target))
            groups.append(tuple(part.view(len(batch.pairs), self.settings.cells, -1) for part in parts))
        self.set_no_change(moment, groups)
