"""Every score of predicted treated cells against measured ones of one context, and how to read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.distance import pdist

from pertcast.errors import InputError
from pertcast.metrics.distribution import (
    mae_of_means,
    mse_of_means,
    total_variance_ratio,
    total_zero_share_error,
    unbiased_energy_distance,
    variance_ratio,
    wasserstein,
    zero_share_error,
)
from pertcast.metrics.samples import Cellwise, drawn_cells
from pertcast.metrics.structure import (
    delta_cosine,
    delta_pearson,
    direction_accuracy,
    gene_correlation,
    mmd,
    pearson,
    r2,
    r2_of_means,
    skill,
    skill_of_means,
    squared_pearson_of_means,
    top_genes_overlap,
    welch_t,
)
from pertcast.types import Floats

DE, TOP, AXES = 100, 20, 50  # genes that differ most, the first of them, principal axes of distances
MOST_CELLS = 2000  # of which the kernel's width is the median distance
DRAWS = 200  # of held-out cells
MEANS = ("R2", "R2 DE", "delta Pearson", "skill", "skill DE", "MSE")  # that draws of held-out cells are scored by


@dataclass(frozen=True, slots=True)
class Card:
    """What a column of scores is and how to read it; the function it comes from says the rest."""

    name: str
    reading: str
    better: Literal["higher", "lower", "one"]  # one: a ratio


_MOST = f"{DE} genes of the largest Welch |t| between measured treated and untreated cells (DE)"
CARDS = tuple(
    Card(*parts)
    for parts in (
        ("R2", "coefficient of determination of gene means, all genes", "higher"),
        ("R2 DE", f"the same over the {_MOST}", "higher"),
        ("squared Pearson", "of gene means; blind to scale and offset", "higher"),
        ("squared Pearson DE", "the same over DE", "higher"),
        ("delta Pearson", "of the changes of gene means from untreated cells, all genes", "higher"),
        (f"delta Pearson {TOP}", f"the same over the first {TOP} of DE", "higher"),
        ("delta Pearson DE", "the same over DE", "higher"),
        ("delta cosine", "cosine of the changes of gene means, all genes", "higher"),
        (f"delta cosine {TOP}", f"the same over the first {TOP} of DE", "higher"),
        ("delta cosine DE", "the same over DE", "higher"),
        ("skill", "share of the squared change of gene means that is right: 1 best, 0 no change", "higher"),
        ("skill DE", "the same over DE", "higher"),
        ("direction DE", "share of DE whose mean moves the right way", "higher"),
        (f"overlap {TOP}", f"share of the first {TOP} of DE among the first {TOP} of the prediction", "higher"),
        ("overlap DE", f"the same of {DE}", "higher"),
        ("MSE", "mean squared error of gene means", "lower"),
        ("RMSE", "its root; the mean over hold-outs is MRRMSE", "lower"),
        ("MAE", "mean absolute error of gene means", "lower"),
        ("energy distance", f"unbiased, in {AXES} principal axes of measured cells", "lower"),
        ("MMD2", "squared maximum mean discrepancy there, unbiased, Gaussian kernel of the median distance", "lower"),
        ("Wasserstein", "exact Wasserstein-1 distance per gene, mean over all genes", "lower"),
        ("Wasserstein DE", "the same over DE", "lower"),
        ("variance ratio", "summed variances of genes, predicted over measured: 1 best", "one"),
        ("variance ratio DE", "the same over DE", "one"),
        ("median variance ratio", "median over genes of the ratio of variances", "one"),
        ("gene-gene", "Pearson of the gene-gene correlations within DE, predicted against measured", "higher"),
        ("zero error", "difference of the share of zeros among all values", "lower"),
        ("zero error per gene", "mean absolute difference of the shares of zeros per gene", "lower"),
    )
)
COLUMNS = tuple(card.name for card in CARDS)


class TreatedScorer:
    """Scores against the measured treated cells of one context: same genes everywhere, log1p values.

    truth    (n, g)  measured treated cells
    control  (c, g)  untreated cells of the same context
    project          puts cells on the axes of distances: (n, g) -> (n, d)
    The genes that differ most, the axes and the kernel's width follow from measured cells alone, so that all
    predictions are scored by the same. Raises InputError for fewer than 2 cells of either kind.
    """

    def __init__(self, truth: Cellwise, control: Cellwise, *, project: Callable[[Cellwise], Floats]):
        self.truth, self.control, self.project = truth, control, project
        self.de = np.argsort(-welch_t(truth, control), kind="stable")[:DE]
        real = np.concatenate([drawn_cells(project(side), 0, MOST_CELLS) for side in (truth, control)])
        self.width = float(np.median(pdist(real)))
        if not self.width > 0:
            raise InputError("More than half of the measured cells of a context are alike. Give more genes or cells.")

    def score(self, predicted: Cellwise, *, truth: Cellwise | None = None) -> dict[str, float]:
        """Every column of COLUMNS; NaN where it is not defined.

        predicted  (m, g)
        truth      (k, g)  only these of the measured cells, for the ceiling: one half of them predicts the other
        """
        truth = self.truth if truth is None else truth
        sides = {"y_true": truth, "y_pred": predicted}
        all_genes, de, top = (self._cut(sides, genes) for genes in (slice(None), self.de, self.de[:TOP]))
        pair, pair_de = ({name: cut[name] for name in sides} for cut in (all_genes, de))
        on_axes = {name: self.project(side) for name, side in sides.items()}
        error = mse_of_means(**pair)
        found = (
            r2_of_means(**pair), r2_of_means(**pair_de),
            squared_pearson_of_means(**pair), squared_pearson_of_means(**pair_de),
            delta_pearson(**all_genes), delta_pearson(**top), delta_pearson(**de),
            delta_cosine(**all_genes), delta_cosine(**top), delta_cosine(**de),
            skill_of_means(**all_genes), skill_of_means(**de), direction_accuracy(**de),
            *(top_genes_overlap(**all_genes, k=min(k, truth.shape[1])) for k in (TOP, DE)),
            error, np.sqrt(error), mae_of_means(**pair),
            unbiased_energy_distance(**on_axes), mmd(**on_axes, width=self.width),
            wasserstein(**pair), wasserstein(**pair_de),
            total_variance_ratio(**pair), total_variance_ratio(**pair_de), variance_ratio(**pair),
            gene_correlation(**pair_de), total_zero_share_error(**pair), zero_share_error(**pair),
        )  # fmt: skip
        return dict(zip(COLUMNS, map(float, found), strict=True))

    def ceiling(self, *, seed: int) -> dict[str, float]:
        """One random half of the measured cells predicts the other; at least 4 are needed."""
        order = np.random.default_rng(seed).permutation(self.truth.shape[0])
        half = len(order) // 2
        return self.score(self.truth[order[:half]], truth=self.truth[order[half:]])

    def draws(self, predicted: Cellwise, *, seed: int = 0) -> Floats:
        """Score gene means again on held-out cells drawn with replacement: (DRAWS, columns of MEANS).

        The same cells are drawn for every prediction, so that differences between predictions are paired.
        """
        n, de = self.truth.shape[0], self.de
        times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS)
        t = np.asarray(times @ self.truth) / n  # (DRAWS, g)
        p, c = (np.asarray(side.mean(axis=0), float).ravel() for side in (predicted, self.control))
        columns = (
            r2(t, p), r2(t[:, de], p[de]), pearson(t - c, p - c), skill(t, p, c), skill(t[:, de], p[de], c[de]),
            np.square(p - t).mean(axis=1),
        )  # fmt: skip
        return np.stack(columns, axis=1)

    def _cut(self, sides: dict[str, Cellwise], genes: Floats | slice) -> dict[str, Cellwise]:
        return {name: side[:, genes] for name, side in {"y_control": self.control, **sides}.items()}
