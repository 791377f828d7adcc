"""The cycle-GAN on measured blood cells with and without interferon, one cell type's perturbed cells held out."""

from dataclasses import replace

import numpy as np
import pytest

from pertcast.cells import registry
from pertcast.cells.cycle_gan import CycleGan, CycleGanConfig
from pertcast.io.single_cells import read_cells
from pertcast.metrics.distribution import energy_distance, variance_ratio, zero_share_error
from pertcast.metrics.structure import skill_of_means

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.mark.parametrize("context", ["B", "CD8 T"])
def test_a_type_never_treated_is_predicted_better_than_by_the_mean_shift(real_data, context):
    """Mean, distribution, spread and zeros at once, where the mean shift fills the zeros."""
    cells = read_cells(
        real_data / "kang" / "kang_ifnb_2000.h5ad", condition_key="condition", control="control",
        context_key="cell_type",
    )  # fmt: skip
    train = ~((cells.context == context) & ~cells.untreated)
    seen = cells.take(train).x
    spread = np.asarray(seen.power(2).mean(axis=0) - np.square(seen.mean(axis=0))).ravel()
    genes = tuple(cells.genes[j] for j in np.sort(np.argsort(-spread)[:800]))
    cells = cells.select(genes)
    true = cells.take(~train)
    control = cells.take((cells.context == context) & cells.untreated)
    net = CycleGan(CycleGanConfig()).fit(cells.take(train), seed=0)
    shift = registry.build("mean-shift").fit(cells.take(train), seed=0)
    made = net.predict(control, "stimulated", seed=0, sample=True)
    shifted = shift.predict(control, "stimulated", seed=0, sample=True)
    assert net.unit == made.unit == "counts"
    logs = [log(side) for side in (true, control, made, shifted)]
    t, c, p, s = logs
    assert energy_distance(y_true=t, y_pred=p) < energy_distance(y_true=t, y_pred=s)
    assert energy_distance(y_true=t, y_pred=p) < 0.5 * energy_distance(y_true=t, y_pred=c)  # few cells: floor above 0
    skills = [skill_of_means(y_true=t, y_pred=side, y_control=c) for side in (p, s)]
    assert skills[0] > max(0.6, skills[1])
    assert 0.7 < variance_ratio(y_true=t, y_pred=p) < 1.4
    assert zero_share_error(y_true=t, y_pred=p) < 0.1  # the mean shift: 0.9


def log(cells):
    from pertcast.cells.log_scale import as_log1p

    return as_log1p(replace(cells)).toarray()
