"""Genes predicted from the other genes of their cell: what follows when one of them is set to a value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array

from pertcast.cells.registry import register
from pertcast.errors import InputError, NotFittedError, several, unknown
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.metrics.count_likelihood import CountParameters
from pertcast.nn.count_regression import CountRegression, CountRegressionConfig
from pertcast.nn.distributions import sample_zinb, zinb_log_prob
from pertcast.nn.fit import FitSettings, fit_network, seeded
from pertcast.types import Cells, Floats

BLOCK = 4096  # cells a block of prediction


class RegressionTraining(FitSettings):
    """As found on held-out cells of a simulated mechanism."""

    epochs: int = Field(60, ge=1)
    batch: int = Field(128, ge=1)
    lr: float = Field(1e-2, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    average_last: float = Field(0.2, ge=0, le=1)


class GeneRegressionConfig(CountRegressionConfig):
    """Which genes answer to the others, and how they are learned."""

    targets: tuple[str, ...] = ()  # genes to predict; none: all
    members: int = Field(2, ge=1)  # networks from different starts; the one of the best held-out likelihood is kept
    valid_share: float = Field(0.1, gt=0, lt=1)  # of the cells, held out to choose a member
    training: RegressionTraining = RegressionTraining()


@register("gene-regression", config=GeneRegressionConfig, seeded=True)
class GeneRegression:
    """Counts of target genes given all other genes; a condition such as `GENE0002=12` sets genes and asks again.

    What was observed of a target is never read for its prediction. Source: system 002, whose autoencoder copies it.
    """

    learns_conditions = False  # they are genes set to values, so untreated cells are all that it needs

    def __init__(self, config: GeneRegressionConfig):
        self.config = config
        self.genes: tuple[str, ...] = ()
        self.net: CountRegression | None = None
        self.valid_nll: Floats | None = None  # (t,)  of the kept members, nats per count

    @property
    def targets(self) -> tuple[str, ...]:
        return self.config.targets or self.genes

    def fit(self, cells: Cells, *, seed: int) -> GeneRegression:
        """Learn from all cells given.

        Raises InputError for values that are not counts, or targets that are not among the genes.
        """
        _check(cells)
        self.genes = cells.genes
        columns = torch.tensor([_column(self.genes, name) for name in self.targets])
        x = torch.tensor(cells.x.toarray(), dtype=torch.float32)
        order = torch.tensor(np.random.default_rng(seed).permutation(len(x)))
        held = max(1, round(self.config.valid_share * len(x)))
        train, valid = x[order[held:]], x[order[:held]]
        scale = train.std(dim=0).clamp_min(1e-3)
        best = None
        for member in range(self.config.members):
            with seeded(seed * self.config.members + member):
                net = CountRegression(self.config, targets=columns, scale=scale)
            fit_network(net, {"x": train}, _loss, self.config.training, seed=seed)
            best = _better(best, net, _nll(net, valid))
        self.net, self.valid_nll = best[0].requires_grad_(False), best[1].double().numpy()
        return self

    def parameters(self, cells: Cells) -> CountParameters:
        """Distribution of the targets in every cell, given its other genes: (n, t) each."""
        net = self._fitted("predict")
        _check(cells)
        x = torch.tensor(cells.select(self.genes).x.toarray(), dtype=torch.float32)
        parts = [net(block) for block in x.split(BLOCK)]
        mean = torch.cat([torch.exp(part.log_mean) for part in parts])
        zero = torch.cat([torch.sigmoid(part.zi_logits) for part in parts])
        dispersion = torch.exp(net.log_dispersion).expand_as(mean)
        return CountParameters(*(part.double().numpy() for part in (mean, dispersion, zero)))

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Set genes as the condition says (`GENE0002=12,GENE0005=0`) and predict the targets anew in each cell.

        Targets that the condition sets stay as set. Raises InputError for a condition that cannot be read.
        """
        self._fitted("predict")
        cells = control_cells.select(self.genes)
        values = read_intervention(condition, self.genes)
        x = cells.x.toarray()
        for column, value in values.items():
            x[:, column] = value
        asked = self.parameters(replace(cells, x=csr_array(x)))
        drawn = _drawn(asked, seed) if sample else (1 - asked.zero_inflation) * asked.mean
        free = [place for place, name in enumerate(self.targets) if _column(self.genes, name) not in values]
        x[:, [_column(self.genes, self.targets[place]) for place in free]] = drawn[:, free]
        return replace(cells, x=csr_array(x), condition=np.full(len(cells), condition, dtype=object))

    def save(self, folder: Path) -> None:
        weights = {name: value.numpy() for name, value in self._fitted("save").state_dict().items()}
        facts = {"config": self.config.model_dump(mode="json"), "genes": self.genes}
        save_arrays(folder, "gene-regression", {**weights, "valid_nll": self.valid_nll}, facts)

    def load(self, folder: Path) -> GeneRegression:
        arrays, facts = load_arrays(folder, "gene-regression")
        self.config, self.genes = GeneRegressionConfig.model_validate(facts["config"]), tuple(facts["genes"])
        self.valid_nll = arrays.pop("valid_nll")
        state = {name: torch.tensor(value) for name, value in arrays.items()}
        self.net = CountRegression(self.config, targets=state["targets"], scale=state["scale"])
        self.net.load_state_dict(state)
        self.net.eval().requires_grad_(False)
        return self

    def _fitted(self, verb: str) -> CountRegression:
        if self.net is None:
            raise NotFittedError(f"Gene regression was asked to {verb} before `fit`. Call `fit` or `load` first.")
        return self.net


