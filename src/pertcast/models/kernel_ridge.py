"""Kernel ridge over (cell type, compound): a sum of products of similarities, each product with a learned weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator
from scipy.linalg import cho_factor, cho_solve, lapack

from pertcast.config import Config
from pertcast.errors import InputError, NotFittedError, unknown
from pertcast.features.onehot import Vocabulary
from pertcast.features.similarity import (
    cell_type_similarity,
    context_kernel,
    profile_kernel,
    structure_kernel,
)
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.types import Block, Examples, Floats, Ints

FACTORS = ("all", "cell_type", "similar_type", "context", "compound", "structure", "annotation", "profile")
NAMED = ("context", "annotation")  # sides of one block, beside the structures
KEPT = 0.15  # share of a hidden cell type's rows that stay, as the question leaves a few
SIMILARITY_SCORES = 64  # leading scores by which cell types are compared
PREDICT_ROWS = 256  # rows a block of prediction


class KernelRidgeConfig(Config):
    """Weights of the products are ratios of variance: a term of weight 1 explains as much as a row's noise."""

    terms: dict[str, float] = {  # product of factors, joined by '*' -> weight from which the search starts
        "all": 100.0,
        "cell_type": 0.03,
        "similar_type*compound": 2.0,
        "similar_type*structure": 2.0,
        "structure": 0.1,
        "profile": 1.0,
        "similar_type*profile": 2.0,
    }
    profile: str = "compound_residual_mean"  # block: what a compound does in the other cell types
    context: str = "cell_baseline"  # block: untreated cells of the cell type
    structure: tuple[str, ...] = ("morgan",)  # blocks of fingerprints, bits or counts; similarities are averaged
    annotation: str = "annotation"  # block: mechanisms and targets of the compound
    hold_out: Literal["cell_type", "whole_cell_type", "compound"] = "cell_type"  # what is left out to choose weights
    components: int = Field(200, ge=1)  # principal scores of the response
    steps: int = Field(20, ge=0)  # of the search for the weights; 0 keeps the start
    search_rows: int = Field(800, ge=1)  # training rows, whole compounds, on which the weights are searched
    reweightings: int = Field(2, ge=0)  # rounds in which each row counts by the inverse of its error

    @field_validator("terms")
    @classmethod
    def _known(cls, terms: dict[str, float]) -> dict[str, float]:
        for factor in (factor for term in terms for factor in term.split("*")):
            if factor not in FACTORS:
                raise ValueError(unknown("factor", factor, FACTORS))
        if not terms or min(terms.values()) <= 0:
            raise ValueError("at least one term is needed, and every weight must be above 0")
        return terms

    @property
    def factors(self) -> set[str]:
        return {factor for term in self.terms for factor in term.split("*")}


@dataclass(frozen=True, slots=True)
class _Side:
    """What the kernel knows of some rows."""

    of_type: Ints  # (n,)  0 for a cell type that training lacks
    of_compound: Ints  # (n,)  0 for a compound that training lacks
    structure: tuple[Block, ...]  # of n rows each
    profile: Floats  # (n, p)
    context: Block  # of n rows
    annotation: Block  # of n rows

    def take(self, rows: Ints | slice) -> _Side:
        structure = tuple(block.take(rows) for block in self.structure)
        context, annotation = self.context.take(rows), self.annotation.take(rows)
        return _Side(self.of_type[rows], self.of_compound[rows], structure, self.profile[rows], context, annotation)


