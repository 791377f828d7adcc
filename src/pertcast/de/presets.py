"""Published analyses of the competition's cells, as settings: what is compared to what, and how.

Sources: the competition's own notebook (edgeR, voom, limma; one model per cell type, no gene filter) and the benchmark
that followed it (one model of all cell types, genes that edgeR's filter keeps in each).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pertcast.errors import InputError, several, unknown
from pertcast.schema import CELL_TYPE, COMPOUND

NEGATIVE_CONTROL = "Dimethyl Sulfoxide"  # sm_name of DMSO in the competition


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is compared to what: columns of the table of the cells, and whether groups share a model."""

    group: str
    condition: str
    control: str
    replicate: tuple[str, ...]  # columns that tell samples apart
    covariates: tuple[str, ...] = ()
    expressed_only: bool = True  # test only genes that edgeR's filter keeps
    joint: bool = False  # one model of all groups; without it one each
    plain: bool = False  # log2 CPM by plain totals and one prior variance; without it TMM, voom or a trend


ANALYSES = {
    # ~ 0 + Rpert + donor_id + plate_name + row, within each cell type; a well is not unique across plates
    "kaggle": Analysis(
        CELL_TYPE,
        COMPOUND,
        NEGATIVE_CONTROL,
        ("plate_name", "well"),
        ("donor_id", "plate_name", "row"),
        expressed_only=False,
    ),
    # ~ 0 + sm_cell_type + plate_name, all cell types at once
    "openproblems": Analysis(
        CELL_TYPE, COMPOUND, NEGATIVE_CONTROL, ("plate_name", "well"), ("plate_name",), joint=True
    ),
    # the simulated competition's own, by which its tables were made
    "demo": Analysis(
        CELL_TYPE,
        COMPOUND,
        NEGATIVE_CONTROL,
        ("plate_name", "well"),
        ("donor_id", "plate_name"),
        expressed_only=False,
        plain=True,
    ),
}


def analysis(
    design: str | None = None,
    *,
    group: str | None = None,
    condition: str | None = None,
    control: str | None = None,
    replicate: Sequence[str] = (),
    covariates: Sequence[str] = (),
    expressed_only: bool | None = None,
) -> Analysis:
    """Take a published analysis by name and change what else is given; without a name, all must be given.

    Raises InputError for an unknown name, and for what is neither given nor named by the design.
    """
    if design is not None and design not in ANALYSES:
        raise InputError(unknown("design", design, ANALYSES))
    needed = {"group": group, "condition": condition, "control": control, "replicate": replicate}
    missing = [f"--{name} is missing" for name, value in needed.items() if not value and design is None]
    if missing:
        fix = f"Name the columns, or a published design of the competition's: --design {' or '.join(ANALYSES)}."
        raise InputError(several("Comparison", missing, fix=fix))
    base = ANALYSES.get(design or "") or Analysis("", "", "", ())
    return Analysis(
        group=group or base.group,
        condition=condition or base.condition,
        control=control or base.control,
        replicate=tuple(replicate) or base.replicate,
        covariates=tuple(covariates) or base.covariates,
        expressed_only=base.expressed_only if expressed_only is None else expressed_only,
        joint=base.joint,
        plain=base.plain,
    )
