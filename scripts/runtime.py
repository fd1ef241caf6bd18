"""Assemble the runtime: what our modules start in a browser, as plain files.

durably-web/
├── manifest.json       what a start needs, where it is, how large it is
├── snapshot.bin        the memory of a Python that has started, packed with gzip
├── pyodide/            Python
├── sqlite/             SQLite
└── wheels/             ours, and those that Pyodide installs beside it
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from durably_web.site.files import integrity
from durably_web.store import migrations
from scripts.wheels import (
    ROOT,
    build_browser_wheel,
    compiled_standard_library,
    download_wheels,
    memory_snapshot,
    pinned,
)

CACHE = ROOT / "build" / "cache"
PYODIDE_FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm")
STANDARD_LIBRARY = "python_stdlib.zip"
SNAPSHOT = "snapshot.bin"
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
    shutil.copy(compiled_standard_library(pyodide, CACHE), folder / "pyodide" / STANDARD_LIBRARY)
    for name in SQLITE_FILES:
        shutil.copy(sqlite / name, folder / "sqlite" / name)
    wheel = build_browser_wheel(pyodide, folder / "wheels")
    beside = download_wheels(pinned(ROOT / "requirements-browser.txt"), CACHE / "wheels")
    for path in beside.values():
        shutil.copy(path, folder / "wheels" / path.name)
    shutil.copy(memory_snapshot(folder, wheel, CACHE), folder / SNAPSHOT)
    write_manifest(folder, wheel.name, {module: path.name for module, path in beside.items()})


def write_manifest(folder: Path, wheel: str, beside: dict[str, str]) -> None:
    """Write what a start reads first. A site that has packages adds to it; see `Manifest` in web/manifest.js."""
    lock = json.loads((folder / "pyodide" / "pyodide-lock.json").read_text())
    wheels = {"wheel": wheel, **beside}
    names = [
        *(f"pyodide/{name}" for name in (*PYODIDE_FILES, STANDARD_LIBRARY)),
        *(f"sqlite/{name}" for name in SQLITE_FILES),
        *(f"wheels/{name}" for name in wheels.values()),
        SNAPSHOT,
    ]
    manifest = {
        "version": wheel.split("-")[1],
        # What the inbox may write beside.
        "schema": migrations.LATEST,
        **{part: f"wheels/{name}" for part, name in wheels.items()},
        "pyodide": "pyodide/",
        "stdlib": f"pyodide/{STANDARD_LIBRARY}",
        "snapshot": SNAPSHOT,
        # One request less. A site with packages has them in the file of the lock.
        "lock": lock,
        "packages": [],
        "files": {name: described((folder / name).read_bytes()) for name in names},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def described(data: bytes) -> dict[str, object]:
    """A file as the manifest lists it."""
    return {"bytes": len(data), "integrity": integrity(data)}
