"""Worker processes on one SQLite file, killed at random; then everything that they did is reckoned up."""

from __future__ import annotations

import asyncio
import collections
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from durably_web import Durably
from durably_web.backends.sqlite import SqliteExecutor
from tests.support.invariants import check_invariants
from tests.torture.jobs import STEPS, tortured

ROOT = Path(__file__).resolve().parent.parent.parent


class Plan(NamedTuple):
    """All that is decided in advance. When a kill comes is; what it hits is up to the machine."""

    seed: int
    runs: int = 5000
    processes: int = 8
    kills: int = 24
    seconds: float = 300
    durability: Literal["full", "relaxed"] = "relaxed"


class Figures(NamedTuple):
    """What happened."""

    seconds: float
    """From the first step's call to the last step's result."""
    runs_per_second: float
    workers: int
    killed: int
    taken_over: int
    """Runs that were claimed more than once."""
    repeated: int
    """Steps that were called again, since the process that had called them was killed before it had stored them."""
    longest: float
    """Seconds from the call of a step to its stored result, at most: nobody waits for his turn for ever."""
    fewest: int
    most: int
    """How many runs were completed by the one that completed the fewest, and the most, of the workers that were there
    all the time."""

    def __str__(self) -> str:
        return ", ".join(f"{name} {round(value, 3):g}" for name, value in self._asdict().items())


class _Line(NamedTuple):
    moment: int
    what: str
    run_id: str
    step: str


async def torture(folder: Path, plan: Plan) -> Figures:
    """Raises `AssertionError` when anything was lost, or done twice after it was stored."""
    draw = random.Random(plan.seed)
    database = str(folder / "app.db")
    durably = Durably(database, jobs=[tortured], durability=plan.durability)
    await durably.migrate()
    # They begin when all are there.
    await durably.pause_job(tortured)
    asked = {}
    for first in range(0, plan.runs, 500):
        numbers = range(first, min(first + 500, plan.runs))
        handles = await durably.trigger_many(tortured, [{"input": {"number": number}} for number in numbers])
        asked.update({handle.id: number for handle, number in zip(handles, numbers, strict=True)})
    # When so many runs have ended, somebody is killed: the machine may be slow or fast.
    moments = sorted(draw.randrange(plan.runs * 19 // 20) for _ in range(plan.kills))
    workers: list[_Worker] = []
    try:
        async with asyncio.timeout(plan.seconds):
            alive = [await _begin(folder, workers, plan) for _ in range(plan.processes)]
            for worker in alive:
                assert worker.process.stdout is not None
                assert await worker.process.stdout.readline() == b"ready\n"
            await durably.resume_job(tortured)
            async for ended in _completed(durably):
                while moments and ended >= moments[0]:
                    moments.pop(0)
                    position = draw.randrange(len(alive))
                    await alive[position].kill()
                    alive[position] = await _begin(folder, workers, plan)
                if ended == plan.runs:
                    break
            for worker in alive:
                assert await worker.end() == 0
    finally:
        for worker in workers:
            await worker.kill()
        await durably.stop()
    return await _reckon(database, folder, workers, asked, plan)


class _Worker:
    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.killed = False

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.killed = True
            self.process.kill()
            await self.process.wait()

    async def end(self) -> int:
        if self.process.returncode is None:
            self.process.terminate()
        return await self.process.wait()

    def lines(self) -> Iterator[_Line]:
        if self.log.exists():
            for line in self.log.read_text().splitlines():
                moment, what, *words = line.split(" ", 3)
                yield _Line(int(moment), what, *[*words, "", ""][:2])


async def _begin(folder: Path, workers: list[_Worker], plan: Plan) -> _Worker:
    log = folder / f"{len(workers)}.log"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.torture.jobs", str(folder / "app.db"), str(log), plan.durability),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    worker = _Worker(process, log)
    workers.append(worker)
    return worker


async def _completed(durably: Durably) -> Any:
    """How many runs have ended, each time that it may be more."""
    count, after = 0, 0
    while True:
        page = await durably.get_events(after=after, limit=2000)
        for event in page.events:
            after = event.seq or after
            count += event.type in ("run:complete", "run:fail")
        yield count
        if not page.events:
            await durably._store.changes.wait("journal", 0.05)


async def _reckon(database: str, folder: Path, workers: list[_Worker], asked: dict[str, int], plan: Plan) -> Figures:
    executor = SqliteExecutor(database)
    await executor.open()
    await check_invariants(executor)
    durably = Durably(executor, jobs=[tortured])
    await durably.migrate()
    runs, last = [], None
    while page := await durably.get_runs(limit=1000, after=last):
        runs += page
        last = page[-1].id
    assert {run.id for run in runs} == asked.keys(), "no run is lost, and none is there that nobody asked for"
    for run in runs:
        assert (run.status, run.output) == ("completed", asked[run.id] + len(STEPS)), run
    results: collections.Counter[tuple[str, str]] = collections.Counter()
    after = 0
    while events := (await durably.get_events(after=after, limit=5000)).events:
        for event in events:
            if event.type == "step:complete":
                results[event.run_id or "", event.step_name or ""] += 1
        after = events[-1].seq or after
    assert results == collections.Counter({(run_id, name): 1 for run_id in asked for name in STEPS})
    await durably.stop()
    assert [name for name in os.listdir(folder) if "-wal" in name or "-shm" in name] == []

    stored: dict[tuple[str, str], int] = {}
    calls: collections.Counter[tuple[str, str]] = collections.Counter()
    finished: dict[int, int] = {}
    begun: dict[tuple[str, str, int], int] = {}
    longest = 0
    lines = sorted((line, number) for number, worker in enumerate(workers) for line in worker.lines())
    for line, number in lines:
        key = line.run_id, line.step
        assert line.what != "error", f"worker {number}: {line}"
        if line.what == "ran":
            calls[key] += 1
            begun[*key, number] = line.moment
            assert key not in stored, f"{key} was called by worker {number}, after it was stored"
        elif line.what == "stored":
            # Told again when a run is replayed.
            stored.setdefault(key, line.moment)
            longest = max(longest, line.moment - begun.pop((*key, number), line.moment))
            if line.step == STEPS[-1]:
                finished[number] = finished.get(number, 0) + 1
    healthy = [finished.get(number, 0) for number in range(plan.processes) if not workers[number].killed] or [0]
    moments = [line.moment for line, _ in lines if line.what in ("ran", "stored")]
    seconds = (max(moments) - min(moments)) / 1e9
    return Figures(
        seconds=seconds,
        runs_per_second=len(runs) / seconds,
        workers=len(workers),
        killed=sum(worker.killed for worker in workers),
        taken_over=sum(run.attempt > 1 for run in runs),
        repeated=sum(count - 1 for count in calls.values()),
        longest=longest / 1e9,
        fewest=min(healthy),
        most=max(healthy),
    )
