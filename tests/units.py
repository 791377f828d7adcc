"""Units of work that worker processes can import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from pertcast.errors import InputError


@dataclass(frozen=True)
class Write:
    """Write a file that says what the process looks like; stop, be killed or wait at the units named so."""

    folder: Path

    def __call__(self, unit: str) -> None:
        import torch

        if unit == "broken":
            raise InputError("Unit 'broken' is at fault.")
        if unit == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if unit.startswith("waiting"):
            (self.folder / f"{unit}.pid").write_text(str(os.getpid()))
            time.sleep(120)
        if unit.startswith("later"):
            time.sleep(0.05)
        facts = f"{unit} {torch.get_num_threads()} {os.environ.get('OMP_NUM_THREADS')}"
        (self.folder / unit).write_text(facts)
        (self.folder / f"{unit}.pid").write_text(str(os.getpid()))