@dataclass(frozen=True, slots=True)
class _Kernel:
    """Every term of the kernel between rows and the training rows."""

    terms: tuple[str, ...]
    similarity: Floats  # (c + 1, c)  of cell types; row 0 for one that training lacks
    unit: float  # mean root of the product of two profiles' lengths: the term is then about 1

    def factors(self, left: _Side, right: _Side) -> dict[str, Floats]:
        """Compute every factor of some term: {name: (a, b)}."""
        names = dict.fromkeys(name for term in self.terms for name in term.split("*"))
        return {name: self._factor(name, left, right) for name in names}

    def each(self, factors: Mapping[str, Floats]) -> Floats:
        """Multiply the factors of every term: (terms, a, b)."""
        return np.array([np.prod([factors[name] for name in term.split("*")], axis=0) for term in self.terms])

    def weighted(self, weights: Floats, factors: Mapping[str, Floats]) -> Floats:
        """Sum all terms, each by its weight (terms,), with one of them in memory at a time: (a, b)."""
        total, term_values = (np.zeros_like(next(iter(factors.values()))) for _ in range(2))
        for weight, term in zip(weights, self.terms, strict=True):
            first, *others = term.split("*")
            np.multiply(factors[first], weight, out=term_values)
            for name in others:
                term_values *= factors[name]
            total += term_values
        return total

    def _factor(self, name: str, left: _Side, right: _Side) -> Floats:
        if name == "all":
            return np.ones((len(left.of_type), len(right.of_type)))
        if name == "cell_type":
            return (left.of_type[:, None] == right.of_type[None, :]).astype(float)
        if name == "similar_type":
            return self.similarity[left.of_type][:, right.of_type - 1]
        if name == "context":
            return context_kernel(left.context, right.context)
        if name == "compound":
            return (left.of_compound[:, None] == right.of_compound[None, :]).astype(float)
        if name == "structure":
            return structure_kernel(left.structure, right.structure)
        if name == "annotation":
            return structure_kernel((left.annotation,), (right.annotation,))
        return profile_kernel(left.profile, right.profile, unit=self.unit)


@register("kernel-ridge", config=KernelRidgeConfig, weighted=True)
class KernelRidge:
    """Similar cell types, similar structures, similar profiles: products of kernels, weighted by left-out rows."""

    def __init__(self, config: KernelRidgeConfig):
        self.config = config
        self.arrays: dict[str, Floats] = {}
        self.names: tuple[Vocabulary, Vocabulary] | None = None

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> KernelRidge:
        """Learn similarities, weights and coefficients from the training rows.

        The weights of the terms are those with the smallest mean root error over rows left out together: most rows of
        a cell type, all of them, or all rows of a compound, in closed form.
        """
        svd = TargetSVD.fit(train.y, self.config.components)
        scores = svd.encode(train.y).astype(np.float64)  # (n, k)
        rest = svd.residual_norm2(train.y)  # (n,)
        self.names = Vocabulary.fit(train.cell_type), Vocabulary.fit(train.compound)
        side = self._side(train)
        self.arrays = {**svd.arrays(), **_learned(side, scores, types=len(self.names[0])), **_stored(side)}
        learned, weights = self._kernel(), np.array(list(self.config.terms.values()))
        factors = learned.factors(side, side)
        error = _left_one_out(learned.weighted(weights, factors), scores, np.ones(len(train))) + rest
        rows = _whole_compounds(side.of_compound, self.config.search_rows)
        blocks = _left_out(side.take(rows), self.config.hold_out)
        if self.config.steps and blocks:
            searched = side.take(rows)
            stack = learned.each(learned.factors(searched, searched))  # (terms, rows, rows)
            problem = _Problem(stack, scores[rows], rest[rows], _importance(error[rows]))
            weights = problem.search(weights, blocks, steps=self.config.steps)
        kernel = learned.weighted(weights, factors)
        trust = 1.0 if train.weight is None else np.maximum(train.weight, 1e-3)  # (n,)
        importance = trust * _importance(error)
        for _ in range(self.config.reweightings):
            importance = trust * _importance(_left_one_out(kernel, scores, importance) + rest)
        coefficients = cho_solve(cho_factor(_noisy(kernel, importance), lower=True, overwrite_a=True), scores)
        self.arrays |= {"weights": weights, "coefficients": coefficients}
        return self

    def predict(self, rows: Examples) -> Floats:
        if not self.arrays:
            raise NotFittedError("KernelRidge was asked to predict before `fit`. Call `fit` or `load` first.")
        kernel, side, train = self._kernel(), self._side(rows), _restored(self.arrays)
        scores = np.empty((len(rows), self.arrays["coefficients"].shape[1]))
        for start in range(0, len(rows), PREDICT_ROWS):
            part = slice(start, start + PREDICT_ROWS)
            values = kernel.weighted(self.arrays["weights"], kernel.factors(side.take(part), train))
            scores[part] = values @ self.arrays["coefficients"]
        return TargetSVD.from_arrays(self.arrays).decode(scores)

    def save(self, folder: Path) -> None:
        facts = {"cell_types": self.names[0].names, "compounds": self.names[1].names, "terms": list(self.config.terms)}
        save_arrays(folder, "kernel", self.arrays, facts)

    def load(self, folder: Path) -> KernelRidge:
        self.arrays, facts = load_arrays(folder, "kernel")
        if set(facts["terms"]) != set(self.config.terms):
            raise InputError(f"The kernel in '{folder}' has terms {facts['terms']}, not those of the settings.")
        terms = {term: self.config.terms[term] for term in facts["terms"]}  # a run's config.json sorts them
        self.config = self.config.model_copy(update={"terms": terms})
        self.names = Vocabulary(tuple(facts["cell_types"])), Vocabulary(tuple(facts["compounds"]))
        return self

    def _kernel(self) -> _Kernel:
        return _Kernel(tuple(self.config.terms), self.arrays["similarity"], float(self.arrays["unit"][0]))

    def _side(self, rows: Examples) -> _Side:
        types, compounds = self.names
        used = self.config.factors
        return _Side(
            types.encode(rows.cell_type),
            compounds.encode(rows.compound),
            tuple(rows.block(name) for name in self.config.structure if "structure" in used),
            rows.block(self.config.profile).dense() if "profile" in used else np.zeros((len(rows), 1)),
            rows.block(self.config.context) if "context" in used else _nothing(len(rows)),
            rows.block(self.config.annotation) if "annotation" in used else _nothing(len(rows)),
        )


