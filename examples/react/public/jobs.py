"""The primes below a number, counted block by block; on request a block fails, to be tried again by hand."""

import asyncio
from itertools import pairwise
from typing import Any

from durably_web import Step, job


async def count_primes(start: int, stop: int, pause: float, fail: bool) -> int:
    """How many primes there are in [start, stop). The pause is for who wants to watch."""
    await asyncio.sleep(pause)
    if fail:
        raise RuntimeError("this block was asked to fail once")
    composite = bytearray(stop - start)
    for divisor in range(2, int(stop**0.5) + 1):
        for number in range(max(divisor * divisor, -(-start // divisor) * divisor), stop, divisor):
            composite[number - start] = 1
    return composite.count(0) - len(range(start, min(stop, 2)))


@job
async def primes(step: Step, input: dict[str, Any]) -> dict[str, int]:
    below, blocks = input["below"], input["blocks"]
    edges = [below * number // blocks for number in range(blocks + 1)]
    found = 0
    for number, (start, stop) in enumerate(pairwise(edges), 1):
        fail = number == input["failAt"] and step.attempt == 1
        if fail:
            step.log.warning("this will go wrong", block=number)
        # Stored when it returns: whatever ends this tab, no block is counted twice.
        count = await step.run("count", count_primes, start, stop, input["pause"], fail)
        found += count
        step.progress(number, total=blocks, message=f"{found:,} below {stop:,}")
        step.log.info("counted", block=number, primes=count)
    return {"primes": found}
