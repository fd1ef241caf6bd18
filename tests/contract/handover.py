"""Runs that go on in another database: with what they have stored, whatever they wait for, there and back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import Conflict, NotFound, RunCancelled
from durably_web.jobs import Job, job
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend, needs
from tests.support.executors import HeldExecutor
from tests.support.scenes import LONG, move, run_of, settled, step_of
from tests.support.two import Two, Way, owners, refused
from tests.support.world import Gate, Heard, World, bounded, raised, turns

THERE = "https://there.example/api"


class Calls:
    """The functions of steps: which of them ran, where."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {}
        self.where = "here"
        self.gate = Gate()

    async def do(self, name: str, value: Any = None) -> Any:
        self.of.setdefault(name, []).append(self.where)
        return name if value is None else value

    async def fail_once(self, name: str) -> str:
        await self.do(name)
        if len(self.of[name]) == 1:
            raise OSError("not yet")
        return name

    async def fail(self, name: str) -> None:
        await self.do(name)
        raise OSError("never")

    async def stop_here(self, name: str) -> str:
        await self.do(name)
        return await self.gate.wait(name)


def _job(code: Callable[[Step, Calls], Awaitable[Any]], calls: Calls, **options: Any) -> Job[Any, Any]:
    """A job called `work`, with some code."""

    @job(name="work", **options)
    async def work(step: Step, input: dict[str, Any]) -> Any:
        return await code(step, calls)

    return work


async def _moved(two: Two, source: Durably, target: Durably, run_id: str, calls: Calls) -> str:
    """Handed over by texts, as between processes."""
    handover = await bounded(source.hand_over(run_id, Way(target), target=THERE))
    calls.where = "there" if calls.where == "here" else "here"
    assert len(await owners(two, run_id)) == 1
    return handover


# -- what goes along ---------------------------------------------------------------------------------------


async def _three(step: Step, calls: Calls) -> Any:
    step.log.info("begun", at=1.0)
    first = await step.run("first", calls.do, "first", (1, Decimal("2.50"), 1.0, 2**60))
    step.progress(1, 3, "one")
    await step.run("loop", calls.do, "loop")
    await step.run("loop", calls.do, "loop#2")
    payload = await step.wait_for_signal("go")
    last = await step.run("last", calls.do, "last")
    return [list(first), [type(one).__name__ for one in first], payload, last]


@needs("another")
async def a_run_goes_on_elsewhere_with_all_that_is_stored_of_it(backend: Backend) -> None:
    async with Two(backend) as two:
        calls = Calls()
        here = await two.here.engine(_job(_three, calls))
        there = await two.there.engine(_job(_three, calls))
        heard, heard_there = Heard(here, "run:handover"), Heard(there, "run:handover")
        options: Any = {"labels": {"org": "ü"}, "priority": 3, "idempotency_key": "once"}
        run_id = (await here.trigger("work", {"text": "a"}, **options)).id
        await bounded(here.process_until_idle())
        before = await run_of(here, run_id)
        handover = await _moved(two, here, there, run_id, calls)
        gone = await run_of(here, run_id)
        assert (gone.status, gone.error) == ("cancelled", f"handed over to {THERE}")
        assert [one.data["state"] for one in heard.events if one.data] == ["offered", "given"]
        assert [one.data for one in heard_there.events] == [{"state": "taken", "handover": handover, "target": THERE}]
        arrived = await run_of(there, run_id)
        kept = ("id", "job_name", "input", "labels", "priority", "idempotency_key", "attempt", "created_at")
        for name in (*kept, "status", "progress", "started_at", "step_count", "paused", "wake_at"):
            assert getattr(arrived, name) == getattr(before, name), name
        assert await there.get_steps(run_id) == await here.get_steps(run_id)
        assert await there.get_logs(run_id) == await here.get_logs(run_id)
        await there.signal(run_id, "go", 7)
        await bounded(there.process_until_idle())
        values, kinds = [1, Decimal("2.50"), 1.0, 2**60], ["int", "Decimal", "float", "int"]
        done = await run_of(there, run_id)
        assert done.output == [values, kinds, 7, "last"], done
        assert calls.of == {
            "first": ["here"], "loop": ["here"], "loop#2": ["here"], "last": ["there"]
        }  # fmt: skip
        events = [event async for event in there.subscribe(run_id)]
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        told = [event.type for event in await _all(here, run_id)]
        assert told == [event.type for event in events[: len(told)]]
        assert "run:complete" in [event.type for event in events]
        # Asked for once more with its key, it is the one that is here.
        assert (await there.trigger("work", {}, idempotency_key="once")).id == run_id


