"""The jobs that are tortured. All do the same; what they allow differs.

Each execution of a step has a token of its own, which is in the process's file and in the result: so it can be told
afterwards whose result was stored.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from durably_web import RateLimit, Step, job
from durably_web.jobs import Job
from tests.torture.plan import LIMIT, PER_KEY, RATE, RATE_SECONDS, Asked, Plan, names
from tests.torture.processes import Log

# Many workers die; no run is to fail for it.
DEATHS = 1_000_000


class Around:
    """What the jobs of this process need to know."""

    plan: Plan
    log: Log
    name: str
    tokens = itertools.count()


async def work(run_id: str, step: str, generation: int, seconds: float, value: int) -> dict[str, Any]:
    token = f"{Around.name}.{next(Around.tokens)}"
    Around.log.write("begin", run_id, step, generation, token)
    # Others get their turn, and a kill may come.
    await asyncio.sleep(seconds)
    Around.log.write("end", run_id, step, generation, token)
    return {"value": value + 1, "token": token}


async def execute(step: Step, input: dict[str, Any]) -> int:
    number, naps, talks = input["number"], input["naps"], input["talks"]
    plan = Around.plan

    async def one(name: str, value: int) -> int:
        seconds = plan.pause(number, name)
        result = await step.run(name, work, step.run_id, name, step.attempt, seconds, value)
        Around.log.write("stored", step.run_id, name, step.attempt, result["token"])
        return int(result["value"])

    value: int = number
    left = names(plan.steps)
    while left:
        if len(left) == plan.steps - 2 and plan.steps >= 5:
            value = sum(await asyncio.gather(one(left.pop(0), value), one(left.pop(0), value)))
        else:
            value = await one(left.pop(0), value)
        if talks:
            step.log.info("on", value=value)
            step.progress(plan.steps - len(left), plan.steps)
        if naps and len(left) == 1:
            await step.sleep("nap", 0.3)
    Around.log.write("done", step.run_id, step.attempt)
    return value


@job(max_attempts=DEATHS)
async def plain(step: Step, input: dict[str, Any]) -> int:
    return await execute(step, input)


@job(max_attempts=DEATHS)
async def keyed(step: Step, input: dict[str, Any]) -> int:
    return await execute(step, input)


@job(max_attempts=DEATHS, max_concurrent_per_key=PER_KEY["pairs"])
async def pairs(step: Step, input: dict[str, Any]) -> int:
    return await execute(step, input)


@job(max_attempts=DEATHS, max_concurrent_runs=LIMIT)
async def limited(step: Step, input: dict[str, Any]) -> int:
    return await execute(step, input)


@job(max_attempts=DEATHS, rate_limit=RateLimit(RATE, RATE_SECONDS))
async def rated(step: Step, input: dict[str, Any]) -> int:
    return await execute(step, input)


def input_of(asked: Asked) -> dict[str, Any]:
    return {"number": asked.number, "naps": asked.naps, "talks": asked.talks}


JOBS: dict[str, Job[Any, Any]] = {each.name: each for each in (plain, keyed, pairs, limited, rated)}
