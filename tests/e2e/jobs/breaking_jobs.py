"""Jobs that leave the interpreter, or break it."""

import asyncio
import os
import sys

from durably_web import Step, job


@job(max_attempts=2)
async def leave(step: Step, input: dict[str, str]) -> None:
    await step.run("leave", LEAVE[input["how"]])


LEAVE = {"abort": os.abort, "_exit": lambda: os._exit(3), "exit": lambda: sys.exit(3)}


@job
async def stay(step: Step, input: dict[str, str]) -> str:
    return await step.run("stay", asyncio.sleep, 0.5, "stayed")