async def _all(durably: Durably, run_id: str) -> list[Any]:
    return [event async for event in durably.subscribe(run_id)]


@needs("another")
async def what_was_given_is_nobodys_to_change_where_it_was(backend: Backend) -> None:
    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.engine(_job(_three, calls)), await two.there.engine(_job(_three, calls))
        run_id = (await here.trigger("work", {})).id
        await bounded(here.process_until_idle())
        offer = await here.offer_run(run_id, THERE)
        offered = await run_of(here, run_id)
        assert (offered.status, offered.paused, offered.wake_at) == ("waiting", True, None)
        for refuse in (here.cancel, here.pause, here.resume, lambda run_id: here.signal(run_id, "go")):
            assert "offered to another database" in await refused(refuse(run_id))
        for refuse in (here.retry, here.delete_run):
            assert await refused(refuse(run_id))
        assert await here.resume_runs(job="work") == 0 and await here.cancel_runs(job="work") == 0
        assert await bounded(here.process_until_idle()) == 0
        await there.import_run(offer.document)
        await here.confirm_handover(run_id, offer.handover_id)
        for refuse in (here.cancel, here.pause, here.resume, here.retry, lambda run_id: here.signal(run_id, "go")):
            assert run_id in await refused(refuse(run_id))
        assert "handed over" in await refused(here.retry(run_id))
        assert await here.retry_runs(job="work") == 0
        assert THERE in str(await raised(RunCancelled, here.output_of(run_id)))
        assert "withdrawn: it is given already" in await refused(here.withdraw_handover(run_id, offer.handover_id))
        assert await bounded(here.process_until_idle()) == 0
        # A new run like it may be asked for, as of any that has ended.
        assert (await here.retrigger(run_id)).id != run_id
        await here.delete_run(run_id)
        assert "was deleted" in await refused(here.import_run((await there.offer_run(run_id, "back")).document))


@needs("another")
async def a_run_that_is_executed_finishes_its_step_first(backend: Backend) -> None:
    async def code(step: Step, calls: Calls) -> Any:
        return [await step.run("one", calls.stop_here, "one"), await step.run("two", calls.do, "two")]

    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.started(_job(code, calls)), await two.there.engine(_job(code, calls))
        run_id = (await here.trigger("work", {})).id
        await calls.gate.reached()
        moving = asyncio.ensure_future(_moved(two, here, there, run_id, calls))
        await settled()
        assert not moving.done()
        calls.gate.open()
        await bounded(moving)
        assert not (await run_of(there, run_id)).paused
        await bounded(there.process_until_idle())
        assert (await run_of(there, run_id)).output == ["one", "two"]
        assert calls.of == {"one": ["here"], "two": ["there"]}


@needs("another")
async def a_step_that_takes_too_long_keeps_its_run(backend: Backend) -> None:
    async def code(step: Step, calls: Calls) -> Any:
        return [await step.run("one", calls.stop_here, "one"), await step.run("two", calls.do, "two")]

    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.started(_job(code, calls)), await two.there.engine(_job(code, calls))
        run_id = (await here.trigger("work", {})).id
        await calls.gate.reached()
        await raised(TimeoutError, here.hand_over(run_id, there, timeout=0.001))
        assert not (await run_of(here, run_id)).paused
        assert await owners(two, run_id) == ["here"]
        calls.gate.open()
        await two.advance(2)
        assert (await run_of(here, run_id)).output == ["one", "two"]
        assert calls.of == {"one": ["here"], "two": ["here"]}


# -- whatever it waits for -----------------------------------------------------------------------------------


async def _sleeps(step: Step, calls: Calls) -> Any:
    await step.run("before", calls.do, "before")
    await step.sleep("nap", 60)
    return await step.run("after", calls.do, "after")


