"""What is told of runs: to listeners in the process, and to subscribers anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import Conflict, NotFound
from durably_web.events import EVENT_TYPES, Event
from durably_web.jobs import job
from durably_web.records import Progress
from durably_web.steps import Step
from tests.contract import Backend, needs
from tests.support.world import Gate, Heard, World, bounded, raised, turns, until

NOT_STORED = {"step:start", "run:lease-renewed", "step:cancel", "worker:error", "worker:shutdown"}
NOT_STORED |= {"storage:full", "storage:room", "storage:set-aside", "storage:cleared"}


@job
async def eventful(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    step.log.info("hello", pair=(1, 2))
    value = await step.run("one", lambda: [1, {"a": None}])
    step.progress(1, 2, "half")
    try:
        await step.run("bad", _raise)
    except ValueError:
        step.log.warning("caught")
    if input.get("fail"):
        raise KeyError("no")
    return {"value": value}


def _raise() -> None:
    raise ValueError("bad")


async def _all(events: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in events]


async def a_runs_events_tell_its_story(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(eventful)
        handle = await durably.trigger(eventful, {"n": 1}, labels={"org": "a"})
        await durably.process_one()
        events = await bounded(_all(handle.events()))
        assert [event.type for event in events] == [
            "run:trigger",
            "run:leased",
            "log:write",
            "step:complete",
            "run:progress",
            "step:fail",
            "log:write",
            "run:complete",
        ]
        assert [event.number for event in events] == list(range(1, 9))
        assert all(event.labels == {"org": "a"} and event.job_name == "eventful" for event in events)
        assert all(event.run_id == handle.id for event in events)
        trigger, leased, log, step, progress, failed, _, end = events
        assert trigger.input == {"n": 1} and leased.attempt == 1 and leased.worker_id
        assert (log.level, log.message, log.data, log.step_name) == ("info", "hello", {"pair": (1, 2)}, None)
        assert (step.step_name, step.output) == ("one", [1, {"a": None}]) and step.duration is not None
        assert progress.progress == Progress(1, 2, "half")
        assert (failed.step_name, failed.error) == ("bad", "ValueError: bad")
        assert end.output == {"value": [1, {"a": None}]} and end.duration is not None


async def listeners_hear_what_subscribers_read(backend: Backend) -> None:
    """For every type that is stored, to the last field."""
    async with World(backend) as world:
        durably = await world.engine(eventful)
        heard = Heard(durably)
        one = await durably.trigger(eventful, {"ü": "🦆"}, labels={"org": "a"})
        world.clock.advance(1)
        two = await durably.trigger(eventful, {"fail": True})
        await durably.process_until_idle()
        world.clock.advance(1)
        await durably.retry(two.id)
        await durably.process_until_idle()
        three = await durably.retrigger(one.id)
        await durably.cancel(three.id)
        world.clock.advance(1)
        stored = [event for event in heard.events if event.type not in NOT_STORED]
        assert sorted(stored, key=lambda event: event.seq or 0) == await _read(durably, None)
        assert [event.seq for event in stored] == sorted({event.seq or 0 for event in stored})
        assert {event.type for event in stored} == {
            "run:trigger", "run:leased", "run:progress", "run:retry", "run:complete", "run:fail", "run:cancel",
            "step:complete", "step:fail", "log:write",
        }  # fmt: skip
        await durably.delete_run(one.id)
        [last] = await bounded(_all(durably.subscribe(one.id)))
        assert last == heard.events[-1] and last.type == "run:delete" and last.labels == {"org": "a"}
        starts = heard.of("step:start")
        assert sorted(event.step_name or "" for event in starts) == ["bad", "bad", "bad", "one", "one"]
        assert all(event.seq is None for event in starts)
        for event in heard.events:
            wire = event.to_wire()
            assert wire["type"] == event.type and wire["runId"] == event.run_id


async def _read(durably: Durably, run_id: str | None, after: int | None = None) -> list[Event]:
    """What is stored now, of all runs too."""
    found: list[Event] = []
    events = durably.subscribe(run_id, after=after)
    try:
        async with asyncio.timeout(60):
            while True:
                next_one = asyncio.ensure_future(anext(events))
                await turns()
                if not next_one.done():
                    next_one.cancel()
                    await asyncio.wait([next_one])
                    return found
                found.append(next_one.result())
    except StopAsyncIteration:
        return found


async def subscribing_after_an_event_leaves_no_gap(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(eventful)
        handle = await durably.trigger(eventful)
        other = await durably.trigger(eventful)
        await durably.process_until_idle()
        events = await bounded(_all(durably.subscribe(handle.id)))
        for number, event in enumerate(events):
            rest = await bounded(_all(durably.subscribe(handle.id, after=event.seq)))
            assert rest == events[number + 1 :]
        everything = await _read(durably, None)
        assert [event.seq for event in everything] == sorted({event.seq or 0 for event in everything})
        for event in everything:
            rest = await bounded(_all(durably.subscribe(other.id, after=event.seq)))
            assert [one.seq for one in rest] == [
                one.seq for one in everything if one.run_id == other.id and (one.seq or 0) > (event.seq or 0)
            ]


async def a_subscriber_follows_a_run_to_its_end(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        for n in range(3):
            await step.run("step", gate.wait, n)
            step.log.info("line", n=n)
        return "done"

    async with World(backend) as world:
        asking, working = await world.engine(waits), await world.engine(waits)
        handle = await asking.trigger(waits)
        following = [asyncio.ensure_future(_all(engine.subscribe(handle.id))) for engine in (asking, working)]
        await turns()
        await working.start()
        await gate.reached()
        gate.open()
        for task in following:
            events = await world.drive(task)
            assert [event.type for event in events][-1] == "run:complete"
            assert [event.number for event in events] == list(range(1, len(events) + 1)) and len(events) == 9


async def many_events_come_in_pages(backend: Backend) -> None:
    async def nothing() -> None: ...

    @job
    async def many(step: Step, input: dict[str, Any]) -> None:
        for n in range(600):
            step.log.info("line", n=n)
            if n % 100 == 0:
                await step.run("step", nothing)

    async with World(backend) as world:
        durably = await world.engine(many)
        handles = [await durably.trigger(many) for _ in range(2)]
        await durably.process_until_idle()
        total = []
        for handle in handles:
            events = await bounded(_all(durably.subscribe(handle.id)))
            assert [event.number for event in events] == list(range(1, 610))
            total += [event.seq for event in events]
        assert len(total) == len(set(total))
        assert len(await _read(durably, None)) == 2 * 609


async def a_page_that_is_just_full_is_not_the_end(backend: Backend) -> None:
    """500 entries at once; the run goes on behind them."""
    async with World(backend) as world:

        @job
        async def lines(step: Step, input: dict[str, Any]) -> None:
            for n in range(input["lines"]):
                step.log.info("line", n=n)

        durably = await world.engine(lines)
        for count in (496, 497, 498):
            handle = await durably.trigger(lines, {"lines": count})
            await durably.process_one()
            events = await bounded(_all(durably.subscribe(handle.id)))
            assert len(events) == count + 3 and events[-1].type == "run:complete"


async def a_subscription_ends_for_runs_that_are_gone(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(eventful)
        await raised(NotFound, _all(durably.subscribe("none")))
        handle = await durably.trigger(eventful)
        following = asyncio.ensure_future(_all(durably.subscribe(handle.id)))
        await turns()
        await durably.cancel(handle.id)
        await bounded(following)
        last = (await _all(durably.subscribe(handle.id)))[-1]
        await durably.delete_run(handle.id)
        assert [event.type for event in await bounded(_all(durably.subscribe(handle.id)))] == ["run:delete"]
        assert [event.type for event in await bounded(_all(durably.subscribe(handle.id, after=last.seq)))] == [
            "run:delete"
        ]


async def a_retried_run_can_be_followed_again(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(eventful)
        handle = await durably.trigger(eventful, {"fail": True})
        await durably.process_one()
        first = await bounded(_all(durably.subscribe(handle.id)))
        assert first[-1].type == "run:fail"
        await durably.retry(handle.id)
        following = asyncio.ensure_future(_all(durably.subscribe(handle.id, after=first[-1].seq)))
        await turns()
        assert not following.done()
        await durably.process_one()
        events = await world.drive(following)
        assert [event.type for event in events] == [
            "run:retry",
            "run:leased",
            "run:progress",
            "step:fail",
            "run:fail",
        ]
        assert events[0].number == first[-1].number + 1  # type: ignore[operator]


async def seqs_are_not_given_out_twice(backend: Backend) -> None:
    """Also not when the newest runs are deleted: a subscriber that was away would take new events for old ones."""
    async with World(backend) as world:
        durably = await world.engine(eventful)
        seen: set[int] = set()
        for _ in range(4):
            handle = await durably.trigger(eventful)
            await durably.process_one()
            events = await _all(durably.subscribe(handle.id))
            await durably.delete_run(handle.id)
            events += await _all(durably.subscribe(handle.id))
            seqs = {event.seq or 0 for event in events}
            assert not seqs & seen and (not seen or min(seqs) > max(seen))
            seen |= seqs


async def a_subscriber_may_leave_at_any_time(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(eventful)
        handle = await durably.trigger(eventful)
        await bounded(handle.result())
        events = durably.subscribe(handle.id)
        assert (await anext(events)).type == "run:trigger"
        await events.aclose()  # type: ignore[attr-defined]
        async for event in durably.subscribe(handle.id):
            assert event.number == 1
            break
        everything = durably.subscribe()
        async with asyncio.timeout(60):
            while (await anext(everything)).type != "run:complete":
                pass
        waiting = asyncio.ensure_future(anext(everything))
        await turns()
        waiting.cancel()
        await asyncio.wait([waiting])
        await everything.aclose()  # type: ignore[attr-defined]
        assert durably._store.changes._waiting.keys() <= {"runnable"}, "nobody is left waiting"


async def a_slow_subscriber_misses_nothing(backend: Backend) -> None:
    """What is written while it looks elsewhere is there when it looks again."""
    async with World(backend) as world:
        durably = await world.started(eventful, polling_interval=1000.0)
        events = durably.subscribe()
        first = await durably.trigger(eventful)
        assert (await bounded(anext(events))).run_id == first.id
        await bounded(first.result())
        async with asyncio.timeout(60):
            while (await anext(events)).type != "run:complete":
                pass
        await durably.trigger(eventful)
        assert (await bounded(anext(events))).type == "run:trigger"


@needs("wakes")
async def a_slow_subscriber_is_told_of_what_another_process_wrote_meanwhile(backend: Backend) -> None:
    """It holds an event in its hand when the watch notices the write; it does not wait for the next poll."""
    async with World(backend) as world:
        asking = await world.engine(eventful, polling_interval=1000.0)
        other = await world.engine(eventful)
        events = asking.subscribe()
        first = await asking.trigger(eventful)
        # Somebody else waits in this process, so that the watch goes on.
        waiting = asyncio.ensure_future(first.result())
        assert (await bounded(anext(events))).run_id == first.id
        await turns()
        second = await other.trigger(eventful)
        await world.advance(0.05, 0.01)
        assert (await world.drive(anext(events), seconds=1)).run_id == second.id
        waiting.cancel()
        await asyncio.wait([waiting])


async def a_listener_that_raises_harms_nobody(backend: Backend) -> None:
    """Its error is told; that of one for errors goes to the loop's handler."""
    loop, unheard = asyncio.get_running_loop(), list[str]()
    before = loop.get_exception_handler()
    # Pyodide's loop tells of every task that fails, without a message.
    loop.set_exception_handler(
        lambda loop, context: unheard.extend([context["message"]] if "message" in context else [])
    )
    try:
        await _listeners_that_raise(backend)
    finally:
        loop.set_exception_handler(before)
    assert unheard == ["a listener for worker:error raised"] * 2


