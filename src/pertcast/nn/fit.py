"""The one training loop: all data on the device, minibatches by seeded permutation, nothing global touched."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pertcast.config import Config
from pertcast.errors import InputError
from pertcast.nn.optim import Schedule, make_optimizer
from pertcast.nn.training_state import Checkpoint, EpochState

LEAST_ROWS = 8  # in a batch that is made smaller for the sake of more steps

Rows = Mapping[str, Tensor]  # tensors of n rows each
LossFn = Callable[[nn.Module, Rows], Tensor]  # mean loss of a batch of rows: () float
Log = Callable[[dict[str, float]], None]
Clip = Callable[[Iterable[nn.Parameter], float], object]  # gradients of these parameters, to at most this norm
Progress = Callable[[int, int], None]  # steps or epochs that are done, and all there are


class FitSettings(Config):
    """How a network is trained. The epochs are fixed unless `patience` is set."""

    epochs: int = Field(100, ge=1)  # passes over the training rows
    batch: int = Field(128, ge=1)  # rows a step, at most; an epoch is cut into batches of equal size
    least_batches: int = Field(1, ge=1)  # in an epoch, while a batch keeps 8 rows: a small table needs its steps too
    lr: float = Field(1e-3, gt=0)  # full learning rate; the schedule scales it
    optimizer: Literal["adam", "adamw", "lion"] = "adamw"
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["constant", "cosine", "one_cycle", "plateau"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1)  # share of the steps in which the rate rises
    plateau_factor: float = Field(0.1, gt=0, lt=1)  # S004 had 0.1 and 10; its ancestor 0.9999 and 500
    plateau_patience: int = Field(10, ge=0)  # epochs without a gain before the rate is multiplied by the factor
    clip: float = Field(1.0, gt=0)  # largest norm of the gradient
    patience: int | None = Field(None, ge=1)  # stop after so many epochs without a gain on valid rows; keep the best
    average_last: float = Field(0.0, ge=0, le=1)  # keep the mean of the weights over this last share of the epochs
    ema: float = Field(0.0, ge=0, lt=1)  # keep a running mean of the weights that a step fades by this factor: 0.99
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of products in training; auto: bfloat16 on a GPU only

    @model_validator(mode="after")
    def _one_choice_of_weights(self) -> FitSettings:
        if (self.patience is not None) + (self.average_last > 0) + (self.ema > 0) > 1:
            raise ValueError(
                "patience keeps the best epoch, average_last a mean of epochs, ema one of steps; set one of them"
            )
        return self


def fit_network(
    net: nn.Module,
    data: Rows,
    loss_fn: LossFn,
    settings: FitSettings,
    *,
    seed: int,
    valid: Rows | None = None,
    log: Log | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a network in place and return it in evaluation mode, on the device it was trained on.

    data      tensors of n rows each; a batch is the same rows of all of them
    loss_fn   (net, rows) -> mean loss over these rows; in evaluation mode it is called with valid rows
    valid     rows that decide when to stop, read only if `settings.patience` is set
    log       called after every epoch with epoch, loss, lr and, where measured, valid_loss
    checkpoint  where the state of training is kept, and taken up from: the end is that of a training never cut off
    progress  called after every epoch

    Same seed, same network, same data: same weights, bit for bit on a CPU. The caller's random state is untouched.
    Raises InputError if tensors differ in rows, if patience lacks valid rows, or if the loss is not finite.
    """
    n = _count(data, "Training data")
    if settings.patience is not None and valid is None:
        raise InputError("Early stopping (patience) needs valid rows. Pass them, or leave patience unset.")
    device = choose_device(settings.device)
    net.to(device)
    data = {name: tensor.to(device) for name, tensor in data.items()}
    if settings.patience is not None:
        _count(valid, "Valid data")
        valid = {name: tensor.to(device) for name, tensor in valid.items()}
    told = {"log": log, "checkpoint": checkpoint, "progress": progress}
    with seeded(seed, device):
        _run_epochs(net, data, loss_fn, settings, n=n, valid=valid, **told)
    return net.eval()


