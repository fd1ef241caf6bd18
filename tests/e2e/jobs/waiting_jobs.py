"""Jobs that wait, retry, and start others."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from durably_web import Retry, Step, job


def nonce() -> str:
    """What nobody can make twice."""
    return os.urandom(16).hex()


@job
async def flaky(step: Step, input: dict[str, Any]) -> int:
    """Succeeds at the given try."""
    tries: list[int] = []

    def attempt() -> int:
        tries.append(1)
        if len(tries) < input["succeeds_at"]:
            raise ConnectionError(f"try {len(tries)}")
        return len(tries)

    return await step.run("fetch", attempt, retry=Retry(max_attempts=5, initial_delay=0.01, jitter=False))


@job
async def nap(step: Step, input: dict[str, Any]) -> list[str]:
    before = await step.run("before", nonce)
    await step.sleep("nap", input["seconds"])
    return [before, await step.run("after", nonce)]


@job
async def ask(step: Step, input: dict[str, Any]) -> Any:
    asked = await step.run("ask", nonce)
    answer = await step.wait_for_signal("answer")
    step.log.info("answered")
    return {"input": input, "asked": asked, "answer": answer}


@job
async def echo(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    return input


@job
async def double(step: Step, input: dict[str, Any]) -> int:
    return int(await step.run("double", lambda: input["n"] * 2))


@job
async def family(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    """Calls children side by side, and maps beside them."""

    async def square(n: int) -> int:
        await asyncio.sleep(0)
        return n * n

    async def doubled() -> list[Any]:
        return list(await asyncio.gather(*(step.call(double, {"n": n}) for n in range(3))))

    async def squares() -> list[int]:
        return await step.map("square", square, range(20), concurrency=4)

    first, second = await asyncio.gather(doubled(), squares())
    return {"doubled": first, "squares": second}


@job
async def wait_for_child(step: Step, input: dict[str, Any]) -> Any:
    return await step.call("ask", {"of": step.run_id})


@job
async def large(step: Step, input: dict[str, Any]) -> str:
    """A result, and an output, of so many characters."""
    return str(await step.run("make", lambda: "x" * input["length"]))


@job
async def books(step: Step, input: dict[str, Any]) -> None:
    """Its undos say what they undo."""

    async def undo(booking: str) -> None:
        step.log.info("undone", booking=booking)

    for what in ("hotel", "car"):
        await step.run(what, lambda what=what: f"the {what}", undo=undo)
    await step.wait_for_signal("go")