def _nothing(rows: int) -> Block:
    return Block(np.zeros((1, 1), np.float32), np.zeros(rows, int))


@dataclass(frozen=True, slots=True)
class _Problem:
    """Rows on which the weights of the terms are searched."""

    stack: Floats  # (terms, n, n)
    scores: Floats  # (n, k)
    rest: Floats  # (n,)  squared norm that no score explains
    importance: Floats  # (n,)

    def search(self, start: Floats, blocks: list[Ints], *, steps: int) -> Floats:
        """Descend on the logarithms of the weights (Adam); the best weights met are returned: (terms,)."""
        import torch

        scores, rest = torch.as_tensor(self.scores), torch.as_tensor(self.rest)
        logs = torch.log(torch.tensor(start, dtype=torch.float64))
        optimizer = torch.optim.Adam([logs], lr=0.3)
        best, best_error = start, np.inf
        for _ in range(steps):
            weights = np.exp(logs.numpy())
            kernel = np.tensordot(weights, self.stack, 1)
            inverse = torch.as_tensor(_inverse(_noisy(kernel, self.importance))).requires_grad_()
            error = _left_out_error(inverse, scores, rest, blocks)
            if error.item() < best_error:
                best, best_error = weights, error.item()
            error.backward()
            slope = (inverse @ inverse.grad @ inverse).detach().numpy()  # d inverse = - inverse d kernel inverse
            logs.grad = torch.as_tensor(-weights * np.tensordot(self.stack, slope, 2))
            optimizer.step()
        return best


def _left_out_error(inverse, scores, rest, blocks: list[Ints]):
    """Mean root error of blocks of rows, each predicted without all rows of its block.

    inverse  (n, n)  of kernel plus noise. With the rows B left out, the residual of B is (inverse_BB)^-1 (inverse y)_B.
    Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, 5.4.2, for blocks of one row.
    """
    import torch

    fitted = inverse @ scores
    roots = []
    for block in blocks:
        residual = torch.linalg.solve(inverse[block][:, block], fitted[block])  # (b, k)
        roots.append(torch.sqrt((residual**2).sum(1) + rest[block] + 1e-12))
    return torch.cat(roots).mean()


