"""Steps, runs, triggers and replay on a SQLite file, each beside its raw limit."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import jobs
from benchmarks.measure import Stopwatch, take_turns
from benchmarks.raw import Durability, Limit, RawDatabase
from benchmarks.report import Bar, Figure, at_least, at_most, compared, share
from benchmarks.size import Size
from durably_web import Durably, Job
from durably_web.backends.sqlite import SqliteExecutor
from durably_web.store.batch import Batch, Rows

# Runs that a worker executes at once when nothing else is said.
AT_ONCE = 10

# Eight times coji/durably's rate, which was 765 and 458 runs/s on the machine where the bars were set. It makes those
# figures, and four commits a run, when its triggers count.
RUNS_BARS = {"relaxed": at_least(8 * 765), "full": at_least(8 * 458)}
STEPS_BARS = {"relaxed": share(0.45), "full": share(0.8)}
# What a step costs us beyond its commit is the same everywhere: the faster a disk flushes, the lower the ratio.
NOTES = {"relaxed": "bar set where raw was 45,000/s", "full": "bar set where raw was 3,000 to 4,500/s"}


class CountingExecutor(SqliteExecutor):
    """SQLite, with a count of the batches it has run and of the statements that gave entries to replay."""

    batches = 0
    scans = 0

    async def run(self, batch: Batch) -> list[Rows]:
        results = await super().run(batch)
        self.batches += 1
        self.scans += sum(len(rows) > 1 for rows in results)
        return results


@asynccontextmanager
async def engine(
    path: Path | str, durability: Durability, registered: Iterable[Job[Any, Any]] = jobs.JOBS, **options: Any
) -> AsyncIterator[Durably]:
    """An engine that executes only when it is asked to."""
    durably = Durably(str(path), jobs=registered, durability=durability, **options)
    await durably.migrate()
    try:
        yield durably
    finally:
        await durably.stop()


async def measure(folder: Path, durability: Durability, size: Size) -> list[Figure]:
    place = f"SQLite {durability}"
    raw = RawDatabase(folder / f"raw-{durability}.db", durability)
    try:
        async with engine(folder / f"steps-{durability}.db", durability) as durably:
            figures = [
                await measure_steps(
                    place, "steps/s", durably, raw, jobs.many_steps, size, STEPS_BARS[durability], NOTES[durability]
                ),
                await measure_steps(place, "steps/s, in a thread", durably, raw, jobs.many_sync_steps, size),
            ]
        async with engine(folder / f"runs-{durability}.db", durability) as durably:
            figures += [
                await measure_triggers(place, durably, raw, size),
                await measure_runs(place, durably, raw, size),
                await measure_triggers_and_runs(place, durably, raw, size, RUNS_BARS[durability]),
            ]
        figures.append(await _replay(place, folder, durability, raw, size))
    finally:
        raw.close()
    return figures


async def measure_steps(
    place: str,
    work: str,
    durably: Durably,
    raw: Limit,
    job: Job[Any, int],
    size: Size,
    bar: Bar | None = None,
    note: str = "",
) -> Figure:
    count = size.steps

    async def ours() -> float:
        handle = await durably.trigger(job, {"count": count})
        watch = Stopwatch()
        await durably.process_one()
        rate = watch.rate(count)
        # A run that failed at once would be the fastest of all.
        assert await handle.result() == count
        return rate

    async def limit() -> float:
        return await raw.steps(count)

    return compared(place, work, await take_turns(ours, limit, size.rounds), bar=bar, note=note)


async def measure_triggers(place: str, durably: Durably, raw: Limit, size: Size) -> Figure:
    async def ours() -> float:
        watch = Stopwatch()
        for _ in range(size.runs):
            await durably.trigger(jobs.one_step, {})
        rate = watch.rate(size.runs)
        await durably.process_until_idle()
        return rate

    async def limit() -> float:
        return await raw.triggers(size.runs)

    return compared(place, "triggers/s", await take_turns(ours, limit, size.rounds))


async def run_all(durably: Durably, count: int) -> float:
    """Trigger `count` runs of one step, and give the rate at which so many are then executed."""
    for _ in range(count):
        await durably.trigger(jobs.one_step, {})
    watch = Stopwatch()
    executed = await durably.process_until_idle(max_runs=count)
    assert executed == count
    return watch.rate(count)


async def measure_runs(place: str, durably: Durably, raw: Limit, size: Size) -> Figure:
    async def ours() -> float:
        return await run_all(durably, size.runs)

    async def limit() -> float:
        return await raw.runs(size.runs, AT_ONCE)

    return compared(place, "runs/s, one step each", await take_turns(ours, limit, size.rounds))


async def measure_triggers_and_runs(
    place: str, durably: Durably, raw: Limit, size: Size, bar: Bar | None = None
) -> Figure:
    async def ours() -> float:
        watch = Stopwatch()
        await run_all(durably, size.runs)
        return watch.rate(size.runs)

    async def limit() -> float:
        return await raw.triggers_and_runs(size.runs, AT_ONCE)

    return compared(place, "runs/s with their triggers", await take_turns(ours, limit, size.rounds), bar=bar)


async def _replay(place: str, folder: Path, durability: Durability, raw: RawDatabase, size: Size) -> Figure:
    """From the begin of the claim to the last stored result, of 1,000."""
    count = 1000
    executor = CountingExecutor(str(folder / f"replay-{durability}.db"), durability)
    durably = Durably(executor, jobs=[jobs.replayed])
    await durably.migrate()
    stored = raw.store_steps(count)
    batches = scans = 0
    try:

        async def ours() -> float:
            nonlocal batches, scans
            handle = await durably.trigger(jobs.replayed, {"count": count})
            await durably.process_one()
            await durably.retry(handle.id)
            executor.batches = executor.scans = 0
            begun = time.perf_counter()
            await durably.process_one()
            # The last batch gave the run its end.
            batches, scans = executor.batches - 1, executor.scans
            return (jobs.replayed_at[-1] - begun) * 1000

        async def limit() -> float:
            return await raw.read_steps(stored)

        comparison = await take_turns(ours, limit, size.rounds)
    finally:
        await durably.stop()
    note = f"{scans} scan of the journal; {batches} batches with the claim"
    return compared(place, "replay of 1,000 steps", comparison, " ms", at_most(5), note)
