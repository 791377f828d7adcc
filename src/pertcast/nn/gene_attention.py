"""Attention over the genes of one cell through a few landmarks: memory grows with genes, not with their square."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pertcast.errors import InputError

BLOCK = 64  # cells a block of the read-out


class GeneAttention(nn.Module):
    """Every gene of a cell looks at all genes of the same cell: (n, g) -> (n, g).

    A gene is a token of its own: `value * a_g + b_g` with learned vectors a_g, b_g, so that its scores depend on which
    gene it is as well as on how much of it there is. Landmarks (a few learned queries per head, moved by the condition)
    first read all genes, then every gene reads the landmarks: 2 x heads x landmarks x genes weights a cell in place of
    heads x genes^2. Tokens are never built: keys, values and queries are linear in the value, so all of it is products
    of (landmarks, width) with (width, genes). Cells of a batch never meet (R01), and any number of genes works with any
    number of heads, since a head has a width of its own (S000-04, R34).

    genes, heads   at least 1
    landmarks      queries per head
    head_width     width of a token in a head
    code_width     width of the condition code that moves the landmarks; 0: none
    Sources: Lee et al. 2019, arXiv:1810.00825 (induced points); Jaegle et al. 2021, arXiv:2103.03206.
    """

    def __init__(self, genes: int, heads: int, *, landmarks: int = 4, head_width: int = 8, code_width: int = 0) -> None:
        super().__init__()
        asked = {"genes": genes, "heads": heads, "landmarks": landmarks, "head_width": head_width}
        wrong = [f"{name} is {number}" for name, number in asked.items() if number < 1]
        if wrong:
            raise InputError(f"Attention over genes needs at least 1 of each size, but {', '.join(wrong)}.")
        self.genes, self.heads, self.landmarks, self.head_width = genes, heads, landmarks, head_width
        per_gene = (heads, head_width, genes)
        self.query = nn.Parameter(torch.randn(heads, landmarks, head_width))
        self.key_scale, self.key_bias = _vectors(per_gene), _vectors(per_gene)
        self.value_scale, self.value_bias = _vectors(per_gene), _vectors(per_gene)
        self.gene_query_scale, self.gene_query_bias = _vectors(per_gene), _vectors(per_gene)
        self.norm = nn.LayerNorm(head_width)
        self.landmark_key = _vectors((heads, head_width, head_width))
        self.landmark_value = _vectors((heads, head_width, head_width))
        self.out = _vectors(per_gene)
        self.from_code = nn.Linear(code_width, heads * landmarks * head_width, bias=False) if code_width else None
        if self.from_code is not None:
            nn.init.zeros_(self.from_code.weight)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Mix the genes of each cell: x (n, g), code (n, c) of the condition -> (n, g)."""
        first, pooled = self._read(x, code)
        second = self._write(x, pooled)  # (n, h, m, g)
        values = torch.einsum("nhmv,hvw,hwg->nhmg", pooled, self.landmark_value, self.out)
        return (second * values).sum(dim=(1, 2))

    @torch.no_grad()
    def weights(self, x: Tensor, code: Tensor | None = None, *, rows: Tensor | None = None) -> Tensor:
        """How much genes look at genes, averaged over cells and heads: (r, g), every row sums to 1.

        x, code  as in `forward`
        rows     (r,) int64  genes that look; None: all, which takes g x g numbers
        """
        rows = torch.arange(self.genes, device=x.device) if rows is None else rows
        total = torch.zeros(len(rows), self.genes, device=x.device)
        for part in torch.arange(len(x), device=x.device).split(BLOCK):
            here = x[part], None if code is None else code[part]
            first, pooled = self._read(*here)
            second = self._write(here[0], pooled)[..., rows]
            for cell in range(len(part)):  # (h, m, r), (h, m, g): one cell at a time holds h x r x g numbers at most
                total += torch.einsum("hmr,hmg->rg", second[cell], first[cell])
        return total / (len(x) * self.heads)

    def _read(self, x: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        """Landmarks read genes: their weights (n, h, m, g), and what they read (n, h, m, w)."""
        if x.dim() != 2 or x.shape[1] != self.genes:
            raise InputError(f"Attention over genes expects (cells, {self.genes}), got shape {tuple(x.shape)}.")
        query = self.query / math.sqrt(self.head_width)
        if self.from_code is not None and code is not None:
            query = query + self.from_code(code).view(-1, *self.query.shape)  # (n, h, m, w)
        scores = torch.einsum("...hmw,hwg->...hmg", query, self.key_scale) * x[:, None, None]
        scores = scores + torch.einsum("...hmw,hwg->...hmg", query, self.key_bias)
        weights = scores.softmax(dim=-1)
        pooled = torch.einsum("nhmg,hwg->nhmw", weights * x[:, None, None], self.value_scale)
        pooled = pooled + torch.einsum("nhmg,hwg->nhmw", weights, self.value_bias)
        return weights, self.norm(pooled)

    def _write(self, x: Tensor, pooled: Tensor) -> Tensor:
        """Genes read landmarks: weights (n, h, m, g), which sum to 1 over m."""
        keys = torch.einsum("nhmv,hvw->nhmw", pooled, self.landmark_key) / math.sqrt(self.head_width)
        scores = torch.einsum("nhmw,hwg->nhmg", keys, self.gene_query_scale) * x[:, None, None]
        return (scores + torch.einsum("nhmw,hwg->nhmg", keys, self.gene_query_bias)).softmax(dim=2)


class GatedGeneAttention(nn.Module):
    """Residual attention: x + gate * attention(x), with a gate per gene that starts small: (n, g) -> (n, g)."""

    def __init__(self, genes: int, heads: int, *, landmarks: int, head_width: int, code_width: int) -> None:
        super().__init__()
        self.attention = GeneAttention(genes, heads, landmarks=landmarks, head_width=head_width, code_width=code_width)
        self.gate = nn.Parameter(torch.full((genes,), 0.1))

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gated cells and what attention alone says: (n, g) each."""
        mixed = self.attention(x, code)
        return x + self.gate * mixed, mixed


def _vectors(shape: tuple[int, ...]) -> nn.Parameter:
    """Normal numbers with a variance of 1 / width, the second axis."""
    return nn.Parameter(torch.randn(*shape) / math.sqrt(shape[1]))
