"""Several engines, one database, and a seed that decides what happens next.

Whatever the order: what was acknowledged is what is stored, and the database fits its model. A seed that fails is in
the assertion's message; `_simulate(backend, seed)` plays it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import DurablyError, RunFailed, StoreUnavailable
from durably_web.jobs import Job, job
from durably_web.steps import Step
from durably_web.store.batch import Batch, Executor, Rows
from tests.contract import Backend, needs
from tests.support.executors import Wrapper
from tests.support.world import SECONDS, World, turns

SEEDS = 25
ACTIONS = 60


class Chance:
    """What really happened: every result that a job was given, by run and step."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.made = 0
        self.given: dict[tuple[str, str], set[str]] = {}
        self.triggered: set[str] = set()
        self.deleted: set[str] = set()
        self.calm = False

    def result(self) -> str:
        """Different each time that a step's function runs."""
        self.made += 1
        return f"result {self.made}"

    def job(self) -> Job[dict[str, Any], list[str]]:
        async def work(turns_to_take: int, fails: bool) -> str:
            await turns(turns_to_take)
            if fails:
                raise ValueError(self.result())
            return self.result()

        async def one(step: Step, number: int) -> str:
            name = f"step {number}"
            fails = not self.calm and self.draw.random() < 0.05
            try:
                value = await step.run(name, work, self.draw.randrange(6), fails)
            except ValueError as error:
                value = str(error)
                if self.draw.random() < 0.5:
                    raise
            self.given.setdefault((step.run_id, name), set()).add(value)
            return value

        @job
        async def chance(step: Step, input: dict[str, Any]) -> list[str]:
            values = []
            for number in range(input["steps"]):
                step.log.info("begin", number=number)
                values.append(await one(step, number))
                step.progress(number)
            values += await asyncio.gather(*[one(step, 100 + number) for number in range(input["parallel"])])
            return values

        return chance


class Unsteady(Wrapper):
    """Takes a few turns of the loop, and sometimes fails, before or after."""

    def __init__(self, inner: Executor, chance: Chance) -> None:
        super().__init__(inner)
        self._chance = chance

    async def run(self, batch: Batch) -> list[Rows]:
        draw = self._chance.draw
        await turns(draw.randrange(4))
        if not self._chance.calm and draw.random() < 0.02:
            raise StoreUnavailable("before", code="CHANCE")
        results = await self.inner.run(batch)
        await turns(draw.randrange(4))
        if not self._chance.calm and draw.random() < 0.02:
            raise StoreUnavailable("after", code="CHANCE")
        return results

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        # In one process nobody dies; leases have to run out.
        return []


async def _simulate(backend: Backend, seed: int) -> None:
    chance = Chance(seed)
    draw = chance.draw
    async with World(backend) as world:
        known = chance.job()
        engines: list[Durably] = []
        requests: set[asyncio.Task[None]] = set()

        async def begin() -> None:
            chance.calm = True
            durably = await world.engine(
                known, through=lambda inner: Unsteady(inner, chance), max_concurrent_runs=draw.randrange(1, 5)
            )
            await durably.start()
            chance.calm = False
            engines.append(durably)

        def ask(request: Callable[..., Awaitable[Any]], *given: Any) -> None:
            requests.add(asyncio.ensure_future(_forgiving(request, given)))

        async def trigger(durably: Durably) -> None:
            key = f"key {draw.randrange(8)}" if draw.random() < 0.5 else None
            size = {"steps": draw.randrange(4), "parallel": draw.randrange(3)}
            handle = await durably.trigger(known, size, idempotency_key=key, labels={"k": "v"})
            chance.triggered.add(handle.id)

        async def delete(durably: Durably, run_id: str) -> None:
            # From the moment that it is asked for: its reply may be lost.
            chance.deleted.add(run_id)
            await durably.delete_run(run_id)

        await begin()
        for _ in range(ACTIONS):
            durably = draw.choice(engines)
            action = draw.random()
            some_run = draw.choice(sorted(chance.triggered)) if chance.triggered else "none"
            if action < 0.35:
                ask(trigger, durably)
            elif action < 0.45:
                ask(durably.cancel, some_run)
            elif action < 0.55:
                ask(durably.retry, some_run)
            elif action < 0.60:
                ask(delete, durably, some_run)
            elif action < 0.63 and len(engines) < 4:
                await begin()
            elif action < 0.68 and len(engines) > 1:
                engines.remove(durably)
                await (world.crash(durably) if draw.random() < 0.5 else durably.stop())
            elif action < 0.72:
                for task in list(requests)[: draw.randrange(3)]:
                    task.cancel()
            elif action < 0.90:
                await turns(draw.randrange(40))
            else:
                world.clock.advance(draw.choice((0.01, 0.2, 1.5, 6.0, 40.0)))
                await turns(draw.randrange(20))
        await asyncio.wait(requests, timeout=SECONDS)
        assert all(task.done() for task in requests), "a request was never answered"
        chance.calm = True
        for durably in engines:
            await durably.stop()
        await world.expire()
        last = await world.engine(known)
        await last.process_until_idle()
        await _is_consistent(last, chance)


async def _forgiving(request: Callable[..., Awaitable[Any]], given: tuple[Any, ...]) -> None:
    with contextlib.suppress(DurablyError):
        await request(*given)


async def _is_consistent(durably: Durably, chance: Chance) -> None:
    runs = {run.id: run for run in await durably.get_runs()}
    assert chance.triggered - chance.deleted <= set(runs), "a run was acknowledged, and is gone"
    for run in runs.values():
        assert run.is_terminal, run
        results = {}
        for one in await durably.get_steps(run.id):
            results[one.name] = one.output if one.status == "completed" else str(one.error).partition(": ")[2]
        stored = [event async for event in durably.subscribe(run.id) if event.type in ("step:complete", "step:fail")]
        ever: dict[str, set[str]] = {}
        for event in stored:
            ever.setdefault(str(event.step_name), set()).add(event.output or str(event.error).partition(": ")[2])
        for (run_id, name), values in chance.given.items():
            if run_id == run.id:
                assert values <= ever.get(name, set()), (
                    f"{run.id} was given {values} by {name}, and has {ever.get(name)}"
                )
        if run.status == "completed":
            names = [f"step {n}" for n in range(run.input["steps"])]
            names += [f"step {100 + n}" for n in range(run.input["parallel"])]
            assert run.output == [results[name] for name in names], run


@needs("workers")
async def many_engines_agree_whatever_happens(backend: Backend) -> None:
    for seed in range(SEEDS):
        try:
            await _simulate(backend, seed)
        except (AssertionError, TimeoutError, RunFailed) as error:
            raise AssertionError(f"seed {seed}: {error}") from error
