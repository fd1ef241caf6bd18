"""Measures, and prints what it found beside the bars. Never fails for a figure: it reports."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks import backlog, flow, imports, latency, native, report
from benchmarks.measure import Stopwatch
from benchmarks.report import Figure
from benchmarks.size import FULL, QUICK, Size


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def measure_natively(folder: Path, size: Size) -> list[Figure]:
    figures: list[Figure] = []
    for durability in ("full", "relaxed"):
        say(f"SQLite, durability {durability} …")
        figures += await native.measure(folder, durability, size)
    say("Latency and imports …")
    figures += await latency.measure(folder, "full", size)
    figures += imports.measure(folder, size)
    say(f"Runs that wait: {size.waiting:,} …")
    figures += await flow.measure(folder, "relaxed", size)
    say(f"Filling a table with {size.finished:,} runs …")
    figures += await backlog.measure(folder, "relaxed", size)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and a smaller table")
    parser.add_argument("--json", action="store_true", help="figures for a machine, on standard output")
    parser.add_argument("--no-browser", action="store_true", help="only SQLite in this process")
    parser.add_argument("--folder", type=Path, help="where the databases go while measuring; a real disk is the point")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    facts = report.machine()
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="durably-bench-", dir=options.folder) as folder:
        figures = asyncio.run(measure_natively(Path(folder), size))
    if not options.no_browser:
        from benchmarks import browser, starting

        for what, measure in (("Chromium", browser.measure), ("Chromium, tabs that start and end", starting.measure)):
            say(f"{what} …")
            try:
                figures += measure(size)
            except (OSError, browser.BrowserError, browser.ChromiumMissing) as problem:
                # The figures that there are must not be lost with those that are missing.
                say(f"Nothing of this: {problem}")
    facts["seconds"] = round(watch.seconds())
    print(report.as_json(figures, facts) if options.json else report.as_table(figures, facts))


if __name__ == "__main__":
    main()
