"""The pins of a site: exactly which wheels it has, kept beside the requirements so that the next build has the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from durably_web.site.target import Target

FILE_NAME = "requirements.lock"

HEADER = """\
# Made by `durably-web build`: the wheels of this site. Keep it with the requirements.
# `durably-web build --upgrade` makes it anew.
"""

_LINE = re.compile(
    r"(?P<name>[\w.-]+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]{64})(?P<pyodide>  # pyodide)?"
)


class Pin(NamedTuple):
    """One wheel: from the user's package index, or from Pyodide's packages."""

    name: str
    version: str
    sha256: str
    from_pyodide: bool = False

    def __str__(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}{'  # pyodide' if self.from_pyodide else ''}"


def write_pins(folder: Path, pins: Sequence[Pin], requirements: Sequence[Requirement], target: Target) -> None:
    lines = [HEADER, f"# {_purpose(requirements, target)}\n", *(f"{pin}\n" for pin in sorted(pins))]
    (folder / FILE_NAME).write_text("".join(lines), encoding="utf-8")


def read_pins(folder: Path, requirements: Sequence[Requirement], target: Target) -> list[Pin] | None:
    """The pins as they were written for just these requirements and this target; None where there are no such."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if f"# {_purpose(requirements, target)}" not in lines:
        return None
    found = [_LINE.fullmatch(line) for line in lines if not line.startswith("#")]
    pins = [Pin(each["name"], each["version"], each["sha256"], bool(each["pyodide"])) for each in found if each]
    # A line that somebody has edited beyond recognition: better resolved than half believed.
    return pins if len(pins) == len(found) else None


def _purpose(requirements: Sequence[Requirement], target: Target) -> str:
    digest = hashlib.sha256("\n".join(map(str, requirements)).encode()).hexdigest()[:16]
    return f"for {target}; requirements {digest}"
