"""What the suites about waiting do again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from durably_web.clock import ManualClock
from durably_web.engine import Durably
from durably_web.jobs import Job
from durably_web.records import Instant, Run, StepRecord, instant
from tests.support.world import SECONDS, World, turns, until

LONG = 10_000_000.0
"""A polling interval that never comes to help: what happens in time happens because somebody was woken."""


class Flaky:
    """`work` is a step's function that fails as often as there are errors left; keeps the moments of its calls."""

    def __init__(self, world: World, *errors: BaseException) -> None:
        self._clock = world.clock
        self._start = world.clock.now()
        self.errors = list(errors)
        self.calls: list[float] = []

    async def work(self, value: Any = "done") -> Any:
        self.calls.append((self._clock.now() - self._start) / 1000)
        if self.errors:
            raise self.errors.pop(0)
        return value

    async def called(self, count: int = 1) -> None:
        """Return when it was called so often, and what that led to is done."""
        await until(lambda: len(self.calls) >= count)
        await settled()


class UnsteadyClock(ManualClock):
    """Its wall clock can be set to another time; its monotonic one cannot."""

    _offset = 0

    def now(self) -> int:
        return super().now() + self._offset

    def jump(self, seconds: float) -> None:
        self._offset += round(seconds * 1000)


async def run_of(durably: Durably, run_id: str) -> Run:
    """A run that there must be."""
    run = await durably.get_run(run_id)
    assert run is not None, f"there is no run {run_id}"
    return run


async def becomes(durably: Durably, run_id: str, status: str) -> Run:
    """The run once it has a status, and its worker is done with it, without the clock being moved."""
    async with asyncio.timeout(SECONDS):
        while (run := await run_of(durably, run_id)).status != status:
            assert not run.is_terminal, f"{run.status}, and never {status}: {run}"
            await asyncio.sleep(0)
    await settled()
    return run


async def settled() -> None:
    """Let everything happen that needs no clock, also on a database that takes its turns."""
    await turns(100)


async def move(world: World, seconds: float) -> None:
    """Move the clock on by so much at once, and let happen what is then due."""
    world.clock.advance(seconds)
    await settled()


def later(world: World, seconds: float) -> Instant:
    """The moment in so many seconds."""
    return instant(world.clock.now() + round(seconds * 1000))


async def step_of(durably: Durably, run_id: str, name: str) -> StepRecord:
    steps = {one.name: one for one in await durably.get_steps(run_id)}
    assert name in steps, f"no step {name!r} among {list(steps)}"
    return steps[name]


async def types_of(durably: Durably, run_id: str, prefixes: Iterable[str] = ("run:", "step:")) -> list[str]:
    """The types of the stored events of a terminal run, in order."""
    return [event.type async for event in durably.subscribe(run_id) if event.type.startswith(tuple(prefixes))]


async def taken_over(world: World, durably: Durably, *jobs: Job[Any, Any], **options: Any) -> Durably:
    """The engine dies where it is; another one begins when its leases have run out."""
    await world.crash(durably)
    await world.expire()
    return await world.started(*jobs, **options)
