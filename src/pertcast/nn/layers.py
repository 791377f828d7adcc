"""Small pieces of networks that read the tokens of one sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pertcast.errors import InputError

UNKNOWN = 0  # code of a category that training did not show


class TokenAttentionBlock(nn.Module):
    """Pre-norm transformer block: every token of a sample looks at the other tokens of the same sample.

    Input without a token axis is refused: read as (tokens, width) it would mix the rows of a batch, and a
    prediction would depend on its neighbours (S004-05, R01). Source: Xiong et al. 2020, arXiv:2002.04745.

    identity_start   begin as the identity: what is added to the tokens starts at zero and grows where it helps.
                     Source: Bachlechner et al. 2020, arXiv:2003.04887, with zero weights in place of zero gates
    """

    def __init__(
        self, width: int, heads: int, *, feedforward: int, dropout: float = 0.0, identity_start: bool = False
    ) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"Attention width must be a multiple of its heads; got width {width} and {heads} heads.")
        self.heads = heads
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.drop = nn.Dropout(dropout)
        if identity_start:
            for last in (self.out, self.feedforward[-1]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3:
            raise InputError(
                f"Attention expects (samples, tokens, width), got shape {tuple(x.shape)}. "
                "Give each sample its own tokens: rows of a batch must not attend to one another."
            )
        x = x + self.drop(self.attend(self.norm_attention(x)))  # (n, t, d)
        return x + self.drop(self.feedforward(self.norm_feedforward(x)))

    def attend(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # (n, h, t, d/h) each
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).reshape(n, t, d))


class LookupProjection(nn.Linear):
    """A linear map of a small feature table, looked up by row: (k, d), (n,) -> (n, width).

    Features shared by many rows are projected once per table row and never copied out to n wide rows; where the
    table is the longer of the two, its needed rows are taken first.
    """

    def forward(self, table: Tensor, index: Tensor) -> Tensor:
        if len(table) <= len(index):
            return super().forward(table)[index]
        return super().forward(table[index])


class CodeEmbedding(nn.Embedding):
    """A learned vector per category; code 0 is the category that training did not show: (n,) -> (n, width).

    In training every code is replaced by 0 with probability `unknown_rate`, so that the unknown vector is learned
    as what stands for any category.
    """

    def __init__(self, codes: int, width: int, *, unknown_rate: float = 0.0, scale: float = 1.0) -> None:
        super().__init__(codes, width)
        self.unknown_rate = unknown_rate
        nn.init.normal_(self.weight, std=scale)

    def forward(self, code: Tensor) -> Tensor:
        if self.training and self.unknown_rate > 0:
            hide = torch.rand(code.shape, device=code.device) < self.unknown_rate
            code = code.masked_fill(hide, UNKNOWN)
        return super().forward(code)
