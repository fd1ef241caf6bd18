"""What is executed while the clock runs; the same jobs natively and in the browser."""

from __future__ import annotations

import time
from typing import Any

from durably_web import Step, job

# About what a step keeps: a small record, 120 bytes as JSON.
RESULT: dict[str, Any] = {
    "id": "01JD5XK2M9",
    "name": "Ted Stevens Anchorage International",
    "state": "AK",
    "latitude": 61.17432028,
    "saved": True,
}


async def save() -> dict[str, Any]:
    return RESULT


def save_in_thread() -> dict[str, Any]:
    return RESULT


@job
async def many_steps(step: Step, input: dict[str, int]) -> int:
    for _ in range(input["count"]):
        await step.run("save", save)
    return input["count"]


@job
async def many_sync_steps(step: Step, input: dict[str, int]) -> int:
    for _ in range(input["count"]):
        await step.run("save", save_in_thread)
    return input["count"]


@job
async def one_step(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    return await step.run("save", save)


class Unfinished(Exception):
    """Ends the first execution of `replayed`, so that there is something to replay."""


replayed_at: list[float] = []
"""When the last step of `replayed` had its result, by `perf_counter`: the first execution's, then the replay's."""


@job
async def replayed(step: Step, input: dict[str, int]) -> int:
    for _ in range(input["count"]):
        await step.run("save", save)
    replayed_at.append(time.perf_counter())
    if step.attempt == 1:
        raise Unfinished
    return input["count"]


first_lines: list[float] = []
"""How many milliseconds after its trigger each run of `first_line` began."""


@job
async def first_line(step: Step, input: dict[str, float]) -> None:
    # The one clock of Python's that is the same in all processes.
    first_lines.append((time.monotonic() - input["sent"]) * 1000)


JOBS = (many_steps, many_sync_steps, one_step, replayed, first_line)
