"""Readers of a short sequence for stacks of networks: recurrent cells and convolutions as one product for all members.

Fused LSTM and GRU kernels hold one network each, so the cells are written out: inputs of all steps are projected in one
product, and a step is one more.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from pertcast.nn.stacked import Streams


class StackedRecurrent(nn.Module, ABC):
    """M recurrent layers over (M, n, t, d) -> (M, n, t, hidden); gates in torch's order, one block of columns each."""

    gates: int

    def __init__(self, d: int, hidden: int, streams: Streams) -> None:
        super().__init__()
        self.hidden = hidden
        bound, width = 1 / math.sqrt(hidden), self.gates * hidden
        self.weight_in = nn.Parameter(streams.uniform(d, width, low=-bound, high=bound))
        self.weight_state = nn.Parameter(streams.uniform(hidden, width, low=-bound, high=bound))
        self.bias_in = nn.Parameter(streams.uniform(1, width, low=-bound, high=bound))
        self.bias_state = nn.Parameter(streams.uniform(1, width, low=-bound, high=bound))

    def forward(self, x: Tensor) -> Tensor:
        m, n, t, _ = x.shape
        inputs = torch.baddbmm(self.bias_in, x.flatten(1, 2), self.weight_in).view(m, n, t, -1)  # (M, n, t, gates * h)
        state, states = self.start(inputs, n), []
        for step in inputs.unbind(2):
            state = self.step(step, state)
            states.append(state[0])
        return torch.stack(states, dim=2)

    @abstractmethod
    def start(self, like: Tensor, n: int) -> tuple[Tensor, ...]:
        """State of n rows before the first step: (M, n, hidden) each."""

    @abstractmethod
    def step(self, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """State after one more input (M, n, gates * hidden)."""

    def of_state(self, h: Tensor) -> Tensor:
        return torch.baddbmm(self.bias_state, h, self.weight_state)  # (M, n, h) -> (M, n, gates * h)


class StackedGRU(StackedRecurrent):
    """M gated recurrent layers. Source: Cho et al. 2014, arXiv:1406.1078, in the form of torch's `nn.GRU`."""

    gates = 3

    def start(self, like: Tensor, n: int) -> tuple[Tensor]:
        return (like.new_zeros(len(like), n, self.hidden),)

    def step(self, inputs: Tensor, state: tuple[Tensor]) -> tuple[Tensor]:
        (h,) = state
        reset_in, update_in, new_in = inputs.chunk(3, dim=-1)  # (M, n, h) each
        reset_state, update_state, new_state = self.of_state(h).chunk(3, dim=-1)
        reset = torch.sigmoid(reset_in + reset_state)
        new = torch.tanh(torch.addcmul(new_in, reset, new_state))
        return (torch.lerp(new, h.to(new.dtype), torch.sigmoid(update_in + update_state)),)


class StackedLSTM(StackedRecurrent):
    """M long short-term memories. Source: Hochreiter and Schmidhuber 1997, in the form of torch's `nn.LSTM`."""

    gates = 4

    def start(self, like: Tensor, n: int) -> tuple[Tensor, Tensor]:
        zeros = like.new_zeros(len(like), n, self.hidden)
        return zeros, zeros

    def step(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, memory = state
        write, forget, new, read = (inputs + self.of_state(h)).chunk(4, dim=-1)  # (M, n, h) each
        memory = torch.sigmoid(forget) * memory + torch.sigmoid(write) * torch.tanh(new)
        return torch.sigmoid(read) * torch.tanh(memory), memory


class StackedConv1d(nn.Module):
    """M convolutions along the sequence, same length out: (M, n, t, d) -> (M, n, t, width). Starts as `nn.Conv1d`."""

    def __init__(self, d: int, width: int, kernel: int, streams: Streams) -> None:
        super().__init__()
        self.kernel = kernel
        bound = 1 / math.sqrt(d * kernel)
        self.weight = nn.Parameter(streams.uniform(d * kernel, width, low=-bound, high=bound))
        self.bias = nn.Parameter(streams.uniform(1, width, low=-bound, high=bound))

    def forward(self, x: Tensor) -> Tensor:
        m, n, t, _ = x.shape
        before = (self.kernel - 1) // 2
        padded = functional.pad(x, (0, 0, before, self.kernel - 1 - before))  # (M, n, t + kernel - 1, d)
        windows = padded.unfold(2, self.kernel, 1)  # (M, n, t, d, kernel)
        return torch.baddbmm(self.bias, windows.reshape(m, n * t, -1), self.weight).view(m, n, t, -1)
