"""Networks of the cycle-GAN: two translators between untreated and perturbed cells, their critics, and a recogniser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from pertcast.config import Config
from pertcast.nn.context_start import ContextStart, Start
from pertcast.nn.layers import TokenAttentionBlock

TOKENS = 4  # parts that attention cuts a cell's hidden state into
UNKNOWN = 0  # row of the embedding that stands for a context without one of its own
MOST_LOG_GAIN = 2.0
MOST_LOG_VARIANCE = 8.0
HEADS = ("expression", "knockout", "noise")  # the three latents


class CycleGanSizes(Config):
    """Sizes of all networks. The published ones are the preset `system-003`."""

    hidden: tuple[int, ...] = Field((96, 64), min_length=1)  # of encoder and decoder, first to last
    latent: int = Field(16, ge=1)  # width of each of the three latents
    embedding: int = Field(16, ge=1)  # of the condition, and of the context
    residual_blocks: int = Field(1, ge=0)  # after the encoder's layers, and after the decoder's
    attention: bool = False  # among the parts of a cell's own hidden state
    batch_norm: bool = False  # else residual blocks have layer norm, and other layers none
    dropout: float = Field(0.1, ge=0, lt=1)
    axes: int = Field(20, ge=0)  # principal axes of the untreated cells that encoders read; 0: all genes
    output: Literal["identity", "softplus", "residual"] = "residual"  # residual: the cell's own values, scaled, shifted
    use_context: bool = True  # whether translators are told the context, where it is known
    critic_hidden: tuple[int, ...] = Field((64, 32), min_length=1)
    recogniser_hidden: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> CycleGanSizes:
        if self.attention and self.hidden[-1] % TOKENS:
            raise ValueError(f"attention cuts the last of `hidden` into {TOKENS} parts; {self.hidden[-1]} cannot be")
        return self


@dataclass(frozen=True, slots=True)
class Translated:
    """Cells after translation, and what regularisers read of it."""

    x: Tensor  # (n, g)  log1p values; never negative unless the output is `identity`
    kl: Tensor  # ()  mean over cells and latent entries, nats
    own: Tensor  # (n,)  squared size of what the cell's own code adds to the change; 0 where outputs have no such part


class Translator(nn.Module):
    """Carries cells of one domain to the other under a condition.

    Encoder of expression, condition and context; mean and log-variance of three latents (expression, knock-out,
    noise); decoder of latents, condition and context. With the output `residual` a cell keeps its values, each gene
    scaled and shifted: by what its context starts with, by the condition, the same for all cells, and by what the
    decoder makes of this cell. Trained parts begin at 0, so without a start the network begins as the identity.

    centre      (g,)  mean of the training cells, taken off before they are read
    axes        (g, k)  directions that the encoder reads; None: all genes
    code_width  numbers of a condition's code
    contexts    that have an embedding, the unknown one not counted
    start       what training begins from, read by the output `residual` alone; None: no change
    leads_back  whether the way is from the condition to none
    """

    def __init__(
        self,
        sizes: CycleGanSizes,
        *,
        centre: Tensor,
        axes: Tensor | None,
        code_width: int,
        contexts: int,
        start: ContextStart | None = None,
        leads_back: bool = False,
    ) -> None:
        super().__init__()
        self.sizes, self.start, self.leads_back, genes = sizes, start, leads_back, len(centre)
        self.register_buffer("centre", centre.clone())
        self.register_buffer("axes", axes)
        self.condition = nn.Linear(code_width, sizes.embedding)
        self.context = nn.Embedding(contexts + 1, sizes.embedding)
        told = 2 * sizes.embedding
        self.encode = _body(sizes, (genes if axes is None else axes.shape[1]) + told)
        self.heads = nn.ModuleDict({name: nn.Linear(sizes.hidden[-1], 2 * sizes.latent) for name in HEADS})
        self.decode = _body(sizes, len(HEADS) * sizes.latent + told)
        residual = sizes.output == "residual"
        self.out = nn.Linear(sizes.hidden[-1], 2 * genes if residual else genes)
        self.of_condition = nn.Linear(code_width, 2 * genes, bias=False) if residual else None
        if residual:
            for zero in (self.out.weight, self.out.bias, self.of_condition.weight):
                nn.init.zeros_(zero)

    def forward(
        self, x: Tensor, code: Tensor, context: Tensor, *, sample: bool = True, home: Tensor | None = None
    ) -> Translated:
        """Translate cells x (n, g) under conditions `code` (n, c) in contexts (n,), rows of the embedding.

        sample  draw the latents; else take their means
        home    (n,) int64  contexts, as `ContextStart` takes them
        """
        told = [self.condition(code), self.context(self._known(context))]
        read = x - self.centre
        h = self.encode(torch.cat([read if self.axes is None else read @ self.axes, *told], dim=1))
        moments = torch.stack([head(h) for head in self.heads.values()], dim=1)  # (n, 3, 2 latent)
        mean, log_variance = moments.chunk(2, dim=2)
        log_variance = log_variance.clamp(-MOST_LOG_VARIANCE, MOST_LOG_VARIANCE)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean) if sample else mean
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        out = self.out(self.decode(torch.cat([z.flatten(1), *told], dim=1)))
        return self._on_scale(x, out, code, kl, self._begin(x, code, home))

    def latents(self, x: Tensor, code: Tensor, context: Tensor) -> dict[str, Tensor]:
        """Posterior means of the three latents: (n, latent) each."""
        told = [self.condition(code), self.context(self._known(context))]
        read = x - self.centre
        h = self.encode(torch.cat([read if self.axes is None else read @ self.axes, *told], dim=1))
        return {name: head(h).chunk(2, dim=1)[0] for name, head in self.heads.items()}

    def add_context(self) -> None:
        """Give one more context an embedding; it begins as that of the unknown one."""
        self.context = _one_more(self.context)

    def _known(self, context: Tensor) -> Tensor:
        return context if self.sizes.use_context else torch.full_like(context, UNKNOWN)

    def _begin(self, x: Tensor, code: Tensor, home: Tensor | None) -> Start | None:
        if self.start is None:
            return None
        none = torch.zeros_like(code)
        source, target = (code, none) if self.leads_back else (none, code)
        return self.start(x, source, target, home)

    def _on_scale(self, x: Tensor, out: Tensor, code: Tensor, kl: Tensor, start: Start | None) -> Translated:
        none = x.new_zeros(len(x))
        if self.sizes.output == "identity":
            return Translated(out, kl, none)
        if self.sizes.output == "softplus":
            return Translated(functional.softplus(out), kl, none)
        shift, log_gain = (out + self.of_condition(code)).chunk(2, dim=1)  # (n, g) each
        gain = torch.exp(MOST_LOG_GAIN * torch.tanh(log_gain / MOST_LOG_GAIN))
        if start is not None:
            gain, shift = gain * start[0], shift + start[1]
        return Translated(functional.relu(gain * x + shift), kl, out.square().sum(dim=1))


class Critic(nn.Module):
    """Scores how real a cell of one domain looks under a condition in a context, no sigmoid: (n, g) -> (n,).

    spectral  bound every layer's norm by 1, for the least-squares loss; without it a gradient penalty must be paid
    Source: Miyato et al. 2018, arXiv:1802.05957.
    """

    def __init__(self, sizes: CycleGanSizes, *, centre: Tensor, code_width: int, contexts: int, spectral: bool) -> None:
        super().__init__()
        self.register_buffer("centre", centre.clone())
        self.condition = nn.Linear(code_width, sizes.embedding)
        self.context = nn.Embedding(contexts + 1, sizes.embedding)
        widths = [len(centre) + 2 * sizes.embedding, *sizes.critic_hidden, 1]
        bound = spectral_norm if spectral else nn.Identity()
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [bound(nn.Linear(before, after)), nn.LeakyReLU(0.2)]
        self.score = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, code: Tensor, context: Tensor) -> Tensor:
        told = [self.condition(code), self.context(context)]
        return self.score(torch.cat([x - self.centre, *told], dim=1))[:, 0]

    def add_context(self) -> None:
        """Give one more context an embedding; it begins as that of the unknown one."""
        self.context = _one_more(self.context)


class Recogniser(nn.Module):
    """Tells condition and context of a cell from its expression alone: it is never given its answer (S003-04, R25)."""

    def __init__(self, sizes: CycleGanSizes, *, centre: Tensor, code_width: int, contexts: int) -> None:
        super().__init__()
        self.register_buffer("centre", centre.clone())
        h = sizes.recogniser_hidden
        self.read = nn.Sequential(nn.Linear(len(centre), h), nn.PReLU(), nn.Dropout(sizes.dropout))
        self.condition = nn.Linear(h, code_width)
        self.context = nn.Linear(h, contexts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the entries of a condition's code (n, c) and of the contexts (n, k)."""
        h = self.read(x - self.centre)
        return self.condition(h), self.context(h)

    def add_context(self) -> None:
        """Let one more context be told; its logit begins at 0."""
        old = self.context
        self.context = nn.Linear(old.in_features, old.out_features + 1).to(old.weight.device)
        with torch.no_grad():
            self.context.weight.zero_()[:-1] = old.weight
            self.context.bias.zero_()[:-1] = old.bias


