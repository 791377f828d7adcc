"""Where the app's data lie: files and runs of the user, else the small simulated ones that come with the package."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

BUNDLED = Path(__file__).parent / "bundled"
CELLS = "cells.h5ad"
RUNS = "runs"
ENVIRONMENT = "PERTCAST_APP"  # how the command tells the pages, which a web server runs in a process of its own


@dataclass(frozen=True, slots=True)
class Places:
    """What the user named; None: what is bundled."""

    data: Path | None = None  # a file of cells
    runs: Path | None = None  # a folder of runs, of compounds or of cells

    @property
    def cells(self) -> Path:
        return self.data or BUNDLED / CELLS

    @property
    def cell_runs(self) -> Path:
        """Models of one's own cells are one's own; the bundled ones know the bundled cells alone."""
        return (self.runs or Path()) if self.data else BUNDLED / RUNS

    @property
    def compound_runs(self) -> Path:
        return self.runs or BUNDLED / RUNS

    def to_environment(self) -> dict[str, str]:
        """Return what the pages' process must find in its environment."""
        told = {name: str(path.absolute()) for name in ("data", "runs") if (path := getattr(self, name)) is not None}
        return {ENVIRONMENT: json.dumps(told)}

    @classmethod
    def from_environment(cls) -> Places:
        """Read what the command told; nothing: all that is bundled."""
        told = json.loads(os.environ.get(ENVIRONMENT, "{}"))
        return cls(**{name: Path(path) for name, path in told.items()})
