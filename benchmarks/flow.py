"""Runs that sleep, stand in line, are asked for by the thousand, or start others; and what a policy costs a step.

Where nothing is said beside it, the raw limit is the engine itself without that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import jobs
from benchmarks.measure import Round, Stopwatch, take_turns
from benchmarks.native import engine, run_all
from benchmarks.raw import Durability, RawDatabase
from benchmarks.report import Figure, compared
from benchmarks.size import Size
from durably_web import Durably, Retry, Step, job
from durably_web.clock import ManualClock

_HOUR = 3600
_PATIENT = Retry(max_attempts=5)


@job
async def nap(step: Step, input: dict[str, Any]) -> None:
    await step.sleep("nap", _HOUR)


@job
async def careful_steps(step: Step, input: dict[str, int]) -> int:
    for _ in range(input["count"]):
        await step.run("save", jobs.save, retry=_PATIENT)
    return input["count"]


@job
async def child(step: Step, input: dict[str, Any]) -> int:
    return 1


@job
async def parent(step: Step, input: dict[str, Any]) -> int:
    return await step.call(child, {})


async def measure(folder: Path, durability: Durability, size: Size) -> list[Figure]:
    place = f"SQLite {durability}"
    return [
        await _beside_sleepers(place, folder, durability, size),
        await _waking(place, folder, durability, size),
        *await _keys(place, folder, durability, size),
        await _many(place, folder, durability, size),
        await _policy(place, folder, durability, size),
        await _calls(place, folder, durability, size),
    ]


async def _ask(durably: Durably, asked: Any, count: int, **options: Any) -> None:
    await durably.trigger_many(asked, [{"input": {}, **options} for _ in range(count)])


def _executing(durably: Durably, asked: Any, count: int, **options: Any) -> Round:
    """Asks for runs, and gives the rate at which as many are then executed."""

    async def rate() -> float:
        await _ask(durably, asked, count, **options)
        watch = Stopwatch()
        assert await durably.process_until_idle(max_runs=count) == count
        return watch.rate(count)

    return rate


async def _beside_sleepers(place: str, folder: Path, durability: Durability, size: Size) -> Figure:
    async with (
        engine(folder / "alone.db", durability) as alone,
        engine(folder / "sleepers.db", durability, [*jobs.JOBS, nap]) as crowded,
    ):
        await _ask(crowded, nap, size.waiting)
        await crowded.process_until_idle()

        async def ours() -> float:
            return await run_all(crowded, size.runs)

        async def limit() -> float:
            return await run_all(alone, size.runs)

        comparison = await take_turns(ours, limit, size.rounds)
    return compared(place, f"runs/s beside {size.waiting:,} sleepers", comparison, note="raw: without them")


async def _waking(place: str, folder: Path, durability: Durability, size: Size) -> Figure:
    """All due at the same moment. Each is claimed, replayed and ended, as what it is compared with; and is woken."""
    count = size.waiting
    clock = ManualClock()
    async with (
        engine(folder / "waking.db", durability, [nap], clock=clock) as durably,
        engine(folder / "pending.db", durability) as others,
    ):

        async def ours() -> float:
            await _ask(durably, nap, count)
            await durably.process_until_idle()
            clock.advance(_HOUR + 1)
            watch = Stopwatch()
            assert await durably.process_until_idle() == count
            return watch.rate(count)

        comparison = await take_turns(ours, _executing(others, jobs.one_step, count), min(size.rounds, 3))
    note = "raw: as many pending runs of one step"
    return compared(place, f"runs/s, {count:,} woken at once", comparison, note=note)


async def _keys(place: str, folder: Path, durability: Durability, size: Size) -> list[Figure]:
    count = size.runs
    async with engine(folder / "keys.db", durability) as keyed, engine(folder / "keyless.db", durability) as keyless:
        number = 0

        async def ours() -> float:
            nonlocal number
            items = [{"input": {}, "concurrency_key": f"key {number + index}"} for index in range(count)]
            number += count
            await keyed.trigger_many(jobs.one_step, items)
            watch = Stopwatch()
            assert await keyed.process_until_idle(max_runs=count) == count
            return watch.rate(count)

        each = await take_turns(ours, _executing(keyless, jobs.one_step, count), size.rounds)
    async with (
        engine(folder / "line.db", durability) as line,
        engine(folder / "one.db", durability, max_concurrent_runs=1) as one,
    ):
        key: dict[str, Any] = {"concurrency_key": "the one", "coalesce": "queue"}
        await _ask(line, jobs.one_step, size.waiting, **key)
        # As many come in as are executed, so the line stays as long as it is.
        standing = _executing(line, jobs.one_step, count, **key)
        behind = await take_turns(standing, _executing(one, jobs.one_step, count), size.rounds)
    return [
        compared(place, "runs/s, each with a key", each, note="raw: without keys"),
        compared(place, f"runs/s, {size.waiting:,} in line of one key", behind, note="raw: no key, one at a time"),
    ]


async def _many(place: str, folder: Path, durability: Durability, size: Size) -> Figure:
    raw = RawDatabase(folder / "raw-many.db", durability)
    try:
        async with engine(folder / "many.db", durability) as durably:

            async def ours() -> float:
                watch = Stopwatch()
                await _ask(durably, jobs.one_step, size.runs)
                return watch.rate(size.runs)

            async def limit() -> float:
                return await raw.triggers_at_once(size.runs)

            comparison = await take_turns(ours, limit, size.rounds)
    finally:
        raw.close()
    return compared(place, f"triggers/s, {size.runs:,} in one call", comparison, note="raw: in one transaction")


async def _policy(place: str, folder: Path, durability: Durability, size: Size) -> Figure:
    count = size.steps
    async with engine(folder / "policy.db", durability, [*jobs.JOBS, careful_steps]) as durably:

        def steps_of(asked: Any) -> Round:
            async def rate() -> float:
                handle = await durably.trigger(asked, {"count": count})
                watch = Stopwatch()
                await durably.process_one()
                steps = watch.rate(count)
                assert await handle.result() == count
                return steps

            return rate

        comparison = await take_turns(steps_of(careful_steps), steps_of(jobs.many_steps), size.rounds)
    return compared(place, "steps/s with a retry that is not needed", comparison, note="raw: without")


async def _calls(place: str, folder: Path, durability: Durability, size: Size) -> Figure:
    """A parent is claimed, starts its child, waits, is woken by the child's end, replayed and ended."""
    async with engine(folder / "calls.db", durability, [parent, child]) as durably:

        async def ours() -> float:
            await _ask(durably, parent, size.runs)
            watch = Stopwatch()
            await durably.process_until_idle()
            rate = watch.rate(size.runs)
            assert (await durably.stats()).by_status.keys() == {"completed"}
            return rate

        async def limit() -> float:
            await _ask(durably, child, size.runs)
            watch = Stopwatch()
            await durably.process_until_idle()
            return watch.rate(size.runs)

        comparison = await take_turns(ours, limit, size.rounds)
    return compared(place, "calls of a child and back, /s", comparison, note="raw: runs of the child alone")
