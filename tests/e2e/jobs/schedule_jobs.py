"""Jobs that nobody asks for each time."""

from __future__ import annotations

from typing import Any

from durably_web import Step, job


@job
async def tick(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    """What a run knows of its time."""
    at = step.scheduled_at
    return {"at": None if at is None else at.isoformat(timespec="milliseconds"), "input": input}


@job
async def which_modules(step: Step, input: dict[str, Any]) -> list[str]:
    """Of those that only some schedules need, the ones that are loaded."""
    import sys

    return [name for name in ("cronsim", "zoneinfo", "tzdata", "importlib.resources") if name in sys.modules]
