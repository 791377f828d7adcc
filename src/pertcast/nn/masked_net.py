"""Networks that tell hidden genes of a cell from visible ones: autoencoders, and a transformer of gene tokens."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from pertcast.config import Config
from pertcast.nn.layers import TokenAttentionBlock

FACTS = 4  # numbers that describe a cell as a whole
DEPTH = 3  # of them that follow from how it was measured, and not from what its genes do
LEAST_RISE = 0.02  # above a single count, on average, that a gene starts from: log1p units


class MaskedNetSizes(Config):
    """Which family, and how large."""

    family: Literal["autoencoder", "transformer"] = "autoencoder"
    hidden: tuple[int, ...] = Field((256, 64), min_length=1)  # autoencoder: encoder's widths; the decoder mirrors them
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = Field(0.2, ge=0, lt=1)  # of hidden units, never of an output
    depth: bool = True  # whether a cell's depth, as its visible genes show it, is an input and a starting point
    width: int = Field(32, ge=1)  # transformer: of a token
    heads: int = Field(4, ge=1)
    landmarks: int = Field(16, ge=1)  # tokens through which genes of a cell see each other
    blocks: int = Field(2, ge=0)  # of attention among landmarks

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> MaskedNetSizes:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self.width} and {self.heads}")
        return self


class MaskedNet(nn.Module):
    """Expected values of all genes from the visible ones: (n, g) -> (n, g).

    Hidden genes, genes that were observed to be 0 and the others are told apart by channels of their own, or tokens
    (S001-02); values go in as standard deviations from their gene's mean. Where zeros may be hidden, too, a zero is a
    value like all others. The output is a start plus what the body adds, which begins at nothing. Of counts on a log
    scale the start is what a single count would be in that cell, which its smallest visible value shows, and a softplus
    above it: no expressed gene lies below. Of other values it is the gene's mean, and a line through the cell's facts.

    mean      (g,)  of each gene over the training entries that may be hidden
    rise      (g,)  the same, of what lies above a single count of the cell
    spread    (g,)  standard deviation of these entries
    zeros     whether zeros are values that may be hidden
    above     whether values start at a single count
    codes     number of conditions; 0: cells are told none
    """

    def __init__(
        self, sizes: MaskedNetSizes, *, mean: Tensor, rise: Tensor, spread: Tensor, zeros: bool, above: bool,
        codes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        genes, facts = len(mean), FACTS * sizes.depth
        self.depth, self.zeros, self.above, self.codes = sizes.depth, zeros, above and sizes.depth, codes
        self.register_buffer("mean", mean)
        self.register_buffer("rise", rise)
        self.register_buffer("spread", spread)
        family = {"autoencoder": MirroredBody, "transformer": GeneTokenBody}[sizes.family]
        self.body = family(sizes, genes=genes, told=facts + codes)
        self.slope = nn.Parameter(torch.zeros(facts, genes))
        start = _softplus_inverse(rise.clamp_min(LEAST_RISE)) if self.above else mean
        self.start = nn.Parameter(start.clone())

    def forward(self, visible: Tensor, hidden: Tensor, facts: Tensor, code: Tensor | None = None) -> Tensor:
        """Tell every gene of each cell.

        visible  (n, g)  values, 0 where hidden
        hidden   (n, g)  bool
        facts    (n, FACTS) of `facts_of`
        code     (n,) int64  condition; -1: not told. None where the network knows none
        """
        told = (facts - self.centre(facts)) if self.depth else facts[:, :0]
        line = self.start + told @ self.slope
        if self.codes:
            row = torch.full((len(visible),), -1, device=visible.device) if code is None else code
            told = torch.cat([told, F.one_hot(row + 1, self.codes + 1)[:, 1:].to(told)], dim=1)
        centre = facts[:, :1] + self.rise if self.above else self.mean
        seen = ~hidden if self.zeros else visible > 0
        values = torch.where(seen, (visible - centre) / self.spread, 0.0)
        out = line + self.body(values, hidden, seen, told)
        return facts[:, :1] + F.softplus(out) if self.above else out

    @staticmethod
    def centre(facts: Tensor) -> Tensor:
        """About where facts of cells of a few hundred to a few thousand seen genes lie: (4,)."""
        return torch.tensor([2.0, 5.0, 6.0, 0.0]).to(facts)


def facts_of(visible: Tensor, hidden: Tensor, mean: Tensor) -> Tensor:
    """Describe each cell by its visible genes: (n, g) -> (n, FACTS).

    The smallest value above 0, which is that of a single count; logs of how many genes are seen, and of how many that
    are or may be, the hidden ones among them; and how far seen genes lie above their mean (g,).
    """
    seen = visible > 0
    least = torch.where(seen, visible, torch.inf).amin(dim=1)
    count = seen.sum(dim=1).to(visible)
    excess = torch.where(seen, visible - mean, 0.0).sum(dim=1) / count.clamp_min(1)
    all_of_them = count + hidden.sum(dim=1)
    facts = (torch.where(least.isinf(), 0.0, least), torch.log1p(count), torch.log1p(all_of_them), 4 * excess)
    return torch.stack(facts, dim=1)


class MirroredBody(nn.Module):
    """Autoencoder: values, hidden and seen genes in, widths of `hidden` down to the last, and the same widths back up.

    With one width it is the published network of one hidden layer, mask channel aside.
    """

    def __init__(self, sizes: MaskedNetSizes, *, genes: int, told: int) -> None:
        super().__init__()
        widths = [*sizes.hidden, *sizes.hidden[-2::-1]]
        self.values = nn.Linear(genes, widths[0])
        self.mask, self.seen = (nn.Linear(genes, widths[0], bias=False) for _ in range(2))
        self.told = nn.Parameter(torch.randn(told, widths[0]) / 4)
        act = {"gelu": nn.GELU, "relu": nn.ReLU}[sizes.activation]
        layers: list[nn.Module] = [act(), nn.Dropout(sizes.dropout)]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(before, after), act(), nn.Dropout(sizes.dropout)]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(widths[-1], genes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, values: Tensor, hidden: Tensor, seen: Tensor, told: Tensor) -> Tensor:
        h = self.values(values) + self.mask(hidden.to(values)) + self.seen(seen.to(values)) + told @ self.told
        return self.out(self.layers(h))


class GeneTokenBody(nn.Module):
    """Transformer: a token per gene, which landmarks read, landmarks look at each other, genes read the landmarks.

    Weights are landmarks x genes a cell, so that memory grows with the genes and not with their square; cells of a
    batch never meet (R01). Sources: Lee et al. 2019, arXiv:1810.00825; Jaegle et al. 2021, arXiv:2107.14795.
    """

    def __init__(self, sizes: MaskedNetSizes, *, genes: int, told: int) -> None:
        super().__init__()
        d, self.heads, self.dropout = sizes.width, sizes.heads, sizes.dropout
        self.identity, self.value = (nn.Parameter(torch.randn(genes, d) / d**0.5) for _ in range(2))
        self.mask, self.seen = (nn.Parameter(torch.randn(d) / d**0.5) for _ in range(2))
        self.landmark = nn.Parameter(torch.randn(sizes.landmarks, d))
        self.told = nn.Parameter(torch.randn(told, d) / 4)
        self.read, self.write = CrossAttention(d, sizes.heads), CrossAttention(d, sizes.heads)
        self.blocks = nn.Sequential(
            *(TokenAttentionBlock(d, sizes.heads, feedforward=4 * d, dropout=sizes.dropout)
              for _ in range(sizes.blocks))
        )  # fmt: skip
        self.norm = nn.LayerNorm(d)
        self.out = nn.Parameter(torch.zeros(genes, d))

    def forward(self, values: Tensor, hidden: Tensor, seen: Tensor, told: Tensor) -> Tensor:
        tokens = self.identity + values[..., None] * self.value  # (n, g, d)
        tokens = tokens + hidden[..., None] * self.mask + seen[..., None] * self.seen
        marks = self.landmark + (told @ self.told)[:, None]  # (n, l, d)
        marks = self.blocks(marks + self.read(marks, tokens))
        back = self.norm(self.write(tokens, marks))  # (n, g, d)
        return (back * self.out).sum(dim=-1)


class CrossAttention(nn.Module):
    """Some tokens of a sample look at other tokens of the same one: (n, q, d), (n, k, d) -> (n, q, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_key = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.out = (nn.Linear(width, k * width) for k in (1, 2, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q = self.query(self.norm_query(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (n, h, q, d/h)
        k, v = self.key_value(self.norm_key(y)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _softplus_inverse(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))
