"""A response and what is known of its row, squeezed into a short code and rebuilt, block by block."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from pertcast.config import Config

RESPONSE = "response"  # the block of the genes, or of their principal scores


class AutoencoderConfig(Config):
    """Sizes as published, with a straight path in each direction beside the published one: it halves what is lost."""

    blocks: tuple[str, ...] = ()  # feature blocks read and rebuilt beside the response; none: the response alone
    feature_weight: float = Field(0.1, ge=0)  # of the features' mean squared error beside the response's loss
    latent: int = Field(128, ge=1)  # numbers in a code
    hidden: int = Field(256, ge=1)  # width of every hidden layer
    depth: int = Field(2, ge=1)  # hidden layers of encoder and of decoder
    dropout: float = Field(0.3, ge=0, lt=1)  # after every hidden layer
    linear: bool = True  # add a linear map from response to code, and from code to every block
    noise: float = Field(0.0, ge=0)  # spread of what is added to the standardised response while training


class ComplexAutoencoder(nn.Module):
    """Blocks of a row -> code -> the same blocks (S004-07).

    Blocks go by name from end to end: each has its own units on both sides, no vector of all of them exists, and so no
    offset can hand the unit of a feature out as a gene.

    widths   {block: columns}, the response among them
    Source: system 004, ComplexAutoencoder.
    """

    def __init__(self, config: AutoencoderConfig, widths: Mapping[str, int]):
        super().__init__()
        hidden, latent = config.hidden, config.latent
        self.noise = config.noise
        self.inputs = nn.ModuleDict({name: nn.Linear(d, hidden) for name, d in widths.items()})
        self.encoder = nn.Sequential(*_after(hidden, config), nn.Linear(hidden, latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), *_after(hidden, config))
        self.units = nn.ModuleDict({name: nn.Linear(hidden, d) for name, d in widths.items()})
        straight = widths if config.linear else {}
        self.to_code = nn.Linear(widths[RESPONSE], latent) if config.linear else None
        self.from_code = nn.ModuleDict({name: nn.Linear(latent, d) for name, d in straight.items()})

    def forward(self, blocks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rebuild the blocks: {block: (n, d)} -> {block: (n, d)}."""
        return self.rebuild(self.encode(blocks))

    def encode(self, blocks: Mapping[str, Tensor]) -> Tensor:
        """Squeeze rows: {block: (n, d)} -> codes (n, latent)."""
        response = blocks[RESPONSE]
        if self.training and self.noise > 0:
            response = response + self.noise * torch.randn_like(response)
        seen = {**blocks, RESPONSE: response}
        code = self.encoder(sum(layer(seen[name]) for name, layer in self.inputs.items()))  # one layer over all blocks
        return code if self.to_code is None else code + self.to_code(response)

    def rebuild(self, code: Tensor) -> dict[str, Tensor]:
        """Expand codes (n, latent) into every block: {block: (n, d)}."""
        hidden = self.decoder(code)
        return {name: self._block(name, code, hidden) for name in self.units}

    def decode(self, code: Tensor) -> Tensor:
        """Expand codes (n, latent) into the response alone: (n, d), unit by unit."""
        return self._block(RESPONSE, code, self.decoder(code))

    def _block(self, name: str, code: Tensor, hidden: Tensor) -> Tensor:
        rebuilt = self.units[name](hidden)
        return rebuilt + self.from_code[name](code) if name in self.from_code else rebuilt


def _after(hidden: int, config: AutoencoderConfig) -> list[nn.Module]:
    """Hidden layers after the first linear map."""
    layers: list[nn.Module] = [nn.ReLU(), nn.Dropout(config.dropout)]
    for _ in range(config.depth - 1):
        layers += [nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
    return layers