async def _listens(step: Step, calls: Calls) -> Any:
    await step.run("before", calls.do, "before")
    return [await step.wait_for_signal("go", timeout=60), await step.run("after", calls.do, "after")]


async def _tries_again(step: Step, calls: Calls) -> Any:
    retry = Retry(max_attempts=3, initial_delay=60, jitter=False)
    return [await step.run("flaky", calls.fail_once, "flaky", retry=retry), await step.run("after", calls.do, "after")]


async def _in_parallel(step: Step, calls: Calls) -> Any:
    async def branch(name: str, seconds: float) -> str:
        await step.run(f"{name} before", calls.do, f"{name} before")
        await step.sleep(f"{name} nap", seconds)
        return str(await step.run(f"{name} after", calls.do, f"{name} after"))

    return await asyncio.gather(branch("a", 60), branch("b", 50), branch("c", 61))


async def _fails_once(step: Step, calls: Calls) -> Any:
    await step.run("before", calls.do, "before")
    return await step.run("flaky", calls.fail_once, "flaky")


@needs("another")
async def what_waits_goes_on_where_and_when_it_would_have(backend: Backend) -> None:
    job_retry = {"retry": Retry(max_attempts=3, initial_delay=60, jitter=False)}
    table: list[tuple[Any, dict[str, Any], dict[str, Any], list[str]]] = [
        (_sleeps, {}, {}, ["before"]),
        (_listens, {}, {}, ["before"]),
        (_tries_again, {}, {}, ["flaky"]),
        (_in_parallel, {}, {}, ["a before", "b before", "c before"]),
        (_fails_once, job_retry, {}, ["before", "flaky"]),
        (_sleeps, {}, {"delay": 60}, []),
        (_sleeps, {}, {"concurrency_key": "k"}, ["before"]),
    ]
    for code, options, asked, done in table:
        async with Two(backend) as two:
            calls = Calls()
            here = await two.here.started(_job(code, calls, **options), polling_interval=LONG)
            there = await two.there.started(_job(code, calls, **options), polling_interval=LONG)
            run_id = (await here.trigger("work", {"n": 1}, **asked)).id
            await settled()
            before = await run_of(here, run_id)
            assert list(calls.of) == done, code
            await move(two.here, 20)
            await _moved(two, here, there, run_id, calls)
            arrived = await run_of(there, run_id)
            assert (arrived.status, arrived.wake_at) == (before.status, before.wake_at), (code, arrived)
            await move(two.here, 39)
            assert (await run_of(there, run_id)).status == before.status, code
            if code is _listens:
                await there.signal(run_id, "go", "came")
            await move(two.here, 2)
            if asked.get("delay"):
                await move(two.here, 60)
            elif code is _in_parallel:
                await move(two.here, 1)
            run = await run_of(there, run_id)
            assert run.status == "completed", (code, run, await there.get_steps(run_id))
            places = {name: calls.of[name] for name in done}
            flaky = ["here", "there"]
            assert places == {name: flaky if name == "flaky" else ["here"] for name in done}, (code, places)
            await two.there.check()
            for world in (two.here, two.there):
                await _emptied(world)


async def _emptied(world: World) -> None:
    """For the next in the table, which has the same two databases."""
    for durably, _ in world._engines:
        for run in await durably.get_runs():
            await durably.delete_run(run.id)


@needs("another")
async def signals_come_along_and_each_is_one(backend: Backend) -> None:
    async def code(step: Step, calls: Calls) -> Any:
        await step.run("before", calls.do, "before")
        first = await step.wait_for_signal("go")
        await step.sleep("nap", 60)
        return [first, await step.wait_for_signal("go"), await step.wait_for_signal("other")]

    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.engine(_job(code, calls)), await two.there.engine(_job(code, calls))
        run_id = (await here.trigger("work", {})).id
        again = here._make_id()
        await here.signal(run_id, "go", 1)
        await here.signal(run_id, "go", 2, request_id=again)
        await bounded(here.process_until_idle())
        await _moved(two, here, there, run_id, calls)
        # Whoever sent it before has had no answer.
        await there.signal(run_id, "go", 2, request_id=again)
        await there.signal(run_id, "other", 3)
        await two.advance(61)
        await bounded(there.process_until_idle())
        assert (await run_of(there, run_id)).output == [1, 2, 3]


