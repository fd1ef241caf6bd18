"""One simulation: a storm that a seed has drawn, the calm after it, and the reckoning."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from durably_web.jobs import Job
from durably_web.retry import RateLimit, Retry
from tests.simulation import checker
from tests.simulation.actions import Actions
from tests.simulation.engines import Engine, Engines
from tests.simulation.faults import Network, weather
from tests.simulation.jobs import make_job
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Deadlock, SimulatedLoop
from tests.simulation.model import TERMINAL, Limits, Model
from tests.simulation.programs import Program
from tests.simulation.readers import Readers
from tests.simulation.trace import Trace, Violation

LONGEST_CALM = 600.0
"""Virtual seconds until everything must have ended once nothing goes wrong any more."""

PROBE = 60.0
"""The same for one more run of each job, whose engine must be woken: its own polling takes longer."""

_PROBE: Program = [
    {"do": "step", "name": "probe", "seconds": 0.1},
    {"do": "sleep", "name": "nap", "seconds": 2.0},
    {"do": "signal", "name": "green", "timeout": None},
    {"do": "call", "name": "child", "job": "plain", "program": [{"do": "step", "name": "small"}]},
]


class Result(NamedTuple):
    seed: int
    violation: str | None
    hash: str
    lines: list[str]
    counts: Counter[str]


def simulate(seed: int, traced: bool = False) -> Result:
    """Play a seed."""
    # What a collection closes late must not happen in the middle of another seed.
    gc.disable()
    result = Simulation(seed, traced).play()
    gc.enable()
    return result


class Simulation:
    def __init__(self, seed: int, traced: bool) -> None:
        self.seed = seed
        self.draw = random.Random(seed)
        draw = self.draw
        self.loop = SimulatedLoop(draw, in_order=draw.choice((1.0, 1.0, 0.5, 0.0)), hurry=draw.choice((0.0, 0.02, 0.1)))
        self.trace = Trace(self.loop, traced)
        self.network = Network(self.loop, draw, weather(draw), self.trace)
        self.clocks_jump = draw.random() < 0.3
        options, limits = _job_options(draw)
        self.model = Model(self.network, self.trace, limits, self.clocks_jump)
        self.ledger = Ledger(self.model, self.trace)
        self.jobs: dict[str, Job[Any, Any]] = {}
        for name, given in options.items():
            self.jobs[name] = make_job(name, self.ledger, self.jobs, given)
        self.engines = Engines(self.loop, draw, self.network, self.trace, list(self.jobs.values()))
        self.readers = Readers(self.engines, self.model, self.trace)
        self.actions = Actions(self.loop, draw, self.engines, self.ledger, self.readers, self.jobs, self.clocks_jump)
        self.trace.say("seed", f"{seed}: {self.network.weather}, clocks jump: {self.clocks_jump}, jobs: {options}")

    def play(self) -> Result:
        asyncio.set_event_loop(None)
        violation: str | None = None
        try:
            self.loop.run_until_complete(self._main())
        except (Violation, Deadlock) as error:
            violation = f"{type(error).__name__}: {error}"
        result = Result(self.seed, violation, self.trace.hash, self.trace.lines, self.trace.counts)
        self.loop.discard()
        return result

    async def _main(self) -> None:
        climate = self.network.weather
        stormy, self.network.weather = climate, type(climate)()
        await self.network.database.open()
        await self.engines.add().durably.migrate()
        self.network.on_commit = self.model.on_commit
        self.network.is_deleted = lambda param: param in self.model.runs and self.model.runs[str(param)].deleted
        self.network.weather = stormy
        await self._storm()
        await self._calm()
        await self._probe()
        await self._stop()
        await checker.check(self.network, self.model, self.ledger, self.readers)
        self._check_errors()

    async def _storm(self) -> None:
        draw = self.draw
        self.engines.all[0].process.kill()
        for _ in range(draw.randrange(1, 4)):
            self.engines.begin()
        pace = draw.choice((0.001, 0.05, 1.0))
        for _ in range(draw.choice((20, 60, 120))):
            self.actions.act()
            self.readers.attend()
            if draw.random() < 0.6:
                await asyncio.sleep(draw.expovariate(1 / pace))
            elif draw.random() < 0.1:
                await asyncio.sleep(draw.random() * 40.0)

    async def _calm(self) -> None:
        """Nothing goes wrong any more: everything that can end must end."""
        self.trace.say("world", "calm")
        self.network.weather.calm()
        for engine in self.engines.all:
            engine.process.offset = 0
            engine.process.asleep = False
            engine.link.cut = False
            self.engines.go_online(engine)
        # What was sent before may still arrive, and take a lease for somebody who is dead.
        while self.loop.time() <= self.network.last_arrival:  # noqa: ASYNC110 — it may come to be later meanwhile
            await asyncio.sleep(self.network.last_arrival - self.loop.time() + 0.1)
        await self._until(lambda: self._answered(but=("wait", "follow")), self._unanswered)
        # An engine whose start failed is none.
        for engine in self.engines.alive:
            await self._ask(engine, "init again", engine.durably.init)
        if not self.engines.alive or self.draw.random() < 0.5:
            await self._ask(self.engines.begin(), "init again", self.engines.all[-1].durably.init)
        await self._resume()
        engine = self.engines.alive[0]
        await self._ask(engine, "no schedules any more", lambda: self.actions.timetable.end(engine))
        self.readers.attend()
        end = self.loop.time() + LONGEST_CALM
        while open_runs := [run for run in self.model.runs.values() if run.status not in TERMINAL]:
            if self.loop.time() > end:
                stuck = [self.model.brief(run) for run in open_runs]
                self.trace.fail(f"nothing is in the way any more, and these do not end: {stuck}")
            for run in open_runs:
                for name in self.model.open_waits(run):
                    self.actions.signal(self.engines.alive[0], run, name)
            await asyncio.sleep(5.0)
        await self._until(self._answered, self._unanswered)
        self.readers.attend()
        await self._until(self.readers.caught_up, lambda: "a reader never comes to the end")
        self.trace.count("seconds of calm", round(self.loop.time() - end + LONGEST_CALM))

    async def _resume(self) -> None:
        engine = self.engines.alive[0]
        for one in self.engines.alive:
            one.durably.resume_worker()
        self.model.resumed |= self.model.runs.keys() | self.jobs.keys()
        for name in self.jobs:
            await self._ask(engine, f"resume_job {name}", partial(engine.durably.resume_job, name))
            await self._ask(engine, f"resume_runs {name}", partial(engine.durably.resume_runs, job=name))

    async def _probe(self) -> None:
        """One more run, on an engine alone, which hardly ever looks by itself: every wake-up must come."""
        for engine in self.engines.alive:
            await self._ask(engine, "stop", engine.durably.stop)
            engine.stopping = True
        engine = self.engines.add(polling_interval=10_000.0)
        await self._ask(engine, "init", engine.durably.init)
        self.readers.attend()
        for job in self.jobs:
            options = {"concurrency_key": "probe", "coalesce": "queue"}
            self.actions.trigger(engine, job, {"program": _PROBE}, options)
        await self._until(self._answered, self._unanswered)
        # Runs that a clock said to have begun in the future fill a rate limit until then.
        end = self.loop.time() + (LONGEST_CALM if self.clocks_jump else PROBE)
        while open_runs := [run for run in self.model.runs.values() if run.status not in TERMINAL]:
            for run in open_runs:
                for name in self.model.open_waits(run):
                    self.actions.signal(engine, run, name)
            await asyncio.sleep(1.0)
            if self.loop.time() > end:
                break
        self.trace.check(not open_runs, f"runs that nobody woke: {[self.model.brief(run) for run in open_runs]}")

    async def _stop(self) -> None:
        self.readers.attend()
        await self._until(self.readers.caught_up, lambda: "a reader never comes to the end of the probe")
        for engine in self.engines.alive:
            await self._ask(engine, "stop", engine.durably.stop)

    # -- inside ------------------------------------------------------------------------------------------

    async def _ask(self, engine: Engine, what: str, ask: Callable[[], Any]) -> None:
        request = self.engines.ask(engine, what, ask)
        await self._until(lambda: request.answered, lambda: f"{what} is never answered")
        self.trace.check(request.error is None, f"{what}, while nothing is in the way: {request.error!r}")

    async def _until(self, condition: Callable[[], bool], complaint: Callable[[], str]) -> None:
        end = self.loop.time() + LONGEST_CALM
        while not condition():
            if self.loop.time() > end:
                self.trace.fail(complaint())
            await asyncio.sleep(0.05)

    def _answered(self, but: tuple[str, ...] = ()) -> bool:
        return all(one.answered for one in self.engines.requests if not one.what.startswith(but))

    def _unanswered(self) -> str:
        return f"never answered: {[one.what for one in self.engines.requests if not one.answered]}"

    def _check_errors(self) -> None:
        for context in self.loop.failures:
            self.trace.fail(f"an error that nobody saw: {context.get('message')}: {context.get('exception')!r}")
        for task in self.loop.tasks:
            alive = task.process is None or not task.process.dead
            if alive and task.done() and task._log_traceback:
                self.trace.fail(f"an error that nobody saw: {task.exception()!r} of {task!r}")


def _job_options(draw: random.Random) -> tuple[dict[str, dict[str, Any]], Limits]:
    """Two jobs and what they promise. What concerns a key is the same for both: a key is not one job's."""
    options: dict[str, dict[str, Any]] = {"plain": {}, "other": {}}
    other = options["other"]
    limits = Limits(
        per_key=draw.choice((1, 1, 2)),
        coalesce={key: draw.choice((None, "skip", "replace", "queue", "queue")) for key in "pq"},
        max_runs=draw.choice((None, None, 1, 2)),
        rate=draw.choice((None, None, None, (1, 2.0), (3, 10.0))),
        max_attempts=draw.choice((10, 10, 1, 2)),
    )
    other["max_concurrent_runs"] = limits.max_runs
    if limits.rate is not None:
        other["rate_limit"] = RateLimit(*limits.rate)
    if draw.random() < 0.3:
        other["retry"] = Retry(max_attempts=draw.randrange(1, 4), initial_delay=draw.choice((0.0, 0.05, 3.0)))
    if draw.random() < 0.2:
        other["timeout"] = draw.choice((0.5, 10.0, 60.0))
    for given in options.values():
        given |= {"max_concurrent_per_key": limits.per_key, "max_attempts": limits.max_attempts}
    return options, limits
