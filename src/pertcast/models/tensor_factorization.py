"""Cell type x compound x response, most of it missing, as a product of factors found by alternating least squares."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from pydantic import Field

from pertcast.config import Config
from pertcast.errors import NotFittedError
from pertcast.features.groups import group_sums
from pertcast.features.onehot import Vocabulary
from pertcast.features.target_svd import TargetSVD
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.models.registry import register
from pertcast.types import Examples, Floats, Ints

TYPE_PSEUDO = 5.0  # pseudo-rows that draw a cell type's own effect to none
START_ROUNDS = 5  # of fitting effects of cell types and compounds in turn, from which the factors start
KEPT = 0.15  # share of a left-out cell type's rows that stay, as the question leaves a few
LEFT_OUT_TYPES = 0.25  # share of the cell types that are left out to choose the penalties


class TensorFactorizationConfig(Config):
    """Several values of a penalty are tried on rows left out."""

    rank: int = Field(40, ge=1)  # length of a compound's code
    components: int = Field(100, ge=1)  # principal scores of the response
    rounds: int = Field(16, ge=1)  # of alternating least squares
    code_penalties: tuple[float, ...] = (5.0, 10.0, 20.0)  # draw a compound to no effect, in units of a row's noise
    gain_penalties: tuple[float, ...] = (20.0, 60.0)  # draw a cell type to what all cell types do with a code


@register("tensor-factorization", config=TensorFactorizationConfig)
class TensorFactorization:
    """Compound codes times cell-type gains: a compound's strength, in every cell type's own measure."""

    def __init__(self, config: TensorFactorizationConfig):
        self.config = config
        self.arrays: dict[str, Floats] = {}
        self.names: tuple[Vocabulary, Vocabulary] | None = None

    def fit(self, train: Examples, valid: Examples | None = None, *, seed: int = 0) -> TensorFactorization:
        """Choose the penalties on training rows left out, most rows of some cell types; then fit all rows."""
        svd = TargetSVD.fit(train.y, self.config.components)
        self.names = Vocabulary.fit(train.cell_type), Vocabulary.fit(train.compound)
        of_type, of_compound = (v.encode(n) for v, n in zip(self.names, (train.cell_type, train.compound), strict=True))
        scores = svd.encode(train.y).astype(np.float64)
        rows = _Rows(of_type, of_compound, scores, svd.residual_norm2(train.y), tuple(map(len, self.names)))
        penalties = self._chosen(rows)
        factors = _fitted(rows, penalties, rank=self.config.rank, rounds=self.config.rounds)
        self.arrays = {**svd.arrays(), **factors.arrays(), "penalties": np.array(penalties)}
        return self

    def predict(self, rows: Examples) -> Floats:
        if not self.arrays:
            raise NotFittedError("TensorFactorization was asked to predict before `fit`. Call `fit` or `load` first.")
        factors = _Factors(*(self.arrays[name] for name in ("effects", "gains", "codes")))
        types, compounds = self.names
        scores = factors.answer(types.encode(rows.cell_type), compounds.encode(rows.compound))
        return TargetSVD.from_arrays(self.arrays).decode(scores)

    def save(self, folder: Path) -> None:
        facts = {"cell_types": self.names[0].names, "compounds": self.names[1].names}
        save_arrays(folder, "factors", self.arrays, facts)

    def load(self, folder: Path) -> TensorFactorization:
        self.arrays, facts = load_arrays(folder, "factors")
        self.names = Vocabulary(tuple(facts["cell_types"])), Vocabulary(tuple(facts["compounds"]))
        return self

    def _chosen(self, rows: _Rows) -> tuple[float, float]:
        choices = list(product(self.config.code_penalties, self.config.gain_penalties))
        hidden = _hidden(rows.of_type)
        if len(choices) == 1 or not hidden.any() or hidden.all():
            return choices[0]
        errors = []
        for penalties in choices:
            factors = _fitted(rows.take(~hidden), penalties, rank=self.config.rank, rounds=self.config.rounds)
            errors.append(np.sqrt(_squared_error(factors, rows.take(hidden))).mean())
        return choices[int(np.argmin(errors))]


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is measured of the tensor."""

    of_type: Ints  # (n,)  1..c
    of_compound: Ints  # (n,)  1..d
    scores: Floats  # (n, k)
    rest: Floats  # (n,)  squared norm that no score explains
    sizes: tuple[int, int]  # c, d

    def take(self, rows: Floats) -> _Rows:
        return _Rows(self.of_type[rows], self.of_compound[rows], self.scores[rows], self.rest[rows], self.sizes)


@dataclass(frozen=True, slots=True)
class _Factors:
    """Scores of a pair: effect of the cell type + its gains (k, r) times the compound's code (r,)."""

    effects: Floats  # (c + 1, k)  row 0: none, of an unknown cell type
    gains: Floats  # (c + 1, k, r)  row 0: what cell types have in common
    codes: Floats  # (d + 1, r)  row 0: none, of an unknown compound

    def answer(self, of_type: Ints, of_compound: Ints) -> Floats:
        """Predict pairs: (n,), (n,) -> (n, k)."""
        return self.effects[of_type] + np.einsum("nkr,nr->nk", self.gains[of_type], self.codes[of_compound])

    def arrays(self) -> dict[str, Floats]:
        return {"effects": self.effects, "gains": self.gains, "codes": self.codes}