@needs("another")
async def a_paused_run_arrives_paused(backend: Backend) -> None:
    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.engine(_job(_sleeps, calls)), await two.there.engine(_job(_sleeps, calls))
        run_id = (await here.trigger("work", {})).id
        await here.pause(run_id)
        await _moved(two, here, there, run_id, calls)
        assert await bounded(there.process_until_idle()) == 0
        await there.resume(run_id)
        assert await bounded(there.process_until_idle()) == 1


@needs("another")
async def a_pause_outlasts_a_handover(backend: Backend) -> None:
    """Whether somebody asks for it before, or while the current step is waited for."""

    async def code(step: Step, calls: Calls) -> Any:
        return [await step.run("one", calls.stop_here, "one"), await step.run("two", calls.do, "two")]

    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.started(_job(code, calls)), await two.there.engine(_job(code, calls))
        runs = [(await here.trigger("work", {})).id for _ in range(4)]
        await calls.gate.reached(4)
        await here.pause(runs[0])
        moving = [asyncio.ensure_future(here.hand_over(run_id, there, target=THERE)) for run_id in runs[:3]]
        await settled()
        await here.pause(runs[1])
        # It is over here before it is offered: the pause is not.
        await here.pause(runs[3])
        await raised(TimeoutError, here.hand_over(runs[3], there, timeout=0.001))
        assert (await run_of(here, runs[3])).paused
        calls.gate.open()
        await bounded(asyncio.gather(*moving))
        assert [(await run_of(there, run_id)).paused for run_id in runs[:3]] == [True, True, False]
        assert await bounded(there.process_until_idle()) == 1
        await there.resume_runs(job="work")
        assert await bounded(there.process_until_idle()) == 2


@needs("another")
async def one_that_is_held_can_be_paused_and_resumed_with_others(backend: Backend) -> None:
    async def code(step: Step, calls: Calls) -> Any:
        return [await step.run("one", calls.stop_here, "one"), await step.run("two", calls.do, "two")]

    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.started(_job(code, calls)), await two.there.engine(_job(code, calls))
        run_id = (await here.trigger("work", {})).id
        await calls.gate.reached()
        moving = asyncio.ensure_future(here.hand_over(run_id, there, target=THERE))
        await settled()
        assert await here.resume_runs(job="work") == 1
        assert not (await run_of(here, run_id)).paused
        assert await here.pause_runs(job="work") == 1
        calls.gate.open()
        await bounded(moving)
        assert (await run_of(there, run_id)).paused


@needs("another")
async def an_offer_that_was_stored_is_told_though_its_time_is_over(backend: Backend) -> None:
    async with Two(backend) as two:
        calls, held = Calls(), []

        def through(inner: Executor) -> Executor:
            held.append(HeldExecutor(inner))
            return held[0]

        here = await two.here.engine(_job(_many, calls), through=through)
        there = await two.there.engine(_job(_many, calls))
        run_id = (await here.trigger("work", {})).id
        await turns()
        held[0].hold()
        offering = asyncio.ensure_future(here.offer_run(run_id, THERE, timeout=0))
        await turns()
        held[0].release()
        offer = await bounded(offering)
        assert offer.document is not None and await owners(two, run_id) == []
        await there.import_run(offer.document)
        await here.confirm_handover(run_id, offer.handover_id)


@needs("another")
async def a_run_that_is_being_undone_is_undone_to_its_end_elsewhere(backend: Backend) -> None:
    async def code(step: Step, calls: Calls) -> Any:
        for name in ("one", "two", "three"):
            undo = calls.fail_once if name == "two" else calls.do
            await step.run(name, calls.do, name, undo=lambda value, undo=undo: undo(f"undo {value}"))
        await step.wait_for_signal("go")

    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.engine(_job(code, calls)), await two.there.engine(_job(code, calls))
        run_id = (await here.trigger("work", {})).id
        await bounded(here.process_until_idle())
        await here.cancel(run_id)
        assert (await run_of(here, run_id)).undoing == "cancelled"
        await _moved(two, here, there, run_id, calls)
        assert (await run_of(there, run_id)).undoing == "cancelled"
        assert (await run_of(here, run_id)).undoing is None
        await bounded(there.process_until_idle())
        run = await run_of(there, run_id)
        assert run.status == "cancelled" and run.error is not None and "undo" in str(calls.of), run
        assert calls.of["undo three"] == calls.of["undo one"] == ["there"], calls.of
        assert (await step_of(there, run_id, "three")).status == "undone"


