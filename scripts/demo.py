"""Serve the built demo and say what to try; with --check, try it and judge the outcome."""

from __future__ import annotations

import argparse
import errno
import sys
import tempfile
from pathlib import Path

from scripts import chromium, demo_check
from scripts.serve import SiteServer, serve
from scripts.wheels import ROOT

# A browser keeps a site's storage by its address, port included: at another one, yesterday's runs would be missing.
USUAL_PORT = 8137


def open_server(site: Path, base: str, port: int | None) -> SiteServer:
    """A server at `port`, or at the usual one, or at any that is free."""
    if port is not None:
        return SiteServer(site, base=base, port=port)
    try:
        return SiteServer(site, base=base, port=USUAL_PORT)
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE:
            raise
        return SiteServer(site, base=base)


def serve_forever(site: Path, base: str, port: int | None) -> None:
    with open_server(site, base, port) as server:
        print(f"""
The demo is at  {server.address}

Start the import, and take the tab away while it runs: reload it, close it, or kill its process.
Open it again: the run goes on with the first chunk that is not stored. Ctrl+C stops this server.""")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def check(site: Path, base: str, port: int | None) -> None:
    """Exits with one line about what is wrong, if anything is."""
    if chromium.find() is None:
        chromium.install()
    with serve(site, base=base, port=port or 0) as address, tempfile.TemporaryDirectory() as profile:
        demo_check.run(address, Path(profile), site / "airports.csv")
    print("The report is right, and no chunk was saved twice.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="run it once in headless Chromium, killing the tab midway")
    parser.add_argument("--port", type=int, help=f"default: {USUAL_PORT}, or a free one when that is taken")
    parser.add_argument("--base", default="/", help="path below which the site appears, such as /my-repo/")
    parser.add_argument("--site", type=Path, default=ROOT / "build" / "site", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.check:
            check(options.site, options.base, options.port)
        else:
            serve_forever(options.site, options.base, options.port)
    except (OSError, ValueError, chromium.ChromiumMissing, demo_check.WrongReport) as problem:
        sys.exit(f"{type(problem).__name__}: {problem}")


if __name__ == "__main__":
    main()
