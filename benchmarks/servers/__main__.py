"""Measures on a database server that it starts itself, and prints what it found. Never fails for a figure."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Stopwatch
from benchmarks.servers import flow, growth, peer
from benchmarks.servers.places import place
from benchmarks.size import FULL, QUICK
from scripts.databases import ServerMissing


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers", description=__doc__)
    parser.add_argument("backend", choices=("postgres", "libsql"))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and a shorter history")
    parser.add_argument("--json", action="store_true", help="figures for a machine, on standard output")
    parser.add_argument("--no-peer", action="store_true", help="without DBOS, which is installed for the time being")
    parser.add_argument("--only", choices=("flow", "growth"), help="one of the two parts")
    options = parser.parse_args()
    size = (QUICK if options.quick else FULL)._replace(rounds=3)
    facts = report.machine()
    watch = Stopwatch()
    figures: list[report.Figure] = []
    cells: list[growth.Cell] = []
    try:
        with place(options.backend) as there:
            if options.only != "growth":
                say(f"{there.name}: one worker …")
                figures += asyncio.run(flow.measure(there, size))
                if options.backend == "postgres" and not options.no_peer:
                    say("DBOS on the same server …")
                    with tempfile.TemporaryDirectory(prefix="durably-bench-") as folder:
                        try:
                            figures += peer.measure(there, Path(folder), size)
                        except peer.NoPeer as problem:
                            say(f"Nothing of this: {problem}")
            if options.only != "flow":
                say(f"{there.name}: more workers, and a longer history …")
                histories = (0, 50_000) if options.quick else growth.HISTORIES
                cells = asyncio.run(growth.measure(there, histories, growth.WORKERS, 2 * size.runs, size.triggers))
    except ServerMissing as problem:
        sys.exit(str(problem))
    facts["seconds"] = round(watch.seconds())
    facts["load_after"] = round(os.getloadavg()[0], 1)
    if options.json:
        found = json.loads(report.as_json(figures, facts))
        print(json.dumps({**found, "growth": [cell._asdict() for cell in cells]}, indent=2, ensure_ascii=False))
        return
    print(report.as_table(figures, facts))
    if cells:
        print()
        print(growth.as_table(cells))


if __name__ == "__main__":
    main()