def read_intervention(condition: str, genes: tuple[str, ...]) -> dict[int, float]:
    """Read `GENE=value,GENE=value` into {column: count}.

    Raises InputError naming every part that cannot be read: an unknown gene, a value that is no count.
    """
    values, problems = {}, []
    for part in condition.split(","):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or not value.isdigit():
            problems.append(f"'{part.strip()}' is not of the form GENE=count")
        elif name not in genes:
            problems.append(unknown("gene", name, genes))
        else:
            values[genes.index(name)] = float(value)
    if problems:
        raise InputError(several(f"Condition '{condition}'", problems, fix="Write it as 'GENE0002=12,GENE0005=0'."))
    return values


def _check(cells: Cells) -> None:
    if cells.unit != "counts":
        raise InputError(f"Gene regression reads counts, got {cells.unit} values. Give the raw counts of the cells.")
    if not len(cells):
        raise InputError("Gene regression was given no cells. Give at least one.")


def _loss(net: CountRegression, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    return _nll(net, rows["x"]).sum()


def _nll(net: CountRegression, x: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of each target: (t,)."""
    found = net(x)
    return -zinb_log_prob(
        x[:, net.targets], log_mean=found.log_mean, log_dispersion=found.log_dispersion, zi_logits=found.zi_logits
    ).mean(dim=0)


@torch.no_grad()
def _better(
    best: tuple[CountRegression, torch.Tensor] | None, net: CountRegression, nll: torch.Tensor
) -> tuple[CountRegression, torch.Tensor]:
    """Keep, target by target, the network of the lower held-out likelihood."""
    if best is None:
        return net, nll.detach()
    kept, lowest = best
    won = nll.detach() < lowest
    for name, value in net.named_parameters():
        mine = kept.get_parameter(name)
        if name == "log_dispersion":
            mine[:, won] = value[:, won]
        else:
            mine[won] = value[won]
    return kept, torch.where(won, nll.detach(), lowest)


def _drawn(asked: CountParameters, seed: int) -> Floats:
    mean, dispersion, zero = (torch.tensor(part) for part in (asked.mean, asked.dispersion, asked.zero_inflation))
    drawn = sample_zinb(
        log_mean=mean.log(),
        log_dispersion=dispersion.log(),
        zi_logits=torch.logit(zero),
        generator=torch.Generator().manual_seed(seed),
    )
    return drawn.numpy()


def _column(genes: tuple[str, ...], name: str) -> int:
    if name not in genes:
        raise InputError(unknown("gene", name, genes))
    return genes.index(name)
