"""Build the static site: plain files that any host can serve below any path.

build/site/
├── the demo's files
└── durably-web/
    ├── client.js, worker.js …      as written in web/
    └── manifest.json, pyodide/ …   the runtime, see scripts/runtime.py
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from scripts.runtime import assemble_runtime
from scripts.wheels import ROOT

NOT_SERVED = ("node_modules", "__pycache__", "types", ".*", "*.pyc", "*.test.js", "package*.json", "jsconfig*.json")
# Of web/: what only the npm package has.
NPM_ONLY = ("bin", "*.d.ts", "README.md")


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
