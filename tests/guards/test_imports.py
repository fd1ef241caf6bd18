"""`import durably_web` costs next to nothing, and no module comes along by accident."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Not loaded when Pyodide starts, and each takes it between 8 and 400 ms; or not there at all.
TOO_DEAR = (
    "argparse",
    "concurrent.futures.thread",
    "email",
    "hashlib",
    "html",
    "http",
    "importlib.metadata",
    "importlib.resources",
    "multiprocessing",
    "pkgutil",
    "pydantic",
    "rich",
    "secrets",
    "sqlite3",
    "subprocess",
    "tempfile",
    "tomllib",
    "typer",
    "urllib",
    "uuid",
    "zoneinfo",
)

# asyncio on CPython brings some of these along for subprocesses and sockets; they are not ours to count.
PROGRAM = """
import asyncio, json, sys, types

sys.modules["durably_bridge"] = types.SimpleNamespace(run_batch=None, post=None, running=None, broken=None)
blocked = set(json.loads(sys.argv[1])) - set(sys.modules)

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in blocked or name.partition(".")[0] in blocked:
            raise ImportError(f"{name} must not be imported here")

sys.meta_path.insert(0, Blocker())
before = set(sys.modules)
for name in json.loads(sys.argv[2]):
    __import__(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def modules_added_by(*names: str) -> list[str]:
    """What a fresh interpreter has loaded more after importing `names`, with the dear modules out of reach."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(TOO_DEAR), json.dumps(names)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    added: list[str] = json.loads(result.stdout)
    return added


def test_the_package_itself_imports_nothing_else_of_ours() -> None:
    assert set(modules_added_by("durably_web")) <= {"__future__", "durably_web"}


@pytest.mark.parametrize("module", ["durably_web.engine", "durably_web.api", "durably_web.jobs"])
def test_the_engine_does_without_dear_modules(module: str) -> None:
    assert module in modules_added_by(module)


def test_the_engine_leaves_the_command_line_and_the_backends_alone() -> None:
    added = modules_added_by("durably_web.engine")
    assert not [name for name in added if name.startswith(("durably_web.cli", "durably_web.backends."))]


def test_what_offloading_needs_comes_with_the_first_offloaded_step() -> None:
    added = modules_added_by("durably_web.engine", "durably_web.api")
    needed = {"offloading", "offloaded", "pickling", "processes", "nested", "outside"}
    assert not needed & {name.removeprefix("durably_web.") for name in added}


def test_what_a_job_file_imports_is_cheap(root: Path) -> None:
    """The names of the first example: importing them must not load what only one of them needs."""
    added = modules_added_by("durably_web", "durably_web.jobs", "durably_web.steps")
    assert not [name for name in added if name.startswith(("durably_web.backends", "durably_web.api"))]


def test_every_module_of_the_package_can_be_imported_first(root: Path) -> None:
    """No module needs another one of ours to be imported before it."""
    only_inside_pyodide = {
        "durably_web.backends.opfs",
        "durably_web.browser",
        "durably_web.nested",
        "durably_web.outside",
    }
    names = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for path in (root / "durably_web").rglob("*.py")
    }
    program = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == "durably_web"]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, json.dumps(sorted(names - only_inside_pyodide - {"durably_web.__main__"}))],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
