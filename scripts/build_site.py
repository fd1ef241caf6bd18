"""Build the static site: plain files that any host can serve below any path.

build/site/
├── the demo's files
└── durably-web/
    ├── client.js, worker.js …      as written in web/
    ├── manifest.json               the file names that carry a version
    ├── pyodide/                    Python
    ├── sqlite/                     SQLite
    └── wheels/                     ours, and those that Pyodide installs beside it
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from durably_web.store import migrations
from scripts.wheels import ROOT, build_browser_wheel, compiled_standard_library, download_wheels, pinned

CACHE = ROOT / "build" / "cache"
PYODIDE_FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm")
SQLITE_FILES = ("index.mjs", "sqlite3.wasm")
NOT_SERVED = ("node_modules", "__pycache__", "types", ".*", "*.pyc", "*.test.js", "package*.json", "jsconfig*.json")
# Of web/: what only the npm package has.
NPM_ONLY = ("bin", "*.d.ts", "README.md")


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


def assemble(site: Path, demo: Path, node_modules: Path) -> None:
    """Put the whole site into the empty folder `site`."""
    shutil.copytree(demo, site, ignore=shutil.ignore_patterns(*NOT_SERVED), dirs_exist_ok=True)
    ours = site / "durably-web"
    shutil.copytree(ROOT / "web", ours, ignore=shutil.ignore_patterns(*NOT_SERVED, *NPM_ONLY))
    assemble_runtime(ours, node_modules)
    # GitHub Pages would otherwise hide files whose name starts with an underscore.
    (site / ".nojekyll").touch()


def build(site: Path, *, demo: Path = ROOT / "demo", node_modules: Path = ROOT / "web" / "node_modules") -> Path:
    """Build the site and put it at `site`, in place of an older one; a build that fails leaves that one alone."""
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix=".site-") as scratch:
        fresh = Path(scratch) / "site"
        fresh.mkdir()
        assemble(fresh, demo, node_modules)
        if site.exists():
            shutil.rmtree(site)
        fresh.rename(site)
    return site


class Size(NamedTuple):
    """How much of something is served: bytes as they are, and after gzip as a host would send them."""

    files: int
    plain: int
    packed: int


def total(sizes: Iterable[Size]) -> Size:
    return Size(*map(sum, zip(*sizes, strict=True)))


def size(path: Path) -> Size:
    data = path.read_bytes()
    return Size(1, len(data), min(len(data), len(gzip.compress(data, 6))))


def print_sizes(site: Path) -> None:
    folders: dict[str, list[Size]] = {}
    for path in sorted(path for path in site.rglob("*") if path.is_file()):
        folders.setdefault(path.parent.relative_to(site).as_posix(), []).append(size(path))
    rows = {folder: total(sizes) for folder, sizes in folders.items()}
    print(f"{'folder':<24}{'files':>6}{'kB':>10}{'kB gzip':>10}")
    for folder, row in [*rows.items(), ("in all", total(rows.values()))]:
        print(f"{folder:<24}{row.files:>6}{row.plain / 1000:>10,.0f}{row.packed / 1000:>10,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the static site.")
    parser.add_argument("--demo", type=Path, default=ROOT / "demo", metavar="DIR", help="page to put at the root")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", metavar="DIR")
    parser.add_argument("--quiet", action="store_true", help="do not print the sizes")
    options = parser.parse_args()
    start = time.perf_counter()
    build(options.out, demo=options.demo)
    if not options.quiet:
        print_sizes(options.out)
        print(f"built in {time.perf_counter() - start:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
