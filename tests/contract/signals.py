"""Signals: stored before they are acknowledged, delivered once, in order, to the wait that asks for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import Conflict, InvalidInput, NotFound, NotSerializable, RunFailed, SignalTimeout, StoreError
from durably_web.jobs import Job, job
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend, needs
from tests.support.executors import FaultyExecutor, RepeatingExecutor
from tests.support.scenes import LONG, becomes, later, move, run_of, settled, step_of, taken_over, types_of
from tests.support.world import Gate, Heard, World, bounded, raised, until


@job
async def listens(step: Step, input: dict[str, Any]) -> list[Any]:
    """Waits for so many signals `go`; one that does not come in time is a `None`."""
    got: list[Any] = []
    for _ in range(input.get("count", 1)):
        try:
            got.append(await step.wait_for_signal("go", timeout=input.get("timeout")))
        except SignalTimeout:
            got.append(None)
    return got


@job
async def ends(step: Step, input: dict[str, Any]) -> None:
    if input["end"] == "failed":
        raise ValueError


async def _listening(durably: Durably, **input: Any) -> str:
    """A run that waits for its first signal."""
    handle = await durably.trigger(listens, input)
    await becomes(durably, handle.id, "waiting")
    return handle.id


# -- names -----------------------------------------------------------------------------------------------


async def a_name_may_look_like_an_escape(backend: Backend) -> None:
    """The letters of one, in the names of a signal, of a job and of a label."""
    names = ["\\u0000", "go\\u0000", "\\\\u0000\\ufdd0", "ufdd0\\ufdd00", "\\x00"]

    async def listen(step: Step, input: str) -> Any:
        return await step.wait_for_signal(input)

    jobs = [Job(listen, name) for name in names]
    async with World(backend) as world:
        durably = await world.started(*jobs, polling_interval=LONG)
        for each in jobs:
            handle = await durably.trigger(each, each.name, labels={each.name: each.name})
            await becomes(durably, handle.id, "waiting")
            await durably.signal(handle.id, each.name, each.name)
            assert await bounded(handle.result()) == each.name
            assert [run.id for run in await durably.get_runs(labels={each.name: each.name})] == [handle.id]
            events = (await durably.get_events(handle.id)).events
            assert {(event.job_name, event.labels[each.name]) for event in events} == {(each.name, each.name)}


async def no_name_has_a_null_in_it(backend: Backend) -> None:
    refused: list[str] = []

    @job
    async def listen(step: Step, input: dict[str, Any]) -> None:
        try:
            await step.wait_for_signal("go\0on")
        except InvalidInput as error:
            refused.append(str(error))

    async with World(backend) as world:
        durably = await world.engine(listen)
        await durably.trigger(listen)
        await durably.process_one()
        assert len(refused) == 1 and "U+0000" in refused[0]
        handle = await durably.trigger(listen)
        for asked in (
            durably.signal(handle.id, "go\0on"),
            durably.trigger(listen, labels={"a\0": "b"}),
            durably.trigger(listen, labels={"a": "\0"}),
            durably.trigger(listen, concurrency_key="\0"),
            durably.trigger(listen, idempotency_key="\0"),
        ):
            assert "U+0000" in str(await raised(InvalidInput, asked))
        for make in (lambda: Job(listen.fn, "a\0b"), lambda: Durably(world.executor(), worker_id="w\0")):
            try:
                make()
            except InvalidInput as error:
                assert "U+0000" in str(error)
            else:
                raise AssertionError("it was taken")


# -- delivery --------------------------------------------------------------------------------------------


async def a_signal_wakes_the_run_that_waits_for_it(backend: Backend) -> None:
    """At once: no clock is moved, and nobody polls. The slot is free meanwhile."""
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG, max_concurrent_runs=1)
        heard = Heard(durably)
        run_ids = [await _listening(durably) for _ in range(3)]
        for n, run_id in enumerate(run_ids):
            run = await run_of(durably, run_id)
            assert (run.status, run.wake_at) == ("waiting", None)
            await durably.signal(run_id, "go", {"n": n})
            assert await bounded(durably.output_of(run_id)) == [{"n": n}]
        assert [event.until for event in heard.of("run:waiting", "step:wait")] == [None] * 6


async def a_signal_may_come_before_the_wait(backend: Backend) -> None:
    """Before the run begins, also while it is delayed; it does not begin earlier for that."""
    async with World(backend) as world:
        durably = await world.engine(listens)
        for delay in (0, 10):
            handle = await durably.trigger(listens, {}, delay=delay)
            await durably.signal(handle.id, "go", "early")
            await move(world, delay - 1 if delay else 0)
            assert await bounded(durably.process_until_idle()) == (0 if delay else 1)
            await move(world, 1)
            await bounded(durably.process_until_idle())
            assert await handle.result(timeout=60) == ["early"]
            assert "run:waiting" not in await types_of(durably, handle.id), "it never had to wait"


async def a_signal_may_come_while_an_earlier_step_executes(backend: Backend) -> None:
    gate = Gate()

    @job
    async def works(step: Step, input: dict[str, Any]) -> Any:
        await step.run("work", gate.wait, 1)
        return await step.wait_for_signal("go")

    async with World(backend) as world:
        durably = await world.started(works, polling_interval=LONG)
        handle = await durably.trigger(works)
        await gate.reached()
        await durably.signal(handle.id, "go", "meanwhile")
        gate.open()
        assert await bounded(handle.result()) == "meanwhile"


async def a_signal_may_come_while_no_worker_works(backend: Backend) -> None:
    async with World(backend) as world:
        first = await world.started(listens)
        run_id = await _listening(first)
        await first.stop()
        asking = await world.engine(listens)
        await asking.signal(run_id, "go", "by another process")
        await asking.stop()
        second = await world.started(listens, polling_interval=LONG)
        assert await bounded(second.output_of(run_id)) == ["by another process"]


async def a_signal_reaches_one_branch_while_another_executes(backend: Backend) -> None:
    gate = Gate()
    order: list[str] = []

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[Any]:
        async def branch() -> Any:
            payload = await step.wait_for_signal("go")
            await step.run("note", order.append, payload)
            return payload

        return list(await asyncio.gather(branch(), step.run("work", gate.wait, "work"), step.sleep("nap", 5)))

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        await gate.reached()
        await settled()
        await move(world, 1)
        assert (await step_of(durably, handle.id, "go")).status == "waiting"
        await durably.signal(handle.id, "go", "first")
        await until(lambda: order == ["first"])
        gate.open()
        await becomes(durably, handle.id, "waiting")
        await move(world, 4)
        assert await bounded(handle.result()) == ["first", "work", None]


async def a_signal_is_heard_when_a_short_sleep_beside_it_is_over(backend: Backend) -> None:
    @job
    async def gathers(step: Step, input: dict[str, Any]) -> Any:
        _, payload = await asyncio.gather(step.sleep("short", 0.05), step.wait_for_signal("go"))
        return payload

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        await settled()
        await move(world, 0.05)
        await becomes(durably, handle.id, "waiting")
        await durably.signal(handle.id, "go", "heard")
        assert await bounded(handle.result()) == "heard"


@needs("workers", "wakes")
async def another_engines_signal_reaches_a_run_that_executes(backend: Backend) -> None:
    gate = Gate()

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[Any]:
        return list(await asyncio.gather(step.wait_for_signal("go"), step.run("work", gate.wait, "work")))

    async with World(backend) as world:
        working = await world.started(gathers, polling_interval=LONG)
        asking = await world.engine(gathers)
        handle = await working.trigger(gathers)
        await gate.reached()
        await settled()
        await asking.signal(handle.id, "go", "from afar")
        await world.advance(1)
        assert (await step_of(asking, handle.id, "go")).output == "from afar"
        gate.open()
        assert await world.drive(handle.result()) == ["from afar", "work"]


@needs("workers", "wakes")
async def another_engines_signal_wakes_a_run_that_waits(backend: Backend) -> None:
    async with World(backend) as world:
        working = await world.started(listens, polling_interval=LONG)
        asking = await world.engine(listens)
        run_id = await _listening(working)
        await asking.signal(run_id, "go", "from afar")
        assert await world.drive(asking.output_of(run_id)) == ["from afar"]


async def signals_come_in_the_order_in_which_they_were_sent(backend: Backend) -> None:
    """Some before the wait, some between, all within one moment of the clock."""
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG)
        handle = await durably.trigger(listens, {"count": 8})
        for n in range(3):
            await durably.signal(handle.id, "go", n)
        await becomes(durably, handle.id, "waiting")
        for n in range(3, 8):
            await durably.signal(handle.id, "go", n)
        assert await bounded(handle.result()) == list(range(8))
        names = ["go", *[f"go#{n}" for n in range(2, 9)]]
        assert [one.name for one in await durably.get_steps(handle.id)] == names


async def of_two_signals_for_one_wait_the_first_wins(backend: Backend) -> None:
    """The other one stays for the next wait of that name."""
    gate = Gate()

    @job
    async def asks_twice(step: Step, input: dict[str, Any]) -> list[Any]:
        first = await step.wait_for_signal("go")
        await step.run("work", gate.wait, 1)
        return [first, await step.wait_for_signal("go", timeout=10)]

    async with World(backend) as world:
        durably = await world.started(asks_twice, polling_interval=LONG)
        handle = await durably.trigger(asks_twice)
        await becomes(durably, handle.id, "waiting")
        await asyncio.gather(*[durably.signal(handle.id, "go", n) for n in (1, 2)])
        await gate.reached()
        assert (await step_of(durably, handle.id, "go")).output == 1
        gate.open()
        assert await bounded(handle.result()) == [1, 2]


async def waits_beside_each_other_take_theirs_in_order(backend: Backend) -> None:
    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[Any]:
        names = ("go", "stop", "go", "go")
        return list(await asyncio.gather(*[step.wait_for_signal(name) for name in names]))

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        await becomes(durably, handle.id, "waiting")
        for name, payload in (("go", 1), ("other", 0), ("go", 2), ("stop", "s")):
            await durably.signal(handle.id, name, payload)
            await becomes(durably, handle.id, "waiting")
            await settled()
        await durably.signal(handle.id, "go", 3)
        assert await bounded(handle.result()) == [1, "s", 2, 3]


async def a_signal_of_another_name_wakes_nobody(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG)
        run_id = await _listening(durably)
        for name in ("gone", "g", "Go", "go "):
            await durably.signal(run_id, name, "no")
        await settled()
        assert (await run_of(durably, run_id)).status == "waiting"
        await durably.signal(run_id, "go", "yes")
        assert await bounded(durably.output_of(run_id)) == ["yes"]


async def a_signal_is_its_runs_alone(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG)
        one, other = [await _listening(durably) for _ in range(2)]
        await durably.signal(one, "go", 1)
        assert await bounded(durably.output_of(one)) == [1]
        assert (await run_of(durably, other)).status == "waiting"
        await durably.cancel(other)


async def a_step_may_have_the_name_of_a_signal(backend: Backend) -> None:
    @job
    async def mixes(step: Step, input: dict[str, Any]) -> list[Any]:
        value = await step.run("go", lambda: "step")
        return [value, await step.wait_for_signal("go"), await step.run("go", lambda: "step again")]

    async with World(backend) as world:
        durably = await world.engine(mixes)
        handle = await durably.trigger(mixes)
        await durably.signal(handle.id, "go", "signal")
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == ["step", "signal", "step again"]
        assert [one.name for one in await durably.get_steps(handle.id)] == ["go", "go#2", "go#3"]


async def a_job_may_signal_itself_and_others(backend: Backend) -> None:
    async with World(backend) as world:

        @job
        async def tells(step: Step, input: dict[str, Any]) -> Any:
            await step.run("tell", durably.signal, input.get("other", step.run_id), "go", "told")
            return None if "other" in input else await step.wait_for_signal("go")

        durably = await world.started(tells, listens, polling_interval=LONG)
        assert await bounded((await durably.trigger(tells)).result()) == "told"
        other = await _listening(durably)
        await bounded((await durably.trigger(tells, {"other": other})).result())
        assert await bounded(durably.output_of(other)) == ["told"]


async def any_value_that_can_be_stored_is_a_payload(backend: Backend) -> None:
    payloads: list[Any] = [None, 0, "", False, [1, {"ü🦆": None}], {"a": {"b": [1.5]}}, "x" * 100_000, timedelta(1)]
    async with World(backend) as world:
        durably = await world.engine(listens)
        handle = await durably.trigger(listens, {"count": len(payloads) + 1})
        for payload in payloads:
            await durably.signal(handle.id, "go", payload)
        await durably.signal(handle.id, "go")
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == [*payloads, None]


async def a_wait_is_a_step(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG)
        run_id = await _listening(durably, timeout=100)
        one = await step_of(durably, run_id, "go")
        assert (one.status, one.output, one.completed_at, one.until) == ("waiting", None, None, later(world, 100))
        await move(world, 10)
        await durably.signal(run_id, "go", "payload")
        await bounded(durably.output_of(run_id))
        one = await step_of(durably, run_id, "go")
        assert (one.status, one.output, one.completed_at) == ("completed", "payload", later(world, 0))
        assert await types_of(durably, run_id) == [
            "run:trigger",
            "run:leased",
            "step:wait",
            "run:waiting",
            "run:leased",
            "step:complete",
            "run:complete",
        ]


# -- what cannot be sent ---------------------------------------------------------------------------------


async def a_signal_that_cannot_be_delivered_says_so(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(ends)
        await raised(NotFound, durably.signal("none", "go"))
        for end in ("completed", "cancelled", "failed"):
            handle = await durably.trigger(ends, {"end": end})
            if end == "cancelled":
                await durably.cancel(handle.id)
            await bounded(durably.process_until_idle())
            error = await raised(Conflict, durably.signal(handle.id, "go"))
            assert end in str(error) and handle.id in str(error)
            await durably.delete_run(handle.id)
            await raised(NotFound, durably.signal(handle.id, "go"))


async def what_cannot_be_a_signal_is_refused(backend: Backend) -> None:
    names: list[Any] = ["", "go#2", None, 5]
    async with World(backend) as world:
        durably = await world.engine(listens)
        handle = await durably.trigger(listens)
        for payload in (object(), math.nan, [math.inf]):
            await raised(NotSerializable, durably.signal(handle.id, "go", payload))
        for name in names:
            await raised(InvalidInput, durably.signal(handle.id, name))
        await bounded(durably.process_until_idle())
        assert (await run_of(durably, handle.id)).status == "waiting", "nothing of that was stored"


async def what_cannot_be_a_wait_is_refused(backend: Backend) -> None:
    names: list[Any] = ["", "go#2", None, 5]
    timeouts: list[Any] = [-1, math.nan, math.inf, "5", timedelta(seconds=-1)]

    @job
    async def asks(step: Step, input: dict[str, Any]) -> int:
        refused = 0
        calls: list[Callable[[], Awaitable[Any]]] = []
        calls += [lambda name=name: step.wait_for_signal(name) for name in names]  # type: ignore[misc]
        calls += [lambda one=one: step.wait_for_signal("go", timeout=one) for one in timeouts]  # type: ignore[misc]
        for call in calls:
            try:
                await call()
            except ValueError:
                refused += 1
        return refused

    async with World(backend) as world:
        durably = await world.engine(asks)
        handle = await durably.trigger(asks)
        await bounded(durably.process_one())
        assert await handle.result(timeout=60) == len(names) + len(timeouts)


# -- time-outs -------------------------------------------------------------------------------------------


async def a_signal_that_does_not_come_in_time_is_an_error(backend: Backend) -> None:
    timeouts = (100, timedelta(seconds=100))

    @job
    async def asks(step: Step, input: dict[str, Any]) -> None:
        await step.wait_for_signal("go", timeout=timeouts[input["n"]])

    for n in range(len(timeouts)):
        async with World(backend) as world:
            durably = await world.started(asks, polling_interval=LONG)
            handle = await durably.trigger(asks, {"n": n})
            assert (await becomes(durably, handle.id, "waiting")).wake_at == later(world, 100)
            await move(world, 99.999)
            assert (await run_of(durably, handle.id)).status == "waiting"
            await move(world, 0.001)
            run = await becomes(durably, handle.id, "failed")
            assert str(run.error).startswith("SignalTimeout: ") and "'go'" in str(run.error), run.error
            one = await step_of(durably, handle.id, "go")
            assert (one.status, one.error, one.completed_at) == ("failed", run.error, later(world, 0))
            await raised(RunFailed, handle.result(timeout=60))
            await durably.delete_run(handle.id)


async def a_time_out_can_be_caught_and_is_raised_again_by_a_replay(backend: Backend) -> None:
    """A signal that comes after it is the next wait's."""
    gate = Gate()
    seen: list[str] = []

    @job
    async def catches(step: Step, input: dict[str, Any]) -> Any:
        try:
            await step.wait_for_signal("go", timeout=10)
        except SignalTimeout as error:
            seen.append(str(error))
        await step.run("wait", gate.wait, 1)
        return await step.wait_for_signal("go", timeout=10)

    async with World(backend) as world:
        first = await world.started(catches, polling_interval=LONG)
        handle = await first.trigger(catches)
        await becomes(first, handle.id, "waiting")
        await move(world, 10)
        await gate.reached()
        await first.signal(handle.id, "go", "late")
        second = await taken_over(world, first, catches)
        gate.open()
        assert await world.drive(second.output_of(handle.id)) == "late"
        assert len(seen) == 2 and seen[0] == seen[1]


