"""Which run begins when: concurrency keys, limits, rates, priorities, bursts, and triggers that meet each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import Conflict, InvalidInput, RunCancelled, RunFailed, StoreUnavailable
from durably_web.handle import RunHandle
from durably_web.jobs import Job, job
from durably_web.records import instant
from durably_web.retry import Debounce, RateLimit, Retry
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend, needs
from tests.support.executors import CountingExecutor, FaultyExecutor, RepeatingExecutor
from tests.support.scenes import LONG, UnsteadyClock, becomes, move, run_of, settled
from tests.support.world import Gate, Heard, World, bounded, raised, turns, until


class Holds:
    """Steps that are held until they are let go, by number; and what was seen of them."""

    def __init__(self, free: bool = False) -> None:
        self.free = free
        self.begun: list[int] = []
        self.executing: list[int] = []
        self.most = 0
        self._gates: dict[int, Gate] = {}

    async def work(self, n: int) -> int:
        self.begun.append(n)
        self.executing.append(n)
        self.most = max(self.most, len(self.executing))
        try:
            await turns(2)
            if not self.free:
                await self.gate(n).wait(n)
        finally:
            self.executing.remove(n)
        if n < 0:
            raise ValueError(f"{n} is negative")
        return n

    def gate(self, n: int) -> Gate:
        return self._gates.setdefault(n, Gate())

    def let_go(self, *numbers: int) -> None:
        for n in numbers:
            self.gate(n).open()

    async def begins(self, *numbers: int) -> None:
        for n in numbers:
            await self.gate(n).reached()

    def job(self, name: str = "holds", **options: Any) -> Job[dict[str, Any], int]:
        @job(name=name, **options)
        async def holds(step: Step, input: dict[str, Any]) -> int:
            return await step.run("hold", self.work, input["n"])

        return holds


async def _queue(
    durably: Durably, n: int, key: str | None = "k", name: str = "holds", **options: Any
) -> RunHandle[Any]:
    return await durably.trigger(name, {"n": n}, concurrency_key=key, coalesce="queue" if key else None, **options)


# -- keys ------------------------------------------------------------------------------------------------


async def runs_of_one_key_never_overlap(backend: Backend) -> None:
    """Of all jobs; runs of other keys, and of none, go on beside them."""
    holds = Holds()
    async with World(backend) as world:
        durably = await world.started(holds.job(), holds.job("other"), polling_interval=LONG)
        handles = [await _queue(durably, n, name=name) for n, name in enumerate(("holds", "other", "holds", "other"))]
        handles += [await _queue(durably, 4, key="another"), await _queue(durably, 5, key=None)]
        await holds.begins(0, 4, 5)
        for n in range(4):
            await holds.begins(n)
            await settled()
            assert sorted(holds.executing) == [n, 4, 5]
            holds.let_go(n)
        holds.let_go(4, 5)
        assert [await bounded(handle.result()) for handle in handles] == [0, 1, 2, 3, 4, 5]


async def as_many_runs_of_a_key_as_the_job_allows(backend: Backend) -> None:
    holds = Holds()
    async with World(backend) as world:
        durably = await world.started(holds.job(max_concurrent_per_key=3), polling_interval=LONG)
        for n in range(6):
            await _queue(durably, n)
        await holds.begins(0, 1, 2)
        await settled()
        assert holds.executing == [0, 1, 2]
        for ends, begins in ((1, 3), (0, 4), (4, 5)):
            holds.let_go(ends)
            await holds.begins(begins)
            await settled()
            assert len(holds.executing) == 3
        holds.let_go(*range(6))
        await until(lambda: not holds.executing)


async def a_key_is_held_while_its_run_waits(backend: Backend) -> None:
    """For a sleep, a signal, a child, the delay of a step's retry and of its own."""
    policy = Retry(max_attempts=2, initial_delay=100, jitter=False)
    failures: list[int] = []

    async def fails_once() -> None:
        failures.append(1)
        if len(failures) % 2:
            raise ValueError("once")

    @job(retry=policy)
    async def waits(step: Step, input: dict[str, Any]) -> None:
        match input["for"]:
            case "sleep":
                await step.sleep("nap", 100)
            case "signal":
                await step.wait_for_signal("go", timeout=100)
            case "child":
                await step.call("naps")
            case "step":
                await step.run("fails once", fails_once, retry=policy)
            case "run":
                await step.run("fails once", fails_once)

    @job
    async def naps(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("nap", 100)

    holds = Holds(free=True)
    for what in ("sleep", "child", "step", "run", "signal"):
        async with World(backend) as world:
            durably = await world.engine(waits, naps, holds.job())
            first = await durably.trigger(waits, {"for": what}, concurrency_key="k")
            await bounded(durably.process_until_idle())
            assert (await run_of(durably, first.id)).status == "waiting", what
            second = await _queue(durably, 1, priority=9)
            await bounded(durably.process_until_idle())
            assert (await run_of(durably, second.id)).status == "pending", what
            if what == "signal":
                await durably.signal(first.id, "go")
            else:
                world.clock.advance(101)
            await bounded(durably.process_until_idle())
            assert (await run_of(durably, first.id)).status == "completed", what
            assert (await run_of(durably, second.id)).status == "completed", what


async def a_key_is_held_by_a_run_whose_worker_died(backend: Backend) -> None:
    """Also once its lease has run out, against a run that would go first otherwise."""
    holds = Holds()
    async with World(backend) as world:
        first = await world.started(holds.job())
        begun = await _queue(first, 1)
        await holds.begins(1)
        second = await _queue(first, 2, priority=9)
        await world.crash(first)
        await world.expire()
        only_others = await world.engine(holds.job("other"))
        third = await _queue(only_others, 3, name="other", priority=9)
        assert await bounded(only_others.process_until_idle()) == 0
        holds.let_go(1, 2, 3)
        last = await world.engine(holds.job(), holds.job("other"))
        await bounded(last.process_until_idle())
        runs = [await run_of(last, handle.id) for handle in (begun, second, third)]
        assert [run.status for run in runs] == ["completed"] * 3 and holds.most == 1
        assert holds.begun[:2] == [1, 1]


async def a_key_is_held_across_a_stop(backend: Backend) -> None:
    """A lease that was given back is not an end."""
    gate = Gate()

    @job
    async def holds_between(step: Step, input: dict[str, Any]) -> int:
        await step.run("one", _nothing)
        await gate.wait(None)
        return int(input["n"])

    async with World(backend) as world:
        first = await world.started(holds_between)
        begun = await first.trigger(holds_between, {"n": 1}, concurrency_key="k")
        await gate.reached()
        await bounded(first.stop())
        second = await world.started(holds_between, polling_interval=LONG)
        later = await second.trigger(holds_between, {"n": 2}, concurrency_key="k", priority=9)
        await gate.reached(2)
        await settled()
        assert gate.arrived == 2
        assert (await run_of(second, begun.id)).status == "leased"
        gate.open()
        assert await bounded(later.result()) == 2


async def _nothing() -> None: ...


async def a_key_is_freed_by_every_end(backend: Backend) -> None:
    for end in ("complete", "fail", "cancel executing", "cancel waiting", "cancel crashed", "cancel the parent"):
        await _free(backend, end)


async def _free(backend: Backend, end: str) -> None:
    holds = Holds()

    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("nap", 1000)

    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        await step.call("holds", {"n": 1}, concurrency_key="k")

    jobs = (holds.job(), sleeps, parent)
    async with World(backend) as world:
        durably = await world.started(*jobs, polling_interval=LONG)
        first: RunHandle[Any]
        if end == "cancel the parent":
            first = await durably.trigger(parent)
        elif end == "cancel waiting":
            first = await durably.trigger(sleeps, concurrency_key="k")
            await becomes(durably, first.id, "waiting")
        else:
            first = await _queue(durably, -1 if end == "fail" else 1)
        if end != "cancel waiting":
            await holds.begins(-1 if end == "fail" else 1)
        second = await _queue(durably, 2)
        third = await _queue(durably, 3)
        await settled()
        assert 2 not in holds.begun, end
        if end == "cancel crashed":
            await world.crash(durably)
            await world.expire()
            durably = await world.engine(*jobs)
        if end.startswith("cancel"):
            await durably.cancel(first.id)
        if end == "cancel crashed":
            await durably.start()
        holds.let_go(1, -1)
        await holds.begins(2)
        await settled()
        assert 3 not in holds.begun, end
        holds.let_go(2, 3)
        assert [await bounded(durably.output_of(handle.id)) for handle in (second, third)] == [2, 3], end


async def a_key_is_freed_by_a_poisoned_run(backend: Backend) -> None:
    holds = Holds()
    async with World(backend) as world:
        asking = await world.engine(holds.job(max_attempts=1))
        first, second = await _queue(asking, 1), await _queue(asking, 2)
        for _ in range(2):
            durably = await world.started(holds.job(max_attempts=1))
            await until(lambda: holds.executing)
            await world.crash(durably)
            await world.expire()
        holds.let_go(2)
        durably = await world.engine(holds.job(max_attempts=1))
        await bounded(durably.process_until_idle())
        run = await run_of(durably, first.id)
        assert run.status == "failed" and str(run.error).startswith("PoisonRun: ")
        assert (await run_of(durably, second.id)).status == "completed"


async def runs_of_a_key_go_by_priority_then_time_then_age(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        at = world.clock.now()
        await _queue(durably, 6, run_at=instant(at + 20_000))
        await _queue(durably, 5, run_at=instant(at + 10_000))
        await _queue(durably, 3)
        await _queue(durably, 4)
        await _queue(durably, 7, priority=-1)
        await _queue(durably, 1, priority=2, delay=15)
        await _queue(durably, 2, priority=1)
        world.clock.advance(30)
        await bounded(durably.process_until_idle())
        assert holds.begun == [1, 2, 3, 4, 5, 6, 7] and holds.most == 1


async def a_more_important_run_of_a_key_overtakes_those_that_have_not_begun(backend: Backend) -> None:
    """Also the first of them, and also after a pause, which must not cost a run its place."""
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        first = await _queue(durably, 4)
        await _queue(durably, 5)
        await _queue(durably, 2, priority=5)
        await _queue(durably, 1, priority=9)
        third = await _queue(durably, 3, priority=5)
        for handle in (first, third):
            await durably.pause(handle.id)
            await durably.resume(handle.id)
        await bounded(durably.process_until_idle())
        assert holds.begun == [1, 2, 3, 4, 5]


async def a_run_that_is_due_later_does_not_hold_the_key(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        await _queue(durably, 1, delay=100, priority=5)
        await _queue(durably, 2)
        await bounded(durably.process_until_idle())
        assert holds.begun == [2]
        world.clock.advance(100)
        await bounded(durably.process_until_idle())
        assert holds.begun == [2, 1]


async def a_pending_run_that_is_cancelled_or_paused_is_passed(backend: Backend) -> None:
    holds = Holds()
    async with World(backend) as world:
        durably = await world.started(holds.job(), polling_interval=LONG)
        handles = [await _queue(durably, n) for n in range(5)]
        await holds.begins(0)
        await durably.cancel(handles[1].id)
        await durably.pause(handles[2].id)
        holds.let_go(0)
        await holds.begins(3)
        await durably.resume(handles[2].id)
        await settled()
        assert holds.begun == [0, 3]
        holds.let_go(3)
        await holds.begins(2)
        holds.let_go(2, 4)
        await bounded(handles[4].result())
        assert holds.begun == [0, 3, 2, 4]


async def the_first_of_a_key_is_passed_when_it_is_cancelled_or_paused(backend: Backend) -> None:
    """Nobody holds the key then: those behind it must be found without an end to wake them."""
    holds = Holds(free=True)
    for act in ("cancel", "pause"):
        async with World(backend) as world:
            durably = await world.engine(holds.job())
            handles = [await _queue(durably, n) for n in range(3)]
            await getattr(durably, act)(handles[0].id)
            await bounded(durably.process_until_idle())
            statuses = [(await run_of(durably, handle.id)).status for handle in handles]
            assert statuses == ["cancelled" if act == "cancel" else "pending", "completed", "completed"]
            if act == "pause":
                await durably.resume(handles[0].id)
                await bounded(durably.process_until_idle())
                assert (await run_of(durably, handles[0].id)).status == "completed"


async def a_paused_run_that_has_begun_keeps_its_key(backend: Backend) -> None:
    holds = Holds(free=True)

    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("nap", 10)

    async with World(backend) as world:
        durably = await world.engine(sleeps, holds.job())
        first = await durably.trigger(sleeps, concurrency_key="k")
        await bounded(durably.process_until_idle())
        second = await _queue(durably, 2)
        await durably.pause(first.id)
        world.clock.advance(60)
        assert await bounded(durably.process_until_idle()) == 0
        await durably.resume(first.id)
        await bounded(durably.process_until_idle())
        assert (await run_of(durably, second.id)).status == "completed"


async def a_retried_run_waits_for_its_key(backend: Backend) -> None:
    """It lost the key when it failed; now another has it, and others are queued behind."""
    holds = Holds()
    async with World(backend) as world:
        durably = await world.started(holds.job(), polling_interval=LONG)
        holds.let_go(-1)
        failed = await _queue(durably, -1)
        await raised(RunFailed, bounded(failed.result()))
        await _queue(durably, 2)
        await holds.begins(2)
        await _queue(durably, 3)
        await durably.retry(failed.id)
        await settled()
        assert holds.executing == [2]
        holds.let_go(2, 3)
        await raised(RunFailed, bounded(failed.result()))
        await until(lambda: 3 in holds.begun and not holds.executing)
        assert holds.begun.count(-1) == 2 and holds.most == 1


@needs("workers")
async def workers_that_race_for_a_key_take_turns(backend: Backend) -> None:
    holds = {key: Holds(free=True) for key in "abc"}

    @job
    async def holding(step: Step, input: dict[str, Any]) -> int:
        return await step.run("hold", holds[input["key"]].work, input["n"])

    async with World(backend) as world:
        asking = await world.engine(holding)
        handles = []
        for n in range(12):
            for key in holds:
                given = {"key": key, "n": n}
                handles.append(await asking.trigger(holding, given, concurrency_key=key, coalesce="queue"))
        workers = [await world.started(holding, max_concurrent_runs=4) for _ in range(3)]
        for handle in handles:
            await world.drive(handle.result(), seconds=60)
        for key, held in holds.items():
            assert held.most == 1 and held.begun == list(range(12)), (key, held.begun)
        assert len(workers) == 3


async def a_thousand_runs_of_a_key_go_in_their_order(backend: Backend) -> None:
    order: list[int] = []

    @job
    async def notes(step: Step, input: dict[str, Any]) -> None:
        order.append(input["n"])

    async with World(backend) as world:
        durably = await world.engine(notes)
        items = [{"input": {"n": n}, "concurrency_key": "k", "coalesce": "queue"} for n in range(1000)]
        await durably.trigger_many(notes, items)
        await bounded(durably.process_until_idle())
        assert order == list(range(1000))


async def runs_behind_a_key_do_not_keep_others_waiting(backend: Backend) -> None:
    holds = Holds()
    async with World(backend) as world:
        durably = await world.started(holds.job(), max_concurrent_runs=3, polling_interval=LONG)
        for n in range(50):
            await _queue(durably, n, priority=9)
        await _queue(durably, 100, key=None)
        await _queue(durably, 101, key="another")
        await holds.begins(0, 100, 101)
        await durably.cancel_runs(job="holds")
        holds.let_go(0, 100, 101)
        await until(lambda: not holds.executing)


# -- coalescing ------------------------------------------------------------------------------------------


async def a_trigger_that_meets_a_pending_run_of_its_key_says_so(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        first = await durably.trigger("holds", {"n": 1}, concurrency_key="k")
        error = await raised(Conflict, durably.trigger("holds", {"n": 2}, concurrency_key="k"))
        assert first.id in str(error) and "coalesce" in str(error), error
        other = await durably.trigger("holds", {"n": 3}, concurrency_key="other")
        assert (first.disposition, other.disposition) == ("created", "created")
        await bounded(durably.process_until_idle())
        assert holds.begun == [1, 3]
        again = await durably.trigger("holds", {"n": 4}, concurrency_key="k")
        assert again.disposition == "created"


async def a_trigger_can_be_left_out(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        heard = Heard(durably, "run:coalesced")
        first = await durably.trigger("holds", {"n": 1}, concurrency_key="k", coalesce="skip", labels={"a": "b"})
        second = await durably.trigger("holds", {"n": 2}, concurrency_key="k", coalesce="skip")
        assert first.disposition == "created"
        assert (second.id, second.disposition) == (first.id, "coalesced")
        run = await run_of(durably, first.id)
        assert (run.input, run.labels, run.concurrency_key) == ({"n": 1}, {"a": "b"}, "k")
        assert [event.run_id for event in heard.events] == [first.id]
        await bounded(durably.process_until_idle())
        assert await second.result(timeout=60) == 1
        types = [event.type async for event in durably.subscribe(first.id)]
        assert types[:3] == ["run:trigger", "run:coalesced", "run:leased"]


async def a_trigger_can_give_the_pending_run_its_input(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        first = await durably.trigger("holds", {"n": 1}, concurrency_key="k", coalesce="replace")
        for n in (2, 3):
            handle = await durably.trigger("holds", {"n": n}, concurrency_key="k", coalesce="replace")
            assert (handle.id, handle.disposition) == (first.id, "coalesced")
        assert (await run_of(durably, first.id)).input == {"n": 3}
        await raised(
            InvalidInput, durably.trigger("holds", {"n": float("nan")}, concurrency_key="k", coalesce="replace")
        )
        await bounded(durably.process_until_idle())
        assert holds.begun == [3] and await first.result(timeout=60) == 3
        events = [event async for event in durably.subscribe(first.id) if event.type == "run:coalesced"]
        assert [event.input for event in events] == [{"n": 2}, {"n": 3}]


async def only_a_run_that_has_never_begun_is_coalesced_into(backend: Backend) -> None:
    """Not one that executes, waits, crashed, or was retried, nor one of another job with the key."""
    holds = Holds()
    async with World(backend) as world:
        first = await world.started(holds.job())
        executing = await _queue(first, 1)
        await holds.begins(1)

        async def meets(durably: Durably, n: int) -> RunHandle[Any]:
            handles = [await _skip(durably, n), await _skip(durably, n + 1)]
            assert [one.disposition for one in handles] == ["created", "coalesced"]
            assert handles[0].id == handles[1].id
            await durably.cancel(handles[0].id)
            return handles[0]

        await meets(first, 10)
        await world.crash(first)
        await world.expire()
        second = await world.engine(holds.job(), holds.job("other"))
        assert (await meets(second, 20)).id != executing.id
        await second.cancel(executing.id)
        await second.retry(executing.id)
        assert (await run_of(second, executing.id)).status == "pending"
        await meets(second, 30)
        await _queue(second, 40, name="other")
        await meets(second, 50)
        holds.let_go(1, 40)
        await bounded(second.process_until_idle())


async def _skip(durably: Durably, n: int) -> RunHandle[Any]:
    return await durably.trigger("holds", {"n": n}, concurrency_key="k", coalesce="skip")


async def delayed_and_paused_runs_are_pending_too(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        delayed = await durably.trigger("holds", {"n": 1}, concurrency_key="k", delay=100)
        assert (await _skip(durably, 2)).id == delayed.id
        await durably.pause(delayed.id)
        assert (await _skip(durably, 3)).id == delayed.id
        assert str(delayed.id) in str(await raised(Conflict, durably.trigger("holds", {"n": 4}, concurrency_key="k")))


async def a_key_of_idempotency_wins(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        first = await durably.trigger("holds", {"n": 1}, idempotency_key="i")
        pending = await durably.trigger("holds", {"n": 2}, concurrency_key="k")
        ways: list[dict[str, Any]] = [
            {"coalesce": None},
            {"coalesce": "skip"},
            {"coalesce": "replace"},
            {"coalesce": "queue"},
            {"debounce": 5},
        ]
        for way in ways:
            handle = await durably.trigger("holds", {"n": 3}, concurrency_key="k", idempotency_key="i", **way)
            assert (handle.id, handle.disposition) == (first.id, "idempotent"), way
        assert (await run_of(durably, pending.id)).input == {"n": 2}
        assert len(await durably.get_runs()) == 2
        # One that was left out has left its key behind nowhere.
        skipped = await durably.trigger("holds", {"n": 4}, concurrency_key="k", coalesce="skip", idempotency_key="j")
        assert (skipped.id, skipped.disposition) == (pending.id, "coalesced")


async def a_replaced_input_is_executed_or_makes_a_new_run(backend: Backend) -> None:
    """Whether the run is claimed just before or just after: no input that was taken is lost."""
    for delay in range(12):
        holds = Holds(free=True)
        async with World(backend) as world:
            durably = await world.engine(holds.job())
            first = await durably.trigger("holds", {"n": 1}, concurrency_key="k")
            processing = asyncio.ensure_future(durably.process_until_idle())
            await turns(delay)
            second = await durably.trigger("holds", {"n": 2}, concurrency_key="k", coalesce="replace")
            await bounded(processing)
            await bounded(durably.process_until_idle())
            if second.disposition == "coalesced":
                assert second.id == first.id and holds.begun == [2]
            else:
                assert second.disposition == "created" and holds.begun == [1, 2]
            assert await second.result(timeout=60) == 2


# -- once, whatever gets lost ----------------------------------------------------------------------------

_WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"idempotency_key": "i"},
    {"labels": {"a": "b"}},
    {"delay": 10},
    {"concurrency_key": "k"},
    {"concurrency_key": "k", "idempotency_key": "i"},
    {"concurrency_key": "k", "coalesce": "skip"},
    {"concurrency_key": "k", "coalesce": "replace"},
    {"concurrency_key": "k", "coalesce": "queue"},
    {"concurrency_key": "k", "debounce": 10},
)


async def a_trigger_whose_batch_is_sent_twice_makes_one_run(backend: Backend) -> None:
    """It does not meet itself: not in its way, not coalesced into itself."""
    holds = Holds(free=True)
    for way in _WAYS:
        async with World(backend) as world:
            durably = await world.engine(holds.job(), through=RepeatingExecutor)
            handle = await durably.trigger("holds", {"n": 1}, **way)
            assert handle.disposition == "created", way
            [run] = await durably.get_runs()
            assert run.id == handle.id
            types = [row[0] for row in await world.rows("SELECT type FROM durably_journal") if row[0] != "run:delete"]
            assert types == ["run:trigger"], way
            await _clear(durably)


async def _clear(durably: Durably) -> None:
    await durably.cancel_runs(job="holds")
    await durably.delete_runs(job="holds")


async def a_trigger_whose_reply_is_lost_and_that_is_repeated_makes_one_run(backend: Backend) -> None:
    holds = Holds(free=True)
    for way in _WAYS:
        if way.get("coalesce") == "queue" or ("concurrency_key" not in way and "idempotency_key" not in way):
            continue  # Asked twice, it is two.
        async with World(backend) as world:
            faulty: list[FaultyExecutor] = []

            def through(inner: Executor, faulty: list[FaultyExecutor] = faulty) -> Executor:
                faulty.append(FaultyExecutor(inner, "after"))
                return faulty[0]

            durably = await world.engine(holds.job(), through=through)
            faulty[0].at = 1
            await raised(StoreUnavailable, durably.trigger("holds", {"n": 1}, **way))
            [run] = await durably.get_runs()
            try:
                handle = await durably.trigger("holds", {"n": 1}, **way)
            except Conflict as error:
                assert run.id in str(error)
            else:
                assert handle.id == run.id and handle.disposition in ("idempotent", "coalesced"), way
            assert len(await durably.get_runs()) == 1
            await _clear(durably)


# -- debounce --------------------------------------------------------------------------------------------


async def a_burst_becomes_one_run_of_the_last_input(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.started(holds.job(), polling_interval=LONG)
        handles = []
        for n in range(5):
            handles.append(await durably.trigger("holds", {"n": n}, concurrency_key="k", debounce=10))
            await move(world, 6)
        assert len({handle.id for handle in handles}) == 1
        assert [handle.disposition for handle in handles] == ["created", *["coalesced"] * 4]
        await move(world, 3.9)
        assert holds.begun == []
        run = await run_of(durably, handles[0].id)
        assert run.run_at == run.wake_at and run.run_at is not None
        assert run.run_at - run.created_at == timedelta(seconds=34)
        await move(world, 0.1)
        await until(lambda: holds.begun == [4])
        assert await bounded(handles[0].result()) == 4
        again = await durably.trigger("holds", {"n": 9}, concurrency_key="k", debounce=10)
        assert again.disposition == "created" and again.id != handles[0].id


async def a_burst_waits_no_longer_than_it_may(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.started(holds.job(), polling_interval=LONG)
        debounce = Debounce(10, max_delay=timedelta(seconds=25))
        for n in range(4):
            await durably.trigger("holds", {"n": n}, concurrency_key="k", debounce=debounce)
            await move(world, 8 if n < 3 else 0.9)
        assert holds.begun == []
        await move(world, 0.1)
        await until(lambda: holds.begun == [3])


async def bursts_of_two_keys_and_two_jobs_are_their_own(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job(), holds.job("other"))
        for n, (name, key) in enumerate((("holds", "a"), ("holds", "b"), ("other", "a"), ("holds", "a"))):
            await durably.trigger(name, {"n": n}, concurrency_key=key, debounce=10)
        assert len(await durably.get_runs()) == 3
        world.clock.advance(10)
        await bounded(durably.process_until_idle())
        assert sorted(holds.begun) == [1, 2, 3]


async def a_burst_while_its_last_run_executes_is_a_new_one(backend: Backend) -> None:
    holds = Holds()
    async with World(backend) as world:
        durably = await world.started(holds.job(), polling_interval=LONG)
        first = await durably.trigger("holds", {"n": 1}, concurrency_key="k", debounce=10)
        await move(world, 10)
        await holds.begins(1)
        second = await durably.trigger("holds", {"n": 2}, concurrency_key="k", debounce=10)
        third = await durably.trigger("holds", {"n": 3}, concurrency_key="k", debounce=10)
        assert first.id != second.id == third.id
        await move(world, 20)
        # It is due, and its key is held.
        again = await durably.trigger("holds", {"n": 4}, concurrency_key="k", debounce=10)
        assert again.id == second.id
        holds.let_go(1, 2, 3, 4)
        await bounded(first.result())
        await settled()
        assert holds.begun == [1]
        await move(world, 10)
        assert await bounded(second.result()) == 4


# -- trigger_many ----------------------------------------------------------------------------------------


async def many_triggers_are_one_transaction(backend: Backend) -> None:
    holds = Holds(free=True)
    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    async with World(backend) as world:
        durably = await world.engine(holds.job(), through=through)
        heard = Heard(durably, "run:trigger")
        counting[0].batches.clear()
        handles = await durably.trigger_many("holds", ({"input": {"n": n}, "priority": n} for n in range(300)))
        assert sum(batch.mode == "write" for batch in counting[0].batches) == 1
        assert [handle.disposition for handle in handles] == ["created"] * 300
        assert [event.run_id for event in heard.events] == [handle.id for handle in handles]
        assert len({handle.id for handle in handles}) == 300
        assert await durably.trigger_many("holds", []) == []
        await bounded(durably.process_until_idle(max_runs=10))
        assert holds.begun == list(range(299, 289, -1))


async def many_triggers_take_the_options_of_one(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        used = await durably.trigger("holds", {"n": 0}, idempotency_key="used")
        handles = await durably.trigger_many(
            "holds",
            [
                {"input": {"n": 1}, "labels": {"a": "b"}, "delay": 5},
                {"input": {"n": 2}, "idempotency_key": "used"},
                {"input": {"n": 3}, "idempotency_key": "new"},
                {"input": {"n": 4}, "idempotency_key": "new"},
                {"input": {"n": 5}, "concurrency_key": "k"},
                {"input": {"n": 6}, "concurrency_key": "k", "coalesce": "replace"},
                {"input": {"n": 7}, "concurrency_key": "k", "coalesce": "queue"},
                {"input": {"n": 8}, "concurrency_key": "k", "coalesce": "skip"},
            ],
        )
        created, coalesced = "created", "coalesced"
        expected = [created, "idempotent", created, "idempotent", created, coalesced, created, coalesced]
        assert [handle.disposition for handle in handles] == expected
        assert handles[1].id == used.id and handles[3].id == handles[2].id and handles[5].id == handles[4].id
        first, keyed = await run_of(durably, handles[0].id), await run_of(durably, handles[4].id)
        assert first.labels == {"a": "b"} and first.run_at is not None and keyed.input == {"n": 6}
        world.clock.advance(5)
        await bounded(durably.process_until_idle())
        assert sorted(holds.begun) == [0, 1, 3, 6, 7]


async def many_triggers_are_all_or_none(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        heard = Heard(durably)
        pending = await durably.trigger("holds", {"n": 1}, concurrency_key="k")
        heard.events.clear()
        good: dict[str, Any] = {"input": {"n": 2}, "labels": {"a": "b"}, "idempotency_key": "i"}
        for wrong, kind in (
            ({"input": {"n": 3}, "concurrency_key": "k"}, Conflict),
            ({"input": {"n": float("nan")}}, InvalidInput),
            ({"input": {"n": 3}, "delay": -1}, InvalidInput),
            ({"input": {"n": 3}, "concurrency_key": "k", "debounce": 5}, InvalidInput),
            ({"input": {"n": 3}, "colour": "red"}, InvalidInput),
            ({"n": 3}, InvalidInput),
            (3, InvalidInput),
        ):
            items: Any = [good, wrong, {"input": {"n": 4}}]
            error = await raised(kind, durably.trigger_many("holds", items))
            assert str(error), wrong
            if kind is Conflict:
                assert pending.id in str(error), error
        both = [{"input": {"n": n}, "concurrency_key": "other"} for n in (5, 6)]
        await raised(Conflict, durably.trigger_many("holds", both))
        assert [run.id for run in await durably.get_runs()] == [pending.id] and heard.events == []
        # Nothing of what was refused is in the way of what comes next.
        assert (await durably.trigger("holds", {"n": 7}, idempotency_key="i")).disposition == "created"


# -- limits of jobs --------------------------------------------------------------------------------------


async def no_more_runs_of_a_job_execute_than_it_allows(backend: Backend) -> None:
    """Runs that wait do not count, and other jobs are not kept behind."""
    holds = Holds()

    @job(max_concurrent_runs=1)
    async def sleeps(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("nap", 1000)

    async with World(backend) as world:
        durably = await world.started(
            holds.job(max_concurrent_runs=2), holds.job("other"), sleeps, polling_interval=LONG, max_concurrent_runs=4
        )
        for n in range(20):
            await _queue(durably, n, key=None, priority=9)
        await _queue(durably, 100, key=None, name="other")
        await holds.begins(0, 1, 100)
        naps = [await durably.trigger(sleeps) for _ in range(3)]
        for nap in naps:
            await becomes(durably, nap.id, "waiting")
        assert sorted(holds.executing) == [0, 1, 100]
        holds.let_go(*range(20), 100)
        await until(lambda: len(holds.begun) == 21 and not holds.executing)
        assert holds.begun[:2] == [0, 1]


@needs("workers")
async def a_jobs_limit_holds_over_all_workers(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        asking = await world.engine(holds.job(max_concurrent_runs=2))
        handles = [await _queue(asking, n, key=None) for n in range(30)]
        for _ in range(3):
            await world.started(holds.job(max_concurrent_runs=2))
        for handle in handles:
            await world.drive(handle.result(), seconds=60)
        assert holds.most == 2 and sorted(holds.begun) == list(range(30))


async def a_crashed_run_gives_its_place_to_others_when_its_lease_ends(backend: Backend) -> None:
    holds = Holds()
    async with World(backend) as world:
        first = await world.started(holds.job(max_concurrent_runs=1))
        await _queue(first, 1, key=None)
        await holds.begins(1)
        await world.crash(first)
        await world.expire()
        holds.let_go(1, 2)
        second = await world.engine(holds.job(max_concurrent_runs=1))
        await _queue(second, 2, key=None, priority=5)
        await bounded(second.process_until_idle())
        assert holds.begun == [1, 2, 1]


# -- rates -----------------------------------------------------------------------------------------------


async def no_more_runs_begin_in_any_period_than_the_rate_allows(backend: Backend) -> None:
    """A window that slides; and the worker wakes when there is room, without asking again and again."""
    holds = Holds(free=True)
    limited = holds.job(rate_limit=RateLimit(2, 10))
    async with World(backend) as world:
        durably = await world.started(limited, holds.job("other"), polling_interval=LONG)
        await _queue(durably, 0, key=None)
        await until(lambda: len(holds.begun) == 1)
        await move(world, 6)
        for n in range(1, 6):
            await _queue(durably, n, key=None)
        await _queue(durably, 100, key=None, name="other", priority=-1)
        await until(lambda: len(holds.begun) == 3)
        await settled()
        assert sorted(holds.begun) == [0, 1, 100]
        await move(world, 3.9)
        assert len(holds.begun) == 3
        await move(world, 0.1)
        await until(lambda: len(holds.begun) == 4)
        await move(world, 5.9)
        assert len(holds.begun) == 4
        await move(world, 0.1)
        await until(lambda: len(holds.begun) == 5)
        await move(world, 4)
        await until(lambda: len(holds.begun) == 6)
        await move(world, 6)
        await until(lambda: len(holds.begun) == 7)
        assert [n for n in holds.begun if n != 100] == list(range(6))


async def a_rate_can_be_one_per_key(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job(rate_limit=RateLimit(1, timedelta(minutes=1), per_key=True)))
        for n, key in enumerate(("a", "a", "b", "b", None, None)):
            await _queue(durably, n, key=key)
        await bounded(durably.process_until_idle())
        assert sorted(holds.begun) == [0, 2, 4]
        world.clock.advance(60)
        await bounded(durably.process_until_idle())
        assert sorted(holds.begun) == list(range(6))


async def a_rate_is_not_forgotten(backend: Backend) -> None:
    """Not by a restart, nor because a run that began ended, was cancelled, or is gone."""
    holds = Holds(free=True)
    limited = holds.job(rate_limit=RateLimit(3, 100))
    async with World(backend) as world:
        first = await world.engine(limited)
        handles = [await _queue(first, n, key=None) for n in (-1, 0, 1)]
        await bounded(first.process_until_idle())
        await first.delete_run(handles[0].id)
        await first.stop()
        second = await world.engine(limited)
        await _queue(second, 2, key=None)
        world.clock.advance(99.9)
        assert await bounded(second.process_until_idle()) == 0
        world.clock.advance(0.1)
        await bounded(second.process_until_idle())
        assert holds.begun[3:] == [2]


async def a_rate_counts_beginnings_only(backend: Backend) -> None:
    """What wakes from a sleep, is retried, or is taken over from a dead worker has begun already."""
    gate = Gate()

    @job(rate_limit=RateLimit(1, 1000))
    async def limited(step: Step, input: dict[str, Any]) -> str:
        await step.sleep("nap", 10)
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        first = await world.started(limited)
        handle = await first.trigger(limited)
        await becomes(first, handle.id, "waiting")
        await world.drive(gate.reached(), seconds=12)
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(limited)
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == "done"


@needs("workers")
async def a_rate_holds_over_all_workers(backend: Backend) -> None:
    holds = Holds(free=True)
    limited = holds.job(rate_limit=RateLimit(4, 10))
    async with World(backend) as world:
        asking = await world.engine(limited)
        for n in range(12):
            await _queue(asking, n, key=None)
        for _ in range(3):
            await world.started(limited)
        began: list[int] = []
        for _ in range(3):
            await world.advance(9, step=0.5)
            began.append(len(holds.begun))
            await world.advance(1.5, step=0.5)
        assert began == [4, 8, 12]


@needs("workers")
async def a_rate_holds_when_clocks_differ(backend: Backend) -> None:
    """A worker whose clock is ahead does not take away what counts by the clocks of others."""
    holds = Holds(free=True)
    limited = holds.job(rate_limit=RateLimit(1, 10))
    async with World(backend) as world:
        clock = world.clock = UnsteadyClock()
        durably, ahead = await world.engine(limited), await world.engine(limited)
        await _queue(durably, 0, key=None)
        assert await bounded(durably.process_until_idle()) == 1
        clock.advance(9)
        clock.jump(1)
        assert await bounded(ahead.process_until_idle()) == 0
        clock.jump(-1)
        await _queue(durably, 1, key=None)
        assert await bounded(durably.process_until_idle()) == 0
        clock.advance(1)
        assert await bounded(durably.process_until_idle()) == 1
        assert holds.begun == [0, 1]


# -- priority --------------------------------------------------------------------------------------------


async def a_higher_priority_goes_first(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.engine(holds.job(), holds.job("other"), max_concurrent_runs=1)
        for n, (priority, name) in enumerate(
            ((0, "holds"), (-5, "holds"), (7, "other"), (0, "other"), (2**31 - 1, "holds"), (7, "holds"))
        ):
            handle = await _queue(durably, n, key=None, name=name, priority=priority)
            assert (await run_of(durably, handle.id)).priority == priority
        await bounded(durably.process_until_idle())
        assert holds.begun == [4, 2, 5, 0, 3, 1]


async def a_waiting_run_that_wakes_keeps_its_priority(backend: Backend) -> None:
    order: list[int] = []

    @job
    async def sleeps(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("nap", 10)
        order.append(input["n"])

    async with World(backend) as world:
        durably = await world.engine(sleeps, max_concurrent_runs=1)
        for n, priority in enumerate((1, 3, 2)):
            await durably.trigger(sleeps, {"n": n}, priority=priority)
        await bounded(durably.process_until_idle())
        world.clock.advance(10)
        await bounded(durably.process_until_idle())
        assert order == [1, 2, 0]


# -- handles ---------------------------------------------------------------------------------------------


async def whoever_was_coalesced_waits_for_the_same_end(backend: Backend) -> None:
    holds = Holds()
    async with World(backend) as world:
        durably = await world.engine(holds.job())
        handles = [await _skip(durably, n) for n in range(3)]
        await durably.cancel(handles[1].id)
        ends: list[Awaitable[object]] = [raised(RunCancelled, handle.result(timeout=60)) for handle in handles]
        await bounded(asyncio.gather(*ends))


async def trigger_and_wait_takes_the_options_of_trigger(backend: Backend) -> None:
    holds = Holds(free=True)
    async with World(backend) as world:
        durably = await world.started(holds.job())
        options: dict[str, Any] = {"concurrency_key": "k", "coalesce": "queue", "priority": 1, "labels": {"a": "b"}}
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: durably.trigger_and_wait("holds", {"n": 1}, **options),
            lambda: durably.trigger_and_wait("holds", {"n": 2}, **options, delay=0.5),
        ]
        assert await world.drive(asyncio.gather(*[call() for call in calls])) == [1, 2]
        assert {run.concurrency_key for run in await durably.get_runs()} == {"k"}
