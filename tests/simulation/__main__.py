"""Plays seeds: `python -m tests.simulation --seeds 1000`, or one of them with its trace: `--seed 123`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.simulation.simulate import Result, simulate


def results(seeds: range, processes: int) -> Iterator[Result]:
    if processes == 1:
        yield from map(simulate, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(simulate, seeds, chunksize=5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and tell what happens")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if given.seed is not None:
        return _tell(simulate(given.seed))
    return _many(range(given.first, given.first + given.seeds), given.processes)


def _tell(result: Result) -> int:
    print("\n".join(result.lines))
    print(f"\nhash {result.hash}")
    if result.violation:
        print(f"\nseed {result.seed}: {result.violation}")
    return 1 if result.violation else 0


def _many(seeds: range, processes: int) -> int:
    begun = last = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[Result] = []
    done = 0
    for result in results(seeds, processes if len(seeds) >= 50 else 1):
        done += 1
        counts += result.counts
        if result.violation:
            failed.append(result)
            print(f"seed {result.seed}: {result.violation[:1000]}\n  again: make simulate SEED={result.seed}", flush=True)
        if time.monotonic() - last > 5:
            last = time.monotonic()
            print(f"{done} of {len(seeds)} seeds, {done / (last - begun):.1f} a second", flush=True)
    print()
    for what, count in sorted(counts.items()):
        print(f"{count:>12,}  {what}")
    seconds = time.monotonic() - begun
    print(f"\n{done} seeds in {seconds:.0f} s ({done / seconds:.1f} a second), {len(failed)} failed")
    if failed:
        print("failed: " + " ".join(str(result.seed) for result in sorted(failed)))
    return 1 if failed else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of texts have an order that differs from process to process; a seed must not.
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    raise SystemExit(main())
