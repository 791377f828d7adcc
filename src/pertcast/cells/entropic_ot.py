"""A reference: untreated cells are carried to treated ones by entropic optimal transport."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from pertcast.cells.group_means import moved
from pertcast.cells.log_scale import as_log1p
from pertcast.cells.principal import Axes
from pertcast.cells.registry import register
from pertcast.cells.seen import Seen, fitted, measured_contexts
from pertcast.cells.sinkhorn import transport_plan
from pertcast.config import Config
from pertcast.io.arrays import load_arrays, save_arrays
from pertcast.types import Cells, Floats, Ints

NAME = "entropic-ot"
ENTROPY = 0.05  # of the mean squared distance between untreated and treated cells of a context
MOST_CELLS = 1000  # of a context, of either kind
NEIGHBOURS = 20  # training cells whose displacements a cell follows
SEED = 0  # of which cells are taken where there are more, the same for every fit


@register(NAME, floor=True)
class EntropicOt:
    """Each context's untreated cells are transported to its treated ones; a cell moves as the nearest of them do.

    Cells are compared on principal axes. A training cell is displaced to the mean of the treated cells that the plan
    sends it to, weighted by the plan; other cells follow the mean displacement of their nearest untreated training
    cells, of their own context where the condition was measured there, else of all that measured it. Displacements are
    decoded and added on the log scale, never below 0, so that a cell keeps what the axes miss of it.
    Sources: Schiebinger et al. 2019, doi:10.1016/j.cell.2019.01.006; Cuturi 2013, arXiv:1306.0895.
    """

    def __init__(self, config: Config):
        self.config = config
        self.seen: Seen | None = None
        self.contexts: dict[str, list[str]] = {}  # of each condition
        self.axes: Axes | None = None
        self.place: dict[str, Floats] = {}  # context -> scores of untreated cells (n, k)
        self.displaced: dict[tuple[str, str], Floats] = {}  # condition, context -> by how much (n, k)

    def fit(self, cells: Cells, *, seed: int) -> EntropicOt:  # noqa: ARG002 - the same whatever the seed
        """Transport the untreated cells of every context to each condition. Raises InputError without cells."""
        self.contexts = measured_contexts(cells)
        self.seen = Seen.of(NAME, cells, self.contexts)
        y = as_log1p(cells)
        self.axes = Axes.of(y)
        scores = self.axes.scores(y)
        wanted = sorted({name for names in self.contexts.values() for name in names})
        self.place = {name: scores[_some(cells.untreated & (cells.context == name))] for name in wanted}
        self.displaced = {
            (condition, name): _displacement(
                self.place[name], scores[_some((cells.condition == condition) & (cells.context == name))]
            )
            for condition, names in self.contexts.items()
            for name in names
        }
        return self

    def predict(self, control_cells: Cells, condition: str, *, seed: int, sample: bool = False) -> Cells:
        """Move these cells; with `sample`, counts are rounded by chance. Raises InputError as `Seen.asked`."""
        cells = fitted(self.seen, NAME, "predict").asked(control_cells, condition)

        def change(y: Floats, part: Cells) -> Floats:
            scores = self.axes.scores(y)
            found = np.empty(scores.shape)
            for name in set(part.context):
                rows = part.context == name
                found[rows] = self._followed(scores[rows], condition, name)
            return found @ self.axes.axes

        return moved(cells, condition, change, seed=seed if sample else None)

    def save(self, folder: Path) -> None:
        facts = fitted(self.seen, NAME, "save").as_dict()
        arrays = {"mean": self.axes.mean, "axes": self.axes.axes}
        arrays |= {f"place.{number}": rows for number, rows in enumerate(self.place.values())}
        arrays |= {f"displaced.{number}": rows for number, rows in enumerate(self.displaced.values())}
        save_arrays(folder, NAME, arrays, {**facts, "contexts": self.contexts, "places": list(self.place)})

    def load(self, folder: Path) -> EntropicOt:
        arrays, facts = load_arrays(folder, NAME)
        self.seen, self.contexts = Seen.restored(facts), {name: facts["contexts"][name] for name in facts["conditions"]}
        self.axes = Axes(arrays["mean"], arrays["axes"])
        self.place = {name: arrays[f"place.{number}"] for number, name in enumerate(facts["places"])}
        pairs = [(condition, name) for condition, names in self.contexts.items() for name in names]
        self.displaced = {pair: arrays[f"displaced.{number}"] for number, pair in enumerate(pairs)}
        return self

    def _followed(self, scores: Floats, condition: str, context: str) -> Floats:
        """Mean displacement of the nearest training cells: (n, k) -> (n, k)."""
        measured = self.contexts[condition]
        use = [context] if context in measured else measured
        place = np.concatenate([self.place[name] for name in use])
        displaced = np.concatenate([self.displaced[condition, name] for name in use])
        near = cKDTree(place).query(scores, k=range(1, 1 + min(NEIGHBOURS, len(place))))[1]
        return displaced[near].mean(axis=1)


def _displacement(untreated: Floats, treated: Floats) -> Floats:
    """Where a plan sends each cell, on average, less where it is: (n, k), (m, k) -> (n, k)."""
    cost = cdist(untreated, treated, "sqeuclidean")
    plan = transport_plan(cost, entropy=max(ENTROPY * float(cost.mean()), 1e-12))
    return plan @ treated / plan.sum(axis=1, keepdims=True) - untreated


def _some(rows: np.ndarray) -> Ints:
    """Row numbers, at most MOST_CELLS of them."""
    found = np.flatnonzero(rows)
    return np.sort(np.random.default_rng(SEED).permutation(found)[:MOST_CELLS])
