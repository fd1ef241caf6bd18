"""Claim rate and latency with more workers, and beside a history of finished runs that grows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Any, NamedTuple

import psycopg

from benchmarks.jobs import save
from benchmarks.measure import Stopwatch
from benchmarks.servers.history import fill
from benchmarks.servers.places import Place
from durably_web import Durably, Step, job
from durably_web.backends import open_executor
from durably_web.store.batch import Batch, Executor, Statement

HISTORIES = (0, 100_000, 1_000_000)
WORKERS = (1, 2, 4, 8)
_SECONDS = 120
_IDLE_SECONDS = 0.05


@job
async def grown(step: Step, input: dict[str, Any]) -> None:
    await step.run("save", save)


@job
async def told(step: Step, input: dict[str, float]) -> float:
    """How many milliseconds after its trigger it began; the clock is the same in all processes of a machine."""
    return (time.monotonic() - input["sent"]) * 1000


class Cell(NamedTuple):
    """One measurement. `claim_ms` is what the server spends on one claim, `None` where it does not count."""

    finished: int
    workers: int
    runs_per_second: float
    first_line_ms: float
    claim_ms: float | None
    claims_per_run: float | None


async def measure(
    place: Place, histories: tuple[int, ...], workers: tuple[int, ...], runs: int, triggers: int
) -> list[Cell]:
    """One database, whose history grows from one row of the table to the next."""
    url = place.database()
    durably = Durably(url, jobs=[grown, told])
    await durably.migrate()
    await durably.stop()
    cells = []
    there = 0
    for finished in histories:
        if finished > there:
            watch = Stopwatch()
            await fill(url, there, finished)
            print(f"{finished:,} finished runs, filled in {watch.seconds():.0f} s", file=sys.stderr, flush=True)
            there = finished
        for count in workers:
            cells.append(await _cell(url, finished, count, runs, triggers))
            print(_line(cells[-1]), file=sys.stderr, flush=True)
    return cells


async def _cell(url: str, finished: int, count: int, runs: int, triggers: int) -> Cell:
    durably = Durably(url, jobs=[grown, told])
    await durably.migrate()
    # Counting all runs would measure itself.
    asking = open_executor(url, "full")
    await asking.open()
    try:
        await durably.pause_job(grown)
        for _ in range(0, runs, 500):
            await durably.trigger_many(grown, [{"input": {}} for _ in range(500)])
        async with _workers(url, count):
            latencies = []
            for _ in range(triggers):
                await asyncio.sleep(_IDLE_SECONDS)
                handle = await durably.trigger(told, {"sent": time.monotonic()})
                latencies.append(await handle.result(timeout=_SECONDS))
            _reset(url)
            watch = Stopwatch()
            await durably.resume_job(grown)
            async with asyncio.timeout(_SECONDS):
                while await _left(asking):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            rate = watch.rate(runs)
            claim = _claims(url, runs)
    finally:
        await asking.close()
        await durably.stop()
    return Cell(finished, count, rate, median(latencies), *claim)


_LEFT = Statement("""
SELECT (SELECT count(*) FROM durably_runs WHERE status = 'leased') + (
    SELECT count(*) FROM durably_runs
    WHERE job_name = 'grown' AND status = 'pending' AND wake_at IS NULL AND paused = 0 AND blocked = 0)
""")


async def _left(executor: Executor) -> object:
    [[(count,)]] = await executor.run(Batch("read", (_LEFT,)))
    return count


@contextlib.asynccontextmanager
async def _workers(url: str, count: int) -> AsyncIterator[None]:
    processes = []
    try:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.servers.growth"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(url).encode() + b"\n")
        for process in processes:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), _SECONDS) == b"ready\n"
        yield
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            try:
                await asyncio.wait_for(process.wait(), _SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


async def work() -> None:
    """A worker until its input ends."""
    loop = asyncio.get_running_loop()
    url = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    async with Durably(url, jobs=[grown, told]):
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


# -- what the server counts --------------------------------------------------------------------------------

_CLAIMS = """
SELECT coalesce(sum(calls), 0)::float8, coalesce(sum(total_exec_time), 0)::float8, coalesce(sum(rows), 0)::float8
FROM pg_stat_statements
WHERE query LIKE '%status = ''leased''%' AND query LIKE '%UPDATE durably_runs%' AND query LIKE '%lease_owner%'
  AND query LIKE '%json_array_elements%'
"""


def _reset(url: str) -> None:
    if not url.startswith("postgresql:"):
        return
    with contextlib.suppress(psycopg.Error), psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        connection.execute("SELECT pg_stat_statements_reset()")


def _claims(url: str, runs: int) -> tuple[float | None, float | None]:
    """Milliseconds of the server for each claim, and claims for each run."""
    if not url.startswith("postgresql:"):
        return None, None
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute(_CLAIMS).fetchone()
    except psycopg.Error:
        return None, None
    assert row is not None
    calls, milliseconds, _ = row
    return (milliseconds / calls, calls / runs) if calls else (None, None)


# -- the report --------------------------------------------------------------------------------------------


def _line(cell: Cell) -> str:
    claim = "" if cell.claim_ms is None else f", {cell.claim_ms:.2f} ms a claim, {cell.claims_per_run:.2f} a run"
    return (
        f"{cell.finished:>9,} finished, {cell.workers} workers: {cell.runs_per_second:,.0f} runs/s, "
        f"first line {cell.first_line_ms:.1f} ms{claim}"
    )


def as_table(cells: list[Cell]) -> str:
    """The rates, and what is left of them when the history is longest."""
    lines = [_line(cell) for cell in cells]
    first, last = cells[0].finished, cells[-1].finished
    for count in sorted({cell.workers for cell in cells}):
        rates = {cell.finished: cell.runs_per_second for cell in cells if cell.workers == count}
        if first != last:
            share = rates[last] / rates[first]
            lines.append(f"{count} workers: with {last:,} finished runs {share:.2f} of the rate with {first:,}")
    return "\n".join(lines)


if __name__ == "__main__":
    asyncio.run(work())
