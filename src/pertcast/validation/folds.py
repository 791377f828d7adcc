"""Which rows train, which are held out, and why.

The default, `task`, asks what the competition asks: most compounds of some cell types are hidden, while the other cell
types show them. Everything is drawn from a seed; a fold names what it holds out and refuses to leak at birth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pertcast.errors import InputError, unknown
from pertcast.types import Fold, Ints, Question, Strings

ROTATIONS = 4  # folds that rotate over training cell types
KNOWN = 3  # folds over the target cell types' own known compounds
PARTS = 5  # folds of every other strategy
MOST_TYPES = 6  # cell types are left out one by one up to this many folds, in groups beyond
UNRELATED = 4  # as many cell types as the task has are hidden together only if there are this many times more


def make_folds(strategy: str, question: Question, *, groups: Strings | None = None, seed: int = 0) -> list[Fold]:
    """Hold rows out by the named strategy.

    groups  (n,)  for `compound` and `scaffold`: label of each training row's compound that must not be split
                  (stereoisomers share one); by default the compound's name
    """
    if strategy not in STRATEGIES:
        raise InputError(unknown("fold strategy", strategy, STRATEGIES))
    labels = question.compound if groups is None else groups
    return STRATEGIES[strategy](question, labels, np.random.default_rng(seed))


def group_labels(strategy: str, question: Question) -> Strings | None:
    """Label each training row's compound so that stereoisomers, or compounds of one scaffold, stay together: (n,).

    None for strategies that group by something else. A compound without a structure is a group of its own.
    """
    from pertcast.features import chemistry

    if strategy not in ("compound", "scaffold"):
        return None
    label = chemistry.inchikey_block if strategy == "compound" else chemistry.scaffolds
    known = sorted({s for s in question.smiles if isinstance(s, str)})
    labels = dict(zip(known, label(known), strict=True))
    pairs = zip(question.smiles, question.compound, strict=True)
    return np.array([labels.get(smiles, f"name:{name}") for smiles, name in pairs], dtype=object)


def task_folds(question: Question, labels: Strings, rng: np.random.Generator) -> list[Fold]:
    """Ask the competition's own question of the training rows (S004-10).

    Rotation: of one or more training cell types all rows are hidden but the share that the target types have known.
    Known: the target types' own known compounds, in parts. In both, compounds of hidden rows are thinned in the other
    cell types until they are as rarely seen as the compounds that are asked for; rows dropped so are in neither part.
    """
    pairs = _join(question.cell_type, question.compound)
    others = sorted(set(question.cell_type) - set(question.target_types))
    together = len(question.target_types)
    together = together if len(others) >= UNRELATED * together else 1
    order = list(rng.permutation(np.array(others, dtype=object)))
    groups = [order[i : i + together] for i in range(0, len(order) - together + 1, together)][:ROTATIONS]
    folds = []
    for i, types in enumerate(groups):
        valid = np.concatenate([_hidden_rows(question, cell_type, rng) for cell_type in types])
        holds_out = f"most compounds of {' and '.join(types)}"
        folds += _task_fold(f"rotate-{i}", valid, question, holds_out=holds_out, pairs=pairs, rng=rng)
    in_target = np.isin(question.cell_type, question.target_types)
    known = rng.permutation(np.unique(question.compound[in_target]))
    parts = min(KNOWN, len(known)) if len(known) > 1 else 0
    for i, part in enumerate(np.array_split(known, parts) if parts else []):
        valid = np.flatnonzero(in_target & np.isin(question.compound, part))
        holds_out = f"known compounds of {' and '.join(question.target_types)}"
        folds += _task_fold(f"known-{i}", valid, question, holds_out=holds_out, pairs=pairs, rng=rng)
    if not folds:
        raise InputError(
            "The task folds need training rows of at least two cell types, or two compounds of the target type; "
            f"got {len(question)} rows of {sorted(set(question.cell_type))}. Use --folds random."
        )
    return folds


def _task_fold(
    name: str, valid: Ints, question: Question, *, holds_out: str, pairs: Strings, rng: np.random.Generator
) -> list[Fold]:
    rows = np.arange(len(question))
    if np.isin(question.test_compound, question.compound).all():  # then only compounds seen elsewhere can be asked for
        valid = valid[np.isin(question.compound[valid], question.compound[np.setdiff1d(rows, valid)])]
    train = _thinned(np.setdiff1d(rows, valid), valid, question, rng)
    return [Fold(name, train, np.sort(valid), holds_out, pairs)] if len(train) and len(valid) else []


def _hidden_rows(question: Question, cell_type: str, rng: np.random.Generator) -> Ints:
    """Rows of a cell type to hide; kept are, first, compounds that the target types know, last those asked for."""
    in_target = np.isin(question.cell_type, question.target_types)
    share = in_target.sum() / (in_target.sum() + len(question.test_ids))
    rows = rng.permutation(np.flatnonzero(question.cell_type == cell_type))
    known = np.isin(question.compound[rows], question.compound[in_target])
    asked = np.isin(question.compound[rows], question.test_compound)
    rows = rows[np.argsort(2 * asked.astype(int) - known, kind="stable")]
    return rows[min(int(np.ceil(share * len(rows))), len(rows) - 1) :]


def _thinned(train: Ints, valid: Ints, question: Question, rng: np.random.Generator) -> Ints:
    """Drop training rows of hidden compounds until their row counts are distributed as those of the asked ones."""
    if not len(valid):
        return train
    compounds = np.unique(question.compound[valid])
    own = np.array([(question.compound[train] == c).sum() for c in compounds])
    seen = np.array([(question.compound == c).sum() for c in question.test_compound])  # (m,) rows in training
    order = np.lexsort((rng.random(len(own)), own))  # rarest first, ties at random
    share = (np.arange(len(own)) + 0.5) / len(own)
    wanted = np.minimum(own[order], np.quantile(seen, share, method="inverted_cdf"))
    dropped = []
    for compound, count in zip(compounds[order], wanted.astype(int), strict=True):
        rows = train[question.compound[train] == compound]
        dropped.append(rng.permutation(rows)[count:])
    return np.setdiff1d(train, np.concatenate(dropped))


def compound_folds(question: Question, labels: Strings, rng: np.random.Generator) -> list[Fold]:
    """Hold whole compounds out: nothing of a held-out compound is seen in any cell type."""
    return _grouped("compound", question, labels, rng)


def scaffold_folds(question: Question, labels: Strings, rng: np.random.Generator) -> list[Fold]:
    """Hold whole scaffolds out: the labels are Bemis-Murcko scaffolds."""
    return _grouped("scaffold", question, labels, rng)


def celltype_folds(question: Question, labels: Strings, rng: np.random.Generator) -> list[Fold]:
    """Leave cell types out, one by one, or in groups where there are many."""
    types = np.unique(question.cell_type)
    parts = np.array_split(rng.permutation(types), min(MOST_TYPES, len(types)))
    valids = [np.flatnonzero(np.isin(question.cell_type, part)) for part in parts]
    return _folds("celltype", valids, question, holds_out="cell_type", groups=question.cell_type)


def stratified_folds(question: Question, labels: Strings, rng: np.random.Generator) -> list[Fold]:
    """Rows at random, every cell type in equal shares."""
    return _folds("stratified", _spread(question.cell_type, rng), question, holds_out="rows", groups=None)


def kmeans_folds(question: Question, labels: Strings, rng: np.random.Generator) -> list[Fold]:
    """Rows at random, every cluster of responses in equal shares; clusters by k-means on the training targets."""
    from sklearn.cluster import KMeans

    clusters = KMeans(2, n_init=10, random_state=int(rng.integers(2**31))).fit_predict(question.y)
    return _folds("kmeans", _spread(clusters, rng), question, holds_out="rows", groups=None)


def random_folds(question: Question, labels: Strings, rng: np.random.Generator) -> list[Fold]:
    """Rows at random: optimistic, for comparison with published validation only."""
    return _folds("random", _spread(np.zeros(len(question)), rng), question, holds_out="rows", groups=None)


def _grouped(kind: str, question: Question, labels: Strings, rng: np.random.Generator) -> list[Fold]:
    """Spread whole groups over the parts, largest first into the part that has fewest rows."""
    names, sizes = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise InputError(f"The {kind} folds need at least 2 different {kind}s, got {len(names)}. Use --folds random.")
    load = np.zeros(min(PARTS, len(names)), int)
    part = {}
    for i in np.lexsort((rng.random(len(names)), -sizes)):
        part[names[i]] = int(load.argmin())
        load[part[names[i]]] += sizes[i]
    of_row = np.array([part[label] for label in labels])
    valids = [np.flatnonzero(of_row == i) for i in range(len(load))]
    return _folds(kind, valids, question, holds_out=kind, groups=labels)


def _spread(strata: np.ndarray, rng: np.random.Generator) -> list[Ints]:
    """Deal the rows of each stratum out to the parts in turn, in random order."""
    of_row = np.empty(len(strata), int)
    order = np.concatenate([rng.permutation(np.flatnonzero(strata == s)) for s in np.unique(strata)])
    of_row[order] = np.arange(len(order)) % min(PARTS, len(order))
    return [np.flatnonzero(of_row == i) for i in range(of_row.max() + 1)]


def _folds(
    kind: str, valids: Sequence[Ints], question: Question, *, holds_out: str, groups: Strings | None
) -> list[Fold]:
    rows = np.arange(len(question))
    return [
        Fold(f"{kind}-{i}", np.setdiff1d(rows, valid), np.sort(valid), holds_out, groups)
        for i, valid in enumerate(valids)
    ]


def _join(left: Strings, right: Strings) -> Strings:
    return np.array([f"{a} / {b}" for a, b in zip(left, right, strict=True)], dtype=object)


STRATEGIES: dict[str, Callable[[Question, Strings, np.random.Generator], list[Fold]]] = {
    "task": task_folds,
    "compound": compound_folds,
    "scaffold": scaffold_folds,
    "celltype": celltype_folds,
    "stratified": stratified_folds,
    "kmeans": kmeans_folds,
    "random": random_folds,
}
