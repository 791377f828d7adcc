"""A demo competition whose truth is known: which pairs are measured, what is planted, what is measured, the ceiling."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pertcast.de.log10_p import signed_log10_p
from pertcast.de.normalization import log2_cpm_voom
from pertcast.simulate import oracle, pharmacology, plates
from pertcast.simulate.chemistry import Compound, build_compounds
from pertcast.types import Floats, Ints

DEMO_VERSION = 2  # raise it with any change of what is simulated: tables made from older demos no longer hold
DEPTH_SD = 0.3  # sd of the natural log of a well's depth
DONOR_SD = 0.3  # of log expression, per gene and cell type
PLATE_SD = 0.1
DISPERSIONS = np.array([0.02, 0.05, 0.1, 0.2, 0.4])  # a gene has one of them
EXPRESSION_SD = 2.2  # of log expression over genes
BRANCH_SD = 0.3  # of log expression, per branch of the lineage tree: types differ by 0.4 to 0.8, measured 0.35 to 0.95
BRANCH_ANSWER_SD = 0.25  # of the log gain of a pathway, per branch
PUBLIC_SHARE = 0.39  # of the compounds to predict
POSITIVE_RANKS = (0.55, 0.85)  # how far down the strong ones the two positive controls stand in potency
POTENCY = (0.035, 0.08, 1.6)  # of the weakest compound, where the strong ones begin, of the strongest
STRONG_SHARE = 0.14  # of the compounds: 20 of 146 are outliers in the real table
STRONG_BEND = 1.3  # above 1: few of the strong ones are very strong
KNOWN_STRONG = 0.2  # share of strong ones in the rare types' known compounds, beside the positive controls


@dataclass(frozen=True, slots=True)
class CellType:
    """One cell type and how it answers. Calibrated to the real competition's scales."""

    name: str
    lineage: tuple[str, ...]  # its ancestors: what cell types differ in is summed along their branches
    depth: float  # expected counts per gene in a control well of median depth
    gain: float  # answer of its programs
    stress: float  # answer of the stress program
    loss: float  # cells lost: natural log of the depth, per unit of potency

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches of the lineage tree that lead to it, its own the last."""
        return (*self.lineage, self.name)


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """What a demo of one size holds."""

    genes: int
    compounds: int
    cell_types: tuple[CellType, ...]  # the rare ones last
    rare: int  # how many cell types have few training rows
    known: int  # compounds that the rare types have in training
    missing: tuple[int, ...]  # per cell type: pairs that were lost
    plates: int  # per donor
    dmso_wells: int  # per plate
    positive_wells: int  # per plate and positive control
    donors: int = 3


CELL_TYPES = (
    CellType("NK cells", ("lymphoid", "T and NK"), depth=15, gain=2.6, stress=0.29, loss=2),
    CellType("T cells CD4+", ("lymphoid", "T and NK", "T"), depth=30, gain=2.8, stress=0.08, loss=1.25),
    CellType("T cells CD8+", ("lymphoid", "T and NK", "T"), depth=15, gain=2.1, stress=0.03, loss=0.1),
    CellType("T regulatory cells", ("lymphoid", "T and NK", "T"), depth=15, gain=2.6, stress=0.32, loss=2),
    CellType("B cells", ("lymphoid",), depth=15, gain=2.6, stress=0.24, loss=1.5),
    CellType("Myeloid cells", ("myeloid", "monocytes"), depth=15, gain=3.05, stress=0.3, loss=1.7),
)
_NK, _CD4, _CD8, _TREG, _B, _MYELOID = CELL_TYPES
SIZES = {
    "tiny": DemoConfig(
        genes=60, compounds=12, cell_types=(_NK, _CD4, _CD8, _B), rare=1, known=3, missing=(0, 0, 0, 0),
        plates=1, dmso_wells=8, positive_wells=4,
    ),
    "small": DemoConfig(
        genes=1000, compounds=100, cell_types=CELL_TYPES, rare=2, known=17, missing=(0, 0, 1, 0, 0, 1),
        plates=2, dmso_wells=8, positive_wells=8,
    ),
    "full": DemoConfig(
        genes=18_211, compounds=146, cell_types=CELL_TYPES, rare=2, known=17, missing=(0, 0, 4, 0, 1, 2),
        plates=2, dmso_wells=8, positive_wells=8,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which pairs of cell type and compound the training table and the test hold: (n, 2) numbers of both."""

    positive: Ints  # (2,)  compounds that are positive controls
    measured: tuple[Ints, ...]  # per cell type, compounds
    train: Ints  # (n_train, 2)  by compound, then cell type
    test: Ints  # (n_test, 2)  in the order of id_map
    public: Ints  # compounds


