"""What a blend leaves over, gene by gene: learned by boosted trees from rows that were predicted out of fold.

A blend weighs its members alike for every gene of every row. Whom to trust depends on more: how far the members agree,
what the gene does in this cell type at all, what the compound did to it in the cell types most alike. Trees that see
this for single values (row, gene), and learn the difference between truth and blend, find such rules; they have
hundreds of thousands of values to learn from, but few rows, so each bag of trees sees half of the rows.

Source: Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1 (stacked generalisation), on trees as of Ke et al. 2017
(LightGBM).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pertcast.types import Floats, Fold, Ints, Question, Strings
from pertcast.weights import splits, standard_error

if TYPE_CHECKING:
    from lightgbm import Booster

BAGS = 8
ROW_SHARE = 0.5  # of the rows, in each bag
VALUES = 60_000  # that a bag learns from, at most
ROUNDS = 50
SHARES = (0.0, 0.5, 1.0)  # of a correction that may be added
PARAMETERS = {
    "objective": "regression",
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "lambda_l2": 10.0,
    "linear_tree": True,  # leaves are linear in what their branch splits on
    "linear_lambda": 10.0,
    "feature_fraction": 0.5,
    "boost_from_average": False,  # where no split pays, nothing is corrected
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
WORKERS = 2  # bags at a time, one thread each
ROWS = 64  # described at a time: what a value is described by takes twenty times its own memory
SMALL = 1e-3  # of a row's error: rows that are predicted exactly do not count for all
SUMMARIES = ("mean", "sd", "largest", "smallest")
NEIGHBOURS = ("most alike", "next alike")
KNOWN = (
    *(f"{name} of the gene" for name in SUMMARIES),
    *(f"{name} of the gene in the cell type" for name in SUMMARIES),
    *(f"{name} of the compound in other cell types" for name in ("mean", "largest", "smallest")),
    *(f"the compound in the cell type {name}" for name in NEIGHBOURS),
)


class Known:
    """What some training rows say of a value: of its gene, its cell type and its compound."""

    def __init__(self, question: Question, rows: Ints):
        self._y = question.y
        self._types = {str(c): rows[question.cell_type[rows] == c] for c in np.unique(question.cell_type[rows])}
        self._row = {(question.cell_type[i], question.compound[i]): i for i in rows}
        self._types_of: dict[str, list[str]] = {}  # compound -> cell types in which it was measured
        for i in rows:
            self._types_of.setdefault(question.compound[i], []).append(question.cell_type[i])
        self._gene = _summary(self._y[rows])  # (4, g)
        self._in_type: dict[str, Floats] = {}
        self._alike: dict[tuple[str, str], float] = {}

    def say(self, cell_type: Strings, compound: Strings) -> Floats:
        """Describe rows: (n,) twice -> (n, 13, g), in the order of `KNOWN`."""
        return np.stack([self._say(*pair) for pair in zip(cell_type, compound, strict=True)])

    def _say(self, cell_type: str, compound: str) -> Floats:
        others = [other for other in self._types_of.get(compound, []) if other != cell_type]
        if not others:
            return np.concatenate([self._gene, self._of_type(cell_type), np.zeros((5, len(self._gene[0])), np.float32)])
        others.sort(key=lambda other: -self._likeness(cell_type, other))
        rows = self._y[[self._row[other, compound] for other in others]]
        compound_says = np.stack([rows.mean(0), rows.max(0), rows.min(0), rows[0], rows[min(1, len(rows) - 1)]])
        return np.concatenate([self._gene, self._of_type(cell_type), compound_says])

    def _of_type(self, cell_type: str) -> Floats:
        """Summary of a cell type's rows; of all rows where it has none."""
        if cell_type not in self._in_type:
            rows = self._types.get(cell_type)
            self._in_type[cell_type] = self._gene if rows is None else _summary(self._y[rows])
        return self._in_type[cell_type]

    def _likeness(self, cell_type: str, other: str) -> float:
        """Cosine of two cell types' answers to the compounds that both have shown; 0 where there are none."""
        if (cell_type, other) not in self._alike:
            shared = [c for c, types in self._types_of.items() if cell_type in types and other in types]
            a, b = (self._y[[self._row[t, c] for c in shared]].ravel().astype(float) for t in (cell_type, other))
            self._alike[cell_type, other] = float(a @ b / max(np.sqrt((a @ a) * (b @ b)), SMALL))
        return self._alike[cell_type, other]


