"""ZINB-VAE: cells as codes, counts as zero-inflated negative binomials; perturbations as shifts between codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor

from pertcast.cells.count_shift import SEED
from pertcast.cells.decoded_gain import control_cells, find_gain, with_sums
from pertcast.cells.latent_shift import LatentShift
from pertcast.cells.log_scale import checkpoint_digest, total_counts
from pertcast.cells.registry import register
from pertcast.cells.rest_genes import RestGenes
from pertcast.errors import InputError, NotFittedError, shorten
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.metrics.count_likelihood import CountParameters
from pertcast.nn.count_vae import CountLogits, CountVae, CountVaeConfig, NegativeBound, network_of, told
from pertcast.nn.distributions import sample_zinb
from pertcast.nn.fit import FitSettings, Progress, choose_device, fit_network, seeded
from pertcast.nn.sparse_rows import SparseBatch, SparseRows
from pertcast.nn.training_state import Checkpoint
from pertcast.types import Cells, Floats, Ints, Strings

BLOCK = 1024  # cells a block of prediction
MOST_GAIN = 0.7  # a factor of two: more than that is no bias of a decoder but a gene that it does not know
MARGINAL_ENTRIES = 8_000_000  # numbers held at once by importance sampling


class VaeTraining(FitSettings):
    """As found by held-out likelihood on simulated counts."""

    epochs: int = Field(60, ge=1)
    batch: int = Field(128, ge=1)
    lr: float = Field(1e-2, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(10.0, gt=0)
    average_last: float = Field(0.2, ge=0, le=1)
    checkpoint_every: int = Field(5, ge=1)  # epochs, where a checkpoint is asked for


class ZinbVaeConfig(CountVaeConfig):
    """A network, how strongly its codes are held to their prior, and how it is trained."""

    kl_weight: float = Field(1.0, ge=0)  # of the KL term beside a cell's whole log-likelihood; 1 is the bound itself
    kl_warmup: float = Field(0.3, ge=0, lt=1)  # share of the steps in which the weight rises from 0
    arithmetic: Literal["near", "mean"] = "near"  # shifts of contexts like the asked one count more, or all the same
    most_genes: int = Field(
        2000, ge=0
    )  # that the network sees, those that vary most; others move in closed form; 0: all
    valid_share: float = Field(0.1, gt=0, lt=1)  # of the cells, held out where `training.patience` is set
    training: VaeTraining = VaeTraining()


@register("zinb-vae", config=ZinbVaeConfig, seeded=True)
class ZinbVae:
    """Variational autoencoder of counts; a condition is a shift of codes, read off for the context that is asked.

    Sources: system 002; Lopez et al. 2018, doi:10.1038/s41592-018-0229-2; the shift in the manner of scGen, Lotfollahi
    et al. 2019, doi:10.1038/s41592-019-0494-8, with contexts balanced and its size read off per context. Where means
    are shares of a cell's total count, a condition moves the log of that total as well. Of large panels the network
    sees the genes that vary most and `RestGenes` moves the others; decoded means then meet the same transferred ones.
    """

    resumable = True  # `fit` takes a folder for the state of training

    def __init__(self, config: ZinbVaeConfig):
        self.config = config
        self.genes: tuple[str, ...] = ()
        self.batches: tuple[str, ...] = ()
        self.labels: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # contexts, and conditions
        self.rest: RestGenes | None = None
        self.net: CountVae | None = None
        self.shift: LatentShift | None = None
        self.log_gain = np.zeros((0, 0))  # (conditions + 1, g) logs of what decoded means are too small by
        self.history: list[dict[str, float]] = []  # one entry per epoch

    def fit(
        self, cells: Cells, *, seed: int, checkpoint: Path | None = None, progress: Progress | None = None
    ) -> ZinbVae:
        """Learn from all cells given, untreated and treated; conditions and contexts only place the shifts.

        checkpoint  folder from which training is taken up, and in which its state is kept
        progress    called after every epoch
        Raises InputError for cells that are not counts, and where the loss is not finite.
        """
        _check(cells)
        self.genes, self.batches = cells.genes, tuple(sorted(set(cells.batch)))
        self.labels = tuple(sorted(set(cells.context))), tuple(sorted(set(cells.condition)))
        config, settings = self.config, self.config.training
        self.rest = RestGenes.of(cells, config.most_genes)
        with seeded(seed):
            self.net = network_of(
                config,
                self.rest.seen(cells.x),
                total_counts(cells),
                batches=len(self.batches),
                labels=tuple(map(len, self.labels)),
            )
        data, valid = self._tensors(cells), None
        if settings.patience is not None:
            kept, held = _split(len(cells), config.valid_share, seed)
            data, valid = _rows(data, kept), _rows(data, held)
        steps = settings.epochs * -(-len(data["batch"]) // settings.batch)
        loss = NegativeBound(config.kl_weight, warmup=config.kl_warmup * steps, genes=len(self.rest.chosen))
        self.history = []
        kept = None
        if checkpoint is not None:
            digest = checkpoint_digest(config, cells, seed, data["batch"].numpy())
            kept = Checkpoint(checkpoint, digest, settings.checkpoint_every)
        fit_network(
            self.net, data, loss, settings, seed=seed, valid=valid, log=self.history.append, checkpoint=kept,
            progress=progress,
        )  # fmt: skip
        self.net.requires_grad_(False)
        states = self._states(cells)
        self.shift = LatentShift.of(states, cells, near=config.arithmetic == "near")
        self.log_gain = self._measured_gain(states, cells)
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Predict these cells under a condition: counts drawn if `sample`, else expected counts.

        Cells are taken for untreated ones, whatever they carry. Genes and order of the result are those of training.
        Raises InputError for a condition that training did not show.
        """
        cells = self._matched(control_cells)
        states = self.shift.apply(self._states(cells), cells.context, condition=condition)
        before, after = (
            replace(cells, condition=np.full(len(cells), name, dtype=object)) for name in (cells.control, condition)
        )
        gain, decode, rng = self._gain(after), self._decoded, np.random.default_rng(seed) if sample else None
        if self.rest.shift is not None:
            for name in sorted(set(cells.context)):
                gain[cells.context == name] = self._transferred_gain(condition, name)
            decode = self._summed if sample else decode
        x = decode(states, after, gain, seed=seed if sample else None)
        return self.rest.whole(x, before, condition, rng=rng)

    def reconstruct(self, cells: Cells, *, seed: int | None = None, batch: str | None = None) -> Cells:
        """Return the cells as the model sees them, `rest.names`: expected counts, or counts drawn with a seed.

        batch   the batch whose effect all get; None: each its own
        """
        cells = self._matched(cells)
        states = self._states(cells)
        if batch is not None:
            cells = replace(cells, batch=np.full(len(cells), batch, dtype=object))
        return replace(cells, genes=self.rest.names, x=self._decoded(states, cells, self._gain(cells), seed=seed))

    def encode(self, cells: Cells) -> Floats:
        """Posterior mean of every cell's code: (n, k)."""
        net = self._fitted("encode")
        with torch.no_grad():
            parts = [net.encode(part["x"], part["batch"])[0] for part in self._blocks(self._matched(cells))]
        return torch.cat(parts).cpu().numpy()

    def parameters(self, cells: Cells) -> CountParameters:
        """Distribution of every count that the network sees at the posterior mean of its cell's code: (n, k) each."""
        cells = self._matched(cells)
        decoded = self._logits(self._states(cells), cells)
        found = [_as_parameters(logits, (rows, len(self.rest.chosen))) for rows, logits in decoded]
        return CountParameters(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def marginal_nll(self, cells: Cells, *, samples: int = 500, seed: int = 0) -> Floats:
        """Negative log-likelihood of every cell, codes integrated out by importance sampling: (n,) nats."""
        net, cells = self._fitted("score"), self._matched(cells)
        generator = torch.Generator().manual_seed(seed)
        block = max(1, MARGINAL_ENTRIES // (samples * len(self.rest.chosen)))
        found = [
            net.marginal_log_prob(part["x"], **told(part), samples=samples, generator=generator)
            for part in self._blocks(cells, block)
        ]
        return -torch.cat(found).double().cpu().numpy()

    def save(self, folder: Path) -> None:
        net, (arrays, shift), (others, rest) = self._fitted("save"), self.shift.parts(), self.rest.parts()
        weights = {f"net.{name}": value.cpu().numpy() for name, value in net.state_dict().items()}
        facts = {
            "config": self.config.model_dump(mode="json"),
            "genes": self.genes,
            "batches": self.batches,
            "labels": self.labels,
            "shift": shift,
            "rest": rest,
            "history": self.history,
        }
        save_arrays(folder, "zinb-vae", {**weights, **arrays, **others, "log_gain": self.log_gain}, facts)

    def load(self, folder: Path) -> ZinbVae:
        """Restore what `save` wrote, settings included; only the device stays that of this machine's settings."""
        arrays, facts = load_arrays(folder, "zinb-vae")
        device = self.config.training.device
        config = ZinbVaeConfig.model_validate(facts["config"])
        self.config = config.model_copy(update={"training": config.training.model_copy(update={"device": device})})
        self.genes, self.batches = tuple(facts["genes"]), tuple(facts["batches"])
        self.labels, self.history = tuple(map(tuple, facts["labels"])), facts["history"]
        weights = {name[4:]: torch.tensor(value) for name, value in arrays.items() if name.startswith("net.")}
        self.rest = RestGenes.restored(self.genes, arrays, facts["rest"])
        g = torch.zeros(len(self.rest.chosen))
        self.net = CountVae(
            self.config, scale=g, log_mean=g, batches=len(self.batches), labels=tuple(map(len, self.labels))
        )
        self.net.load_state_dict(weights)
        self.net.to(choose_device(device)).eval().requires_grad_(False)
        self.shift, self.log_gain = LatentShift.restored(arrays, facts["shift"]), arrays["log_gain"]
        return self

    def _measured_gain(self, states: Floats, cells: Cells) -> Floats:
        """Logs of mean count over mean decoded count: (conditions + 1, g); none for a condition beyond the known."""
        codes, start = _codes(cells.condition, self.labels[1]), 0
        seen = self.rest.seen(cells.x)
        expected = np.zeros((len(self.labels[1]) + 1, seen.shape[1]))
        for rows, logits in self._logits(states, cells):
            mean = logits.mean().cpu().numpy()
            for number in set(codes[start : start + rows]):
                expected[number] += mean[codes[start : start + rows] == number].sum(axis=0, dtype=np.float64)
            start += rows
        observed = np.stack([seen[codes == number].sum(axis=0) for number in range(len(expected))])
        some = (observed > 0) & (expected > 0)
        gain = np.log(np.where(some, observed, 1.0) / np.where(some, expected, 1.0))
        return np.clip(gain, -MOST_GAIN, MOST_GAIN)

    def _states(self, cells: Cells) -> Floats:
        """What a condition moves: codes, and beside them the log of the total count where means are shares of it."""
        codes = self.encode(cells)
        return np.column_stack([codes, _log_total(cells)]) if self.config.library else codes

    def _decoded(self, states: Floats, cells: Cells, gain: Floats, *, seed: int | None) -> csr_array:
        """Expected counts, or counts drawn, decoded means off by the logs `gain` (n, g): (n, g)."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        parts, start = [], 0
        for rows, logits in self._logits(states, cells):
            shifted = logits.log_mean + torch.tensor(gain[start : start + rows]).to(logits.log_mean)
            logits, start = replace(logits, log_mean=shifted), start + rows
            if generator is None:
                x = logits.mean()
            else:
                x = sample_zinb(
                    log_mean=logits.log_mean.cpu(), log_dispersion=logits.log_dispersion.cpu(),
                    zi_logits=None if logits.zi_logits is None else logits.zi_logits.cpu(), generator=generator,
                )  # fmt: skip
            parts.append(x.cpu().numpy().astype(np.float32))
        return csr_array(np.concatenate(parts))

    def _summed(self, states: Floats, cells: Cells, gain: Floats, *, seed: int) -> csr_array:
        drawn, expected = (self._decoded(states, cells, gain, seed=one) for one in (seed, None))
        return with_sums(drawn, expected, total_counts(cells), rng=np.random.default_rng(seed))

    def _gain(self, cells: Cells) -> Floats:
        """Logs of what decoded means are too small by, as measured per condition: (n, g)."""
        return self.log_gain[_codes(cells.condition, self.labels[1])]

    def _transferred_gain(self, condition: str, context: str) -> Floats:
        """Logs of factors by which a context's cells come to the means of the closed form that moves counts: (g,)."""
        known = self.rest.shift
        untreated = control_cells(known, context, batch=self.batches[0])
        states = self.shift.apply(self._states(untreated), untreated.context, condition=condition)
        cells = replace(untreated, condition=np.full(len(untreated), condition, dtype=object))
        wanted = known.means.shift(condition, context)[self.rest.chosen]

        def draw(gain: Floats) -> csr_array:
            return self._summed(states, cells, np.tile(gain, (len(cells), 1)), seed=SEED)

        total = total_counts(cells)
        return find_gain(draw, self.rest.seen(cells.x), total, wanted, self._gain(cells)[0])

    @torch.no_grad()
    def _logits(self, states: Floats, cells: Cells) -> Iterator[tuple[int, CountLogits]]:
        """Decode block by block; with the number of cells in each."""
        net, start = self._fitted("decode"), 0
        for part in self._blocks(cells):
            rows = len(part["batch"])
            state = torch.tensor(states[start : start + rows], dtype=torch.float32, device=part["batch"].device)
            if self.config.library:
                part["log_library"] = state[:, -1]
            yield rows, net.decode(state[:, : self.config.latent], **told(part))
            start += rows

    def _blocks(self, cells: Cells, size: int = BLOCK) -> Iterator[dict[str, Tensor | SparseBatch]]:
        device = choose_device(self.config.training.device)
        data = {name: part.to(device) for name, part in self._tensors(cells).items()}
        for rows in torch.arange(len(cells), device=device).split(size):
            yield {name: part[rows] for name, part in data.items()}

    def _tensors(self, cells: Cells) -> dict[str, Tensor | SparseRows]:
        code = {name: number for number, name in enumerate(self.batches)}
        strange = sorted(set(cells.batch) - set(code))
        if strange and (self.config.correct_batches or self.config.dispersion == "gene-batch"):
            fix = "Name a known batch for them, or fit without correct_batches."
            raise InputError(f"Batches that training did not show: {shorten(strange)}. Known: {shorten(code)}. {fix}")
        contexts, conditions = self.labels
        return {
            "batch": torch.tensor([code.get(name, 0) for name in cells.batch], dtype=torch.int64),
            "labels": torch.tensor(np.stack([_codes(cells.context, contexts), _codes(cells.condition, conditions)], 1)),
            "log_library": torch.tensor(_log_total(cells), dtype=torch.float32),
            "x": SparseRows.of(self.rest.seen(cells.x)),
        }

    def _matched(self, cells: Cells) -> Cells:
        self._fitted("read cells")
        _check(cells)
        return cells.select(self.genes)

    def _fitted(self, verb: str) -> CountVae:
        if self.net is None:
            raise NotFittedError(f"ZINB-VAE was asked to {verb} before `fit`. Call `fit` or `load` first.")
        return self.net


def _codes(names: Strings, known: tuple[str, ...]) -> Ints:
    """Number of each name among the known ones; one beyond them where it is unknown."""
    place = {name: number for number, name in enumerate(known)}
    return np.array([place.get(name, len(known)) for name in names], dtype=np.int64)


def _log_total(cells: Cells) -> Floats:
    return np.log(total_counts(cells))


def _as_parameters(logits: CountLogits, shape: tuple[int, int]) -> tuple[Floats, Floats, Floats]:
    zero = torch.tensor(0.0) if logits.zi_logits is None else torch.sigmoid(logits.zi_logits)
    parts = (torch.exp(logits.log_mean), torch.exp(logits.log_dispersion), zero)
    return tuple(part.expand(shape).cpu().numpy() for part in parts)


def _check(cells: Cells) -> None:
    if cells.unit != "counts":
        raise InputError(f"ZINB-VAE reads counts, got {cells.unit} values. Give the raw counts of the cells.")
    if not len(cells):
        raise InputError("ZINB-VAE was given no cells. Give at least one.")


def _split(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.tensor(np.random.default_rng(seed).permutation(n))
    held = max(1, round(share * n))
    return order[held:], order[:held]


def _rows(data: dict[str, Tensor | SparseRows], rows: Tensor) -> dict:
    """Cut cells out; the counts stay sparse."""
    return {name: part.rows(rows) if isinstance(part, SparseRows) else part[rows] for name, part in data.items()}
