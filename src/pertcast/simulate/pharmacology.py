"""What is planted: gene programs, what each compound does to them, and how each cell type answers.

Effects are natural-log fold changes of expected expression. The structure of a compound decides: the scaffold its
mechanism, both substituents its potency, the right one a weaker second mechanism.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pertcast.simulate.chemistry import SCAFFOLDS, SUBSTITUENTS, Compound, column
from pertcast.types import Floats, Ints

PROGRAMS = 40
PATHWAYS = 8  # program k belongs to pathway k % PATHWAYS; a cell type answers with a whole pathway, more or less
MECHANISMS = 14  # 2 i and 2 i + 1 are agonists and antagonists of the same programs
PROGRAMS_PER_MECHANISM = 5
DENSITY = 0.12  # share of genes that a program touches
STRESS_DENSITY = 0.5  # the stress program is broad: strong compounds move most genes
SECOND = 0.4  # weight of the second mechanism
OWN = 0.35  # weight of what a compound does for no reason that its structure shows
EXPOSURE = 0.1  # sd of the natural log of how much of a compound reaches its targets in one cell type
EXCEPTION = 0.1  # share of left substituents that turn an agonist to an antagonist, and back
CLIFF = 0.5  # sd of log potency that the parts do not explain, against 1 for scaffold and substituents together
SATURATION = 2.5  # log fold changes level off here


@dataclass(frozen=True, slots=True)
class Pharmacology:
    """What each compound does, wherever it acts."""

    mechanism: Ints  # (c,)
    second: Ints  # (c,)  a weaker one
    potency: Floats  # (c,)  RMS log fold change that it aims at
    activity: Floats  # (c, k)  of each program, at potency 1
    stress: Floats  # (c,)  activity of the stress program, at potency 1


@dataclass(frozen=True, slots=True)
class Programs:
    """Which genes move together."""

    loadings: Floats  # (k, g)  mean square 1 / k_active, so that activities of size 1 give RMS 1
    stress: Floats  # (g,)


def pharmacology(compounds: Sequence[Compound], quantile: Floats, *, rng: np.random.Generator) -> Pharmacology:
    """Derive mechanisms and potencies from structures.

    quantile  (c,)  the potencies to hand out, ascending: the compound of the lowest score gets the first
    """
    scaffold, left, right = (column(compounds, part).astype(int) for part in ("scaffold", "left", "right"))
    n = len(compounds)
    of_scaffold = rng.permutation(len(SCAFFOLDS)) % MECHANISMS
    turned = rng.permutation(len(SUBSTITUENTS)) < EXCEPTION * len(SUBSTITUENTS)
    mechanism = of_scaffold[scaffold] ^ turned[left]  # 2 i <-> 2 i + 1
    second = rng.permutation(len(SUBSTITUENTS))[right] % MECHANISMS
    parts = [rng.normal(size=len(SCAFFOLDS))[scaffold]]
    parts += [rng.normal(size=len(SUBSTITUENTS))[part] for part in (left, right)]
    score = np.sum(parts, axis=0) / np.sqrt(3) + CLIFF * rng.normal(size=n)
    potency = np.empty(n)
    potency[np.argsort(score, kind="stable")] = quantile
    catalogue = _mechanisms(rng)  # (m, k)
    activity = catalogue[mechanism] + SECOND * catalogue[second] + OWN * rng.normal(size=(n, PROGRAMS))
    activity /= np.sqrt((activity**2).mean(axis=1, keepdims=True))
    stress = rng.uniform(0.7, 1.3, MECHANISMS)[mechanism]
    return Pharmacology(mechanism, second, potency, activity, stress)


def _mechanisms(rng: np.random.Generator) -> Floats:
    """Return each mechanism's few programs: (m, k) with mean square 1 per row."""
    catalogue = np.zeros((MECHANISMS, PROGRAMS))
    for agonist in range(0, MECHANISMS, 2):
        chosen = rng.choice(PROGRAMS, PROGRAMS_PER_MECHANISM, replace=False)
        sign = rng.choice([-1.0, 1.0], PROGRAMS_PER_MECHANISM)
        catalogue[agonist, chosen] = sign * rng.uniform(0.5, 1.5, PROGRAMS_PER_MECHANISM)
        catalogue[agonist + 1] = -catalogue[agonist]
    return catalogue / np.sqrt((catalogue**2).mean(axis=1, keepdims=True))


def gene_programs(genes: int, *, rng: np.random.Generator) -> Programs:
    """Draw sparse loadings, scaled so that activities of mean square 1 move genes by RMS 1."""
    touched = rng.random((PROGRAMS, genes)) < DENSITY
    loadings = touched * rng.normal(size=(PROGRAMS, genes)) / np.sqrt(DENSITY * PROGRAMS)
    stress = (rng.random(genes) < STRESS_DENSITY) * rng.normal(size=genes) / np.sqrt(STRESS_DENSITY)
    return Programs(loadings, stress)


def answers(log_gain: Floats) -> Floats:
    """Return how strongly one cell type's programs answer, given the log gains of its pathways: (pathways,) -> (k,).

    The RMS is 1.
    """
    answer = np.exp(log_gain)[np.arange(PROGRAMS) % PATHWAYS]
    return answer / np.sqrt(np.mean(answer**2))


def exposures(drugs: Pharmacology, *, rng: np.random.Generator) -> Floats:
    """Draw the potency that each compound has in one cell type: (c,). Cells differ in what they take up and expel."""
    return drugs.potency * np.exp(EXPOSURE * rng.normal(size=len(drugs.potency)))


def log_fold_changes(drugs: Pharmacology, programs: Programs, answer: Floats, *, potency: Floats, gain: float,
                     stress_gain: float) -> Floats:  # fmt: skip
    """Return the planted effects in one cell type: (c, g) natural-log fold changes.

    answer             (k,)  of each program
    potency            (c,)  in this cell type
    gain, stress_gain        how strongly the cell type answers with its programs, and with the stress program
    """
    specific = (drugs.activity * answer) @ programs.loadings  # (c, g)
    shared = drugs.stress[:, None] * programs.stress  # (c, g)
    effect = potency[:, None] * (gain * specific + stress_gain * shared)
    return SATURATION * np.tanh(effect / SATURATION)
