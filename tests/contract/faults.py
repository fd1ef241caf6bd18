"""What is left when the database fails at any one moment: nothing that was acknowledged is lost, nothing runs twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import StoreError
from durably_web.jobs import Job, job
from durably_web.records import Run
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend
from tests.support.executors import Fault, FaultyExecutor, SuspendingExecutor
from tests.support.invariants import results_of
from tests.support.world import World, bounded, turns

INPUT = {"text": "a,b,c,d,e"}


class Life:
    """What really happened: which steps ran how often, and which results the job was given."""

    def __init__(self) -> None:
        self.ran: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}

    def run(self, name: str, value: Any) -> Any:
        """A step's function. It must not run again once its result was acknowledged."""
        assert name not in self.acknowledged, f"{name} ran again, and its result had been acknowledged"
        self.ran[name] = self.ran.get(name, 0) + 1
        return value

    def given(self, name: str, value: Any) -> Any:
        self.acknowledged[name] = self.acknowledged.get(name, 0) + 1
        return value


def _reference(life: Life) -> Job[dict[str, str], Any]:
    """Loops, parallel steps, a caught failure, logs and progress."""

    @job
    async def reference(step: Step, input: dict[str, str]) -> Any:
        step.log.info("begin", text=input["text"])
        parts = life.given("parse", await step.run("parse", _parse, life, input["text"]))
        saved = []
        for number, part in enumerate(parts):
            key = "save" if number == 0 else f"save#{number + 1}"
            saved.append(life.given(key, await step.run("save", _save, life, key, part)))
            step.progress(number + 1, len(parts), part)
        pairs = await asyncio.gather(*[_pair(step, life, number) for number in range(4)])
        try:
            await step.run("risky", _risky, life)
        except ZeroDivisionError as error:
            life.given("risky", None)
            step.log.warning("caught", error=str(error))
        last = life.given("last", await step.run("last", life.run, "last", {"a": [1.0, None]}))
        step.log.info("end")
        return {"saved": saved, "pairs": pairs, "last": last}

    return reference


async def _parse(life: Life, text: str) -> list[str]:
    await asyncio.sleep(0)
    return list(life.run("parse", text.split(",")))


async def _save(life: Life, key: str, part: str) -> str:
    return str(life.run(key, part.upper()))


async def _pair(step: Step, life: Life, number: int) -> int:
    async def work() -> int:
        for _ in range(3 - number % 3):
            await asyncio.sleep(0)
        return int(life.run(f"pair {number}", number))

    return int(life.given(f"pair {number}", await step.run(f"pair {number}", work)))


async def _risky(life: Life) -> None:
    life.run("risky", None)
    raise ZeroDivisionError("risky")


EXPECTED = {"saved": ["A", "B", "C", "D", "E"], "pairs": [0, 1, 2, 3], "last": {"a": [1.0, None]}}
LOGS = ["begin", "caught", "end"]


async def an_undisturbed_run_is_as_expected(backend: Backend) -> None:
    async with World(backend) as world:
        life = Life()
        durably = await world.engine(_reference(life))
        handle = await durably.trigger("reference", INPUT)
        await durably.process_one()
        await _is_whole(world, durably, handle.id, life)
        assert set(life.ran.values()) == {1}


async def _is_whole(world: World, durably: Durably, run_id: str, life: Life) -> None:
    run = await durably.get_run(run_id)
    assert isinstance(run, Run) and run.status == "completed", run
    assert run.output == EXPECTED, run.output
    assert run.progress == (5, 5, "e")
    assert [one.message for one in await durably.get_logs(run_id)] == LOGS
    executor = world.executor()
    await executor.open()
    results = await results_of(executor, run_id)
    await executor.close()
    assert set(results.values()) == {1} and len(results) == 11, results
    assert set(life.acknowledged) == set(life.ran)
    events = [event async for event in durably.subscribe(run_id)]
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    await world.check()