def _run_epochs(
    net: nn.Module,
    data: Rows,
    loss_fn: LossFn,
    settings: FitSettings,
    *,
    n: int,
    valid: Rows | None,
    log: Log | None,
    checkpoint: Checkpoint | None,
    progress: Progress | None,
) -> None:
    device = next(iter(data.values())).device
    batches = batches_per_epoch(n, settings)
    optimizer = make_optimizer(settings.optimizer, net.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = make_schedule(settings, optimizer, steps=settings.epochs * batches)
    best, average, running = BestWeights(), AverageWeights(), RunningWeights(settings.ema)
    state = EpochState(net, optimizer, schedule, best, average, running, loss_fn)
    if checkpoint is not None and state.load(checkpoint) and log is not None:
        for facts in state.log:
            log(facts)
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        if settings.patience is not None and best.age >= settings.patience:
            break
        parts = torch.randperm(n).to(device).tensor_split(batches)
        losses = torch.zeros(batches, device=device)  # one block: many small ones would keep freed memory in pieces
        for step, rows in enumerate(parts):
            losses[step] = train_step(net, take(data, rows), loss_fn, optimizer, schedule, settings=settings)
            running.see(net)
        facts = {"epoch": epoch, "loss": weighted_mean(losses, map(len, parts)), "lr": optimizer.param_groups[0]["lr"]}
        if not math.isfinite(facts["loss"]):
            found = f"Training loss is {facts['loss']} in epoch {epoch}."
            raise InputError(f"{found} Lower the learning rate ({settings.lr}) or look for values that are not finite.")
        if settings.patience is not None:
            facts["valid_loss"] = mean_loss(net, valid, loss_fn, block=settings.batch)
            best.see(facts["valid_loss"], net)
        schedule.after_epoch(facts.get("valid_loss", facts["loss"]))
        if epoch > settings.epochs * (1 - settings.average_last):
            average.add(net)
        state.epoch, state.log = epoch, [*state.log, facts]
        if log is not None:
            log(facts)
        if progress is not None:
            progress(epoch, settings.epochs)
        if checkpoint is not None and epoch % checkpoint.every == 0:
            state.save(checkpoint)
    for kept in (best, average, running):
        kept.restore(net)


def train_step(
    net: nn.Module,
    rows: Rows,
    loss_fn: LossFn,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    settings: FitSettings,
    clip: Clip = nn.utils.clip_grad_norm_,
    scale: float = 1.0,
) -> Tensor:
    """Move a network by the gradient of its loss on these rows, times `scale`, clipped; return the loss: ()."""
    net.train()
    schedule.before_step()
    optimizer.zero_grad(set_to_none=True)
    with mixed_precision(next(iter(rows.values())).device, settings.precision):
        loss = loss_fn(net, rows)
    (scale * loss).backward()
    clip(net.parameters(), settings.clip)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def mean_loss(net: nn.Module, rows: Rows, loss_fn: LossFn, *, block: int) -> float:
    """Mean loss of a network in evaluation mode over all rows, block by block."""
    n = _count(rows, "Valid data")
    net.eval()
    parts = torch.arange(n, device=next(iter(rows.values())).device).tensor_split(math.ceil(n / block))
    return weighted_mean([loss_fn(net, take(rows, part)) for part in parts], map(len, parts))


class BestWeights:
    """Remembers a deep copy of the weights with the lowest loss (R09)."""

    def __init__(self) -> None:
        self.loss, self.age = math.inf, 0  # age: epochs since the best one
        self.weights: dict[str, Tensor] | None = None

    def see(self, loss: float, net: nn.Module) -> None:
        self.age += 1
        if loss < self.loss:
            self.loss, self.age = loss, 0
            self.weights = copy.deepcopy(net.state_dict())

    def restore(self, net: nn.Module) -> None:
        if self.weights is not None:
            net.load_state_dict(self.weights)


class AverageWeights:
    """Equal-weight running mean of weights. Source: Izmailov et al. 2018, arXiv:1803.05407."""

    def __init__(self) -> None:
        self.count = 0
        self.weights: dict[str, Tensor] = {}

    def add(self, net: nn.Module) -> None:
        self.count += 1
        for name, value in net.state_dict().items():
            if self.count == 1 or not value.is_floating_point():
                self.weights[name] = value.clone()
            else:
                self.weights[name].lerp_(value, 1 / self.count)

    def restore(self, net: nn.Module) -> None:
        if self.count:
            net.load_state_dict(self.weights)


class RunningWeights:
    """Exponential moving average of weights, without the pull to zero of its first steps; rate 0 keeps none.

    Source: Polyak and Juditsky 1992; the correction as in Adam, arXiv:1412.6980.
    """

    def __init__(self, rate: float) -> None:
        self.rate, self.steps = rate, 0
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def see(self, net: nn.Module) -> None:
        if self.rate == 0:
            return
        self.steps += 1
        share = (1 - self.rate) / (1 - self.rate**self.steps)  # of the new weights; 1 at the first step
        for name, value in net.state_dict().items():
            if self.steps == 1 or not value.is_floating_point():
                self.weights[name] = value.clone()
            else:
                self.weights[name].lerp_(value, share)

    def restore(self, net: nn.Module) -> None:
        if self.steps:
            net.load_state_dict(self.weights)


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("Device 'cuda' was asked for, but PyTorch finds no GPU. Use device 'auto' or 'cpu'.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from a seeded state inside the block and give the caller's back after it: wrap construction in it too."""
    gpus = [torch.cuda.current_device()] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.random.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        yield


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """Products in bfloat16 where that was asked for and is fast; sums, norms and weights stay float32.

    On a CPU that multiplies bfloat16 natively a step takes half the time; on others it would take longer, so there
    float32 stays.
    """
    if device.type == "cuda":
        fast = precision != "float32"
    else:
        fast = precision == "bfloat16" and _multiplies_bfloat16()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it; torch tells by functions that not every release has."""
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(tells is not None and tells() for tells in asked)


def batches_per_epoch(n: int, settings: FitSettings) -> int:
    """How many batches of equal size n rows are cut into."""
    return max(math.ceil(n / settings.batch), min(settings.least_batches, n // LEAST_ROWS))


def make_schedule(settings: FitSettings, optimizer: torch.optim.Optimizer, *, steps: int) -> Schedule:
    """Move the learning rate as the settings say, over so many steps in all."""
    return Schedule(
        settings.schedule,
        optimizer,
        steps=steps,
        warmup=settings.warmup,
        plateau_factor=settings.plateau_factor,
        plateau_patience=settings.plateau_patience,
    )


def weighted_mean(losses: Iterable[Tensor], sizes: Iterable[int]) -> float:
    """Mean over rows of batches' mean losses: sizes are their numbers of rows."""
    weight = torch.tensor(list(sizes), dtype=torch.float64)
    return float((torch.stack(list(losses)).double().cpu() * weight).sum() / weight.sum())


def take(data: Rows, rows: Tensor) -> Rows:
    """Choose rows of all tensors: (b, ...) each, or (M, b, ...) for row numbers (M, b)."""
    return {name: tensor[rows] for name, tensor in data.items()}


def _count(data: Rows, subject: str) -> int:
    """Return the number of rows, the same in every tensor."""
    sizes = {name: len(tensor) for name, tensor in data.items()}
    if len(set(sizes.values())) != 1 or not max(sizes.values(), default=0):
        raise InputError(f"{subject} must be tensors of the same number of rows, at least 1; got {sizes}.")
    return next(iter(sizes.values()))
