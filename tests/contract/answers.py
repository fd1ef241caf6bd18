"""What a database that limits its answers is asked: no run is too large, and none holds up another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import ResponseTooLarge, StoreUnavailable
from durably_web.events import Event
from durably_web.jobs import job
from durably_web.piecemeal import PAUSE_MS
from durably_web.records import Run
from durably_web.steps import Step
from durably_web.store.batch import Batch, Executor, Rows
from durably_web.store.operations import paging
from tests.contract import Backend
from tests.support.executors import BriefExecutor, Wrapper
from tests.support.world import Heard, World, bounded, raised, until

STEPS = 12
TEXT = "x" * 4_000
"""Five of them are too much for one answer."""


@job
async def small(step: Step, input: Any) -> str:
    return await step.run("one", lambda: "done")


@job
async def waits(step: Step, input: Any) -> int:
    """Ten of these are too large together, and none of them alone."""
    first = await step.run("first", lambda: TEXT)
    await step.sleep("nap", 60)
    return len(first)


class Large:
    """A job with more results than fit into one answer. It fails once behind them."""

    def __init__(self) -> None:
        self.called: list[int] = []
        self.failures = 1

        @job
        async def large(step: Step, input: Any) -> int:
            step.log.info("it begins")
            found = [await step.run(f"step {number}", self._call, number) for number in range(STEPS)]
            if self.failures:
                self.failures -= 1
                raise RuntimeError("once")
            return sum(map(len, found))

        self.job = large

    def _call(self, number: int) -> str:
        self.called.append(number)
        return TEXT


async def _brief(world: World, *jobs: Any, **options: Any) -> tuple[Durably, BriefExecutor]:
    """An engine whose database says little at once."""
    brief: list[BriefExecutor] = []

    def through(inner: Executor) -> Executor:
        brief.append(BriefExecutor(inner))
        return brief[0]

    return await world.engine(*jobs, through=through, **options), brief[0]


async def a_run_that_is_too_large_for_an_answer_is_replayed_and_holds_up_no_other(backend: Backend) -> None:
    large = Large()
    async with World(backend) as world:
        first = await world.started(large.job)
        run_id = (await first.trigger(large.job)).id
        await bounded(first.wait_for_run(run_id))
        await first.stop()
        durably, brief = await _brief(world, large.job, small)
        await durably.retry(run_id)
        innocent = [await durably.trigger(small) for _ in range(3)]
        await durably.start()
        assert [await bounded(handle.result()) for handle in innocent] == ["done"] * 3
        assert await bounded(durably.output_of(run_id)) == STEPS * len(TEXT)
        assert large.called == list(range(STEPS)), "no step was executed again"
        assert brief.refused, "otherwise this shows nothing"
        told = [entry.message for entry in await durably.get_logs(run_id)]
        assert told == ["it begins"], "nor is a line told again"


async def runs_that_are_too_large_together_go_on_one_by_one(backend: Backend) -> None:
    async with World(backend) as world:
        first = await world.engine(waits)
        handles = [await first.trigger(waits) for _ in range(10)]
        await bounded(first.process())
        await world.advance(60)
        durably, brief = await _brief(world, waits)
        await durably.start()
        assert [await bounded(durably.output_of(handle.id)) for handle in handles] == [len(TEXT)] * 10
        assert brief.refused


async def the_same_with_keys_and_limits(backend: Backend) -> None:
    @job(max_concurrent_runs=2)
    async def few(step: Step, input: Any) -> int:
        first = await step.run("first", lambda: TEXT)
        await step.sleep("nap", 60)
        return len(first)

    async with World(backend) as world:
        first = await world.engine(few, waits)
        handles: list[Any] = [await first.trigger(few) for _ in range(4)]
        handles += [await first.trigger(waits, concurrency_key=f"k{number}") for number in range(8)]
        await bounded(first.process())
        await world.advance(60)
        durably, brief = await _brief(world, few, waits)
        await durably.start()
        assert [await bounded(durably.output_of(handle.id)) for handle in handles] == [len(TEXT)] * 12
        assert brief.refused


async def process_takes_them_up_as_well(backend: Backend) -> None:
    large = Large()
    async with World(backend) as world:
        durably, brief = await _brief(world, large.job, small, waits)
        run = await durably.trigger(large.job)
        slept = [await durably.trigger(waits) for _ in range(10)]
        await bounded(durably.process())
        await durably.retry(run.id)
        await durably.trigger(small)
        await world.advance(60)
        brief.refused = 0
        assert (await bounded(durably.process(max_runs=2))).processed == 2
        assert (await bounded(durably.process())).processed == 10
        assert brief.refused
        assert {found.status for found in await durably.get_runs()} == {"completed"}
        assert await slept[0].result() == len(TEXT) and await run.result() == STEPS * len(TEXT)


async def a_fork_of_a_large_run_has_its_results(backend: Backend) -> None:
    large = Large()
    large.failures = 0
    async with World(backend) as world:
        durably, brief = await _brief(world, large.job)
        await durably.start()
        run = await durably.trigger(large.job)
        await bounded(run.result())
        forked = await durably.fork(run.id, from_step=f"step {STEPS - 1}")
        assert await bounded(forked.result()) == STEPS * len(TEXT)
        assert large.called == [*range(STEPS), STEPS - 1] and brief.refused


async def a_run_with_a_result_that_fits_into_no_answer_waits_and_no_other_does(backend: Backend) -> None:
    await _waits_until_more_is_said(backend, None, 30_000)


async def a_run_with_an_input_that_fits_into_no_answer_waits_and_no_other_does(backend: Backend) -> None:
    await _waits_until_more_is_said(backend, "y" * 30_000, 10)


async def _waits_until_more_is_said(backend: Backend, asked: str | None, size: int) -> None:
    called: list[int] = []

    def make() -> str:
        called.append(size)
        return "x" * size

    @job
    async def huge(step: Step, input: Any) -> int:
        found = await step.run("huge", make)
        await step.sleep("nap", 60)
        return len(input or "") + len(found)

    async with World(backend) as world:
        durably, brief = await _brief(world, huge, small)
        heard = Heard(durably)
        await durably.start()
        run = await durably.trigger(huge, asked)
        if asked is None:
            await until(lambda: heard.of("run:waiting"))
            await world.advance(60)
        await until(lambda: heard.of("worker:error"))
        innocent = await durably.trigger(small)
        assert await bounded(innocent.result()) == "done"
        [error] = heard.of("worker:error")
        assert error.run_id == run.id and "ResponseTooLarge" in str(error.error)
        last = heard.of("run:waiting")[-1]
        assert last.run_id == run.id and "ResponseTooLarge" in str(last.error) and last.until is not None
        # The database says more now.
        brief.most = 1_000_000
        # A moment more: the one may begin a little later than the other ended.
        await world.advance(PAUSE_MS / 1000 + 5)
        await world.advance(65)
        assert await bounded(run.result()) == len(asked or "") + size and called == [size]
        assert len(heard.of("worker:error")) == 1


class _Meets(Wrapper):
    """Does something once, before a batch with this statement."""

    def __init__(self, inner: Executor, sql: str) -> None:
        super().__init__(inner)
        self.sql = sql
        self.meet: Callable[[], Any] | None = None

    async def run(self, batch: Batch) -> list[Rows]:
        if self.meet is not None and any(statement.sql == self.sql for statement in batch.statements):
            meet, self.meet = self.meet, None
            await meet()
        return await self.inner.run(batch)


async def _meeting(world: World, large: Large) -> tuple[Durably, _Meets]:
    """An engine that something happens to when it reads the first page of a journal."""
    meets: list[_Meets] = []

    def through(inner: Executor) -> Executor:
        meets.append(_Meets(BriefExecutor(inner), paging.SELECT_JOURNAL_PAGE))
        return meets[0]

    return await world.engine(large.job, small, through=through), meets[0]


async def a_run_that_cannot_be_read_to_its_end_is_given_back(backend: Backend) -> None:
    large = Large()
    async with World(backend) as world:
        durably, meets = await _meeting(world, large)
        heard = Heard(durably, "worker:error")
        await durably.start()
        run = await durably.trigger(large.job)
        await bounded(durably.wait_for_run(run.id))

        async def fails() -> None:
            raise StoreUnavailable("the network is down", code="FAULT")

        meets.meet = fails
        await durably.retry(run.id)
        await until(lambda: heard.events)
        assert "the network is down" in str(heard.events[0].error)
        found = await durably.get_run(run.id)
        assert found is not None and found.status == "pending", "nobody has to wait for the end of its lease"
        await world.advance(1)
        assert await bounded(run.result()) == STEPS * len(TEXT)
        assert large.called == list(range(STEPS))


async def a_run_that_is_cancelled_while_it_is_read_does_not_begin(backend: Backend) -> None:
    large = Large()
    async with World(backend) as world:
        durably, meets = await _meeting(world, large)
        await durably.start()
        run = await durably.trigger(large.job)
        await bounded(durably.wait_for_run(run.id))
        heard = Heard(durably, "run:leased")
        meets.meet = lambda: durably.cancel(run.id)
        await durably.retry(run.id)
        ended = await bounded(durably.wait_for_run(run.id))
        assert ended.status == "cancelled"
        assert await bounded((await durably.trigger(small)).result()) == "done"
        assert [event.run_id for event in heard.events] != [run.id]


async def what_is_read_of_large_runs_is_what_others_read(backend: Backend) -> None:
    @job
    async def outputs(step: Step, input: Any) -> str:
        return TEXT

    async def heard(durably: Durably, run_id: str | None, last: int) -> list[Event]:
        found = []
        async for event in durably.subscribe(run_id, after=0):
            found.append(event)
            if event.seq == last:
                break
        return found

    large = Large()
    async with World(backend) as world:
        durably, brief = await _brief(world, large.job, outputs)
        whole = await world.engine(large.job, outputs)
        await durably.start()
        run = await durably.trigger(large.job)
        await bounded(durably.wait_for_run(run.id))
        await durably.retry(run.id)
        await bounded(run.result())
        for _ in range(9):
            await bounded((await durably.trigger(outputs)).result())
        last = await durably.last_seq()
        [*own] = (await whole.get_events(run.id)).events
        readings: list[Callable[[Durably], Any]] = [
            lambda one: one.get_steps(run.id),
            lambda one: one.export_run(run.id),
            lambda one: one.get_runs(),
            lambda one: one.get_runs(limit=7),
            lambda one: one.get_runs(limit=7, offset=2),
            lambda one: one.get_runs(job=outputs, offset=1),
            lambda one: one.get_events(),
            lambda one: one.get_events(run.id),
            lambda one: one.get_events(run.id, limit=9),
            lambda one: one.get_events(after=own[3].seq, limit=17),
            lambda one: heard(one, None, last),
            lambda one: heard(one, run.id, own[-1].seq or 0),
        ]
        for number, reading in enumerate(readings):
            brief.refused = 0
            expected = await bounded(reading(whole))
            assert await bounded(reading(durably)) == expected, number
            assert brief.refused, f"reading {number} shows nothing"
        assert len(await durably.get_steps(run.id)) == STEPS
        runs = await durably.get_runs(limit=7, offset=2)
        assert len(runs) == 7 and all(isinstance(found, Run) for found in runs)


async def a_single_value_that_fits_into_no_answer_is_an_error_of_who_asks_for_it(backend: Backend) -> None:
    @job
    async def outputs(step: Step, input: Any) -> str:
        return "x" * 30_000

    async with World(backend) as world:
        durably, brief = await _brief(world, outputs, small)
        await durably.start()
        run = await durably.trigger(outputs)
        await until(lambda: brief.refused or not durably._worker.executions())
        await raised(ResponseTooLarge, bounded(run.result()))
        await raised(ResponseTooLarge, bounded(durably.get_runs()))
        other = await durably.trigger(small)
        assert await bounded(other.result()) == "done"
        assert [found.id for found in await durably.get_runs(job=small)] == [other.id]


async def many_large_signals_are_taken_in_their_order(backend: Backend) -> None:
    @job
    async def asks(step: Step, input: Any) -> list[int]:
        return [len(await step.wait_for_signal("answer")) for _ in range(8)]

    async with World(backend) as world:
        durably, brief = await _brief(world, asks)
        run = await durably.trigger(asks)
        for number in range(8):
            await durably.signal(run.id, "answer", "x" * (4_000 + number))
        await durably.start()
        assert await bounded(run.result()) == [4_000 + number for number in range(8)]
        assert brief.refused


async def large_results_are_undone(backend: Backend) -> None:
    undone: list[int] = []

    @job
    async def undoable(step: Step, input: Any) -> None:
        for number in range(8):
            await step.run(f"do {number}", lambda number=number: "x" * (4_000 + number), undo=_undo)
        raise RuntimeError("no")

    def _undo(result: str) -> None:
        undone.append(len(result) - 4_000)

    async with World(backend) as world:
        durably, brief = await _brief(world, undoable)
        await durably.start()
        run = await durably.trigger(undoable)
        ended = await bounded(durably.wait_for_run(run.id))
        assert ended.status == "failed" and undone == list(reversed(range(8)))
        assert brief.refused


async def a_large_run_is_offered_with_all_that_it_has(backend: Backend) -> None:
    async with World(backend) as world:

        @job
        async def stays(step: Step, input: Any) -> None:
            for number in range(STEPS):
                await step.run(f"step {number}", lambda: TEXT)
            await step.wait_for_signal("never")

        durably, brief = await _brief(world, stays)
        whole = await world.engine(stays)
        heard = Heard(durably, "run:waiting")
        await durably.start()
        run = await durably.trigger(stays)
        await until(lambda: heard.events and not durably._worker.executions())
        for number in range(8):
            await durably.signal(run.id, "other", f"{number} {TEXT}")
        brief.refused = 0
        offer = await durably.offer_run(run.id, "elsewhere")
        again = await whole.offer_run(run.id, "elsewhere")
        assert brief.refused and offer == again and offer.document is not None
        assert len(offer.document["signals"]) == 8
        await durably.withdraw_handover(run.id, offer.handover_id)