@dataclass(frozen=True, slots=True)
class Demo:
    """A simulated competition."""

    config: DemoConfig
    seed: int
    genes: tuple[str, ...]
    compounds: tuple[Compound, ...]
    drugs: pharmacology.Pharmacology
    pairs: Pairs
    y_train: Floats  # (n_train, g)  signed -log10 p
    y_test: Floats  # (n_test, g)
    oracle_train: Floats  # (n_train, g)
    oracle_test: Floats  # (n_test, g)


@dataclass(frozen=True, slots=True)
class Measured:
    """One cell type before its analysis: what was planted, and the counts of its wells."""

    cell_type: int  # number
    wells: plates.Wells  # n of them
    counts: Ints  # (n, g)
    effects: Floats  # (c, g)  natural-log fold changes of expression, planted


def simulate_competition(
    config: DemoConfig, *, seed: int, watch: Callable[[Pairs, tuple[Compound, ...], Measured], None] | None = None
) -> Demo:
    """Simulate a competition. Same config and seed, same numbers.

    watch   shown the counts of each cell type, one after the other: all of them at once would be too many to keep
    """
    compounds = build_compounds(config.compounds, rng=_stream(seed, 0))
    drugs = pharmacology.pharmacology(compounds, potencies(config.compounds), rng=_stream(seed, 1))
    pairs = choose_pairs(config, drugs.potency, compounds, rng=_stream(seed, 2))
    biology = _Biology.draw(config, rng=_stream(seed, 3))
    train, test = (np.empty((2, len(rows), config.genes)) for rows in (pairs.train, pairs.test))
    for number in range(len(config.cell_types)):
        both, measured = _one_cell_type(config, number, drugs, pairs, biology, rng=_stream(seed, 4 + number))
        if watch:
            watch(pairs, compounds, measured)
        position = np.full(config.compounds, -1)
        position[pairs.measured[number]] = np.arange(len(pairs.measured[number]))
        for table, rows in ((train, pairs.train), (test, pairs.test)):
            here = rows[:, 0] == number
            table[:, here] = both[:, position[rows[here, 1]]]
    return Demo(config, seed, gene_names(config.genes), compounds, drugs, pairs, train[0], test[0], train[1], test[1])