async def _listeners_that_raise(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(eventful)
        heard: list[Event] = []

        def raises(event: Event) -> None:
            raise RuntimeError("sync")

        async def raises_later(event: Event) -> None:
            await asyncio.sleep(0)
            raise RuntimeError("async")

        durably.on("run:complete", raises)
        durably.on("run:complete", raises_later)
        durably.on("run:complete", heard.append)
        durably.on("worker:error", heard.append)
        durably.on("worker:error", raises)
        handle = await durably.trigger(eventful)
        await durably.process_one()
        await until(lambda: len(heard) == 3)
        await turns()
        assert sorted(event.type for event in heard) == ["run:complete", "worker:error", "worker:error"]
        errors = [event for event in heard if event.type == "worker:error"]
        assert {event.error for event in errors} == {"RuntimeError: sync", "RuntimeError: async"}
        assert all(event.run_id == handle.id and event.context for event in errors)


async def a_listener_leaves_when_it_is_told(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(eventful)
        heard: list[str] = []
        leave = durably.on("run:trigger", lambda event: heard.append("one"))
        durably.on("run:trigger", lambda event: leave())
        durably.on("run:trigger", lambda event: heard.append("other"))
        await durably.trigger(eventful)
        await durably.trigger(eventful)
        leave()
        assert heard == ["one", "other", "other"]
        await raised(ValueError, _on(durably, "run:completed"))
        assert all(durably.on(name, lambda event: None) for name in EVENT_TYPES)


async def _on(durably: Durably, event_type: str) -> None:
    durably.on(event_type, lambda event: None)


async def another_engines_events_are_not_ours(backend: Backend) -> None:
    async with World(backend) as world:
        one, two = await world.engine(eventful), await world.engine(eventful)
        heard = Heard(one)
        await two.trigger(eventful)
        await two.process_one()
        assert heard.events == []


@needs("workers")
async def everything_can_be_followed_across_engines(backend: Backend) -> None:
    async with World(backend) as world:
        asking = await world.engine(eventful)
        followed: list[Event] = []

        async def follow() -> None:
            async for event in asking.subscribe():
                followed.append(event)  # noqa: PERF401 — a list made at once would be seen at its end only

        following = asyncio.ensure_future(follow())
        await turns()
        workers = [await world.started(eventful) for _ in range(2)]
        handles = [await asking.trigger(eventful) for _ in range(10)]
        for handle in handles:
            await world.drive(handle.result())
        await world.drive(_until(lambda: sum(event.type == "run:complete" for event in followed) == 10))
        following.cancel()
        await asyncio.wait([following])
        assert [event.seq for event in followed] == list(range(1, 81))
        assert len({event.worker_id for event in followed if event.type == "run:leased"}) <= len(workers)


async def _until(condition: Any) -> None:
    await until(condition)


async def an_outcome_that_is_refused_tells_nothing(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(eventful)
        handle = await durably.trigger(eventful, {}, idempotency_key="k")
        await durably.process_one()
        heard = Heard(durably)
        await raised(Conflict, durably.cancel(handle.id))
        await raised(Conflict, durably.retry(handle.id))
        await raised(NotFound, durably.delete_run("none"))
        await durably.trigger(eventful, {}, idempotency_key="k")
        assert heard.events == []