async def no_time_at_all_takes_only_what_is_there(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(listens)
        handle = await durably.trigger(listens, {"count": 3, "timeout": 0})
        await durably.signal(handle.id, "go", "there")
        assert await bounded(durably.process_until_idle()) == 1
        assert await handle.result(timeout=60) == ["there", None, None]


async def a_short_time_is_waited_for_in_place(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG)
        heard = Heard(durably)
        for sends in (False, True):
            handle = await durably.trigger(listens, {"timeout": 0.05})
            await settled()
            if sends:
                await durably.signal(handle.id, "go", "quick")
            await move(world, 0.05)
            assert await bounded(handle.result()) == (["quick"] if sends else [None])
        assert not heard.of("run:waiting")


async def a_deadline_that_nobody_saw_still_counts(backend: Backend) -> None:
    """While no worker ran: a signal sent before the deadline is delivered, one sent after it is too late."""
    for sent_at, expected in ((None, None), (50, "sent"), (99.999, "sent"), (101, None), (5000, None)):
        async with World(backend) as world:
            first = await world.started(listens)
            run_id = await _listening(first, timeout=100)
            await first.stop()
            asking = await world.engine(listens)
            await move(world, sent_at or 0)
            if sent_at is not None:
                await asking.signal(run_id, "go", "sent")
            await move(world, 10_000)
            second = await world.started(listens, polling_interval=LONG)
            assert await bounded(second.output_of(run_id)) == [expected], (sent_at, expected)
            await second.delete_run(run_id)


async def a_late_signal_is_left_for_the_next_wait(backend: Backend) -> None:
    async with World(backend) as world:
        first = await world.started(listens)
        run_id = await _listening(first, timeout=100, count=2)
        await first.stop()
        await move(world, 200)
        asking = await world.engine(listens)
        await asking.signal(run_id, "go", "late")
        second = await world.started(listens, polling_interval=LONG)
        assert await bounded(second.output_of(run_id)) == [None, "late"]


async def a_deadline_passes_beside_a_branch_that_executes(backend: Backend) -> None:
    gate = Gate()
    timed_out: list[str] = []

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[str]:
        async def branch() -> None:
            try:
                await step.wait_for_signal("go", timeout=10)
            except SignalTimeout as error:
                timed_out.append(type(error).__name__)

        await asyncio.gather(branch(), step.run("work", gate.wait, "work"))
        return timed_out

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        await gate.reached()
        await settled()
        await move(world, 10)
        await until(lambda: timed_out == ["SignalTimeout"])
        gate.open()
        assert await bounded(handle.result()) == ["SignalTimeout"]


async def a_deadline_survives_restarts(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG)
        run_id = await _listening(durably, timeout=100)
        for crashes in (True, False, True):
            await move(world, 30)
            await (world.crash(durably) if crashes else bounded(durably.stop()))
            durably = await world.started(listens, polling_interval=LONG)
        await move(world, 9.999)
        assert (await run_of(durably, run_id)).status == "waiting"
        await move(world, 0.001)
        assert await bounded(durably.output_of(run_id)) == [None]


async def the_first_of_signal_and_sleep_ends_the_wait(backend: Backend) -> None:
    """A job races the two; what it does not wait for any more holds nothing up."""

    @job
    async def races(step: Step, input: dict[str, Any]) -> str:
        async def asleep() -> str:
            await step.sleep("deadline", 100)
            return "asleep"

        tasks = [asyncio.ensure_future(step.wait_for_signal("go")), asyncio.ensure_future(asleep())]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        return str(await step.run("after", lambda: done.pop().result()))

    async with World(backend) as world:
        durably = await world.started(races, polling_interval=LONG)
        for signalled in (True, False):
            handle = await durably.trigger(races)
            assert (await becomes(durably, handle.id, "waiting")).wake_at == later(world, 100)
            if signalled:
                await durably.signal(handle.id, "go", "signal")
            else:
                await move(world, 100)
            assert await bounded(handle.result()) == ("signal" if signalled else "asleep")
        await move(world, 1000)


# -- once ------------------------------------------------------------------------------------------------


async def a_signal_that_is_sent_again_by_its_connection_is_one(backend: Backend) -> None:
    """As after a lost reply: every batch crosses twice."""
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG, through=RepeatingExecutor)
        run_id = await _listening(durably, count=3, timeout=10)
        await durably.signal(run_id, "go", 1)
        await durably.signal(run_id, "go", 1)
        await becomes(durably, run_id, "waiting")
        await settled()
        await move(world, 10)
        assert await bounded(durably.output_of(run_id)) == [1, 1, None]