def _stream(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([DEMO_VERSION, seed, number])


def gene_names(n: int) -> tuple[str, ...]:
    """Return n names whose order is that of their code points."""
    width = max(4, len(str(n)))
    return tuple(f"GENE{i:0{width}d}" for i in range(1, n + 1))


def potencies(n: int) -> Floats:
    """Return n ascending potencies: most are weak and alike, a small share reaches far, evenly in the logarithm."""
    least, middle, most = np.log(POTENCY)
    u = (np.arange(n) + 0.5) / n
    weak = least + (middle - least) * u / (1 - STRONG_SHARE)
    rise = np.clip((u - 1 + STRONG_SHARE) / STRONG_SHARE, 0, 1) ** STRONG_BEND
    return np.exp(np.where(u < 1 - STRONG_SHARE, weak, middle + (most - middle) * rise))


def choose_pairs(config: DemoConfig, potency: Floats, compounds, *, rng: np.random.Generator) -> Pairs:
    """Choose controls, known compounds of the rare types, lost pairs and the public half.

    As in the real competition the known compounds are a strong selection (there, four of the five largest effects), so
    that the rows to predict are weaker than those shown; lost pairs are those of strong compounds.
    """
    n = config.compounds
    ranked = np.argsort(-potency, kind="stable")
    strong = ranked[: max(3, round(STRONG_SHARE * n))]
    positive = np.sort(strong[[int(len(strong) * rank) for rank in POSITIVE_RANKS]])
    left = [c for c in strong if c not in positive]
    known_strong = [c for i, c in enumerate(left) if i != 2][: round(KNOWN_STRONG * (config.known - 2))]
    weak = rng.permutation(ranked[len(strong) :])
    known = np.concatenate([positive, known_strong, weak])[: config.known].astype(int)
    to_predict = np.setdiff1d(np.arange(n), known)
    strong_to_predict = [c for c in left if c not in known]
    common = len(config.cell_types) - config.rare
    measured = []
    for number, lost in enumerate(config.missing):
        candidates = left if number < common else strong_to_predict
        measured.append(np.setdiff1d(np.arange(n), candidates[:lost]))
    train = [(t, c) for c in range(n) for t in range(len(measured))
             if c in measured[t] and (t < common or c in known)]  # fmt: skip
    names = [compound.name for compound in compounds]
    test = [(t, c) for t in range(common, len(measured)) for c in to_predict if c in measured[t]]
    test.sort(key=lambda pair: (config.cell_types[pair[0]].name, names[pair[1]]))
    public = rng.permutation(to_predict)[: round(PUBLIC_SHARE * len(to_predict))]
    return Pairs(positive, tuple(measured), np.array(train), np.array(test), np.sort(public))


@dataclass(frozen=True, slots=True)
class _Biology:
    """What all cell types share."""

    programs: pharmacology.Programs
    expression: Floats  # (g,)  log
    branches: dict[str, tuple[Floats, Floats]]  # what each adds to log expression (g,) and to log gains (pathways,)
    dispersion: Floats  # (g,)
    plate: Floats  # (plates, g)  log

    @classmethod
    def draw(cls, config: DemoConfig, *, rng: np.random.Generator) -> "_Biology":
        g = config.genes
        names = dict.fromkeys(name for cell in config.cell_types for name in cell.branches)
        return cls(
            programs=pharmacology.gene_programs(g, rng=rng),
            expression=EXPRESSION_SD * rng.permutation(stats.norm.ppf((np.arange(g) + 0.5) / g)),
            branches={
                name: (BRANCH_SD * rng.normal(size=g), BRANCH_ANSWER_SD * rng.normal(size=pharmacology.PATHWAYS))
                for name in names
            },
            dispersion=rng.permutation(np.resize(DISPERSIONS, g)),
            plate=PLATE_SD * rng.normal(size=(config.donors * config.plates, g)),
        )


def _one_cell_type(config: DemoConfig, number: int, drugs, pairs: Pairs, biology: _Biology, *,
                   rng: np.random.Generator) -> tuple[Floats, Measured]:  # fmt: skip
    """Return the response and the oracle's prediction for all measured compounds: (2, k, g); and the counts."""
    cell = config.cell_types[number]
    measured = pairs.measured[number]
    others = np.setdiff1d(np.arange(config.compounds), pairs.positive)
    wells = plates.lay_out(pairs.positive, others, donors=config.donors, plates=config.plates,
                           dmso_wells=config.dmso_wells, positive_wells=config.positive_wells)  # fmt: skip
    wells = wells.without(np.setdiff1d(np.arange(config.compounds), measured))
    branches = [biology.branches[name] for name in cell.branches]
    expression, log_gain = (np.sum(parts, axis=0) for parts in zip(*branches, strict=True))
    potency = pharmacology.exposures(drugs, rng=rng)
    effects = pharmacology.log_fold_changes(drugs, biology.programs, pharmacology.answers(log_gain), potency=potency,
                                          gain=cell.gain, stress_gain=cell.stress)  # fmt: skip
    base = biology.expression + expression
    donor = DONOR_SD * rng.normal(size=(config.donors, config.genes))
    log_mean = base + donor[wells.donor] + biology.plate[wells.plate]  # (n, g)
    treated = np.flatnonzero(wells.compound != plates.DMSO)
    log_mean[treated] += effects[wells.compound[treated]]
    depth = np.full(len(wells), np.log(cell.depth * config.genes))
    depth[treated] -= cell.loss * potency[wells.compound[treated]]
    top = log_mean.max(axis=1, keepdims=True)
    log_mean += depth[:, None] - top - np.log(np.exp(log_mean - top).sum(axis=1, keepdims=True))
    counts = plates.draw_counts(log_mean, biology.dispersion, depth_sd=DEPTH_SD, rng=rng)
    y = log2_cpm_voom(counts)
    tests, maps = plates.compare(y, wells, measured)
    scale = tests.unscaled_sd * np.sqrt(tests.prior.posterior)  # (k, g)
    moments = oracle.log_cpm_moments(log_mean[treated], biology.dispersion, depth_sd=DEPTH_SD)
    per_million = np.log2(1e6) - depth[treated, None] / np.log(2)
    expected = oracle.oracle_rows(maps, y, (moments[0] + per_million, moments[1]), treated, scale=scale, df=tests.df)
    both = np.stack([signed_log10_p(tests.t, tests.df), expected])
    return both, Measured(number, wells, counts, effects)
