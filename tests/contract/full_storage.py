"""A full disk delays runs and fails nothing: what was done is stored when there is room, and is not done again."""

from __future__ import annotations

import asyncio
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import StorageFull
from durably_web.jobs import job
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Executor
from durably_web.store.room import PROBE_SECONDS
from tests.contract import Backend
from tests.contract.faults import EXPECTED, INPUT, Life, _is_whole, _reference
from tests.support.executors import FullExecutor
from tests.support.scenes import LONG, Flaky, becomes, move, run_of, settled, types_of
from tests.support.world import Gate, Heard, World, bounded, raised


class Disk:
    """The executor of an engine, once it has one."""

    executor: FullExecutor

    def __call__(self, inner: Executor) -> Executor:
        self.executor = FullExecutor(inner)
        return self.executor

    def fill(self, *, stays: bool = True) -> None:
        self.executor.at, self.executor.count, self.executor.stays = 1, 0, stays


async def a_result_waits_for_room(backend: Backend) -> None:
    async with World(backend) as world:
        work, gate, disk = Flaky(world), Gate(), Disk()

        @job
        async def works(step: Step, input: dict[str, Any]) -> Any:
            await step.run("gate", gate.wait, None)
            return await step.run("work", work.work, input["value"], retry=Retry(max_attempts=2))

        durably = await world.started(works, through=disk, polling_interval=LONG)
        heard = Heard(durably)
        first = await durably.trigger(works, {"value": "kept"})
        await gate.reached()
        other = await durably.trigger(works, {"value": "later"}, delay=1)
        disk.fill()
        gate.open()
        await settled()
        assert [event.type for event in heard.of("storage:full", "storage:room")] == ["storage:full"]
        [event] = heard.of("storage:full")
        assert (event.error, event.seq, event.run_id) == ("StorageFull: no room left", None, None)
        assert (await durably.stats()).storage_full
        await raised(StorageFull, durably.trigger(works, {"value": "refused"}))
        refused = disk.executor.refused
        await move(world, PROBE_SECONDS)
        assert disk.executor.refused > refused, "it is tried whether there is room"
        await move(world, 20)
        assert (await run_of(durably, first.id)).status == "leased"
        assert (await run_of(durably, other.id)).status == "pending", "nothing is begun meanwhile"
        assert len(heard.of("storage:full")) == 1 and not heard.of("storage:room", "worker:error")
        disk.executor.room()
        await move(world, PROBE_SECONDS)
        assert (await becomes(durably, first.id, "completed")).output == "kept"
        assert (await becomes(durably, other.id, "completed")).output == "later"
        assert len(heard.of("storage:room")) == 1
        assert not (await durably.stats()).storage_full
        assert len(work.calls) == 2, "each step ran once"
        assert "step:retry" not in await types_of(durably, first.id)
        assert len(await durably.get_runs()) == 2, "what was refused is not there"


async def a_disk_that_fills_at_any_write_fails_nothing(backend: Backend) -> None:
    async with World(backend) as world:
        at, filled = 1, True
        while filled:
            life, disk = Life(), Disk()
            durably = await world.started(_reference(life), through=disk)
            handle = await durably.trigger("reference", INPUT)
            disk.executor.at, disk.executor.count = at, 0
            await world.advance(40)
            filled = disk.executor.refused > 0
            disk.executor.room()
            assert await world.drive(durably.output_of(handle.id), 2 * PROBE_SECONDS) == EXPECTED
            await _is_whole(world, durably, handle.id, life)
            assert set(life.ran.values()) == {1}, life.ran
            assert (await run_of(durably, handle.id)).attempt == 1
            await bounded(durably.stop())
            at += 1
        assert at > 10, f"only {at} writes"


async def runs_and_steps_beside_each_other_wait_too(backend: Backend) -> None:
    async with World(backend) as world:
        lives: dict[str, Life] = {str(number): Life() for number in range(5)}
        disk = Disk()

        @job(name="reference")
        async def reference(step: Step, input: dict[str, Any]) -> Any:
            return await _reference(lives[input["key"]]).fn(step, input)

        durably = await world.started(reference, through=disk)
        for at in (1, 3, 4, 7):
            for key in lives:
                lives[key] = Life()
            handles = [await durably.trigger(reference, INPUT | {"key": key}) for key in lives]
            disk.executor.at, disk.executor.count = at, 0
            await world.advance(12)
            assert (await durably.stats()).storage_full
            disk.executor.room()
            for key, handle in zip(lives, handles, strict=True):
                await world.drive(durably.output_of(handle.id), 2 * PROBE_SECONDS)
                await _is_whole(world, durably, handle.id, lives[key])
                assert set(lives[key].ran.values()) == {1}, (key, lives[key].ran)


