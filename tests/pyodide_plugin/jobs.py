"""A job file as a user writes it. The tests beside it run it inside Pyodide."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from durably_web import Step, job

PRICES = {"tea": 3, "bread": 4, "jam": 5}


@dataclass
class Order:
    items: list[str]


def price(item: str) -> int:
    # Raises in a thread, where no event loop is running.
    asyncio.get_running_loop()
    return PRICES[item]


async def charge(total: int) -> str:
    return f"charged {total}"


@job
async def checkout(step: Step, input: Order) -> dict[str, int | str]:
    """Price each item, then charge the sum."""
    prices = [await step.run("price", price, item) for item in input.items]
    step.log.info("priced", items=len(prices))
    return {"total": sum(prices), "receipt": await step.run("charge", charge, sum(prices))}