async def a_signal_whose_reply_is_lost_is_delivered_once(backend: Backend) -> None:
    faulty: list[FaultyExecutor] = []

    def through(inner: Executor) -> Executor:
        faulty.append(FaultyExecutor(inner, "after"))
        return faulty[0]

    async with World(backend) as world:
        working = await world.started(listens)
        asking = await world.engine(listens, through=through)
        run_id = await _listening(working, count=2, timeout=10)
        faulty[0].at = 1
        await raised(StoreError, asking.signal(run_id, "go", "unsure"))
        assert await world.drive(working.output_of(run_id), 15) == ["unsure", None]


async def a_signal_that_was_not_stored_is_not_delivered(backend: Backend) -> None:
    faulty: list[FaultyExecutor] = []

    def through(inner: Executor) -> Executor:
        faulty.append(FaultyExecutor(inner, "before"))
        return faulty[0]

    async with World(backend) as world:
        durably = await world.started(listens, through=through)
        run_id = await _listening(durably, timeout=10)
        faulty[0].at = 1
        await raised(StoreError, durably.signal(run_id, "go", "lost"))
        await durably.signal(run_id, "go", "again")
        assert await world.drive(durably.output_of(run_id)) == ["again"]


async def a_crash_behind_a_signal_delivers_it_once(backend: Backend) -> None:
    """What a wait has taken is the step's result; the next wait does not get it again."""
    gate = Gate()

    @job
    async def asks(step: Step, input: dict[str, Any]) -> list[Any]:
        got = [await step.wait_for_signal("go")]
        await step.run("work", gate.wait, 1)
        return [*got, await step.wait_for_signal("go")]

    async with World(backend) as world:
        first = await world.started(asks)
        handle = await first.trigger(asks)
        await first.signal(handle.id, "go", 1)
        await gate.reached()
        second = await taken_over(world, first, asks)
        await gate.reached(2)
        gate.open()
        await becomes(second, handle.id, "waiting")
        await second.signal(handle.id, "go", 2)
        assert await world.drive(second.output_of(handle.id)) == [1, 2]


