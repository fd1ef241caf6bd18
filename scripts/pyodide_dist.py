"""Build the folder that pytest-pyodide asks for: the site's Python, our wheel, and what tests inside of it import.

build/pyodide-dist/
├── pyodide.mjs …          as the site serves them
├── pyodide-lock.json      the wheels that lie here, with their own hashes, and nothing else
├── *.whl                  ours with its byte code and the test kit, micropip, pytest and what it needs
└── module_test.html …     pytest-pyodide's pages, for a server that is not its own

A test names packages, and Pyodide looks a name up in its lock. The lock that it comes with names hundreds of files
that its npm package has not, and another pytest than the one out here; so the lock is written anew.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shutil
import tempfile
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.runtime import CACHE
from scripts.wheels import ROOT, download_wheels, pinned, record, write_zip

# Beside what the site has. The versions are those of requirements-dev.txt: both sides use the same pytest.
WHEELS = ("iniconfig", "packaging", "pluggy", "pygments", "pytest", "tblib")


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return BytesParser().parsebytes(wheel.read(name))


def dependencies(declared: Message, python: str) -> list[str]:
    """What a wheel requires inside Pyodide."""
    environment = {"extra": "", "python_version": python, "sys_platform": "emscripten", "platform_system": "Emscripten"}
    wanted = map(Requirement, declared.get_all("Requires-Dist", []))
    return [canonicalize_name(one.name) for one in wanted if one.marker is None or one.marker.evaluate(environment)]


def lock_entry(path: Path, python: str) -> dict[str, Any]:
    """A wheel as `pyodide-lock.json` describes it."""
    with zipfile.ZipFile(path) as wheel:
        declared = metadata(wheel)
        modules = {name.partition("/")[0].removesuffix(".py") for name in wheel.namelist() if name.endswith(".py")}
    return {
        "name": canonicalize_name(declared["Name"]),
        "version": declared["Version"],
        "file_name": path.name,
        "install_dir": "site",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "package_type": "package",
        "imports": sorted(modules),
        "depends": dependencies(declared, python),
        "unvendored_tests": False,
    }


def with_test_kit(wheel: Path, target: Path) -> Path:
    """Our wheel as the site has it, and `durably_web.testing` in it, which sites do without."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    (own_name,) = [name for name in files if name.endswith(".dist-info/RECORD")]
    del files[own_name]
    for path in sorted((ROOT / "durably_web" / "testing").glob("*.py")):
        files[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    files[own_name] = record(files, own_name)
    write_zip(target / wheel.name, files)
    return target / wheel.name


def write_lock(target: Path) -> None:
    """Name every wheel in `target`. Exits when one of them requires another that is not there."""
    lock = json.loads((target / "pyodide-lock.json").read_text())
    python = lock["info"]["python"].rpartition(".")[0]
    entries = [lock_entry(path, python) for path in sorted(target.glob("*.whl"))]
    packages = {entry["name"]: entry for entry in entries}
    missing = {name for entry in entries for name in entry["depends"]} - set(packages)
    if missing:
        raise SystemExit(f"{', '.join(sorted(missing))}: required inside Pyodide, and not in WHEELS of {__name__}")
    (target / "pyodide-lock.json").write_text(json.dumps({**lock, "packages": packages}, indent=2) + "\n")


def pages() -> Path:
    """The folder of pytest-pyodide's pages, found without importing the plugin."""
    spec = importlib.util.find_spec("pytest_pyodide")
    if spec is None or spec.origin is None:
        raise SystemExit("pytest-pyodide is not installed: run `make setup`")
    return Path(spec.origin).parent / "_templates"


def build(target: Path, site: Path) -> Path:
    """Build the folder from a built site, and put it at `target` in place of an older one."""
    runtime = site / "durably-web"
    pins = pinned(ROOT / "requirements-dev.txt")
    wheels = download_wheels({name: pins[name] for name in WHEELS}, CACHE / "wheels")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".dist-") as scratch:
        fresh = Path(scratch) / "dist"
        shutil.copytree(runtime / "pyodide", fresh)
        shutil.copytree(pages(), fresh, dirs_exist_ok=True)
        for wheel in [*(runtime / "wheels").glob("*.whl"), *wheels.values()]:
            if wheel.name.startswith("durably_web-"):
                with_test_kit(wheel, fresh)
            else:
                shutil.copy(wheel, fresh)
        write_lock(fresh)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the folder that pytest-pyodide asks for, from a built site.")
    parser.add_argument("--site", type=Path, default=ROOT / "build" / "site", metavar="DIR")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "pyodide-dist", metavar="DIR")
    options = parser.parse_args()
    print(build(options.out, options.site))


if __name__ == "__main__":
    main()
