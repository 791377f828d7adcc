"""Attention from the cell type asked for over a compound's responses in the other cell types.

A network without any memory of a compound's name: it sees the compound only through what was measured of it, as it
would a new one. So it errs differently from networks of learned compound vectors, and blends well with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.features.groups import group_sums
from pertcast.models.registry import register
from pertcast.nn.encoding import Encoding, under
from pertcast.nn.fit import choose_device
from pertcast.nn.fit_stack import fit_stack
from pertcast.nn.members import (
    MEMBER_SEEDS,
    EmbeddingTraining,
    load_members,
    numbered,
    restore_members,
    save_members,
    stacked_seeds,
)
from pertcast.nn.stacked import (
    Drawing,
    StackedBatchNorm,
    StackedDropout,
    StackedEmbedding,
    StackedLinear,
    Streams,
    look_up,
)
from pertcast.types import Examples, Floats, Ints

PREDICT_ROWS = 64  # rows a block of prediction
NONE = -1  # where a row has fewer profiles than the row with most
HIDDEN = -1e9  # attention logit of a profile that may not be seen


class AttentionTranslationConfig(Config):
    components: int = Field(300, ge=1)  # principal scores of the response, fewer where the rank is lower
    heads: int = Field(8, ge=1)  # ways to weigh a compound's profiles
    width: int = Field(64, ge=1)  # of a projected profile
    type_width: int = Field(32, ge=1)  # of a cell type's learned vector
    strength: float = Field(0.5, gt=0, le=1)  # a profile's length is raised to this power: strong ones shout less
    smooth: float = Field(1.0, ge=0)  # pseudo-rows that draw a cell type's mean, taken off its profiles, to the overall
    least_kept: float = Field(0.0, ge=0, le=1)  # in training a random share of the profiles is kept, from this to all
    none_rate: float = Field(0.05, ge=0, lt=1)  # share of training rows that see no profile at all
    input_dropout: float = Field(0.2, ge=0, lt=1)  # of what the head reads
    head: int = Field(1024, ge=1)  # hidden width of the head
    dropout: float = Field(0.3, ge=0, lt=1)  # inside the head
    vector_scale: float = Field(0.3, gt=0)  # spread of cell types' learned vectors at the start
    members: int = Field(4, ge=1)  # networks from different starts, averaged
    stack_megabytes: int = Field(512, ge=1)  # of weights and what trains them, in one stack
    training: EmbeddingTraining = EmbeddingTraining()


class TranslationStack(Drawing):
    """M networks: profiles of a compound elsewhere -> attention -> head -> k scores in the cell type asked for.

    types  number of codes of cell types, unknown (0) included
    k      number of scores
    """

    def __init__(self, config: AttentionTranslationConfig, *, types: int, k: int, streams: Streams) -> None:
        super().__init__()
        members, heads, width = len(streams), config.heads, config.width
        self.least_kept, self.none_rate = config.least_kept, config.none_rate
        self.type_vector = StackedEmbedding(types, config.type_width, streams, scale=config.vector_scale)
        self.source_vector = StackedEmbedding(types, width, streams, scale=0.02)  # what a profile's own cell type adds
        self.answer = StackedEmbedding(types, heads * width, streams, scale=0.02)  # gains of the cell type asked for
        self.value = StackedLinear(k, width, streams)
        self.interest = StackedLinear(width, heads, streams)  # logit of a profile by its content
        self.affinity = nn.Parameter(torch.zeros(members, types * types, heads))  # logit of a pair of cell types
        self.absent = nn.Parameter(torch.zeros(members, 1, 1, heads))  # logit of looking nowhere: few profiles, less
        read = heads * width + config.type_width
        self.head = nn.Sequential(
            StackedDropout(config.input_dropout),
            StackedBatchNorm(members, read, affine=False),
            StackedLinear(read, config.head, streams, bias=False),
            StackedBatchNorm(members, config.head),
            nn.GELU(),
            StackedDropout(config.dropout),
            StackedLinear(config.head, k, streams),
        )

    def forward(self, tables: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        """Predict standardised scores.

        tables   profiles (p, k) of training rows and their `cell_type` (p,)
        rows     `cell_type` (M, n) asked for, `sources` (M, n, s) rows of the tables that may be seen, NONE beyond
        returns  (M, n, k)
        """
        asked, sources = rows["cell_type"], rows["sources"]
        members, n, s = sources.shape
        origin = tables["cell_type"].expand(members, -1)  # (M, p)
        value = self.value(tables["profiles"].expand(members, -1, -1)) + self.source_vector(origin)  # (M, p, w)
        logit = self.interest(value)  # (M, p, h)
        seen = self._seen(sources != NONE)
        place = sources.clamp_min(0)
        pair = asked[..., None] * self._types + tables["cell_type"][place]  # (M, n, s)
        logits = look_up(logit, place.flatten(1)) + look_up(self.affinity, pair.flatten(1))
        logits = logits.view(members, n, s, -1).masked_fill(~seen[..., None], HIDDEN)
        logits = torch.cat([self.absent.expand(-1, n, -1, -1).to(logits.dtype), logits], dim=2)
        attention = logits.softmax(dim=2)[:, :, 1:]  # (M, n, s, h)
        values = look_up(value, place.flatten(1)).view(members, n, s, -1)
        read = torch.einsum("mnsh,mnsw->mnhw", attention.to(values.dtype), values).flatten(2)
        read = read * (1 + self.answer(asked))
        return self.head(torch.cat([read, self.type_vector(asked)], dim=2))

    @torch.no_grad()
    def settle_unknown(self) -> None:
        """Let a cell type that training did not show stand at the mean of those that it did."""
        for embedding in (self.type_vector, self.source_vector, self.answer):
            embedding.weight[:, 0] = embedding.weight[:, 1:].mean(dim=1)
        affinity = self.affinity.view(len(self.affinity), self._types, self._types, -1)
        affinity[:, 0] = affinity[:, 1:].mean(dim=1)

    @property
    def _types(self) -> int:
        return self.type_vector.weight.shape[1]

    def _seen(self, given: Tensor) -> Tensor:
        """In training hide a random share of each row's profiles, now and then all: (M, n, s)."""
        if not self.training:
            return given
        _, n, s = given.shape
        share = self.streams.uniform(n, 1, low=self.least_kept, high=1.0)
        kept = self.streams.uniform(n, s) < share
        return given & kept & (self.streams.uniform(n, 1) >= self.none_rate)


