"""Jobs with results that take room, each with a number that nobody can make twice."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from durably_web import Retry, Step, job


@job
async def fill(step: Step, input: dict[str, Any]) -> int:
    """Takes so many bytes, in pieces of 50,000."""
    for _ in range(input["bytes"] // 50_000):
        await step.run("piece", lambda: "x" * 50_000)
    return int(input["bytes"])


@job
async def gather_pieces(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    """So many pieces of `bytes` each; tells how often the step's function was called in this execution."""
    calls = 0

    def piece() -> list[str]:
        nonlocal calls
        calls += 1
        return [os.urandom(16).hex(), "x" * int(input["bytes"])]

    retry = Retry(max_attempts=2)
    nonces = [(await step.run("piece", piece, retry=retry))[0] for _ in range(input["pieces"])]
    return {"nonces": nonces, "calls": calls}


@job
async def waits_for_ever(step: Step, input: dict[str, Any]) -> None:
    """One result, and then a step that has no end in a browser; on a server it has one."""
    import sys

    first = await step.run("first", lambda: os.urandom(16).hex())

    async def second() -> str:
        if sys.platform == "emscripten":
            await asyncio.Event().wait()
        return "elsewhere"

    return {"first": first, "second": await step.run("second", second)}  # type: ignore[return-value]
