"""Jobs that tell which version of a site they belong to: `VERSION` is replaced when the site is made."""

from __future__ import annotations

from typing import Any

from durably_web import Step, job


def of_worker() -> str:
    """The version of the script of the worker that this runs in."""
    import js

    return f"VERSION in a worker of {js.version}"


@job
async def tell_version(step: Step, input: dict[str, Any]) -> list[Any]:
    """With `wait` it goes on when it is told to."""
    own = await step.run("own", lambda: "VERSION")
    if input.get("wait"):
        await step.wait_for_signal("go on")
    return [own, await step.run("offloaded", of_worker, offload=True)]
