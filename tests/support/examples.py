"""The job files of examples/, imported as a job file is: with their folder on the path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def imported(folder: Path) -> Iterator[ModuleType]:
    """The module `jobs` of a folder; its modules are gone again afterwards, since each example has a `jobs`."""
    names = {path.stem for path in folder.glob("*.py")}
    taken = names & sys.modules.keys()
    assert not taken, f"another module has the name of a file in {folder}: {taken}"
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("jobs")
    finally:
        sys.path.remove(str(folder))
        for name in names:
            sys.modules.pop(name, None)