@needs("another")
async def keys_hold_on_either_side(backend: Backend) -> None:
    """A run that was offered keeps its key until it is given; one that arrives takes its place behind the holder."""
    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.engine(_job(_listens, calls)), await two.there.engine(_job(_listens, calls))
        keyed: Any = {"concurrency_key": "k", "coalesce": "queue"}
        first = (await here.trigger("work", {"n": 1}, **keyed)).id
        second = (await here.trigger("work", {"n": 2}, **keyed)).id
        await bounded(here.process_until_idle())
        other = (await there.trigger("work", {"n": 3}, **keyed)).id
        await bounded(there.process_until_idle())
        offer = await here.offer_run(first, THERE)
        assert await bounded(here.process_until_idle()) == 0, "the second waits for what becomes of the first"
        await there.import_run(offer.document)
        await here.confirm_handover(first, offer.handover_id)
        assert await bounded(here.process_until_idle()) == 1
        assert (await run_of(here, second)).status == "waiting"
        await there.signal(first, "go", 1)
        assert await bounded(there.process_until_idle()) == 0, "another run holds the key there"
        await there.signal(other, "go", 1)
        await bounded(there.process_until_idle())
        assert [(await run_of(there, one)).status for one in (first, other)] == ["completed", "completed"]
        # One that has not begun lets others pass while it is offered.
        third, fourth = [(await there.trigger("work", {"n": n}, **keyed)).id for n in (4, 5)]
        offer = await there.offer_run(third, "here")
        assert await bounded(there.process_until_idle()) == 1
        assert (await run_of(there, fourth)).attempt == 1
        await there.withdraw_handover(third, offer.handover_id)
        assert await bounded(there.process_until_idle()) == 0
        for one in (fourth, third):
            await there.signal(one, "go", 1)
            await bounded(there.process_until_idle())
            await there.signal(one, "go", 1) if not (await run_of(there, one)).is_terminal else None
        await bounded(there.process_until_idle())
        assert [(await run_of(there, one)).status for one in (third, fourth)] == ["completed", "completed"]
        await here.cancel(second)


@needs("another")
async def a_scheduled_run_goes_along_with_its_tick_and_its_schedule_stays(backend: Backend) -> None:
    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.engine(_job(_listens, calls)), await two.there.engine(_job(_listens, calls))
        for durably in (here, there):
            await durably.schedule("work", name="hourly", every=3600, overlap="allow")
        await two.advance(
            3601,
        )
        await bounded(here.process_until_idle())
        [run] = await here.get_runs()
        await _moved(two, here, there, run.id, calls)
        arrived = await run_of(there, run.id)
        assert (arrived.schedule, arrived.scheduled_at) == ("hourly", run.scheduled_at)
        assert (await here.get_schedule("hourly")) is not None
        # The tick has its run there now.
        await bounded(there.process_until_idle())
        assert [one.id for one in await there.get_runs()] == [run.id]
        # And where it has one already, the same tick's run of elsewhere does not come in.
        await two.advance(3600)
        for durably in (here, there):
            await bounded(durably.process_until_idle())
        newest = (await here.get_runs())[0]
        why = await refused(bounded(here.hand_over(newest.id, there)))
        assert "same tick of the schedule 'hourly'" in why and await owners(two, newest.id) == ["here"]


# -- families ------------------------------------------------------------------------------------------------


