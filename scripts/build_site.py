"""Build the runtime and with it the demo's site, or that of another folder, as `durably-web build` does.

build/
├── runtime/    see scripts/build_runtime.py
└── site/       see durably_web/site/build.py
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from durably_web.site.build import build_site
from durably_web.site.files import sizes, total
from durably_web.site.runtime import CHECKOUT
from scripts import build_runtime
from scripts.wheels import ROOT


def build(site: Path, *, demo: Path = ROOT / "demo", runtime: Path = CHECKOUT) -> Path:
    """Build the runtime and the site in place of older ones; a build that fails leaves those alone."""
    return build_site(demo, site, build_runtime.build(runtime), replace=True).folder


def print_sizes(site: Path) -> None:
    rows = sizes(site)
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
