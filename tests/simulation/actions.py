"""What callers and misfortune do to the engines, at random."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from durably_web.jobs import Job
from tests.simulation.engines import Engine, Engines
from tests.simulation.ledger import Ledger
from tests.simulation.loop import EPOCH, SimulatedLoop
from tests.simulation.model import TERMINAL, Model, RunModel
from tests.simulation.programs import Writer, signals_of
from tests.simulation.readers import Readers
from tests.simulation.timetable import Timetable

Action = Callable[[Engine], None]


class Actions:
    """`act` does something; what it may be and how often is drawn for each seed."""

    def __init__(
        self,
        loop: SimulatedLoop,
        draw: random.Random,
        engines: Engines,
        ledger: Ledger,
        readers: Readers,
        jobs: dict[str, Job[Any, Any]],
        clocks_jump: bool,
    ) -> None:
        self._loop = loop
        self._draw = draw
        self._engines = engines
        self._ledger = ledger
        self._readers = readers
        self._model: Model = ledger.model
        self._jobs = jobs
        self._writer = Writer(draw, list(jobs), EPOCH)
        self.timetable = Timetable(ledger.model, draw, jobs, self._writer)
        self._weights = self._drawn(clocks_jump)

    def _drawn(self, clocks_jump: bool) -> dict[str, float]:
        usual: dict[str, float] = {
            "trigger": 12, "trigger_many": 1, "cancel": 2, "retry": 3, "retrigger": 1, "fork": 1, "delete": 1,
            "purge": 0.5, "bulk": 0.5, "signal": 4, "pause": 2, "pause_job": 0.5, "pause_worker": 0.5,
            "schedule": 2, "change_schedule": 2, "give_up": 1, "read": 2, "follow": 1, "wait": 2,
            "begin": 2, "stop": 2, "kill": 2, "sleep": 3, "cut_off": 2, "go_offline": 2,
            "jump": 2 if clocks_jump else 0,
        }  # fmt: skip
        # No two seeds are alike: in some nobody cancels, in others everybody dies.
        return {name: weight * self._draw.choice((0, 1, 1, 1, 3)) if name != "trigger" else weight
                for name, weight in usual.items()}  # fmt: skip

    def act(self) -> None:
        names = list(self._weights)
        [name] = self._draw.choices(names, list(self._weights.values()))
        engines = self._engines.alive
        if not engines:
            self._engines.begin()
        else:
            getattr(self, f"_{name}")(self._draw.choice(engines))

    # -- misfortune --------------------------------------------------------------------------------------

    def _begin(self, _: Engine) -> None:
        if len(self._engines.alive) < 4:
            self._engines.begin()

    def _stop(self, engine: Engine) -> None:
        self._engines.stop(engine)

    def _kill(self, engine: Engine) -> None:
        self._engines.kill(engine)

    def _sleep(self, engine: Engine) -> None:
        self._engines.sleep(engine, self._draw.choice((0.1, 3.0, 10.0, 50.0)) * self._draw.random())

    def _cut_off(self, engine: Engine) -> None:
        self._engines.cut_off(engine, self._draw.choice((0.1, 3.0, 50.0)) * self._draw.random())

    def _go_offline(self, engine: Engine) -> None:
        self._engines.go_offline(engine, self._draw.choice((0.1, 3.0, 50.0)) * self._draw.random())

    def _jump(self, engine: Engine) -> None:
        self._engines.jump(engine, self._draw.choice((0.1, 2.0, 60.0, 300.0)) * self._draw.uniform(-1, 1))

    def _give_up(self, engine: Engine) -> None:
        """A caller who does not wait for the answer any longer."""
        waiting = [request for request in self._engines.requests if not request.answered and request.what != "stop"]
        if waiting:
            request = self._draw.choice(waiting)
            if request.what != "init":
                request.task.cancel()

    # -- callers -----------------------------------------------------------------------------------------

    def _some_run(self, *statuses: str) -> RunModel | None:
        """Rather one of these statuses."""
        runs = [run for run in self._model.runs.values() if not run.deleted]
        fitting = [run for run in runs if run.status in statuses]
        if fitting and self._draw.random() < 0.8:
            runs = fitting
        return self._draw.choice(runs) if runs else None

    def _request(
        self, engine: Engine, what: str, run: RunModel | None, ask: Callable[[str], Awaitable[object]]
    ) -> None:
        if run is None:
            return
        run_id = run.id

        async def asking() -> None:
            await ask(run_id)
            if what.startswith("run:"):
                self._ledger.done(run_id, what)

        self._engines.ask(engine, f"{what} of {run_id[-6:]}", asking)

    def _program(self) -> dict[str, Any]:
        return {"program": self._writer.program(self._draw.choice((0, 1, 4, 8, 16)))}

    def _options(self) -> dict[str, Any]:
        draw, options = self._draw, dict[str, Any]()
        if draw.random() < 0.3:
            options["idempotency_key"] = f"once {draw.randrange(6)}"
        if draw.random() < 0.3:
            options["labels"] = {"colour": draw.choice(("red", "blue"))}
        if draw.random() < 0.3:
            options["priority"] = draw.randrange(-1, 3)
        if draw.random() < 0.35:
            key = options["concurrency_key"] = draw.choice("pq")
            options["coalesce"] = self._model.limits.coalesce[key]
        if draw.random() < 0.15:
            options["delay"] = draw.choice((0.0, 0.5, 5.0, 40.0))
        return options

    def trigger(self, engine: Engine, job: str, input: dict[str, Any], options: dict[str, Any]) -> None:
        async def asking() -> None:
            handle = await engine.durably.trigger(self._jobs[job], input, **options)
            self._ledger.triggered(handle.id, job, options.get("idempotency_key"), handle.disposition)

        self._engines.ask(engine, f"trigger {job} {options} {input}", asking)

    def _trigger(self, engine: Engine) -> None:
        options = self._options()
        if "concurrency_key" in options and self._draw.random() < 0.2:
            options = {name: value for name, value in options.items() if name not in ("coalesce", "delay")}
            options["debounce"] = self._draw.choice((0.5, 5.0))
        self.trigger(engine, self._draw.choice(list(self._jobs)), self._program(), options)

    def _trigger_many(self, engine: Engine) -> None:
        job = self._draw.choice(list(self._jobs))
        items = [{"input": self._program(), **self._options()} for _ in range(self._draw.randrange(4))]

        async def asking() -> None:
            handles = await engine.durably.trigger_many(self._jobs[job], items)
            for item, handle in zip(items, handles, strict=True):
                self._ledger.triggered(handle.id, job, item.get("idempotency_key"), handle.disposition)

        self._engines.ask(engine, f"trigger_many {job} {items}", asking)

    def _cancel(self, engine: Engine) -> None:
        self._request(engine, "run:cancel", self._some_run("pending", "leased", "waiting"), engine.durably.cancel)

    def _retry(self, engine: Engine) -> None:
        self._request(engine, "run:retry", self._some_run("failed", "cancelled"), engine.durably.retry)

    def _delete(self, engine: Engine) -> None:
        run = self._some_run(*TERMINAL)
        if run is not None:
            # From the moment that it is asked for: its reply may be lost.
            self._ledger.to_delete.add(run.id)
        self._request(engine, "run:delete", run, engine.durably.delete_run)

    def _retrigger(self, engine: Engine) -> None:
        async def ask(run_id: str) -> None:
            handle = await engine.durably.retrigger(run_id)
            self._ledger.triggered(handle.id, "", None, handle.disposition)

        self._request(engine, "retrigger", self._some_run(*TERMINAL), ask)

    def _fork(self, engine: Engine) -> None:
        run = self._some_run(*TERMINAL)
        names = sorted(run.results) if run is not None else []
        step = self._draw.choice([*names, None])

        async def ask(run_id: str) -> None:
            handle = await engine.durably.fork(run_id, from_step=step)
            self._ledger.triggered(handle.id, "", None, handle.disposition)

        self._request(engine, f"fork from {step}", run, ask)

    def _signal(self, engine: Engine) -> None:
        run = self._some_run("waiting", "leased", "pending")
        if run is not None:
            names = signals_of(self._model.program(run)) or ["red"]
            self.signal(engine, run, self._draw.choice(names))

    def signal(self, engine: Engine, run: RunModel, name: str) -> None:
        payload = self._ledger.unique(name)

        async def ask(run_id: str) -> None:
            self._ledger.sending(run_id, name, payload)
            await engine.durably.signal(run_id, name, payload)
            self._ledger.signal_acknowledged(run_id, name, payload, self._loop.time())

        self._request(engine, f"signal {name} {payload!r}", run, ask)

    def _pause(self, engine: Engine) -> None:
        run = self._some_run("pending", "leased", "waiting")
        if run is not None:
            self._model.held_back.add(run.id)
            if self._draw.random() < 0.6:
                self._request(engine, "pause", run, lambda run_id: self._paused(run_id, engine.durably.pause(run_id)))
            else:
                self._model.resumed.add(run.id)
                self._request(engine, "resume", run, engine.durably.resume)

    def _pause_job(self, engine: Engine) -> None:
        job = self._draw.choice(list(self._jobs))
        self._model.held_back.add(job)
        if self._draw.random() < 0.6:
            self._engines.ask(engine, f"pause_job {job}", lambda: self._paused(job, engine.durably.pause_job(job)))
        else:
            self._model.resumed.add(job)
            self._engines.ask(engine, f"resume_job {job}", lambda: engine.durably.resume_job(job))

    async def _paused(self, what: str, pausing: Awaitable[object]) -> None:
        await pausing
        self._model.paused.add(what)

    def _schedule(self, engine: Engine) -> None:
        name = self.timetable.some_name()
        self._engines.ask(engine, f"schedule {name}", lambda: self.timetable.put(engine.durably, name))

    def _change_schedule(self, engine: Engine) -> None:
        name, what = self.timetable.some_name(), self._draw.choice(("pause", "resume", "resume", "trigger", "remove"))

        async def asking() -> None:
            run_id = await self.timetable.change(engine.durably, what, name)
            if run_id is not None:
                self._ledger.triggered(run_id, "", None, "created")

        self._engines.ask(engine, f"{what} schedule {name}", asking)

    def _pause_worker(self, engine: Engine) -> None:
        what = self._draw.choice(("pause_worker", "resume_worker"))

        async def asking() -> None:
            getattr(engine.durably, what)()

        self._engines.ask(engine, what, asking)

    def _purge(self, engine: Engine) -> None:
        old = self._draw.choice((1.0, 30.0, 300.0))
        self._ledger.purged = True
        self._engines.ask(engine, f"purge {old}", lambda: engine.durably.purge_runs(older_than=old, limit=3))

    def _bulk(self, engine: Engine) -> None:
        what = self._draw.choice(("cancel_runs", "retry_runs", "pause_runs", "resume_runs", "delete_runs"))
        job = self._draw.choice(list(self._jobs))
        self._ledger.purged |= what == "delete_runs"
        if what == "pause_runs":
            self._model.held_back.add(job)
        if what == "resume_runs":
            self._model.resumed |= self._model.runs.keys()
        self._engines.ask(engine, f"{what} {job}", lambda: getattr(engine.durably, what)(job=job))

    def _wait(self, engine: Engine) -> None:
        async def ask(run_id: str) -> None:
            run = await engine.durably.wait_for_run(run_id, timeout=60.0)
            ended = self._model.runs[run_id]
            self._ledger.trace.check(run.is_terminal, f"waited for {run}")
            what = {"completed": "run:complete", "failed": "run:fail", "cancelled": "run:cancel"}[run.status]
            self._ledger.trace.check(
                ended.seen[what] or ended.deleted, f"{run_id} ended as {run.status}, without an entry"
            )
            self._ledger.trace.count("ends waited for")

        self._request(engine, "wait", self._some_run("pending", "leased"), ask)

    def _read(self, engine: Engine) -> None:
        durably = engine.durably
        readings: tuple[Callable[[str], Awaitable[object]], ...] = (
            durably.get_run,
            durably.get_steps,
            durably.get_logs,
            lambda _: durably.get_runs(limit=5),
            lambda _: durably.stats(),
        )
        self._request(engine, "read", self._some_run(), self._draw.choice(readings))

    def _follow(self, engine: Engine) -> None:
        run = self._some_run()
        if run is not None:
            self._readers.follow(engine, run.id)
