"""Jobs that were begun by the code of earlier schemas and go on in the present one; they run under both."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from durably_web.jobs import job
from durably_web.retry import RateLimit, Retry
from durably_web.steps import Step

HOUR = 3600.0

ran: Counter[tuple[str, str]] = Counter()
"""How often the steps' functions ran, by run and argument."""

held: set[str] = set()
"""What never returns, so that its worker dies under it."""

refused: set[str] = set()
"""What fails."""


async def do(run_id: str, what: str) -> str:
    ran[run_id, what] += 1
    if what in held:
        await asyncio.Event().wait()
    if what in refused:
        raise ValueError(f"{what} is refused")
    return f"{what} ü🦆"


@job
async def line(step: Step, input: dict[str, Any]) -> list[str]:
    """Steps one after the other, with a caught failure, lines and progress."""
    step.log.info("begins", tag=input.get("tag"))
    done = []
    for number in range(4):
        done.append(await step.run("part", do, step.run_id, f"{number}"))
        step.progress(number + 1, 4)
    try:
        await step.run("check", do, step.run_id, "the check")
    except ValueError as error:
        done.append(str(error))
    return [*done, await step.run("last", do, step.run_id, "last")]


@job
async def fan(step: Step, input: dict[str, Any]) -> list[str]:
    return list(await asyncio.gather(*[step.run("leaf", do, step.run_id, f"leaf {n}") for n in range(4)]))


@job
async def sleeps(step: Step, input: dict[str, Any]) -> list[str]:
    first = await step.run("before", do, step.run_id, "before")
    await step.sleep("nap", HOUR)
    return [first, await step.run("after", do, step.run_id, "after")]


@job
async def listens(step: Step, input: dict[str, Any]) -> list[Any]:
    one = await step.wait_for_signal("go")
    await step.run("between", do, step.run_id, "between")
    return [one, await step.wait_for_signal("go")]


@job
async def parent(step: Step, input: dict[str, Any]) -> list[Any]:
    first = await step.run("before", do, step.run_id, "before")
    return [first, await step.call(sleeps, {})]


@job(rate_limit=RateLimit(1, HOUR))
async def rated(step: Step, input: dict[str, Any]) -> str:
    return await step.run("only", do, step.run_id, "only")


@job
async def held_back(step: Step, input: dict[str, Any]) -> str:
    return await step.run("only", do, step.run_id, "only")


@job(retry=Retry(max_attempts=3, initial_delay=HOUR, jitter=False))
async def retried(step: Step, input: dict[str, Any]) -> list[str]:
    first = await step.run("first", do, step.run_id, "first")
    return [first, await step.run("then", do, step.run_id, "the run")]


@job
async def tries(step: Step, input: dict[str, Any]) -> str:
    policy = Retry(max_attempts=3, initial_delay=HOUR, jitter=False)
    return await step.run("try", do, step.run_id, "the step", retry=policy)


JOBS = (line, fan, sleeps, listens, parent, rated, held_back, retried, tries)
