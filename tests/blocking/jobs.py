"""Jobs that sync code asks for."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

from durably_web import Step, job


@job
async def double(step: Step, input: dict[str, Any]) -> int:
    step.log.info("doubling", n=input["n"])
    result: int = await step.run("double", lambda: input["n"] * 2)
    step.progress(1, total=1)
    return result


@job
async def fails(step: Step, input: dict[str, Any]) -> None:
    raise ValueError("on purpose")


@job
async def greets(step: Step, input: dict[str, Any]) -> str:
    return f"hello {await step.wait_for_signal('name')}"


@job
async def where(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    """Which process executes it, and which thread its steps."""
    return {
        "pid": await step.run("pid", os.getpid),
        "thread": await step.run("thread", lambda: threading.current_thread().name),
        "job": threading.current_thread().name,
    }


reached = threading.Event()
"""Set when code that does not come back begins."""


def hold_up() -> None:
    reached.set()
    time.sleep(3600)


async def take_an_hour() -> None:
    reached.set()
    await asyncio.sleep(3600)


@job
async def stuck(step: Step, input: dict[str, Any]) -> None:
    """A step in a thread that does not come back."""
    await step.run("before", lambda: None)
    await step.run("stuck", hold_up)


@job
async def holds_up(step: Step, input: dict[str, Any]) -> None:
    """Code that holds up the event loop itself."""
    await step.run("before", lambda: None)
    hold_up()


@job
async def sleeps(step: Step, input: dict[str, Any]) -> None:
    await step.run("before", lambda: None)
    await step.run("sleeps", take_an_hour)


JOBS = (double, fails, greets, where, stuck, holds_up, sleeps)
