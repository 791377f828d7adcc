"""From a change of expression to the t of an experiment: what chance does to contrasts of wells, by cell type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pertcast.de.compare import Comparison, plan_comparison
from pertcast.de.linear_model import fit_contrasts, fit_linear
from pertcast.de.moderated_t import moderated_t
from pertcast.de.normalization import log2_cpm_voom
from pertcast.de.pseudobulk import Pseudobulk
from pertcast.errors import InputError, shorten
from pertcast.schema import CELL_TYPE, COMPOUND
from pertcast.types import Floats

DESIGN = ("donor_id", "plate_name")  # what wells are corrected for


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Moderated standard deviations of wells, and how many molecules a well has."""

    cell_types: tuple[str, ...]
    sd: Floats  # (t, g)  of a well's log2 CPM about the design
    molecules: Floats  # (t,)  median of the control wells
    unscaled: Mapping[str, float]  # compound -> standard error of its contrast over `sd`, as its wells allow
    depth: Mapping[str, float]  # compound -> natural log of its wells' molecules over those of control wells

    @classmethod
    def of(cls, wells: Pseudobulk, *, control: str) -> Yardstick:
        """Measure wells, all with cell type, compound, donor and plate.

        Compounds are measured in every cell type that shows them, and the median is kept. A cell type of which only
        untreated wells are known has the mean log sd of the others. Raises InputError where no cell type can be tested.
        """
        of_type, of_compound = (wells.obs[name].astype(str).to_numpy() for name in (CELL_TYPE, COMPOUND))
        molecules = wells.counts.sum(axis=1)
        types = sorted(set(of_type[of_compound == control]))
        sd, typical, faults = {}, {}, []
        unscaled: dict[str, list[float]] = {}
        depth: dict[str, list[float]] = {}
        for name in types:
            here = of_type == name
            typical[name] = max(float(np.median(molecules[here & (of_compound == control)])), 1.0)
            try:
                sd[name], errors = _tested(wells.take(here), control)
            except InputError as error:
                faults.append(f"{name}: {error}")
                continue
            for compound, error in errors.items():
                unscaled.setdefault(compound, []).append(error)
                its_own = np.median(molecules[here & (of_compound == compound)])
                depth.setdefault(compound, []).append(float(np.log(max(its_own, 1.0) / typical[name])))
        if not sd:
            raise InputError(f"No cell type has wells that a compound can be tested with: {shorten(faults)}.")
        pooled = np.exp(np.mean(np.log(list(sd.values())), axis=0))
        return cls(
            tuple(types),
            np.array([sd.get(name, pooled) for name in types]),
            np.array([typical[name] for name in types]),
            {compound: float(np.median(values)) for compound, values in unscaled.items()},
            {compound: float(np.median(values)) for compound, values in depth.items()},
        )

    def t(self, cell_type: str, compound: str, before: Floats, after: Floats) -> Floats:
        """Return the t that these shares of expression would have in an experiment: (g,).

        before, after  (d, g)  of each donor, untreated and treated; each row sums to 1
        """
        number = self.cell_types.index(cell_type)
        wells = [
            part * self.molecules[number] * factor
            for part, factor in ((before, 1.0), (after, np.exp(self.depth[compound])))
        ]
        low, high = (log2_cpm_voom(well) for well in wells)
        return (high - low).mean(axis=0) / (self.sd[number] * self.unscaled[compound])


def _tested(wells: Pseudobulk, control: str) -> tuple[Floats, dict[str, float]]:
    """Moderated sd of each gene (g,), and each compound's standard error over it."""
    plan = plan_comparison(wells.obs, Comparison(COMPOUND, control, DESIGN))
    fit = fit_linear(log2_cpm_voom(wells.counts), plan.design.matrix, names=plan.design.names)
    tests = moderated_t(fit_contrasts(fit, plan.contrasts))
    errors = dict(
        zip(plan.conditions, np.broadcast_to(tests.unscaled_sd, (len(plan.conditions), 1))[:, 0], strict=True)
    )
    return np.sqrt(tests.prior.posterior), {name: float(error) for name, error in errors.items()}