@needs("workers")
async def of_two_workers_one_delivers_each_signal(backend: Backend) -> None:
    async with World(backend) as world:
        engines = [await world.started(listens) for _ in range(2)]
        run_ids = [(await engines[0].trigger(listens, {"count": 5})).id for _ in range(6)]
        for n in range(5):
            for run_id in run_ids:
                await engines[n % 2].signal(run_id, "go", n)
            await world.advance(n % 3)
        for run_id in run_ids:
            assert await world.drive(engines[0].output_of(run_id)) == [0, 1, 2, 3, 4]


# -- control ---------------------------------------------------------------------------------------------


async def a_waiting_run_can_be_cancelled_and_retried(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG)
        run_id = await _listening(durably)
        await durably.cancel(run_id)
        await raised(Conflict, durably.signal(run_id, "go", "too late"))
        await durably.retry(run_id)
        await becomes(durably, run_id, "waiting")
        await durably.signal(run_id, "go", "now")
        assert await bounded(durably.output_of(run_id)) == ["now"]


async def a_wait_that_timed_out_begins_anew_with_a_retried_run(backend: Backend) -> None:
    @job
    async def asks(step: Step, input: dict[str, Any]) -> Any:
        return await step.wait_for_signal("go", timeout=100)

    async with World(backend) as world:
        durably = await world.started(asks, polling_interval=LONG)
        handle = await durably.trigger(asks)
        await becomes(durably, handle.id, "waiting")
        await move(world, 100)
        await becomes(durably, handle.id, "failed")
        await move(world, 1000)
        await durably.retry(handle.id)
        assert (await becomes(durably, handle.id, "waiting")).wake_at == later(world, 100)
        await move(world, 50)
        await durably.signal(handle.id, "go", "in time")
        assert await bounded(handle.result()) == "in time"