def _fitted(rows: _Rows, penalties: tuple[float, float], *, rank: int, rounds: int) -> _Factors:
    """Solve for codes, common gains, and each cell type's own in turn; rows count by the inverse of their error."""
    factors = _start(rows, rank)
    noise, weight = 0.5 * float((rows.scores**2).mean()), np.ones(len(rows.scores))
    for _ in range(rounds):
        factors = _Factors(factors.effects, factors.gains, _codes(rows, factors, weight, penalties[0] * noise))
        factors = _gains(rows, factors, weight, penalties[1])
        squared = _squared_error(factors, rows)
        error = np.sqrt(squared)
        weight = np.clip(error.mean() / np.maximum(error, 1e-12), 0.05, 20.0)  # the score is a mean of roots
        noise = max(float((weight * (squared - rows.rest)).mean()) / rows.scores.shape[1], 1e-12)
    return factors


def _start(rows: _Rows, rank: int) -> _Factors:
    """Additive effects; the compounds' leading directions become codes of about unit variance."""
    types, compounds = rows.sizes
    of_compounds = np.zeros((compounds + 1, rows.scores.shape[1]))
    per_type = np.bincount(rows.of_type, minlength=types + 1)
    per_compound = np.bincount(rows.of_compound, minlength=compounds + 1)
    for _ in range(START_ROUNDS):
        of_types = group_sums(rows.scores - of_compounds[rows.of_compound], rows.of_type, types + 1)
        of_types /= (per_type + TYPE_PSEUDO)[:, None]
        of_compounds = group_sums(rows.scores - of_types[rows.of_type], rows.of_compound, compounds + 1)
        of_compounds /= (per_compound + 1.0)[:, None]
    _, singular, directions = np.linalg.svd(of_compounds, full_matrices=False)
    rank = min(rank, len(singular))
    common = directions[:rank].T * np.maximum(singular[:rank], 1e-9) / np.sqrt(compounds)  # (k, r)
    return _Factors(of_types, np.repeat(common[None], types + 1, axis=0), np.zeros((compounds + 1, rank)))


def _codes(rows: _Rows, factors: _Factors, weight: Floats, penalty: float) -> Floats:
    """Ridge of every compound's rows on the gains of their cell types: (d + 1, r)."""
    rank = factors.gains.shape[2]
    square = np.einsum("ckr,cks->crs", factors.gains, factors.gains)  # (c + 1, r, r)
    share = np.zeros((rows.sizes[1] + 1, rows.sizes[0] + 1))  # (d + 1, c + 1)
    np.add.at(share, (rows.of_compound, rows.of_type), weight)
    left = np.tensordot(share, square, 1) + penalty * np.eye(rank)  # (d + 1, r, r)
    deviation = rows.scores - factors.effects[rows.of_type]
    answered = weight[:, None] * np.einsum("nk,nkr->nr", deviation, factors.gains[rows.of_type])  # (n, r)
    right = group_sums(answered, rows.of_compound, len(share))
    return np.linalg.solve(left, right[:, :, None])[:, :, 0]


def _gains(rows: _Rows, factors: _Factors, weight: Floats, penalty: float) -> _Factors:
    """Ridge of the common gains, then of each cell type's effect and its departure from the common gains."""
    codes = factors.codes[rows.of_compound]  # (n, r)
    rank = codes.shape[1]
    own = factors.gains - factors.gains[0]
    target = rows.scores - factors.effects[rows.of_type] - np.einsum("nkr,nr->nk", own[rows.of_type], codes)
    weighted = codes * weight[:, None]
    common = np.linalg.solve(weighted.T @ codes + np.eye(rank), weighted.T @ target).T  # (k, r)
    effects, gains = np.zeros_like(factors.effects), np.repeat(common[None], len(factors.gains), axis=0)
    ridge = np.diag(np.append(np.full(rank, penalty), TYPE_PSEUDO))
    for cell_type in np.unique(rows.of_type):
        mine = rows.of_type == cell_type
        x = np.column_stack([codes[mine], np.ones(mine.sum())])  # (m, r + 1)
        weighted = x * weight[mine][:, None]
        found = np.linalg.solve(weighted.T @ x + ridge, weighted.T @ (rows.scores[mine] - codes[mine] @ common.T))
        gains[cell_type] += found[:rank].T
        effects[cell_type] = found[rank]
    return _Factors(effects, gains, factors.codes)


def _squared_error(factors: _Factors, rows: _Rows) -> Floats:
    """Squared error of each row over genes: (n,)."""
    return ((factors.answer(rows.of_type, rows.of_compound) - rows.scores) ** 2).sum(1) + rows.rest


def _hidden(of_type: Ints) -> Floats:
    """Mark most rows of some cell types: (n,) bool."""
    drawn = np.random.default_rng(0)
    types = drawn.permutation(np.unique(of_type))
    hidden = np.zeros(len(of_type), bool)
    for cell_type in types[: int(np.ceil(LEFT_OUT_TYPES * len(types)))]:
        rows = drawn.permutation(np.flatnonzero(of_type == cell_type))
        hidden[rows[int(np.ceil(KEPT * len(rows))) :]] = True
    return hidden
