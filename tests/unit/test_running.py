"""Before code of a run is run, it is told whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from durably_web import Durably, ManualClock, Step, job
from durably_web.running import Running
from tests.support.world import Gate, bounded, turns, until


class Bridge:
    """What JavaScript knows. `spin` is a step's code that would hang: it writes down who would be to blame."""

    def __init__(self) -> None:
        self.told: list[str | None] = []
        self.blamed: list[tuple[str, str | None]] = []

    def running(self, run_id: str | None) -> None:
        self.told.append(run_id)

    def spin(self, run_id: str) -> None:
        self.blamed.append((run_id, self.told[-1]))

    @property
    def is_right(self) -> bool:
        return bool(self.blamed) and all(guilty == told for guilty, told in self.blamed)


@pytest.fixture
def bridge() -> Bridge:
    return Bridge()


@pytest.fixture
async def make(bridge: Bridge) -> AsyncIterator[Callable[..., Any]]:
    engines: list[Durably] = []

    async def make(*jobs: Any) -> Durably:
        watching = Running(bridge.running)
        watching.watch_branches(asyncio.get_running_loop())
        durably = Durably(":memory:", jobs=jobs, clock=ManualClock())
        durably.watch_executions(watching.watch)
        await durably.init()
        engines.append(durably)
        return durably

    yield make
    for durably in engines:
        await bounded(durably.stop())


async def test_of_runs_that_interleave_the_last_one_told_is_the_one_that_runs(
    bridge: Bridge, make: Callable[..., Any]
) -> None:
    async def work(step: Step, number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)
        bridge.spin(step.run_id)

    @job
    async def interleaves(step: Step, input: dict[str, Any]) -> None:
        for number in range(5):
            bridge.spin(step.run_id)
            await step.run("work", work, step, number)

    durably = await make(interleaves)
    handles = [await durably.trigger(interleaves) for _ in range(3)]
    for handle in handles:
        await bounded(handle.result())
    assert bridge.is_right, bridge.blamed
    assert len(bridge.blamed) == 30
    assert set(bridge.told) == {None, *[handle.id for handle in handles]}
    switches = [one for one, after in zip(bridge.told, bridge.told[1:], strict=False) if one == after]
    assert switches == [], "a run is told when it is another one"


async def test_branches_are_told_of(bridge: Bridge, make: Callable[..., Any]) -> None:
    """Of gather, map, task groups, and of tasks that a job makes itself."""

    async def work(run_id: str, number: int) -> int:
        for _ in range(number):
            await asyncio.sleep(0)
        bridge.spin(run_id)
        return number

    @job
    async def branches(step: Step, input: dict[str, Any]) -> None:
        async def branch(number: int) -> None:
            await step.run(f"branch {number}", work, step.run_id, number)
            await asyncio.sleep(0)
            bridge.spin(step.run_id)

        await asyncio.gather(*[branch(number) for number in range(4)])
        await step.map("map", lambda number: work(step.run_id, number), [3, 1, 2])
        async with asyncio.TaskGroup() as group:
            for number in range(4, 7):
                group.create_task(branch(number), name="mine")

    durably = await make(branches)
    handles = [await durably.trigger(branches) for _ in range(2)]
    for handle in handles:
        await bounded(handle.result())
    assert bridge.is_right and len(bridge.blamed) == 2 * (4 * 2 + 3 + 3 * 2)
    assert set(bridge.told) == {None, *[handle.id for handle in handles]}


async def test_one_run_alone_is_told_once_and_its_end(bridge: Bridge, make: Callable[..., Any]) -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    @job
    async def alone(step: Step, input: dict[str, Any]) -> None:
        for _ in range(50):
            await step.run("work", work)

    durably = await make(alone)
    handle = await durably.trigger(alone)
    await bounded(handle.result())
    assert bridge.told == [handle.id, None]


async def test_a_cancelled_run_is_told_of_before_it_cleans_up(bridge: Bridge, make: Callable[..., Any]) -> None:
    gate = Gate()
    quick = Gate()

    @job
    async def cleans_up(step: Step, input: dict[str, Any]) -> None:
        async def work() -> None:
            try:
                await gate.wait(None)
            finally:
                bridge.spin(step.run_id)

        await step.run("work", work)

    @job
    async def other(step: Step, input: dict[str, Any]) -> None:
        await step.run("work", quick.wait, None)

    durably = await make(cleans_up, other)
    first = await durably.trigger(cleans_up)
    await gate.reached()
    second = await durably.trigger(other)
    await quick.reached()
    assert bridge.told == [first.id, second.id]
    await first.cancel()
    await until(lambda: bridge.blamed)
    assert bridge.is_right and bridge.told == [first.id, second.id, first.id, None]
    quick.open()
    await bounded(second.result())


async def test_what_belongs_to_no_run_is_left_alone(bridge: Bridge, make: Callable[..., Any]) -> None:
    @job
    async def quick(step: Step, input: dict[str, Any]) -> None:
        await step.run("work", turns, 1)

    durably = await make(quick)
    handle = await durably.trigger(quick)
    await bounded(handle.result())

    async def mine() -> str:
        await asyncio.sleep(0)
        return "mine"

    assert await asyncio.create_task(mine(), name="mine") == "mine"
    with pytest.raises(TypeError):
        asyncio.get_running_loop().create_task("no coroutine")  # type: ignore[arg-type]
    assert bridge.told == [handle.id, None]
