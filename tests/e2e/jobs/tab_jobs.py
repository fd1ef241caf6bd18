"""Jobs for tests with several tabs: each result has a number that nobody can make twice."""

from __future__ import annotations

import asyncio
import os
from typing import Any, TypedDict

from durably_web import Step, job

executions = 0


class Typed(TypedDict):
    amount: int


def nonce() -> str:
    return os.urandom(16).hex()


@job
async def once(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    """One step; how often its function was called in this engine is part of the result."""

    def execute() -> dict[str, Any]:
        global executions
        executions += 1
        return {"n": input["n"], "nonce": nonce(), "executions": executions}

    return await step.run("once", execute)


@job
async def commits(step: Step, input: dict[str, Any]) -> int:
    """Commits as fast as it can, so many times; each result names its place and nobody can make it twice."""
    for number in range(input["steps"]):
        await step.run("commit", lambda number=number: [number, nonce()])
    return int(input["steps"])


@job
async def typed(step: Step, input: Typed) -> int:
    return input["amount"]


@job(max_attempts=1)
async def hang(step: Step, input: dict[str, Any]) -> None:
    """A step that never lets go of the event loop, on every attempt."""

    def endless() -> None:
        while True:
            pass

    await step.run("endless", endless)


@job
async def hang_twice(step: Step, input: dict[str, Any]) -> int:
    """Like `hang` on its first two attempts: its job allows them."""

    def endless() -> int:
        while step.attempt < 3:
            pass
        return step.attempt

    return await step.run("endless", endless)


@job(max_attempts=1)
async def gate(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    """Waits in an async step until the server answers; more than one death laid to it would fail it."""
    from pyodide.http import pyfetch

    first = await step.run("first", nonce)

    async def passed() -> str:
        return str(await (await pyfetch(input["url"])).string())

    return {"first": first, "answer": await step.run("gate", passed), "attempts": step.attempt}


@job
async def forever(step: Step, input: dict[str, Any]) -> str:
    """Waits in a step that lets others run, on its first attempt."""

    async def wait() -> str:
        if step.attempt == 1:
            await asyncio.Event().wait()
        return nonce()

    before = await step.run("before", nonce)
    return before + await step.run("wait", wait)
