"""How long after its trigger a run's first line is executed, by a worker that has nothing to do."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from benchmarks import jobs
from benchmarks.measure import take_turns
from benchmarks.raw import Durability, Limit, RawDatabase
from benchmarks.report import Bar, Figure, at_most, compared
from benchmarks.size import Size
from durably_web import Durably

# The worker has then found nothing to do, and waits.
_IDLE_SECONDS = 0.03
_PATIENCE_SECONDS = 20
_OTHER_PROCESS = at_most(20)


async def measure(folder: Path, durability: Durability, size: Size) -> list[Figure]:
    raw = RawDatabase(folder / "raw-latency.db", durability)
    path = folder / "latency.db"
    try:
        # Default settings: they are what a user gets.
        async with Durably(str(path), jobs=[jobs.first_line], durability=durability) as durably:
            return [
                await same_process(f"SQLite {durability}", durably, raw, size),
                await other_process(f"SQLite {durability}", str(path), durably, raw, durability, size),
            ]
    finally:
        raw.close()


async def same_process(place: str, durably: Durably, raw: Limit, size: Size) -> Figure:
    async def ours() -> float:
        await asyncio.sleep(_IDLE_SECONDS)
        jobs.first_lines.clear()
        handle = await durably.trigger(jobs.first_line, {"sent": time.monotonic()})
        await handle.result(timeout=_PATIENCE_SECONDS)
        return jobs.first_lines[0]

    comparison = await take_turns(ours, raw.trigger_and_lease, size.triggers)
    return compared(place, "trigger → first line", comparison, " ms", at_most(2), "raw: the two commits")


async def other_process(
    place: str,
    database: str,
    durably: Durably,
    raw: Limit,
    durability: Durability,
    size: Size,
    bar: Bar = _OTHER_PROCESS,
) -> Figure:
    """Triggered by a process that does nothing else, on the same database."""
    program = [sys.executable, "-m", "benchmarks.latency", database, durability]
    other = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert other.stdin is not None
    assert other.stdout is not None
    stdin, stdout = other.stdin, other.stdout

    async def ours() -> float:
        await asyncio.sleep(_IDLE_SECONDS)
        jobs.first_lines.clear()
        stdin.write(b"\n")
        run_id = await asyncio.wait_for(stdout.readline(), _PATIENCE_SECONDS)
        await durably.wait_for_run(run_id.decode().strip(), timeout=_PATIENCE_SECONDS)
        return jobs.first_lines[0]

    try:
        comparison = await take_turns(ours, raw.trigger_and_lease, size.triggers)
    finally:
        stdin.close()
        await asyncio.wait_for(other.wait(), _PATIENCE_SECONDS)
    return compared(place, "the same from another process", comparison, " ms", bar)


async def trigger_for_each_line(path: str, durability: Durability) -> None:
    durably = Durably(path, jobs=[jobs.first_line], durability=durability)
    await durably.migrate()
    try:
        while sys.stdin.readline():
            handle = await durably.trigger(jobs.first_line, {"sent": time.monotonic()})
            print(handle.id, flush=True)
    finally:
        await durably.stop()


if __name__ == "__main__":
    asyncio.run(trigger_for_each_line(sys.argv[1], "full" if sys.argv[2] == "full" else "relaxed"))
