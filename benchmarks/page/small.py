"""The job of pages whose start is measured."""

from __future__ import annotations

from durably_web import Step, job


def save() -> int:
    return 1


@job
async def small(step: Step, input: dict[str, int]) -> int:
    for _ in range(input["steps"]):
        await step.run("save", save)
    return input["steps"]
