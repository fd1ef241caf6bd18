"""The jobs of the web applications beside."""

from __future__ import annotations

import os
from typing import TypedDict

from durably_web import Step, job


class Order(TypedDict):
    number: int


@job
async def ship(step: Step, order: Order) -> dict[str, int]:
    label = await step.run("label", lambda: order["number"] * 10)
    step.progress(1, total=2)
    return {"label": label, "pid": await step.run("send", os.getpid)}
