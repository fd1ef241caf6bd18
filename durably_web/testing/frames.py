"""Whose code it is that does something."""

from __future__ import annotations

import functools
import gc
import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType
from typing import Literal

Owner = Literal["user", "engine", "library"]

_OURS = str(Path(__file__).parent.parent) + os.sep
_LIBRARIES = tuple(
    path + os.sep for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib") and path
)


@functools.lru_cache(maxsize=10_000)
def owner_of(file: str, module: str = "") -> Owner:
    """Who has written the code of a file: the user, us, or somebody whose package is installed."""
    if not os.path.isabs(file):
        # As in a browser, whose byte code was compiled elsewhere.
        top = module.partition(".")[0]
        if top == "durably_web":
            return "engine"
        if top in sys.stdlib_module_names:
            return "library"
    if file.startswith(_OURS) and not file.startswith(os.path.join(_OURS, "site", "template")):
        return "engine"
    if "site-packages" in file or "dist-packages" in file or file.startswith(_LIBRARIES):
        return "library"
    return "library" if file.startswith("<") and not file.startswith(("<exec>", "<stdin>", "<console>")) else "user"


def is_users(file: str | None, module: str) -> bool:
    return file is not None and owner_of(file, module) == "user"


def place(file: str, line: int) -> str:
    """A line, as a person finds it."""
    path = Path(file)
    try:
        return f"{path.relative_to(Path.cwd())}:{line}"
    except ValueError:
        return f"{path.name}:{line}"


class Culprit:
    """The line of the user's that something comes from, and what it called there, if not the thing itself."""

    def __init__(self, where: str | None, called: str | None) -> None:
        self.where = where
        self.called = called


def culprit_of(frame: FrameType | None, exempt: tuple[str, ...]) -> Culprit | None:
    """Where the user's code asked for what a frame does; `None` when it is not his, or comes through the `exempt`."""
    called = None
    collecting = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in collecting or frame.f_code.co_name == "__del__":
            # Python clears up whenever it likes, and whose turn it is then has not asked for it.
            return None
        file = frame.f_code.co_filename
        module = str(frame.f_globals.get("__name__", ""))
        owner = owner_of(file, module)
        if owner == "user":
            return Culprit(place(file, frame.f_lineno), called)
        if owner == "engine" or any(part in file or part == module.partition(".")[0] for part in exempt):
            return None
        name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
        called = f"{module}.{name}"
        frame = frame.f_back
    # In a thread, where nothing of the user's is below it.
    return Culprit(None, called)
