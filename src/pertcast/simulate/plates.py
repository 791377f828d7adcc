"""The experiment: wells on plates by donor, their counts, log-CPM, and the design that the analysis fits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pertcast.de.linear_model import fit_linear
from pertcast.de.moderated_t import ModeratedT, moderated_t
from pertcast.simulate.counts import negative_binomial
from pertcast.types import Floats, Ints

DMSO = -1  # in place of a compound's number


@dataclass(frozen=True, slots=True)
class Wells:
    """Which compound, donor and plate each well has."""

    compound: Ints  # (n,)  number of the compound, DMSO for controls
    donor: Ints  # (n,)
    plate: Ints  # (n,)  numbered over all donors
    place: Ints  # (n,)  of the well on its plate

    def __len__(self) -> int:
        return len(self.compound)

    def without(self, compounds: Ints) -> "Wells":
        """Leave the wells of some compounds out."""
        keep = ~np.isin(self.compound, compounds)
        return self.take(keep)

    def take(self, rows: NDArray) -> "Wells":
        """Return the given wells, by number or by mask."""
        return Wells(*(getattr(self, name)[rows] for name in ("compound", "donor", "plate", "place")))


def lay_out(positive: Ints, others: Ints, *, donors: int, plates: int, dmso_wells: int, positive_wells: int) -> Wells:
    """Place every compound once per donor, controls several times on every plate.

    positive, others  numbers of the compounds; the positive controls stand on every plate
    plates            per donor; the others are dealt out to them in turn, alike for every donor
    """
    rows = []
    for donor in range(donors):
        for part in range(plates):
            plate = donor * plates + part
            treated = np.concatenate([np.repeat(positive, positive_wells), others[part::plates]])
            compounds = np.concatenate([np.full(dmso_wells, DMSO), treated])
            rows += [(compound, donor, plate, place) for place, compound in enumerate(compounds)]
    return Wells(*np.array(rows).T)


def design(wells: Wells, compounds: Ints) -> tuple[Floats, list[str]]:
    """Return the columns ~0 + compound + donor + plate, DMSO first: (n, p), and their names.

    The first donor, and the first plate of each donor, are what the others are compared to.
    """
    columns = {"DMSO": wells.compound == DMSO}
    columns |= {f"compound {number}": wells.compound == number for number in compounds}
    columns |= {f"donor {donor}": wells.donor == donor for donor in np.unique(wells.donor)[1:]}
    for donor in np.unique(wells.donor):
        of_donor = np.unique(wells.plate[wells.donor == donor])
        columns |= {f"plate {plate}": wells.plate == plate for plate in of_donor[1:]}
    return np.column_stack(list(columns.values())).astype(float), list(columns)


def draw_counts(log_mean: Floats, dispersion: Floats, *, depth_sd: float, rng: np.random.Generator) -> Ints:
    """Draw the counts of every well: (n, g) -> (n, g).

    log_mean    (n, g)  natural log of the expected counts in a well of median depth
    dispersion  (g,)
    depth_sd            sd of the natural log of a well's depth
    """
    depth = depth_sd * rng.normal(size=(len(log_mean), 1))
    return negative_binomial(np.exp(log_mean + depth), dispersion, rng=rng)


def compare(y: Floats, wells: Wells, compounds: Ints) -> tuple[ModeratedT, Floats]:
    """Test each compound against DMSO.

    y        (n, g)  log-CPM
    returns  the tests, one row per compound, and the contrasts as linear maps of the wells (k, n)
    """
    columns, names = design(wells, compounds)
    contrasts = np.zeros((len(names), len(compounds)))
    contrasts[0] = -1
    contrasts[1 + np.arange(len(compounds)), np.arange(len(compounds))] = 1
    fit = fit_linear(y, columns, names=names)
    maps = contrasts.T @ fit.unscaled_covariance @ columns.T  # (k, n)
    return moderated_t(fit, contrasts), maps