async def _survives(world: World, fault: Fault, at: int, through: Any) -> bool:
    """Whether the fault came at all; if it did, another engine has finished the run, and all is well."""
    faulty: list[FaultyExecutor] = []

    def wrap(inner: Executor) -> Executor:
        faulty.append(FaultyExecutor(through(inner), fault))
        return faulty[0]

    life = Life()
    reference = _reference(life)
    first = await world.engine(reference, through=wrap)
    faulty[0].at = at
    key = f"{fault} {at}"
    run_id = None
    try:
        run_id = (await first.trigger(reference, INPUT, idempotency_key=key)).id
        await bounded(first.process_until_idle())
    except StoreError:
        pass
    fell = faulty[0].fell
    await world.crash(first)
    await world.expire()
    second = await world.engine(reference)
    # The caller of a trigger that failed asks again, with the same key.
    handle = await second.trigger(reference, INPUT, idempotency_key=key)
    assert run_id is None or handle.id == run_id, "an acknowledged trigger is not lost"
    await bounded(second.process_until_idle())
    await _is_whole(world, second, handle.id, life)
    await second.stop()
    return fell


async def _at_every_batch(backend: Backend, fault: Fault, through: Any = lambda inner: inner) -> None:
    async with World(backend) as world:
        at = 1
        while await _survives(world, fault, at, through):
            at += 1
            assert at < 200
        assert at > 12, f"only {at} batches were tried"


async def failing_before_any_batch_loses_nothing(backend: Backend) -> None:
    await _at_every_batch(backend, "before")


async def losing_any_reply_loses_nothing(backend: Backend) -> None:
    await _at_every_batch(backend, "after")


async def dying_at_any_batch_loses_nothing(backend: Backend) -> None:
    await _at_every_batch(backend, "dead")


async def the_same_holds_for_a_database_that_takes_its_time(backend: Backend) -> None:
    faults: tuple[Fault, ...] = ("before", "after", "dead")
    for fault in faults:
        await _at_every_batch(backend, fault, SuspendingExecutor)


async def the_same_engine_goes_on_after_a_fault(backend: Backend) -> None:
    """No process dies; the worker itself takes the run up again when its lease has run out."""
    faults: tuple[Fault, ...] = ("before", "after")
    for fault in faults:
        async with World(backend) as world:
            for at in range(1, 20):
                faulty: list[FaultyExecutor] = []

                def wrap(inner: Executor, fault: Fault = fault, faulty: list[FaultyExecutor] = faulty) -> Executor:
                    faulty.append(FaultyExecutor(inner, fault))
                    return faulty[0]

                life = Life()
                durably = await world.started(_reference(life), through=wrap)
                await turns()
                handle = await durably.trigger("reference", INPUT)
                faulty[0].at = at
                await world.advance(40)
                assert await world.drive(durably.output_of(handle.id)) == EXPECTED
                await _is_whole(world, durably, handle.id, life)
                await durably.stop()


async def runs_beside_each_other_survive_any_fault(backend: Backend) -> None:
    """Several runs whose writes share transactions; the faults are drawn with a seed."""
    for seed in range(12):
        async with World(backend) as world:
            draw = random.Random(seed)
            lives: dict[str, Life] = {}

            any_of = _dispatching(lives)
            ids: list[str] = []
            for number in range(4):
                faulty: list[FaultyExecutor] = []
                fault: Fault = draw.choice(("before", "after", "dead"))

                def wrap(inner: Executor, fault: Fault = fault, faulty: list[FaultyExecutor] = faulty) -> Executor:
                    faulty.append(FaultyExecutor(inner, fault))
                    return faulty[0]

                durably = await world.started(any_of, through=wrap)
                while len(ids) < 5:
                    key = f"run {len(ids)}"
                    lives[key] = Life()
                    ids.append((await durably.trigger(any_of, INPUT | {"key": key})).id)
                faulty[0].at = draw.randrange(1, 25)
                await world.advance(draw.choice((0, 1, 3)))
                if number % 2:
                    await world.crash(durably)
                else:
                    faulty[0].at = 0
                    await bounded(durably.stop())
                await world.expire()
            last = await world.engine(any_of)
            await bounded(last.process_until_idle())
            for number, run_id in enumerate(ids):
                await _is_whole(world, last, run_id, lives[f"run {number}"])


def _dispatching(lives: dict[str, Life]) -> Job[dict[str, str], Any]:
    @job(name="reference")
    async def reference(step: Step, input: dict[str, str]) -> Any:
        return await _reference(lives[input["key"]]).fn(step, input)

    return reference
