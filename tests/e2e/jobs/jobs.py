"""Jobs for the tests in the browser."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from durably_web import Step, job


@job
async def save_chunks(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    """Saves chunks, each with a number that nobody can make twice; hangs at one of them on its first attempt."""

    async def save(chunk: int) -> dict[str, Any]:
        if step.attempt == 1 and chunk == input.get("hold_at"):
            while input.get("busy"):
                pass
            await asyncio.Event().wait()
        return {"chunk": chunk, "nonce": os.urandom(16).hex()}

    saved = []
    for chunk in range(input["chunks"]):
        saved.append(await step.run("save", save, chunk))
        step.progress(chunk + 1, total=input["chunks"])
    step.log.info("saved", chunks=len(saved))
    return {"chunks": [one["chunk"] for one in saved], "sum": sum(one["chunk"] for one in saved)}


@job
async def fetch_blocking(step: Step, input: dict[str, Any]) -> str:
    def fetch() -> str:
        from urllib.request import urlopen

        with urlopen(input["url"]) as response:
            return str(response.read().decode())

    return await step.run("fetch", fetch)


@job
async def keep(step: Step, input: dict[str, Any]) -> int:
    return len(input["text"])


@job
async def fail(step: Step, input: dict[str, Any]) -> None:
    def broken() -> None:
        raise ValueError("no such thing")

    await step.run("broken", broken)
