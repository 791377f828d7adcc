"""Groups of like cells found without labels, against the types that simulated cells were planted with."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from pertcast.cells.found_contexts import found_contexts
from pertcast.errors import InputError
from pertcast.types import Cells


def planted(*, held_out: bool = False) -> tuple[Cells, np.ndarray]:
    """Three types of 40 genes; a drug moves all of them alike, by more than types differ in any one gene."""
    rng = np.random.default_rng(0)
    kind, treated = rng.integers(0, 3, 600), rng.random(600) < 0.5
    x = rng.normal(0, 2, (3, 40))[kind] + 5 + 0.5 * rng.standard_normal((600, 40))
    x[:, :8] += 3.0 * treated[:, None]
    keep = ~(held_out & treated & (kind == 2))
    n = int(keep.sum())
    label = np.full(n, "", dtype=object)
    cells = Cells(
        ids=np.array([f"cell{i}" for i in range(n)], dtype=object), genes=tuple(f"G{j}" for j in range(40)),
        x=csr_array(np.maximum(x[keep], 0)), unit="log1p", context=label, batch=label, control="control",
        condition=np.where(treated[keep], "drug", "control").astype(object),
    )  # fmt: skip
    return cells, kind[keep]


def test_types_are_found_and_treated_cells_follow():
    """S000-08: one group per planted type, with its control and treated cells."""
    cells, kind = planted()
    found = found_contexts(cells.x, cells, count=3, seed=0)
    assert {len(set(kind[found == name])) for name in set(found)} == {1}
    assert len(set(found)) == 3
    assert {len(set(cells.condition[found == name])) for name in set(found)} == {2}


def test_a_type_without_treated_cells_gets_none():
    cells, kind = planted(held_out=True)
    found = found_contexts(cells.x, cells, count=3, seed=0)
    alone = found[kind == 2]
    assert set(cells.condition[found == alone[0]]) == {"control"}
    assert len(set(alone)) == 1


def test_same_seed_same_groups_and_too_few_cells_are_refused():
    cells, _ = planted()
    one, other = (found_contexts(cells.x, cells, count=4, seed=3) for _ in range(2))
    assert (one == other).all()
    with pytest.raises(InputError, match="700 contexts cannot be found among"):
        found_contexts(cells.x, cells, count=700, seed=0)
