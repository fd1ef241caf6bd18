"""Plays seeds: `python -m tests.simulation --seeds 1000`, or one of them with its trace: `--seed 123`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.simulation.broken import BROKEN, break_engine
from tests.simulation.simulate import Result, simulate


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


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
    parser.add_argument(
        "--broken", choices=BROKEN, help="break the engine like this, and end at the first seed that fails"
    )
    given = parser.parse_args()
    if given.broken is not None:
        return _find(given.broken, range(given.first, given.first + given.seeds))
    if given.seed is not None:
        return _tell(simulate(given.seed, traced=True))
    return _many(range(given.first, given.first + given.seeds), given.processes)


def _tell(result: Result) -> int:
    tell("\n".join(result.lines))
    tell(f"\nhash {result.hash}")
    if result.violation:
        tell(f"\nseed {result.seed}: {result.violation}")
    return 1 if result.violation else 0


def _find(name: str, seeds: range) -> int:
    with break_engine(name):
        for seed in seeds:
            result = simulate(seed)
            if result.violation:
                tell(f"{name}: seed {seed}: {result.violation[:400]}")
                return 1
    return 0


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
            tell(f"seed {result.seed}: {result.violation[:1000]}\n  again: make simulate SEED={result.seed}")
        if time.monotonic() - last > 5:
            last = time.monotonic()
            tell(f"{done} of {len(seeds)} seeds, {done / (last - begun):.1f} a second")
    tell("")
    for what, count in sorted(counts.items()):
        tell(f"{count:>12,}  {what}")
    seconds = time.monotonic() - begun
    tell(f"\n{done} seeds in {seconds:.0f} s ({done / seconds:.1f} a second), {len(failed)} failed")
    if failed:
        tell("failed: " + " ".join(str(result.seed) for result in sorted(failed)))
    return 1 if failed else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of texts have an order that differs from process to process; a seed must not.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    raise SystemExit(main())
