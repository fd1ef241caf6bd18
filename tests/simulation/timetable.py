"""Schedules of a simulation: what they are, what callers do to them, and what must be true of their runs."""

from __future__ import annotations

import json
import random
from typing import Any, LiteralString, cast

from durably_web.engine import Durably
from durably_web.errors import NotFound
from durably_web.jobs import Job
from tests.simulation.engines import Engine
from tests.simulation.model import TERMINAL, Model, RunModel
from tests.simulation.programs import Writer

# Of the first nobody takes anything away: each of its ticks has a run. Runs of the second are never two; those of the
# third begin one after another.
_SCHEDULES: dict[str, dict[str, Any]] = {
    "each": {"every": 8.0, "missed": "all", "overlap": "allow"},
    "alone": {"every": 5.0, "missed": "all", "overlap": "skip"},
    "line": {"every": 6.0, "missed": "one", "overlap": "queue"},
}

_NEXT: LiteralString = "SELECT created_at, next_at FROM durably_schedules WHERE name = ?"


class Timetable:
    """Asks for schedules, and looks at each run that one has asked for."""

    def __init__(self, model: Model, draw: random.Random, jobs: dict[str, Job[Any, Any]], writer: Writer) -> None:
        self._model = model
        self._trace = model.trace
        self._draw = draw
        # A queue of runs needs a key of which one may begin at a time.
        names = [name for name in _SCHEDULES if name != "line" or model.limits.per_key == 1]
        self._given = {
            name: {
                **_SCHEDULES[name],
                "input": {"program": writer.program(draw.choice((0, 1, 3)))},
                "labels": {"t": name},
            }
            for name in names
        }
        self._job = draw.choice(list(jobs.values()))
        self._ticks: dict[tuple[str, int], RunModel] = {}
        model.on_scheduled = self._check_run

    # -- what callers do ---------------------------------------------------------------------------------

    def some_name(self) -> str:
        return self._draw.choice(list(self._given))

    async def put(self, durably: Durably, name: str) -> None:
        await durably.schedule(self._job, name=name, **self._given[name])

    async def change(self, durably: Durably, what: str, name: str) -> str | None:
        """The id of the run that was asked for, if one was."""
        if name == "each" and what != "trigger":
            return None
        handle = await getattr(durably, f"{what}_schedule")(name)
        return cast("str | None", getattr(handle, "id", None))

    async def end(self, engine: Engine) -> None:
        """No further ticks; and the first schedule has had all of them."""
        for name in self._given:
            if name == "each":
                self._check_all()
            try:
                await engine.durably.remove_schedule(name)
            except NotFound:
                self._trace.count("schedules that nobody asked for")

    # -- what must be true -------------------------------------------------------------------------------

    def _check_run(self, run: RunModel, created_at: int) -> None:
        check, name, tick = self._trace.check, str(run.row["schedule"]), cast("int | None", run.row["scheduled_at"])
        check(name in self._given, f"run {run.id} is of schedule {name!r}, which nobody asked for")
        asked = json.loads(str(run.row["input"])) == self._given[name]["input"]
        check(asked and json.loads(str(run.row["labels"])) == {"t": name}, f"run {run.id} is not what {name} asks for")
        if name == "alone":
            others = [
                one.id
                for one in self._model.runs.values()
                if one is not run and one.row.get("schedule") == name and one.status not in TERMINAL
            ]
            check(not others, f"run {run.id} of schedule {name} begins beside {others}")
        if tick is None:
            self._trace.count("runs of schedules by hand")
            return
        self._trace.count("ticks with a run")
        check(created_at >= tick, f"run {run.id} of {name} came {tick - created_at} ms before its tick")
        before = self._ticks.get((name, tick))
        check(before is None or before.deleted, f"the tick {tick} of {name} has a second run: {run.id}")
        self._ticks[name, tick] = run

    def _check_all(self) -> None:
        found = self._model._ask(_NEXT, "each")
        if found:
            created_at, next_at = cast("tuple[int, int]", found[0])
            every = round(self._given["each"]["every"] * 1000)
            left = [tick for tick in range(created_at + every, next_at, every) if ("each", tick) not in self._ticks]
            self._trace.check(not left, f"ticks that have no run: {left}")
