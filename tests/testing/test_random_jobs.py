"""No false alarm on jobs that nobody has thought of: random programs, which are as they should be."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from durably_web import Retry, Step, job
from durably_web.testing import check

Node = list[Any]


def program(draw: random.Random, depth: int = 2) -> list[Node]:
    return [node(draw, depth) for _ in range(draw.randrange(1, 4))]


def node(draw: random.Random, depth: int) -> Node:
    kind = draw.choice(["step", "step", "thread", "sleep", "log", "map", "retry", "signal", "child", "gather", "try"])
    if kind in ("gather", "try", "child"):
        if depth == 0:
            return ["step", draw.randrange(9)]
        branches = [program(draw, depth - 1) for _ in range(draw.randrange(1, 4) if kind == "gather" else 1)]
        return [kind, branches]
    return [kind, draw.randrange(9)]


async def slow(number: int) -> int:
    await asyncio.sleep(number)
    return number + 1


def quick(number: int) -> int:
    return number + 1


def fail(number: int) -> int:
    raise LookupError(str(number))


@job
async def play(step: Step, input: dict[str, Any]) -> list[Any]:
    return await block(step, input["program"])


async def block(step: Step, nodes: list[Node]) -> list[Any]:
    values: list[Any] = []
    for kind, rest in nodes:
        if kind == "step":
            values.append(await step.run("slow", slow, rest + len(values)))
        elif kind == "thread":
            values.append(await step.run("quick", quick, rest))
        elif kind == "sleep":
            await step.sleep("sleep", rest)
        elif kind == "log":
            step.log.info("at", place=rest)
            step.progress(rest)
        elif kind == "map":
            values.append(await step.map("each", slow, range(rest % 4), concurrency=2))
        elif kind == "retry":
            try:
                await step.run("fail", fail, rest, retry=Retry(max_attempts=2, initial_delay=rest, jitter=False))
            except LookupError as error:
                values.append(str(error))
        elif kind == "signal":
            values.append(await step.wait_for_signal("go"))
        elif kind == "child":
            values.append(await step.call(play, {"program": rest[0]}))
        elif kind == "try":
            values += await block(step, rest[0])
        else:
            values += await asyncio.gather(*[block(step, branch) for branch in rest])
    return values


@pytest.mark.parametrize("seed", range(8))
async def test_a_random_job(seed: int) -> None:
    points = await check(play, {"program": program(random.Random(seed))}, signals={"go": "gone"}, most=6)
    assert {point.run.status for point in points} == {"completed"}
    assert all(point.output == points[0].output for point in points)
