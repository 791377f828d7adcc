"""Train a stack of networks as one program: same steps, same losses, and each member as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pertcast.errors import InputError
from pertcast.nn.fit import (
    AverageWeights,
    FitSettings,
    Log,
    Rows,
    RunningWeights,
    batches_per_epoch,
    choose_device,
    make_schedule,
    take,
    train_step,
    weighted_mean,
)
from pertcast.nn.optim import make_optimizer
from pertcast.nn.stacked import Streams, give_streams

WEIGHT_BYTES = 16  # float32 weight, gradient and the two moments of Adam

StackLoss = Callable[[nn.Module, Rows], Tensor]  # mean loss over members and their rows (M, b, ...): ()


def fit_stack(
    net: nn.Module,
    data: Rows,
    loss_fn: StackLoss,
    settings: FitSettings,
    *,
    rows: Tensor,
    seeds: Sequence[int],
    log: Log | None = None,
) -> nn.Module:
    """Train M networks in place and return them in evaluation mode, on the device they were trained on.

    net       a module of stacked layers: every parameter is (M, ...)
    data      tensors of N rows each, shared by all members and kept on the device
    loss_fn   (net, rows of each member) -> mean loss over members and rows; tensors of rows are (M, b, ...)
    rows      (M, n) row numbers of `data` that each member learns from; repeats are allowed
    seeds     (M,) of the members: order of rows and dropout masks follow from them alone
    log       called after every epoch with epoch, loss (mean over members) and lr

    A member's predictions are those of a stack of one with its seed, to 1e-4 in float32: gradients are clipped member
    by member and all optimisers move each weight by itself. Only `plateau` would tie members together.
    Raises InputError where a setting or a shape does not fit a stack, or where the loss is not finite.
    """
    _check(net, settings, rows, seeds)
    device = choose_device(settings.device)
    net.to(device)
    data = {name: tensor.to(device) for name, tensor in data.items()}
    streams = Streams(seeds, device)
    give_streams(net, streams)
    _run_epochs(net, data, loss_fn, settings, rows=rows.to(device), streams=streams, log=log)
    give_streams(net, None)
    return net.eval()


def members_at_once(weights: int, *, megabytes: int) -> int:
    """How many members of so many weights each fit a budget: at least one, whatever the machine has."""
    return max(1, megabytes * 2**20 // (WEIGHT_BYTES * weights))


def _run_epochs(
    net: nn.Module,
    data: Rows,
    loss_fn: StackLoss,
    settings: FitSettings,
    *,
    rows: Tensor,
    streams: Streams,
    log: Log | None,
) -> None:
    members, n = rows.shape
    batches = batches_per_epoch(n, settings)
    optimizer = make_optimizer(settings.optimizer, net.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = make_schedule(settings, optimizer, steps=settings.epochs * batches)
    step = partial(train_step, settings=settings, clip=clip_each_member, scale=members)  # of a member's own mean
    average, running = AverageWeights(), RunningWeights(settings.ema)
    for epoch in range(1, settings.epochs + 1):
        parts = rows.gather(1, streams.permutations(n)).tensor_split(batches, dim=1)  # (M, b) each
        losses = []
        for part in parts:
            losses.append(step(net, take(data, part), loss_fn, optimizer, schedule))
            running.see(net)
        loss = weighted_mean(losses, [part.shape[1] for part in parts])
        if not math.isfinite(loss):
            found = f"Training loss of {members} stacked networks is {loss} in epoch {epoch}."
            raise InputError(f"{found} Lower the learning rate ({settings.lr}) or look for values that are not finite.")
        if epoch > settings.epochs * (1 - settings.average_last):
            average.add(net)
        if log is not None:
            log({"epoch": epoch, "loss": loss, "lr": optimizer.param_groups[0]["lr"]})
    average.restore(net)
    running.restore(net)


@torch.no_grad()
def clip_each_member(params: Iterable[nn.Parameter], limit: float) -> None:
    """Scale each member's gradient to a norm of at most `limit`, as `clip_grad_norm_` does for one network."""
    grads = [p.grad for p in params if p.grad is not None]  # (M, ...) each
    norms = torch.stack([torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in grads]).norm(dim=0)  # (M,)
    scale = (limit / (norms + 1e-6)).clamp_max(1.0)
    for grad in grads:
        grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))


def _check(net: nn.Module, settings: FitSettings, rows: Tensor, seeds: Sequence[int]) -> None:
    if settings.patience is not None:
        raise InputError(
            "Stacked networks cannot stop early (patience): each would stop in an epoch of its own. "
            "Leave patience unset and choose the epochs by cross-validation."
        )
    if settings.schedule == "plateau":
        raise InputError(
            "Stacked networks cannot use the schedule 'plateau': each would lower its rate in an epoch of its own. "
            "Use 'cosine', 'one_cycle' or 'constant'."
        )
    members = {len(p) for p in net.parameters()} | {len(seeds), len(rows)}
    if len(members) != 1 or rows.dim() != 2 or not rows.numel():
        raise InputError(
            "A stack needs one seed, one set of row numbers and one slice of every parameter per member; "
            f"got {len(seeds)} seeds, rows of shape {tuple(rows.shape)} and parameters of {sorted(members)} members."
        )