class CycleNets(nn.Module):
    """All networks of a cycle-GAN. Domain X: untreated cells with the wanted condition; Y: perturbed cells."""

    def __init__(
        self,
        sizes: CycleGanSizes,
        *,
        centre: Tensor,
        axes: Tensor | None,
        code_width: int,
        contexts: int,
        spectral: bool = True,
        start: ContextStart | None = None,
    ) -> None:
        super().__init__()
        common = {"centre": centre, "code_width": code_width, "contexts": contexts}
        self.forth = Translator(sizes, axes=axes, start=start, **common)  # X -> Y
        self.back = Translator(sizes, axes=axes, start=start, leads_back=True, **common)  # Y -> X
        self.critic_x = Critic(sizes, spectral=spectral, **common)
        self.critic_y = Critic(sizes, spectral=spectral, **common)
        self.recogniser = Recogniser(sizes, **common)

    def translators(self) -> nn.ModuleList:
        return nn.ModuleList([self.forth, self.back])

    def add_context(self) -> None:
        """Make room for one more context in every network."""
        for net in self.children():
            net.add_context()


def condition_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean cross-entropy of independent entries: logits (n, c) are predicted, truth (n, c) in {0, 1} is the target.

    The slope at a logit is (sigmoid(logit) - truth) / n c, at zeros of the truth as well as at ones (S003-04, R24).
    """
    return functional.binary_cross_entropy_with_logits(logits, truth)


class _Residual(nn.Module):
    """Two layers beside a connection that leaves the input as it is: (n, d) -> (n, d)."""

    def __init__(self, sizes: CycleGanSizes) -> None:
        super().__init__()
        d = sizes.hidden[-1]
        norm = nn.BatchNorm1d if sizes.batch_norm else nn.LayerNorm
        self.inner = nn.Sequential(
            nn.Linear(d, d), norm(d), nn.PReLU(), nn.Dropout(sizes.dropout), nn.Linear(d, d), norm(d)
        )
        self.outer = nn.Sequential(nn.PReLU(), nn.Dropout(sizes.dropout))

    def forward(self, h: Tensor) -> Tensor:
        return self.outer(h + self.inner(h))


class _SelfAttention(nn.Module):
    """Parts of one cell's hidden state look at each other: (n, d) -> (n, d). No cell looks at another (R01, R02)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(TOKENS, width // TOKENS))
        self.block = TokenAttentionBlock(width // TOKENS, 1, feedforward=width // TOKENS, identity_start=True)

    def forward(self, h: Tensor) -> Tensor:
        return self.block(h.view(len(h), TOKENS, -1) + self.place).flatten(1)


def _body(sizes: CycleGanSizes, width: int) -> nn.Sequential:
    """Layers of encoder and decoder: (n, width) -> (n, last hidden)."""
    layers: list[nn.Module] = []
    for after in sizes.hidden:
        layers += [nn.Linear(width, after), *([nn.BatchNorm1d(after)] if sizes.batch_norm else []), nn.PReLU()]
        layers.append(nn.Dropout(sizes.dropout))
        width = after
    layers += [_Residual(sizes) for _ in range(sizes.residual_blocks)]
    return nn.Sequential(*layers, *([_SelfAttention(width)] if sizes.attention else []))


def _one_more(old: nn.Embedding) -> nn.Embedding:
    new = nn.Embedding(old.num_embeddings + 1, old.embedding_dim).to(old.weight.device)
    with torch.no_grad():
        new.weight[:-1] = old.weight
        new.weight[-1] = old.weight[UNKNOWN]
    return new
