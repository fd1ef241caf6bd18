"""A job that notices that its engine is about to stop."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from durably_web import Step, job, shutting_down


@job
async def leave(step: Step, input: dict[str, Any]) -> list[str]:
    """Its first step ends when the engine stops; the second one begins with the next engine."""

    async def work() -> str:
        while not shutting_down():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return "saw it"

    def begin() -> str:
        # An engine that is about to stop begins no step.
        return "stopping" if shutting_down() else os.urandom(16).hex()

    return [await step.run("work", work), await step.run("next", begin)]
