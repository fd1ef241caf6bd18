"""DBOS on the same server: steps, workflows, latency. It is installed into a folder of its own, for the time being."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Figure
from benchmarks.servers.places import Place
from benchmarks.size import Size

VERSION = "3.4.0"
_PROGRAM = Path(__file__).with_name("dbos_program.py")
_SECONDS = 240


class NoPeer(RuntimeError):
    """It cannot be installed or started here."""


def measure(place: Place, folder: Path, size: Size) -> list[Figure]:
    """Its rates; put beside ours in the table. Raises `NoPeer`."""
    python = folder / "dbos" / "bin" / "python"
    _run([sys.executable, "-m", "venv", str(folder / "dbos")])
    _run([str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", f"dbos=={VERSION}"])
    done = _run([str(python), str(_PROGRAM), place.database(), str(size.steps), str(size.runs), str(size.triggers)])
    found = json.loads(done.splitlines()[-1])
    return [
        Figure(place.name, f"DBOS {VERSION}: {work}", value, " ms" if "first line" in work else "/s", note=note)
        for work, (value, note) in found.items()
    ]


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPeer(str(error)) from None
    if done.returncode:
        raise NoPeer(done.stderr[-2000:])
    return done.stdout
