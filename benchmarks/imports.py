"""What it costs a new process to import durably_web."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.report import Figure, at_most
from benchmarks.size import Size

_PATIENCE_SECONDS = 60


def milliseconds(statement: str, folder: Path) -> float:
    """What a new Python needs for `statement`, by its own clock."""
    # Byte code is kept, as it is where the package is installed, whatever this shell says.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    program = f"import time; begun = time.perf_counter()\n{statement}\nprint((time.perf_counter() - begun) * 1000)"
    command = [sys.executable, "-c", program]
    outcome = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True, text=True, timeout=_PATIENCE_SECONDS
    )
    return float(outcome.stdout)


def measure(folder: Path, size: Size) -> list[Figure]:
    """Beside asyncio, which every user of it has anyway."""
    ours, asyncio_alone = "import asyncio\nfrom durably_web import Durably, job", "import asyncio"
    milliseconds(ours, folder)
    pairs = [(milliseconds(asyncio_alone, folder), milliseconds(ours, folder)) for _ in range(2 * size.rounds + 1)]
    more = median(own - alone for alone, own in pairs)
    alone = median(alone for alone, _ in pairs)
    note = "beyond asyncio's own, at the side"
    return [Figure("CPython", "import Durably, job", more, " ms", alone, None, at_most(25), note)]
