"""A second round of training on chosen cell types, with early layers frozen (S004-17)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pertcast.errors import InputError, unknown
from pertcast.nn.fit import FitSettings, Log, LossFn, Rows, fit_network
from pertcast.nn.sampling import ChosenTypes
from pertcast.types import Strings

LEAST = 2  # rows: batch norm needs a spread


class FineTune(ChosenTypes):
    """What is trained on, for how long, and what stays as it is.

    The network then answers for the chosen cell types first; rows of the others are no longer what it is fitted to.

    Source: system 004 froze the first five layers and went on with B cells and myeloid cells for 100 epochs; it found
    that slightly worse.
    """

    epochs: int = Field(20, ge=1)
    lr: float = Field(1e-3, gt=0)  # full rate; its schedule is that of the training before
    frozen: tuple[str, ...] = ("embeddings", "projections", "kind", "attention")  # parts of the network, by name


def fine_tune(
    net: nn.Module,
    data: Rows,
    loss_fn: LossFn,
    finetune: FineTune,
    *,
    training: FitSettings,
    cell_type: Strings,
    seed: int,
    log: Log | None = None,
) -> nn.Module:
    """Train a trained network further, in place, on the rows of the chosen cell types.

    data       tensors of n training rows each
    training   settings of the first round; epochs and rate are those of `finetune`, and nothing stops early
    cell_type  (n,)

    Frozen parts are the same afterwards, bit for bit: their weights, and what their batch norm has counted.
    Raises InputError if the chosen cell types have fewer than two rows, or a frozen part does not exist.
    """
    chosen = finetune.rows(cell_type)
    if chosen.sum() < LEAST:
        raise InputError(
            f"Fine-tuning needs at least {LEAST} training rows, and the chosen cell types have {chosen.sum()}. "
            "Name more cell types (finetune.cell_types, finetune.rarest), or leave finetune unset."
        )
    rows = torch.from_numpy(chosen)
    own = {name: tensor[rows.to(tensor.device)] for name, tensor in data.items()}
    kept = _frozen_state(net, finetune.frozen)
    frozen = [p for name, p in net.named_parameters() if name in kept and p.requires_grad]
    changes = {"epochs": finetune.epochs, "lr": finetune.lr, "patience": None, "average_last": 0.0}
    for p in frozen:
        p.requires_grad_(False)
    fit_network(net, own, loss_fn, training.model_copy(update=changes), seed=seed, log=log)
    for p in frozen:
        p.requires_grad_(True)
    net.load_state_dict(kept, strict=False)  # running means of batch norm have no gradient, yet move
    return net


def _frozen_state(net: nn.Module, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Copy weights and counts of the named parts."""
    known = {name for name, _ in [*net.named_modules(), *net.named_parameters()] if name}
    for part in parts:
        if part not in known:
            raise InputError(unknown("part of the network to freeze", part, {name.split(".")[0] for name in known}))
    state = net.state_dict()
    kept = {key: value.clone() for key, value in state.items() if any(f"{key}.".startswith(f"{p}.") for p in parts)}
    if not any(p.requires_grad and name not in kept for name, p in net.named_parameters()):
        raise InputError(f"Fine-tuning has nothing to train: all of the network is frozen ({', '.join(parts)}).")
    return kept
