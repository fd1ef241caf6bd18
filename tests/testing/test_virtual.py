"""Time that passes at once, and engines that die."""

from __future__ import annotations

import asyncio
import datetime
import threading
from typing import Any

import pytest

from durably_web import Durably, Retry, RunFailed, Step, job
from durably_web.testing import NeverCame, Stuck, VirtualDurably, engine

DAY = datetime.timedelta(days=1)

called: list[str] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    called.clear()


def note(name: str) -> str:
    called.append(name)
    return name


async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    called.append("nap")
    return seconds


@job
async def remind(step: Step, input: dict[str, Any]) -> str:
    try:
        await step.run("first", note, "first")
        await step.sleep("wait", DAY)
        return await step.run("second", note, "second")
    finally:
        called.append("finally")


@job
async def note_time(step: Step, input: dict[str, Any]) -> str:
    return await step.run("note", note, "tick")


@job
async def sleeper(step: Step, input: dict[str, Any]) -> float:
    return await step.run("nap", nap, input["seconds"])


@job
async def approved(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("approval", timeout=3600)


@job
async def asked(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("approval")


@job
async def parent(step: Step, input: dict[str, Any]) -> Any:
    return [await step.call(remind), await step.trigger(remind, delay=60)]


# -- time ------------------------------------------------------------------------------------------------


async def test_time_stands_still_until_it_is_let_pass() -> None:
    async with engine(jobs=[remind]) as durably:
        begun = durably.now()
        run = await durably.trigger(remind)
        await durably.settle()
        assert called == ["first", "finally"] and durably.now() == begun
        await durably.advance(hours=23, minutes=59)
        assert called == ["first", "finally"]
        await durably.advance(60)
        assert called == ["first", "finally", "second", "finally"] and durably.now() == begun + DAY
        ended = await run.run()
        assert ended is not None and ended.output == "second" and ended.completed_at == begun + DAY


async def test_what_becomes_due_is_executed_at_its_moment_and_in_order() -> None:
    async with engine(jobs=[remind]) as durably:
        begun = durably.now()
        later = await durably.trigger(remind, delay=2 * DAY)
        sooner = await durably.trigger(remind, delay=DAY)
        await durably.advance(days=10)
        runs = [await sooner.run(), await later.run()]
        assert [run and run.completed_at for run in runs] == [begun + 2 * DAY, begun + 3 * DAY]
        assert durably.now() == begun + 10 * DAY


async def test_the_result_of_a_run_is_waited_for_in_no_time() -> None:
    async with engine(jobs=[remind]) as durably:
        run = await durably.trigger(remind)
        with pytest.raises(TimeoutError):
            await run.result(timeout=3600)
        begun = durably.now()
        assert await run.result() == "second"
        assert durably.now() - begun == DAY - datetime.timedelta(hours=1)


async def test_what_a_step_waits_for_is_virtual_too() -> None:
    @job
    async def bounded(step: Step, input: dict[str, Any]) -> float:
        async def hurry() -> float:
            async with asyncio.timeout(60):
                return await nap(3600)

        return await step.run("hurry", hurry)

    async with engine(jobs=[sleeper, bounded]) as durably:
        begun = durably.now()
        assert await durably.trigger_and_wait(sleeper, {"seconds": 3600}) == 3600
        assert durably.now() - begun == datetime.timedelta(hours=1)
        with pytest.raises(RunFailed, match="TimeoutError"):
            await durably.trigger_and_wait(bounded)
        assert durably.now() - begun == datetime.timedelta(hours=1, minutes=1)


async def test_a_time_out_of_a_step_comes_by_itself() -> None:
    @job
    async def hangs(step: Step, input: dict[str, Any]) -> None:
        await step.run("hang", asyncio.Event().wait, timeout=30, retry=Retry(max_attempts=3, initial_delay=600))

    async with engine(jobs=[hangs]) as durably:
        with pytest.raises(RunFailed, match="took longer than 30 s"):
            await durably.trigger_and_wait(hangs)


async def test_a_thread_is_waited_for() -> None:
    gate, entered = threading.Event(), threading.Event()

    def wait() -> bool:
        entered.set()
        return gate.wait(20)

    @job
    async def waits(step: Step, input: dict[str, Any]) -> bool:
        return await step.run("wait", wait, timeout=60)

    def open_gate() -> None:
        assert entered.wait(20)
        gate.set()

    other = threading.Thread(target=open_gate)
    other.start()
    async with engine(jobs=[waits]) as durably:
        assert await durably.trigger_and_wait(waits) is True
    other.join(20)


async def test_a_signal_ends_a_wait_and_time_ends_another() -> None:
    async with engine(jobs=[approved]) as durably:
        one, other = await durably.trigger(approved), await durably.trigger(approved)
        await durably.settle()
        await durably.signal(one.id, "approval", {"by": "ada"})
        assert await one.result() == {"by": "ada"}
        with pytest.raises(RunFailed, match="SignalTimeout"):
            await other.result()


async def test_a_run_that_time_does_not_wake_is_stuck() -> None:
    async with engine(jobs=[asked]) as durably:
        run = await durably.trigger(asked)
        with pytest.raises(Stuck, match="waits for signal approval, which nobody sends"):
            await run.result()


async def test_a_step_that_hangs_is_stuck() -> None:
    @job
    async def hangs(step: Step, input: dict[str, Any]) -> None:
        await step.run("hang", asyncio.Event().wait)

    async with engine(jobs=[hangs], patience=0.05) as durably:
        await durably.trigger(hangs)
        with pytest.raises(Stuck, match=r"step 'hang' of run .* \(job 'hangs'\) waits for something"):
            await durably.settle()


async def test_children_go_on_in_time() -> None:
    async with engine(jobs=[parent, remind]) as durably:
        run = await durably.trigger(parent)
        output = await run.result()
        assert output[0] == "second"
        await durably.advance(days=3)
        assert {one.status for one in await durably.get_runs()} == {"completed"}


async def test_schedules_come_at_their_moments() -> None:
    async with engine(jobs=[note_time]) as durably:
        begun = durably.now()
        await durably.schedule(note_time, every=3600)
        await durably.advance(hours=3)
        runs = await durably.get_runs(job=note_time)
        assert [run.scheduled_at for run in reversed(runs)] == [
            begun + datetime.timedelta(hours=hour) for hour in (1, 2, 3)
        ]
        assert {run.completed_at for run in runs} == {run.scheduled_at for run in runs}


async def test_ids_are_the_same_each_time_and_others_by_another_seed() -> None:
    ids = []
    for seed in (1, 1, 2):
        async with engine(jobs=[remind], seed=seed) as durably:
            ids.append((await durably.trigger(remind)).id)
    assert ids[0] == ids[1] != ids[2]


async def test_the_loop_is_as_before() -> None:
    loop = asyncio.get_running_loop()
    before = dict(vars(loop))
    async with engine(jobs=[remind]) as one, engine(jobs=[sleeper]) as other:
        assert await one.trigger_and_wait(remind) == "second"
        assert await other.trigger_and_wait(sleeper, {"seconds": 1}) == 1
        # The test's own time is real.
        assert await asyncio.wait_for(asyncio.sleep(0, "done"), 20) == "done"
    assert dict(vars(loop)).keys() == before.keys()


# -- crashes ---------------------------------------------------------------------------------------------


async def test_a_crash_around_an_undo() -> None:
    @job
    async def trip(step: Step, input: dict[str, Any]) -> None:
        await step.run("hotel", note, "hotel", undo=lambda booked: note(f"-{booked}"))
        raise ValueError("no flight")

    for crash, calls in (("crash_before", 1), ("crash_during", 2), ("crash_after", 1)):
        called.clear()
        async with engine(jobs=[trip]) as durably:
            run = await durably.trigger(trip, {})
            getattr(durably, crash)("hotel#undo")
            with pytest.raises(RunFailed, match="no flight"):
                await run.result()
            assert called == ["hotel", *["-hotel"] * calls]


async def test_a_crash_before_during_and_after_a_step() -> None:
    for crash, calls in (("crash_before", 1), ("crash_during", 2), ("crash_after", 1)):
        called.clear()
        async with engine(jobs=[remind]) as durably:
            getattr(durably, crash)("first")
            run = await durably.trigger(remind)
            await durably.settle()
            assert called.count("first") == calls and len(durably.crashes) == 1
            # No `finally` of the dead one is run: only that of the execution which was suspended.
            assert called.count("finally") == 1
            assert await run.result() == "second"
            ended = await run.run()
            assert ended is not None and ended.attempt == 3


async def test_one_of_many_dies_too() -> None:
    @job
    async def several(step: Step, input: dict[str, Any]) -> list[str]:
        return await step.map("note", note, ["a", "b", "c"])

    async with engine(jobs=[several]) as durably:
        durably.crash_before("note[1]")
        assert await durably.trigger_and_wait(several) == ["a", "b", "c"]
        assert durably.crashes == ["before step 'note[1]'"]


async def test_nothing_of_a_dead_engine_goes_on() -> None:
    @job
    async def beside(step: Step, input: dict[str, Any]) -> list[Any]:
        return list(await asyncio.gather(step.run("long", nap, 60), step.run("short", note, "short")))

    async with engine(jobs=[beside]) as durably:
        durably.crash_after("short")
        assert await durably.trigger_and_wait(beside) == [60, "short"]
        # Otherwise the nap of the dead one would have ended as well.
        assert called == ["short", "nap"]


async def test_a_crash_while_a_run_sleeps() -> None:
    async with engine(jobs=[remind]) as durably:
        heard: list[str] = []
        durably.on("run:complete", lambda event: heard.append(event.type))
        run = await durably.trigger(remind)
        await durably.advance(hours=5)
        await durably.crash()
        await durably.advance(hours=19)
        assert await run.result() == "second"
        assert called.count("first") == 1 and heard == ["run:complete"]


async def test_a_crash_that_never_comes_is_told() -> None:
    with pytest.raises(NeverCame, match="after step 'frist'"):
        async with engine(jobs=[remind]) as durably:
            durably.crash_after("frist")
            await durably.trigger_and_wait(remind)


async def test_an_engine_that_was_not_entered_says_so() -> None:
    durably = VirtualDurably(jobs=[remind])
    with pytest.raises(RuntimeError, match="async with"):
        await durably.settle()
    with pytest.raises(ValueError, match="time does not go back"):
        async with durably:
            await durably.advance(hours=-1)
    assert isinstance(durably, Durably)