@needs("another")
async def a_run_moves_without_those_it_started_and_only_when_they_are_over(backend: Backend) -> None:
    calls = Calls()

    @job
    async def child(step: Step, input: dict[str, Any]) -> Any:
        return [await step.wait_for_signal("go"), await step.run("child", calls.do, "child")]

    @job
    async def work(step: Step, input: dict[str, Any]) -> Any:
        called = await step.call(child, {})
        started = await step.trigger(child, {})
        await step.wait_for_signal("on")
        return [called, await step.run("last", calls.do, "last"), started]

    async with Two(backend) as two:
        here, there = await two.here.engine(work, child), await two.there.engine(work, child)
        parent = (await here.trigger(work, {})).id
        await bounded(here.process_until_idle())
        [called] = await here.get_runs(job="child")
        assert f"has started run {called.id}" in await refused(here.hand_over(parent, there))
        assert f"was started by run {parent}" in await refused(here.hand_over(called.id, there))
        await here.signal(called.id, "go", 1)
        assert await bounded(here.process_until_idle(max_runs=1)) == 1
        assert "has called a run in step 'child'" in await refused(here.hand_over(parent, there))
        await bounded(here.process_until_idle())
        started = (await here.get_runs(job="child"))[0]
        assert f"has started run {started.id}" in await refused(here.hand_over(parent, there))
        await here.signal(started.id, "go", 2)
        await bounded(here.process_until_idle())
        await _moved(two, here, there, parent, calls)
        await there.signal(parent, "on")
        await bounded(there.process_until_idle())
        assert (await run_of(there, parent)).output == [[1, "child"], "last", started.id]
        assert calls.of == {"child": ["here", "here"], "last": ["there"]}
        # What it has started belongs to nobody now, and can go too.
        assert (await here.get_runs(job="child"))[0].status == "completed"


# -- there and back --------------------------------------------------------------------------------------------


async def _many(step: Step, calls: Calls) -> Any:
    got = []
    for number in range(6):
        got.append(await step.run("step", calls.do, f"step {number}"))
        step.log.info("did", number=number)
        got.append(await step.wait_for_signal(f"go {number}"))
    return got


@needs("another")
async def there_and_back_and_there_again(backend: Backend) -> None:
    async with Two(backend) as two:
        calls = Calls()
        engines = [await two.here.engine(_job(_many, calls)), await two.there.engine(_job(_many, calls))]
        run_id = (await engines[0].trigger("work", {}, labels={"a": "b"})).id
        seen: list[dict[int, int]] = [{}, {}]
        for number in range(6):
            now, then = engines[number % 2], engines[1 - number % 2]
            await bounded(now.process_until_idle())
            await now.signal(run_id, f"go {number}", number)
            await _moved(two, now, then, run_id, calls)
            # An entry, once it has been seen, keeps its place; and what comes behind is found behind it.
            for durably, known in zip(engines, seen, strict=True):
                last = max(known, default=0)
                for event in (await durably.get_events(run_id, after=last)).events:
                    assert event.seq not in known and event.number == len(known) + 1, (event, known)
                    known[event.seq or 0] = event.number or 0
            await two.here.check()
            await two.there.check()
        await bounded(engines[0].process_until_idle())
        assert (await run_of(engines[0], run_id)).output == [
            one for number in range(6) for one in (f"step {number}", number)
        ]
        assert calls.of == {f"step {number}": [("here", "there")[number % 2]] for number in range(6)}
        assert [one.data["number"] for one in await engines[0].get_logs(run_id)] == list(range(6))
        assert await owners(two, run_id) == ["here"]