async def deleting_makes_room_at_once(backend: Backend) -> None:
    async with World(backend) as world:
        work, gate, disk = Flaky(world), Gate(), Disk()

        @job
        async def works(step: Step, input: dict[str, Any]) -> Any:
            return await step.run("work", work.work, await gate.wait("kept"))

        @job
        async def old(step: Step, input: dict[str, Any]) -> None:
            pass

        durably = await world.started(works, old, through=disk, polling_interval=LONG)
        ended = await durably.trigger(old)
        await becomes(durably, ended.id, "completed")
        handle = await durably.trigger(works)
        await gate.reached()
        disk.fill(stays=False)
        gate.open()
        await settled()
        assert (await durably.stats()).storage_full
        await durably.delete_run(ended.id)
        assert (await becomes(durably, handle.id, "completed")).output == "kept"
        assert len(work.calls) == 1


async def a_run_goes_on_behind_what_was_stored_when_its_engine_died(backend: Backend) -> None:
    async with World(backend) as world:
        first, second, disk = Flaky(world), Flaky(world), Disk()

        @job
        async def works(step: Step, input: dict[str, Any]) -> Any:
            value = await step.run("first", first.work, 1)
            if not disk.executor.refused and not second.calls:
                disk.fill()
            return value + await step.run("second", second.work, 2)

        durably = await world.started(works, through=disk)
        handle = await durably.trigger(works)
        await second.called()
        await world.crash(durably)
        await world.expire()
        other = await world.started(works)
        assert (await becomes(other, handle.id, "completed")).output == 3
        assert (len(first.calls), len(second.calls)) == (1, 2)


async def an_engine_can_stop_while_the_disk_is_full(backend: Backend) -> None:
    async with World(backend) as world:
        work, gate, disk = Flaky(world), Gate(), Disk()

        @job
        async def works(step: Step, input: dict[str, Any]) -> Any:
            await step.run("gate", gate.wait, None)
            return await step.run("work", work.work)

        durably = await world.started(works, through=disk)
        handle = await durably.trigger(works)
        await gate.reached()
        disk.fill()
        gate.open()
        await settled()
        await bounded(durably.stop())
        disk.executor.room()
        await world.expire()
        await durably.init()
        assert (await becomes(durably, handle.id, "completed")).output == "done"
        assert not (await durably.stats()).storage_full


async def a_run_that_is_cancelled_meanwhile_stores_nothing_more(backend: Backend) -> None:
    async with World(backend) as world:
        work, gate, disk = Flaky(world), Gate(), Disk()

        @job
        async def works(step: Step, input: dict[str, Any]) -> Any:
            await step.run("gate", gate.wait, None)
            return await step.run("work", work.work)

        durably = await world.started(works, through=disk)
        handle = await durably.trigger(works)
        await gate.reached()
        disk.fill()
        gate.open()
        await settled()
        await raised(StorageFull, durably.cancel(handle.id))
        disk.executor.room()
        # What is small may fit where a result does not.
        await durably.cancel(handle.id)
        await move(world, PROBE_SECONDS)
        await becomes(durably, handle.id, "cancelled")
        assert not (await durably.stats()).storage_full
        await _goes_on(durably, works)


async def _goes_on(durably: Durably, works: Any) -> None:
    handle = await durably.trigger(works)
    assert (await becomes(durably, handle.id, "completed")).output == "done"


async def what_is_claimed_waits_too(backend: Backend) -> None:
    async with World(backend) as world:
        work, disk = Flaky(world), Disk()

        @job
        async def works(step: Step, input: dict[str, Any]) -> Any:
            return await step.run("work", work.work)

        durably = await world.started(works, through=disk)
        heard = Heard(durably)
        handle = await durably.trigger(works, delay=3)
        disk.fill()
        await world.advance(20)
        assert heard.types.count("storage:full") == 1 and "worker:error" not in heard.types, heard.types
        disk.executor.room()
        await world.advance(PROBE_SECONDS)
        assert (await becomes(durably, handle.id, "completed")).output == "done"
        await asyncio.sleep(0)
        assert heard.types.count("storage:room") == 1