def _summary(y: Floats) -> Floats:
    return np.stack([y.mean(0), y.std(0), y.max(0), y.min(0)])


@dataclass(frozen=True, slots=True)
class Said:
    """What was said of some rows: by each member and by the blend, beside the training rows that may be known."""

    known: Known
    cell_type: Strings  # (n,)
    compound: Strings  # (n,)
    members: Mapping[str, Floats]  # (n, g) each
    blend: Floats  # (n, g)

    def describe(self) -> Iterator[tuple[slice, Floats]]:
        """Yield some rows after the other, each value described: (n, g, m + 15) float32."""
        for start in range(0, len(self.cell_type), ROWS):
            rows = slice(start, start + ROWS)
            members = np.stack([member[rows] for member in self.members.values()], axis=1)  # (n, m, g)
            blend = self.blend[rows, None]
            known = self.known.say(self.cell_type[rows], self.compound[rows])
            parts = [members, members.std(1, keepdims=True), blend, known]
            yield rows, np.concatenate(parts, axis=1).astype(np.float32).transpose(0, 2, 1)


@dataclass(frozen=True, slots=True)
class Correction:
    """Bags of boosted trees; their mean is what is added to a blend."""

    bags: tuple[Booster, ...]
    names: tuple[str, ...]  # of what a value is described by
    low: Floats  # (f,)  range of each description that was learned from: leaves are not followed beyond it
    high: Floats  # (f,)

    def apply(self, said: Said) -> Floats:
        """Predict what the blend leaves over: (n, g)."""
        left = np.empty(said.blend.shape, np.float32)
        with ThreadPoolExecutor(WORKERS) as pool:
            for rows, x in said.describe():
                flat = np.clip(x.reshape(-1, x.shape[2]), self.low, self.high)
                each = pool.map(lambda bag, flat=flat: bag.predict(flat, num_threads=1), self.bags)
                left[rows] = (sum(each) / len(self.bags)).reshape(x.shape[:2])
        return left

    def shares(self) -> dict[str, float]:
        """How much each description took off the squared error, as a share of all, the largest first."""
        gain = np.sum([bag.feature_importance("gain") for bag in self.bags], axis=0)
        order = np.argsort(-gain, kind="stable")
        return {self.names[i]: float(gain[i] / max(gain.sum(), SMALL)) for i in order}


@dataclass(frozen=True, slots=True)
class Trust:
    """How much of a correction is added to a blend: half of it, unless other folds speak clearly for all or none."""

    share: float  # 0, 0.5 or 1
    gain: float  # mean row-wise RMSE that this share, or half where it is none, takes away on other folds
    error: float  # standard error of the gain
    looks_at: Mapping[str, float] = field(default_factory=dict)  # shares of what a value is described by

    def text(self) -> str:
        """Say the gain or loss in words."""
        how = {0.0: "not used: half of it would", 0.5: "used by half:", 1.0: "used:"}
        verb = {True: "gain", False: "lose"}[self.gain >= 0] + ("" if self.share == 0 else "s")
        return f"a correction gene by gene {how[self.share]} {verb} {abs(self.gain):.4f} +- {self.error:.4f}"

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        numbers = {"share": self.share, "gain": self.gain, "standard_error": self.error}
        return {**numbers, "looks_at": dict(self.looks_at), "text": self.text()}


def trust(y: Floats, blend: Floats, left: Floats, fold: Ints) -> tuple[Trust, Floats]:
    """Decide how much of a correction to add: all of it, or none, where that is better than half by two errors.

    y, blend, left   (n, g)  the truth, and what was said of it without each row's fold
    fold             (n,)
    returns          the decision, and for each row (n,) the share that was decided on the other folds
    """
    error = np.stack([np.sqrt(((y - blend - share * left) ** 2).mean(1)) for share in SHARES])  # (3, n)
    shares = np.empty(len(y))
    for inside, own in splits(fold):
        shares[own] = SHARES[_decide(error[:, inside])]
    decided = _decide(error)
    gained = error[0] - error[max(decided, 1)]
    return Trust(SHARES[decided], float(gained.mean()), standard_error(gained)), shares