@register("attention-translation", config=AttentionTranslationConfig, seeded=True)
class AttentionTranslation:
    """Attention over a compound's responses in the other cell types, several members averaged."""

    def __init__(self, config: AttentionTranslationConfig):
        self.config = config
        self.encoding: Encoding | None = None
        self.tables: dict[str, Floats | Ints] = {}  # profiles (p, k), and codes of their cell type and compound (p,)
        self.stacks: list[TranslationStack] = []
        self.history: list[dict[str, float]] = []  # one entry per stack and epoch

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int) -> AttentionTranslation:
        """Learn from the training rows; a row never sees itself, nor any row of its own cell type."""
        config, genes = self.config, len(train.genes)
        self.encoding = Encoding.of(train, blocks=(), components=config.components)
        self.tables = self._profiles(train)
        device = choose_device(config.training.device)
        tables = self._shown(device)
        data = {**self._asked(train, device), **self.encoding.targets(train, loss="mrrmse")}
        response_loss = self.encoding.response_loss("mrrmse", delta=1.0, genes=genes, device=device)

        def loss_fn(stack: TranslationStack, rows: dict[str, Tensor]) -> Tensor:
            outputs = stack(tables, rows).flatten(0, 1)  # (M * b, k)
            return response_loss(outputs, {name: tensor.flatten(0, 1) for name, tensor in rows.items()})

        self.stacks, self.history = [], []
        for number, seeds in enumerate(self._seeds(seed)):
            stack, rows = self._new_stack(seeds), torch.arange(len(train)).expand(len(seeds), -1)
            log = lambda facts, number=number: self.history.append({"stack": number, **facts})  # noqa: E731
            fit_stack(stack, data, loss_fn, config.training, rows=rows, seeds=seeds, log=log)
            stack.settle_unknown()
            self.stacks.append(stack)
        return self

    def predict(self, rows: Examples) -> Floats:
        """Average the members, block of rows by block of rows: (n, g) in the unit of `y`."""
        encoding = self._fitted("predict")
        device = choose_device(self.config.training.device)
        tables, asked = self._shown(device), self._asked(rows, device)
        scores = np.zeros((len(rows), encoding.svd.k))
        for start in range(0, len(rows), PREDICT_ROWS):
            part = {name: tensor[start : start + PREDICT_ROWS] for name, tensor in asked.items()}
            with torch.no_grad():
                outputs = [_member_scores(stack.to(device), tables, part) for stack in self.stacks]
            scores[start : start + PREDICT_ROWS] = np.concatenate(outputs).mean(axis=0)
        return encoding.svd.decode(scores * encoding.unit)

    def save(self, folder: Path) -> None:
        encoding = self._fitted("save")
        tables = {f"table.{name}": table for name, table in self.tables.items()}
        save_members(folder, "attention_translation", numbered(self.stacks), encoding, self.config, more=tables)

    def load(self, folder: Path) -> AttentionTranslation:
        """Restore what `save` wrote, settings included; only the device stays that of this machine's settings."""
        arrays, facts, self.config = load_members(folder, "attention_translation", self.config)
        self.encoding = Encoding.restored(arrays, facts, blocks=())
        self.tables = under("table", arrays)
        self.stacks = [self._new_stack(seeds) for seeds in self._seeds(0)]
        restore_members(numbered(self.stacks), arrays)
        return self

    def _profiles(self, train: Examples) -> dict[str, Floats | Ints]:
        """Scores of the training rows less their cell type's mean, in shorter range, and whose they are."""
        codes = {name: train.block(name).index for name in ("cell_type", "compound")}
        scores = self.encoding.svd.encode(train.y) / self.encoding.unit
        total = group_sums(scores, codes["cell_type"], self.encoding.codes["cell_type"])
        count = np.bincount(codes["cell_type"], minlength=len(total))[:, None]
        profiles = scores - (total / np.maximum(count + self.config.smooth, 1))[codes["cell_type"]]
        size = np.sqrt(np.square(profiles).mean(axis=1, keepdims=True))
        profiles *= np.maximum(size, 1e-3) ** (self.config.strength - 1)
        return {"profiles": profiles.astype(np.float32), **codes}

    def _shown(self, device: torch.device) -> dict[str, Tensor]:
        return {name: torch.tensor(self.tables[name], device=device) for name in ("profiles", "cell_type")}

    def _asked(self, rows: Examples, device: torch.device) -> dict[str, Tensor]:
        """Codes of the cell types asked for (n,) and profiles to be seen (n, s): the compound's in other types."""
        codes = self.encoding.index(rows, device)
        sources = _sources(self.tables, codes["cell_type"].cpu().numpy(), codes["compound"].cpu().numpy())
        return {"cell_type": codes["cell_type"], "sources": torch.tensor(sources, device=device)}

    def _seeds(self, seed: int) -> Iterator[list[int]]:
        """Seeds of each stack of members."""
        config, one = self.config, self._new_stack([0])
        return stacked_seeds(MEMBER_SEEDS * seed, config.members, one=one, megabytes=config.stack_megabytes)

    def _new_stack(self, seeds: list[int]) -> TranslationStack:
        types, k = self.encoding.codes["cell_type"], self.encoding.svd.k
        return TranslationStack(self.config, types=types, k=k, streams=Streams(seeds))

    def _fitted(self, verb: str) -> Encoding:
        if self.encoding is None or not self.stacks:
            raise NotFittedError(f"AttentionTranslation was asked to {verb} before `fit`. Call `fit` or `load` first.")
        return self.encoding


def _sources(tables: Mapping[str, Floats | Ints], cell_type: Ints, compound: Ints) -> Ints:
    """Rows of the tables with each row's compound in another cell type: (n, s), NONE where there are fewer than s.

    Code 0 is a compound that the tables do not show: no rows.
    """
    by_compound: dict[int, list[int]] = {}
    for row, code in enumerate(tables["compound"]):
        by_compound.setdefault(int(code), []).append(row)
    lists = [
        [row for row in by_compound.get(int(c), []) if tables["cell_type"][row] != t]
        for t, c in zip(cell_type, compound, strict=True)
    ]
    sources = np.full((len(lists), max(map(len, lists), default=0) or 1), NONE)
    for row, places in enumerate(lists):
        sources[row, : len(places)] = places
    return sources


def _member_scores(stack: TranslationStack, tables: dict[str, Tensor], rows: dict[str, Tensor]) -> Floats:
    members = len(stack.absent)
    outputs = stack(tables, {name: tensor.expand(members, *tensor.shape) for name, tensor in rows.items()})
    return outputs.double().cpu().numpy()  # (M, n, k)
