"""Layers that hold M networks of one architecture side by side: members first, every matrix product one for all.

Member m computes what it would compute alone: it reads its own slice, draws from its own stream and shares no weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pertcast.nn.layers import UNKNOWN

BYTES = 256  # a dropout mask is drawn in bytes, so rates are multiples of 1/256


class Streams:
    """One random stream per member, on one device. What a member draws does not depend on the others."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self.generators)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw (M, *shape)."""
        drawn = torch.empty(len(self), *shape, device=self.device)
        for member, generator in zip(drawn, self.generators, strict=True):
            member.uniform_(low, high, generator=generator)
        return drawn

    def normal(self, *shape: int, std: float) -> Tensor:
        """Draw (M, *shape)."""
        drawn = torch.empty(len(self), *shape, device=self.device)
        for member, generator in zip(drawn, self.generators, strict=True):
            member.normal_(std=std, generator=generator)
        return drawn

    def permutations(self, n: int) -> Tensor:
        """Draw one order of n rows per member: (M, n)."""
        return torch.stack([torch.randperm(n, generator=g, device=self.device) for g in self.generators])

    def keep(self, *shape: int, rate: float, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw a dropout mask (M, *shape): 0 at the given rate, else what keeps the mean.

        Eight elements cost one draw: on a CPU drawing is most of what dropout costs.
        """
        count = math.prod(shape)
        words = torch.empty(len(self), -(-count // 8), dtype=torch.int64, device=self.device)
        for member, generator in zip(words, self.generators, strict=True):
            member.random_(-(2**63), None, generator=generator)
        drawn = words.view(torch.uint8)[:, :count].reshape(len(self), *shape)
        dropped = round(rate * BYTES)
        mask = torch.empty(len(self), *shape, dtype=dtype, device=self.device)
        return torch.ge(drawn, dropped, out=mask).mul_(BYTES / max(BYTES - dropped, 1))


class Drawing(nn.Module):
    """A layer that draws in training. `give_streams` tells it from what."""

    streams: Streams | None = None


def give_streams(net: nn.Module, streams: Streams | None) -> None:
    """Let every layer of a stack draw from these streams; None takes them away after training."""
    for module in net.modules():
        if isinstance(module, Drawing):
            module.streams = streams


class StackedLinear(nn.Module):
    """M linear maps: (M, ..., d) -> (M, ..., width). Starts as `nn.Linear` does.

    bias   leave it out before batch normalisation, which takes it away: its gradient would be rounding error, and
           optimisers that divide by the size of a gradient would turn that into steps
    """

    def __init__(self, d: int, width: int, streams: Streams, *, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(d)
        self.weight = nn.Parameter(streams.uniform(d, width, low=-bound, high=bound))
        self.bias = nn.Parameter(streams.uniform(1, width, low=-bound, high=bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        flat = self.project(x.flatten(1, -2))  # (M, ., width)
        return flat.view(*x.shape[:-1], -1)

    def project(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class StackedLookup(StackedLinear):
    """M linear maps of one feature table, looked up by each member's rows: (k, d), (M, n) -> (M, n, width).

    As `LookupProjection`: the table is projected once where it is shorter than the batch.
    """

    def forward(self, table: Tensor, index: Tensor) -> Tensor:
        if len(table) > index.shape[1]:
            return super().forward(table[index])
        projected = self.project(table.expand(len(self.weight), -1, -1))  # (M, k, width)
        return look_up(projected, index)


class StackedEmbedding(Drawing):
    """M learned vectors per category: (M, n) -> (M, n, width). Code 0 is the category that training did not show.

    In training every code is replaced by 0 with probability `unknown_rate`, as in `CodeEmbedding`.
    """

    def __init__(
        self, codes: int, width: int, streams: Streams, *, scale: float = 1.0, unknown_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.unknown_rate = unknown_rate
        self.weight = nn.Parameter(streams.normal(codes, width, std=scale))

    def forward(self, code: Tensor) -> Tensor:
        if self.training and self.unknown_rate > 0:
            code = code.masked_fill(self.streams.uniform(code.shape[1]) < self.unknown_rate, UNKNOWN)
        return look_up(self.weight, code)

    @torch.no_grad()
    def forget(self, unseen: Tensor) -> None:
        """Let categories that a member's rows did not show stand where its unknown one does: (M, codes) bool."""
        self.weight.copy_(torch.where(unseen[..., None], self.weight[:, UNKNOWN : UNKNOWN + 1], self.weight))


class StackedDropout(Drawing):
    """Dropout of (M, ...) with masks of each member's own."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        return x * self.streams.keep(*x.shape[1:], rate=self.rate, dtype=x.dtype)


class StackedBatchNorm(nn.Module):
    """Batch normalisation of each member over its own rows: (M, n, d) -> (M, n, d).

    affine   scale and shift the result; leave it out where a linear map and another normalisation follow
    """

    def __init__(self, members: int, d: int, *, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(members, d)) if affine else None
        self.bias = nn.Parameter(torch.zeros(members, d)) if affine else None
        self.register_buffer("running_mean", torch.zeros(members, d))
        self.register_buffer("running_var", torch.ones(members, d))

    def forward(self, x: Tensor) -> Tensor:
        m, n, d = x.shape
        columns = x.transpose(0, 1).reshape(n, m * d)  # a member's feature is a column of its own
        normed = functional.batch_norm(
            columns,
            self.running_mean.view(-1),
            self.running_var.view(-1),
            None if self.weight is None else self.weight.view(-1),
            None if self.bias is None else self.bias.view(-1),
            self.training,
            self.momentum,
        )
        return normed.view(n, m, d).transpose(0, 1)


class StackedLayerNorm(nn.Module):
    """Layer normalisation of the last axis: (M, ..., d) -> (M, ..., d)."""

    def __init__(self, members: int, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, d))
        self.bias = nn.Parameter(torch.zeros(members, d))

    def forward(self, x: Tensor) -> Tensor:
        shape = (len(x), *[1] * (x.dim() - 2), x.shape[-1])
        normed = functional.layer_norm(x, x.shape[-1:])
        return normed * self.weight.view(shape) + self.bias.view(shape)


def look_up(tables: Tensor, index: Tensor) -> Tensor:
    """Take each member's rows from its own table: (M, k, d), (M, n) -> (M, n, d)."""
    members, k, _ = tables.shape
    first = k * torch.arange(members, device=index.device)[:, None]  # (M, 1)  where each table begins
    return functional.embedding(index + first, tables.flatten(0, 1))