def _decide(error: Floats) -> int:
    """Number of the share to trust, from rows' errors (3, n) under each of `SHARES`."""
    for other in (2, 0):
        better = error[1] - error[other]
        if better.mean() > 2 * standard_error(better):
            return other
    return 1


def fit_correction(
    question: Question,
    folds: Sequence[Fold],
    *,
    rows: Ints,
    fold: Ints,
    members: Mapping[str, Floats],
    blend: Floats,
    bags: int = BAGS,
) -> tuple[Correction, Floats]:
    """Learn what a blend leaves over from held-out rows; and, for each fold's rows, without that fold.

    rows     (n,)   of the training table, that folds held out
    fold     (n,)   which fold held each out: what is known of a row is what that fold's training rows say
    members  (n, g) each, out of fold
    blend    (n, g) by weights of the other folds
    bags     each learns from half of the rows
    returns  the correction, and for each row (n, g) what one says that was fitted without its fold
    """
    names = (*members, "how far members differ", "blend", *KNOWN)
    said = {
        int(k): _said(question, folds[k].train, rows[own], {m: v[own] for m, v in members.items()}, blend[own])
        for k in np.unique(fold)
        for own in [np.flatnonzero(fold == k)]
    }
    left = question.y[rows] - blend
    weight = 1 / np.maximum(np.sqrt((left.astype(float) ** 2).mean(1)), SMALL)  # the score is a mean of rows' errors
    genes = _drawn_genes(len(rows), question.y.shape[1], bags)  # (bags, n, e)
    x = np.empty((*genes.shape, len(names)), np.float32)
    for k, one in said.items():
        own = np.flatnonzero(fold == k)
        for some, described in one.describe():
            for bag in range(bags):
                x[bag, own[some]] = np.take_along_axis(described, genes[bag, own[some], :, None], axis=1)
    target = np.stack([np.take_along_axis(left, drawn, axis=1) for drawn in genes])  # (bags, n, e)

    def fit(inside: Ints) -> Correction:
        with ThreadPoolExecutor(WORKERS) as pool:
            found = pool.map(lambda bag: _boost(bag, x[bag], target[bag], weight, inside), range(bags))
        inside_x = x[:, inside]
        return Correction(tuple(found), names, inside_x.min((0, 1, 2)), inside_x.max((0, 1, 2)))

    nested = np.zeros_like(blend)
    for inside, own in splits(fold):
        nested[own] = fit(inside).apply(said[int(fold[own[0]])])
    return fit(np.arange(len(rows))), nested


def _said(question: Question, train: Ints, rows: Ints, members: Mapping[str, Floats], blend: Floats) -> Said:
    known = Known(question, train)
    return Said(known, question.cell_type[rows], question.compound[rows], members, blend)


def _drawn_genes(rows: int, genes: int, bags: int) -> Ints:
    """Draw the genes of each row that a bag learns from: (bags, n, e), each once."""
    each = min(genes, max(1, round(VALUES / (ROW_SHARE * rows))))
    rng = np.random.default_rng(0)
    return np.stack([[rng.permutation(genes)[:each] for _ in range(rows)] for _ in range(bags)])


def _boost(bag: int, x: Floats, target: Floats, weight: Floats, inside: Ints) -> Booster:
    """Fit one bag on half of the rows inside."""
    import lightgbm

    rows = np.random.default_rng(bag).permutation(inside)[: max(1, round(ROW_SHARE * len(inside)))]
    data = lightgbm.Dataset(
        x[rows].reshape(-1, x.shape[2]),
        target[rows].ravel(),
        weight=np.repeat(weight[rows], target.shape[1]),
        params={"verbosity": -1},
    )
    return lightgbm.train({**PARAMETERS, "seed": bag}, data, ROUNDS)
