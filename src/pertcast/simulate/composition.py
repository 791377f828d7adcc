"""Does a predictor compose what it has seen? Genes of four classes, training cells, and interventions to predict.

Half of the genes are independent, a fifth hang on one gene, a fifth on a pair of genes that training perturbs together
(seen compositions), a tenth on a pair that it only ever perturbs one by one (unseen compositions).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import sparse

from pertcast.errors import InputError
from pertcast.simulate.base import BaseSettings, base_plan
from pertcast.simulate.cells import Condition, SimulatedCells
from pertcast.simulate.equations import Interaction, Linear
from pertcast.simulate.interventions import Do, intervene
from pertcast.simulate.mechanisms import MechanisticGene, StructuralModel
from pertcast.simulate.names import gene_names
from pertcast.simulate.populations import Context, stream
from pertcast.types import Floats, Ints, Strings

CLASSES = ("independent", "dependent", "seen", "unseen")
SHARES = (0.5, 0.2, 0.2, 0.1)
LEAST_GENES = 10
LOW, HIGH = 0.0, 10.0  # what an intervention sets a gene to: silenced, or strongly expressed
CONTROL = "control"
CONTROLS = 0.4  # share of training cells that nothing is done to
DISPERSION = 0.1  # of genes that hang on others
STREAM = 5


@dataclass(frozen=True, slots=True)
class CompositionBenchmark:
    """Simulated cells to learn from, and interventions to predict."""

    train: SimulatedCells  # controls, single genes, pairs of the seen compositions
    test: SimulatedCells  # other cells: single genes, pairs of the seen and of the unseen compositions
    classes: Strings  # (g,) class of every gene

    @property
    def truth(self) -> Floats:
        """Return what a perfect predictor says of the test cells: expected counts (n_test, g)."""
        return self.test.oracle().mean

    @property
    def asked(self) -> Floats:
        """Return where a prediction counts: (n_test, g), True where the condition concerns the gene and leaves it free.

        Of an independent gene every free value counts; of another one the conditions that set all of its parents.
        """
        own = {gene.name: gene.parents for gene in self.test.model.mechanistic}
        needed = {gene: set(own.get(gene, ())) for gene in self.test.genes}
        table = [
            [gene not in one.set and one.set.keys() >= parents for gene, parents in needed.items()]
            for one in self.test.conditions
        ]
        return np.array(table)[self.test.condition]


class ClassError(NamedTuple):
    """How far predictions of one class of genes are from the truth."""

    mse: float  # of expected counts
    mae: float
    relative: float  # mse over that of no change: 1 is as bad, 0 perfect
    entries: int  # cells x genes


def simulate_composition(
    n_cells: int, n_genes: int, zero_share: float = 0.8, *, seed: int, settings: BaseSettings | None = None
) -> CompositionBenchmark:
    """Simulate the composition benchmark.

    n_cells     to train on; half as many are to be predicted
    n_genes     at least 10; the four classes take 50, 20, 20 and 10 % of them
    zero_share  of the independent genes
    settings    of the independent genes: populations, batches, library sizes
    Raises InputError when there are too few genes or cells, or the zero share cannot be had.
    """
    if n_genes < LEAST_GENES:
        raise InputError(f"Composition benchmark: four classes need at least {LEAST_GENES} genes, got {n_genes}.")
    settings = settings or BaseSettings()
    rng = stream(seed, STREAM)
    model, classes, pairs = _model(n_genes, zero_share, seed, settings, rng)
    train_conditions = (Condition(CONTROL), *_singles(model), *(_condition(pair) for pair in pairs["seen"]))
    test_conditions = (*_singles(model), *(_condition(pair) for pair in (*pairs["seen"], *pairs["unseen"])))
    least = 2 * len(test_conditions)
    if n_cells < least:
        raise InputError(f"Composition benchmark: {n_genes} genes need at least {least} cells, got {n_cells}.")
    controls = round(CONTROLS * n_cells)
    which = np.concatenate([np.zeros(controls, int), 1 + np.arange(n_cells - controls) % (len(train_conditions) - 1)])
    train = _cells(model, train_conditions, rng.permutation(which), seed=_own_seed(seed, 1))
    asked = np.arange(n_cells // 2) % len(test_conditions)
    test = _cells(model, test_conditions, rng.permutation(asked), seed=_own_seed(seed, 2))
    return CompositionBenchmark(train, test, classes)


def score_classes(
    prediction: Floats, truth: Floats, *, classes: Strings, asked: Floats, no_change: Floats
) -> dict[str, ClassError]:
    """Score predicted expected counts (n, g), class by class.

    truth, no_change    (n, g) expected counts of the oracle and of the floor
    classes             (g,) class of every gene
    asked               (n, g) True where a prediction counts
    Raises InputError for other shapes, or predictions that are not finite.
    """
    if np.shape(prediction) != truth.shape:
        raise InputError(f"Prediction has shape {np.shape(prediction)}, the test cells and genes are {truth.shape}.")
    if not np.isfinite(prediction).all():
        raise InputError(f"Prediction has {(~np.isfinite(prediction)).sum()} entries that are not finite.")
    errors = {}
    for name in CLASSES:
        counts = asked & (classes == name)
        off = (prediction - truth)[counts]
        floor = np.mean((no_change - truth)[counts] ** 2)
        mse = np.mean(off**2)
        relative = mse / floor if floor > 0 else np.nan
        errors[name] = ClassError(float(mse), float(np.abs(off).mean()), float(relative), int(counts.sum()))
    return errors


def baseline_predictions(benchmark: CompositionBenchmark) -> dict[str, Floats]:
    """Predict the test cells (n_test, g) with no learning: floors below every model, and the ceiling.

    no-change       the mean of the training controls
    mean-shift      that plus the mean difference of all treated training cells
    additive        that plus, for every gene that is set, the mean difference of the cells where it alone was set
    oracle          the truth
    """
    train, test = benchmark.train, benchmark.test
    counts = train.dense
    means = {
        condition.name: counts[train.condition == i].mean(0)
        for i, condition in enumerate(train.conditions)
        if (train.condition == i).any()
    }
    control = means[CONTROL]
    treated = counts[train.condition != 0].mean(0)
    shifts = np.array([_added(condition, means, control) for condition in test.conditions])
    shape = (len(test), len(test.genes))
    return {
        "no-change": np.broadcast_to(control, shape).copy(),
        "mean-shift": np.broadcast_to(treated, shape).copy(),
        "additive": control + shifts[test.condition],
        "oracle": benchmark.truth,
    }


def score_baselines(benchmark: CompositionBenchmark) -> dict[str, dict[str, ClassError]]:
    """Score every baseline: name -> class -> error."""
    every = baseline_predictions(benchmark)
    same = {
        "truth": benchmark.truth, "classes": benchmark.classes, "asked": benchmark.asked,
        "no_change": every["no-change"],
    }  # fmt: skip
    return {name: score_classes(prediction, **same) for name, prediction in every.items()}


def as_one(benchmark: CompositionBenchmark) -> tuple[SimulatedCells, Strings]:
    """Return training and test cells as one table, and the part ("train" or "test") of every cell (n,)."""
    train, test = benchmark.train, benchmark.test
    conditions = {one.name: one for one in (*train.conditions, *test.conditions)}
    place = {name: i for i, name in enumerate(conditions)}
    numbers = [np.array([place[one.name] for one in part.conditions])[part.condition] for part in (train, test)]
    parts = (train.context, test.context)
    context = Context(*(np.concatenate([getattr(part, name) for part in parts]) for name in Context.__slots__))
    counts = sparse.vstack([sparse.csr_array(part.counts) for part in (train, test)], format="csr")
    part = np.repeat(np.array(["train", "test"], object), [len(train), len(test)])
    return SimulatedCells(counts, context, train.model, tuple(conditions.values()), np.concatenate(numbers)), part


def _model(
    n_genes: int, zero_share: float, seed: int, settings: BaseSettings, rng: np.random.Generator
) -> tuple[StructuralModel, Strings, dict[str, list[tuple[str, str]]]]:
    numbers = [max(1, round(share * n_genes)) for share in SHARES[1:]]
    independent = n_genes - sum(numbers)
    base = base_plan(independent, zero_share, seed=seed, settings=settings)
    every = list(combinations(base.genes, 2))
    chosen = [every[i] for i in rng.permutation(len(every))[: numbers[1] + numbers[2]]]
    pairs = {"seen": chosen[: numbers[1]], "unseen": chosen[numbers[1] :]}
    parents = [(base.genes[i],) for i in rng.integers(independent, size=numbers[0])]
    names = gene_names(n_genes)[independent:]
    genes = [
        MechanisticGene(name, of, _mechanism(len(of), rng), DISPERSION)
        for name, of in zip(names, [*parents, *chosen], strict=True)
    ]
    classes = np.repeat(np.array(CLASSES, object), [independent, *numbers])
    return StructuralModel(base, tuple(genes)), classes, pairs


def _mechanism(parents: int, rng: np.random.Generator) -> Linear | Interaction:
    weights = tuple(rng.uniform(0.5, 1.5, parents).tolist())
    if parents == 1:
        return Linear(weights, intercept=1.0)
    return Interaction(weights, ((0, 1, float(rng.uniform(0.2, 0.6))),), intercept=1.0)


def _singles(model: StructuralModel) -> tuple[Condition, ...]:
    """Silence and raise every gene that another one hangs on."""
    parents = sorted({parent for gene in model.mechanistic for parent in gene.parents}, key=model.genes.index)
    return tuple(_condition((gene,), level) for gene in parents for level in (LOW, HIGH))


def _condition(genes: tuple[str, ...], level: float = HIGH) -> Condition:
    return Condition("+".join(f"{gene}={level:g}" for gene in genes), dict.fromkeys(genes, level))


def _cells(model: StructuralModel, conditions: tuple[Condition, ...], which: Ints, *, seed: int) -> SimulatedCells:
    """Draw cells (n,) of the given conditions."""
    context = model.base.context(len(which), seed=seed)
    counts = np.concatenate([block.toarray() for _, block in model.blocks(context, seed=seed)])
    free = SimulatedCells(counts, context, model, conditions, which)
    held = free.set_values()[which]  # (n, g) NaN where free
    columns = np.flatnonzero(~np.isnan(held).all(axis=0))
    do = Do(set={model.genes[i]: held[:, i] for i in columns})
    return replace(free, counts=intervene(model, counts, do, context=context, seed=_own_seed(seed, 3)).drawn)


def _own_seed(seed: int, key: int) -> int:
    """Return a seed that follows from another one, so that parts of the benchmark share no random stream."""
    return int(np.random.SeedSequence(seed, spawn_key=(STREAM, key)).generate_state(1)[0])


def _added(condition: Condition, means: dict[str, Floats], control: Floats) -> Floats:
    single = (_condition((gene,), level).name for gene, level in condition.set.items())
    return sum((means[name] - control for name in single if name in means), np.zeros_like(control))