def _left_one_out(kernel: Floats, scores: Floats, importance: Floats) -> Floats:
    """Squared error over scores of each row, predicted from all the others: (n,)."""
    factor = cho_factor(_noisy(kernel, importance), lower=True, overwrite_a=True)
    diagonal = (np.tril(lapack.dtrtri(factor[0], lower=True)[0]) ** 2).sum(0)  # of the inverse
    return ((cho_solve(factor, scores) / diagonal[:, None]) ** 2).sum(1)


def _inverse(positive: Floats) -> Floats:
    """Invert a symmetric, positive definite matrix by its Cholesky factor: half the work of the general inverse."""
    lower, failed = lapack.dpotrf(positive, lower=True)
    inverse, failed_too = lapack.dpotri(lower, lower=True)
    if failed or failed_too:
        raise np.linalg.LinAlgError("A kernel with noise is not positive definite.")
    inverse = np.tril(inverse)
    return inverse + np.tril(inverse, -1).T


def _noisy(kernel: Floats, importance: Floats) -> Floats:
    return kernel + np.diag(1 / importance)


def _importance(squared_error: Floats) -> Floats:
    """Count rows by the inverse of their error, within bounds: the score is a mean of roots."""
    error = np.sqrt(squared_error)
    return np.clip(error.mean() / np.maximum(error, 1e-12), 0.05, 20.0)


def _whole_compounds(of_compound: Ints, most: int) -> Ints:
    """Rows of randomly drawn compounds, in all their cell types, until there are enough."""
    order = np.random.default_rng(0).permutation(of_compound.max() + 1)
    rank = order.argsort()[of_compound]  # of each row's compound
    enough = np.sort(rank)[min(most, len(rank)) - 1]
    return np.flatnonzero(rank <= enough)


def _left_out(side: _Side, by: str) -> list[Ints]:
    """Blocks of rows to leave out together; never all rows there are."""
    if by == "compound":
        blocks = [np.flatnonzero(side.of_compound == c) for c in np.unique(side.of_compound)]
    else:
        blocks = [np.flatnonzero(side.of_type == t) for t in np.unique(side.of_type)]
        kept = 0.0 if by == "whole_cell_type" else KEPT
        drawn = np.random.default_rng(0)
        blocks = [np.sort(drawn.permutation(block)[int(np.ceil(kept * len(block))) :]) for block in blocks]
    return [block for block in blocks if 0 < len(block) < len(side.of_type)]


def _learned(side: _Side, scores: Floats, *, types: int) -> dict[str, Floats]:
    """Similarity of cell types, and the unit of profiles."""
    similarity = cell_type_similarity(side.of_type - 1, side.of_compound, scores[:, :SIMILARITY_SCORES], types=types)
    strange = similarity.mean(0, keepdims=True)  # a cell type that training lacks is as alike as the average one
    length = np.sqrt((side.profile.astype(np.float64) ** 2).sum(1))
    unit = max(float(np.sqrt(length).mean() ** 2), 1e-12)
    return {"similarity": np.concatenate([strange, similarity]), "unit": np.array([unit])}


def _stored(side: _Side) -> Mapping[str, Floats]:
    """Everything of the training rows that predictions need; each structure and cell type once."""
    arrays = {"train_type": side.of_type, "train_compound": side.of_compound, "train_profile": side.profile}
    blocks = {name: getattr(side, name) for name in NAMED} | {str(i): block for i, block in enumerate(side.structure)}
    for name, block in blocks.items():
        rows, index = np.unique(block.index, return_inverse=True)
        arrays |= {f"table.{name}": block.table[rows], f"index.{name}": index}
    return arrays


def _restored(arrays: Mapping[str, Floats]) -> _Side:
    names = [name.removeprefix("table.") for name in arrays if name.startswith("table.")]
    blocks = {name: Block(arrays[f"table.{name}"], arrays[f"index.{name}"]) for name in names}
    structure = tuple(blocks[name] for name in sorted(set(names) - set(NAMED), key=int))
    nothing = _nothing(len(arrays["train_type"]))
    named = (blocks.get(name, nothing) for name in NAMED)  # kernels saved before a side was known are without it
    return _Side(arrays["train_type"], arrays["train_compound"], structure, arrays["train_profile"], *named)
