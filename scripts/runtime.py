"""Assemble the runtime: what our modules start in a browser, as plain files.

durably-web/
├── manifest.json       the file names that carry a version
├── pyodide/            Python
├── sqlite/             SQLite
└── wheels/             ours, and those that Pyodide installs beside it
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from durably_web.store import migrations
from scripts.wheels import ROOT, build_browser_wheel, compiled_standard_library, download_wheels, pinned

CACHE = ROOT / "build" / "cache"
PYODIDE_FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm")
SQLITE_FILES = ("index.mjs", "sqlite3.wasm")


def package(node_modules: Path, name: str) -> Path:
    """The folder of an installed npm package. Exits unless it is the version that web/package.json pins."""
    folder = node_modules / name
    declared = json.loads((ROOT / "web" / "package.json").read_text())
    wanted = {**declared.get("devDependencies", {}), **declared.get("dependencies", {})}[name]
    if not folder.is_dir():
        raise SystemExit(f"{name} is not installed: run `make setup`")
    version = json.loads((folder / "package.json").read_text())["version"]
    if version != wanted:
        raise SystemExit(f"{name} {version} is installed, and web/package.json asks for {wanted}: run `make setup`")
    return folder


def served_lock(pyodide: Path) -> str:
    """Pyodide's lock without its packages, because the site has none of their files.

    Left in, they would win over a package index: micropip would ask the site for a file that is not there,
    and the failure would be logged, not raised.
    """
    lock = json.loads((pyodide / "pyodide-lock.json").read_text())
    return json.dumps({**lock, "packages": {}}, indent=2) + "\n"


def assemble_runtime(folder: Path, node_modules: Path) -> None:
    """Put what our modules start, Python and SQLite with the wheels, into the existing folder `folder`."""
    pyodide = package(node_modules, "pyodide")
    sqlite = package(node_modules, "@sqlite.org/sqlite-wasm") / "dist"
    for name in ("pyodide", "sqlite", "wheels"):
        (folder / name).mkdir()
    for name in PYODIDE_FILES:
        shutil.copy(pyodide / name, folder / "pyodide" / name)
    (folder / "pyodide" / "pyodide-lock.json").write_text(served_lock(pyodide))
    shutil.copy(compiled_standard_library(pyodide, CACHE), folder / "pyodide" / "python_stdlib.zip")
    for name in SQLITE_FILES:
        shutil.copy(sqlite / name, folder / "sqlite" / name)
    wheel = build_browser_wheel(pyodide, folder / "wheels")
    beside = download_wheels(pinned(ROOT / "requirements-browser.txt"), CACHE / "wheels")
    for path in beside.values():
        shutil.copy(path, folder / "wheels" / path.name)
    manifest = {
        "version": wheel.name.split("-")[1],
        # What the inbox may write beside.
        "schema": migrations.LATEST,
        "wheel": f"wheels/{wheel.name}",
        **{module: f"wheels/{path.name}" for module, path in beside.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