@needs("another")
async def a_run_that_went_on_is_not_taken_a_second_time(backend: Backend) -> None:
    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.engine(_job(_many, calls)), await two.there.engine(_job(_many, calls))
        run_id = (await here.trigger("work", {})).id
        await bounded(here.process_until_idle())
        first = await here.offer_run(run_id, THERE)
        assert await here.offer_run(run_id, THERE) == first, "the same offer"
        assert "is offered to" in await refused(here.offer_run(run_id, "https://elsewhere.example"))
        # Not where it is: it is offered there, and not given.
        assert "is here already" in await refused(here.import_run(first.document))
        for _ in range(3):
            assert (await there.import_run(first.document)).id == run_id
        await here.confirm_handover(run_id, first.handover_id)
        await here.confirm_handover(run_id, first.handover_id)
        again = await here.offer_run(run_id, THERE)
        assert (again.state, again.document, again.handover_id) == ("given", None, first.handover_id)
        await bounded(there.process_until_idle())
        await there.signal(run_id, "go 0", 0)
        await bounded(there.process_until_idle())
        assert (await there.import_run(first.document)).id == run_id
        # It comes back: now what was offered at first is old on both sides.
        back = await there.offer_run(run_id, "here")
        await here.import_run(back.document)
        await there.confirm_handover(run_id, back.handover_id)
        assert "cannot be given" in await refused(there.confirm_handover(run_id, first.handover_id))
        assert (await there.import_run(first.document)).id == run_id, "that answer stays"
        assert await owners(two, run_id) == ["here"]
        assert "cannot be withdrawn" in await refused(here.withdraw_handover(run_id, first.handover_id))
        assert await owners(two, run_id) == ["here"]
        await here.cancel(run_id)
        assert "is here already, cancelled" in await refused(here.import_run(_renamed(back.document, here)))


def _renamed(document: Any, durably: Durably) -> Any:
    """The same, by another handover."""
    other = durably._make_id()
    entry = document["journal"][-1]
    last = {**entry, "data": {**entry["data"], "handover": other}}
    return {
        **document,
        "handover": {**document["handover"], "id": other},
        "journal": [*document["journal"][:-1], last],
    }


@needs("another")
async def a_run_that_is_taken_is_refused_under_another_handover(backend: Backend) -> None:
    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.engine(_job(_many, calls)), await two.there.engine(_job(_many, calls))
        run_id = (await here.trigger("work", {})).id
        offer = await here.offer_run(run_id, THERE)
        await there.import_run(offer.document)
        assert "is here already, pending" in await refused(there.import_run(_renamed(offer.document, here)))
        await here.confirm_handover(run_id, offer.handover_id)


@needs("another")
async def who_is_asked_decides_what_became_of_an_offer(backend: Backend) -> None:
    async with Two(backend) as two:
        calls = Calls()
        here, there = await two.here.engine(_job(_many, calls)), await two.there.engine(_job(_many, calls))
        run_id = (await here.trigger("work", {})).id
        await bounded(here.process_until_idle())
        offer = await here.offer_run(run_id, THERE)
        assert await there.decline_handover(run_id, offer.handover_id)
        assert await there.decline_handover(run_id, offer.handover_id)
        assert "was declined" in await refused(there.import_run(offer.document))
        await here.withdraw_handover(run_id, offer.handover_id)
        await here.withdraw_handover(run_id, offer.handover_id)
        assert "was declined" in await refused(there.import_run(offer.document))
        await here.signal(run_id, "go 0", 0)
        assert await bounded(here.process_until_idle()) == 1
        # By another handover it may come.
        offer = await here.offer_run(run_id, THERE)
        await there.import_run(offer.document)
        assert not await there.decline_handover(run_id, offer.handover_id)
        await here.confirm_handover(run_id, offer.handover_id)
        assert calls.of == {"step 0": ["here"], "step 1": ["here"]}


@needs("another")
async def what_cannot_come_stays_and_goes_on(backend: Backend) -> None:
    async with Two(backend) as two:
        calls = Calls()
        here = await two.here.engine(_job(_listens, calls))
        there = await two.there.engine()
        run_id = (await here.trigger("work", {}, idempotency_key="once")).id
        await bounded(here.process_until_idle())
        assert "no job 'work'" in str(await raised(NotFound, here.hand_over(run_id, there)))
        there.register(_job(_listens, calls))
        same = (await there.trigger("work", {}, idempotency_key="once")).id
        assert f"run {same} of job 'work' has the same idempotency key" in await refused(here.hand_over(run_id, there))
        assert await owners(two, run_id) == ["here"]
        await here.signal(run_id, "go", 1)
        await bounded(here.process_until_idle())
        assert (await run_of(here, run_id)).output == [1, "after"]
        assert "is completed" in await refused(here.hand_over(run_id, there))
        await raised(NotFound, here.hand_over("01ARZ3NDEKTSV4RRFFQ69G5FAV", there))
        await raised(Conflict, here.confirm_handover(run_id, here._make_id()))
        await there.cancel(same)
