"""A handover of which anything is lost: the run has one owner at most at every moment, and one in the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import Conflict, StoreError
from durably_web.jobs import Job, job
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend, needs
from tests.support.executors import Fault, FaultyExecutor
from tests.support.invariants import results_of
from tests.support.scenes import run_of
from tests.support.two import Lost, Two, Way, owners
from tests.support.world import World, bounded

TARGET = "there"


class Life:
    """Which steps ran how often: none whose result was given to the job runs again, wherever it is asked for."""

    def __init__(self) -> None:
        self.given: set[str] = set()
        self.ran: dict[str, int] = {}

    def run(self, name: str) -> str:
        assert name not in self.given, f"{name} ran again, and its result had been acknowledged"
        self.ran[name] = self.ran.get(name, 0) + 1
        return name


def _job(life: Life) -> Job[Any, Any]:
    @job(name="work")
    async def work(step: Step, input: dict[str, Any]) -> Any:
        done = []
        for name in ("one", "two"):
            done.append(await step.run(name, life.run, name))
            life.given.add(name)
        done.append(await step.wait_for_signal("go"))
        step.log.info("went on")
        for name in ("three", "four"):
            done.append(await step.run(name, life.run, name))
            life.given.add(name)
        return done

    return work


EXPECTED = ["one", "two", "now", "three", "four"]


async def _begun(world: World, life: Life) -> tuple[Durably, str]:
    durably = await world.engine(_job(life))
    run_id = (await durably.trigger("work", {}, labels={"a": "b"})).id
    await durably.signal(run_id, "later")
    await bounded(durably.process_until_idle())
    return durably, run_id


async def _brought_to_its_end(two: Two, run_id: str, life: Life) -> str:
    """Engines that know nothing of what was go on with the handover, then with the run; tells where it ended."""
    here, there = await two.here.engine(_job(life)), await two.there.engine(_job(life))
    await bounded(here.hand_over(run_id, Way(there), target=TARGET))
    assert await owners(two, run_id) == ["there"]
    for durably in (here, there):
        await bounded(durably.process_until_idle())
    await there.signal(run_id, "go", "now")
    await bounded(there.process_until_idle())
    assert (await run_of(there, run_id)).output == EXPECTED
    assert life.ran == {"one": 1, "two": 1, "three": 1, "four": 1}, life.ran
    executor = two.there.executor()
    await executor.open()
    assert set((await results_of(executor, run_id)).values()) == {1}
    await executor.close()
    assert [one.message for one in await there.get_logs(run_id)] == ["went on"]
    for durably in (here, there):
        await durably.stop()
    return "there"


# -- messages ----------------------------------------------------------------------------------------------


@needs("another")
async def any_message_may_be_lost_in_either_direction(backend: Backend) -> None:
    """Of each of the messages that one call sends, the request, the reply, or nothing; then the call is repeated."""
    async with Two(backend) as two:
        for loses in itertools.product(("", "request", "reply"), repeat=3):
            life = Life()
            here, run_id = await _begun(two.here, life)
            there = await two.there.engine(_job(life))
            way = Way(there, *loses)
            for _ in range(4):
                try:
                    await bounded(here.hand_over(run_id, way, target=TARGET))
                    break
                except Lost:
                    assert len(await owners(two, run_id)) <= 1, loses
                    assert await bounded(here.process_until_idle()) == 0 or await owners(two, run_id) == ["here"], loses
            # What was thought to be lost arrives after all.
            for text in way.late:
                try:
                    await there.import_run(text)
                except Conflict:
                    pass
                assert len(await owners(two, run_id)) == 1, loses
            if await owners(two, run_id) == ["here"]:
                await bounded(here.hand_over(run_id, Way(there), target=TARGET))
            await here.stop()
            await there.stop()
            await _brought_to_its_end(two, run_id, life)


@needs("another")
async def in_whatever_order_messages_arrive_there_is_one_owner(backend: Backend) -> None:
    """The document twice, the question what became of it twice, in every order; each answer is acted on at once or
    later, and what is acted on comes twice."""
    async with Two(backend) as two:
        life = Life()
        for order in sorted(set(itertools.permutations("ddqq"))):
            for when in ("at once", "last"):
                here, run_id = await _begun(two.here, life := Life())
                there = await two.there.engine(_job(life))
                offer = await here.offer_run(run_id, TARGET)
                answers: list[bool] = []
                for message in order:
                    if message == "d":
                        try:
                            await there.import_run(offer.document)
                            answers.append(True)
                        except Conflict:
                            # Of that alone nobody concludes anything.
                            pass
                    else:
                        answers.append(not await there.decline_handover(run_id, offer.handover_id))
                    assert len(set(answers)) <= 1, (order, "answers that do not fit together")
                    assert len(await owners(two, run_id)) <= 1, (order, when)
                    if when == "at once" and answers:
                        await _settle(here, run_id, offer.handover_id, answers[-1])
                        assert len(await owners(two, run_id)) == 1, (order, when)
                for answer in answers:
                    await _settle(here, run_id, offer.handover_id, answer)
                assert await owners(two, run_id) == ["there" if answers[0] else "here"], (order, when)
                await here.stop()
                await there.stop()


async def _settle(here: Durably, run_id: str, handover_id: str, taken: bool) -> None:
    await (here.confirm_handover if taken else here.withdraw_handover)(run_id, handover_id)


# -- crashes -------------------------------------------------------------------------------------------------


async def _survives(two: Two, fault: Fault, at: int, side: str) -> bool:
    """Whether the fault came at all; if it did, others have brought the handover and the run to their ends."""
    faulty: list[FaultyExecutor] = []

    def wrap(inner: Executor) -> Executor:
        faulty.append(FaultyExecutor(inner, fault))
        return faulty[0]

    def through(which: str) -> Callable[[Executor], Executor]:
        return wrap if which == side else lambda inner: inner

    life = Life()
    first, run_id = await _begun(two.here, life)
    await first.stop()
    here = await two.here.engine(_job(life), through=through("here"))
    there = await two.there.engine(_job(life), through=through("there"))
    faulty[0].at = at
    try:
        await bounded(here.hand_over(run_id, Way(there), target=TARGET))
    except StoreError:
        pass
    fell = faulty[0].fell
    assert len(await owners(two, run_id)) <= 1, (fault, at, side)
    await two.here.crash(here)
    await two.there.crash(there)
    # Others may execute whatever they find.
    for world in (two.here, two.there):
        after = await world.engine(_job(life))
        await bounded(after.process_until_idle())
        await after.stop()
    await _brought_to_its_end(two, run_id, life)
    return fell


async def _at_every_batch(backend: Backend, side: str, least: int) -> None:
    async with Two(backend) as two:
        faults: tuple[Fault, ...] = ("before", "after", "dead")
        for fault in faults:
            at = 1
            while await _survives(two, fault, at, side):
                at += 1
                assert at < 50
            assert at > least, f"only {at} batches were tried"


@needs("another")
async def failing_and_dying_at_any_batch_of_the_source_leaves_one_owner(backend: Backend) -> None:
    await _at_every_batch(backend, "here", 2)


@needs("another")
async def failing_and_dying_at_any_batch_of_the_target_leaves_one_owner(backend: Backend) -> None:
    await _at_every_batch(backend, "there", 1)


@needs("another")
async def a_run_that_is_executed_survives_any_fault_of_its_handover(backend: Backend) -> None:
    """The source pauses it first, and dies or fails anywhere between that and the end."""
    faults: tuple[Fault, ...] = ("before", "after", "dead")
    async with Two(backend) as two:
        for fault in faults:
            at, fell = 1, True
            while fell:
                faulty: list[FaultyExecutor] = []

                def wrap(inner: Executor, fault: Fault = fault, faulty: list[FaultyExecutor] = faulty) -> Executor:
                    faulty.append(FaultyExecutor(inner, fault))
                    return faulty[0]

                life = Life()
                # One engine executes it, and another one of the same database hands it over.
                working, run_id = await _begun(two.here, life)
                await working.signal(run_id, "go", "now")
                await working.start()
                here = await two.here.engine(_job(life), through=wrap)
                there = await two.there.engine(_job(life))
                faulty[0].at = at
                try:
                    await two.here.drive(here.hand_over(run_id, Way(there), target=TARGET))
                except (StoreError, Conflict):
                    # Or it has ended before it could be offered.
                    pass
                fell = faulty[0].fell
                assert len(await owners(two, run_id)) <= 1, (fault, at)
                await two.here.crash(here)
                await bounded(working.stop())
                # A pause that nobody takes back any more is seen, and taken back by hand.
                left = await two.here.engine(_job(life))
                run = await run_of(left, run_id)
                if run.paused and not run.is_terminal and await owners(two, run_id) == ["here"]:
                    await left.resume(run_id)
                if not run.is_terminal:
                    await bounded(left.hand_over(run_id, Way(there), target=TARGET))
                for durably in (left, there):
                    await bounded(durably.process_until_idle())
                [place] = await owners(two, run_id)
                end = await run_of(left if place == "here" else there, run_id)
                assert end.output == EXPECTED, (fault, at, end)
                assert set(life.ran.values()) == {1}, (fault, at, life.ran)
                await there.stop()
                await left.stop()
                at += 1
                assert at < 60