async def a_signal_that_was_taken_stays_taken_when_a_run_is_retried(backend: Backend) -> None:
    troubles = [ValueError("once")]

    @job
    async def asks(step: Step, input: dict[str, Any]) -> list[Any]:
        got = [await step.wait_for_signal("go")]
        if troubles:
            raise troubles.pop()
        return [*got, await step.wait_for_signal("go", timeout=0)]

    async with World(backend) as world:
        durably = await world.engine(asks)
        handle = await durably.trigger(asks)
        await durably.signal(handle.id, "go", 1)
        await durably.signal(handle.id, "go", 2)
        await bounded(durably.process_until_idle())
        assert (await run_of(durably, handle.id)).status == "failed"
        await durably.retry(handle.id)
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == [1, 2]


async def a_paused_run_gets_its_signal_when_it_is_resumed(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(listens, polling_interval=LONG)
        run_id = await _listening(durably, timeout=100)
        await durably.pause(run_id)
        await durably.signal(run_id, "go", "meanwhile")
        await move(world, 500)
        assert not (await run_of(durably, run_id)).is_terminal
        await durably.resume(run_id)
        assert await bounded(durably.output_of(run_id)) == ["meanwhile"]


async def a_deleted_run_leaves_no_signals_behind(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(listens)
        handle = await durably.trigger(listens)
        for n in range(5):
            await durably.signal(handle.id, "go", n)
        await bounded(durably.process_until_idle())
        await durably.delete_run(handle.id)
        assert await world.rows("SELECT count(*) FROM durably_signals") == [(0,)]


# -- a person approves -----------------------------------------------------------------------------------


def _publishing(published: list[str]) -> Job[dict[str, Any], str]:
    """Writes a draft, asks a person, reminds once, and does what was decided."""

    @job
    async def publishes(step: Step, input: dict[str, Any]) -> str:
        draft = await step.run("draft", lambda: f"draft of {input['title']}")
        for _ in range(2):
            try:
                decision = await step.wait_for_signal("decision", timeout=timedelta(minutes=4))
                break
            except SignalTimeout:
                await step.run("remind", lambda: "reminded")
        else:
            return "nobody cared"
        if not decision["approved"]:
            return f"rejected by {decision['by']}"
        await step.run("publish", published.append, draft)
        return f"published for {decision['by']}"

    return publishes


async def a_person_approves_rejects_or_forgets(backend: Backend) -> None:
    published: list[str] = []
    publishes = _publishing(published)
    async with World(backend) as world:
        durably = await world.started(publishes, polling_interval=LONG)
        handles = {name: await durably.trigger(publishes, {"title": name}) for name in ("one", "two", "three", "four")}
        for handle in handles.values():
            await becomes(durably, handle.id, "waiting")
        await move(world, 60)
        await durably.signal(handles["one"].id, "decision", {"approved": True, "by": "ann"})
        await durably.signal(handles["two"].id, "decision", {"approved": False, "by": "bob"})
        await bounded(handles["one"].result())
        await bounded(durably.stop())
        # Nobody works for a while; the reminders come at their moment all the same.
        await move(world, 120)
        durably = await world.started(publishes, polling_interval=LONG)
        await move(world, 120)
        await becomes(durably, handles["three"].id, "waiting")
        assert (await step_of(durably, handles["three"].id, "remind")).output == "reminded"
        await durably.signal(handles["three"].id, "decision", {"approved": True, "by": "cleo"})
        await bounded(durably.output_of(handles["three"].id))
        await becomes(durably, handles["four"].id, "waiting")
        await move(world, 240)
        outputs: list[str] = [await bounded(durably.output_of(handle.id)) for handle in handles.values()]
        assert outputs == ["published for ann", "rejected by bob", "published for cleo", "nobody cared"]
        assert published == ["draft of one", "draft of three"]
