"""The primes below a number, counted block by block."""

import asyncio
from typing import Any

from durably_web import Step, job


async def count_primes(start: int, stop: int, pause: float) -> int:
    """How many primes there are in [start, stop). The pause is for who wants to watch."""
    await asyncio.sleep(pause)
    composite = bytearray(stop - start)
    for divisor in range(2, int(stop**0.5) + 1):
        for number in range(max(divisor * divisor, -(-start // divisor) * divisor), stop, divisor):
            composite[number - start] = 1
    return composite.count(0) - len(range(start, min(stop, 2)))


@job
async def primes(step: Step, input: dict[str, Any]) -> dict[str, int]:
    below, pause = input["below"], input["pause"]
    starts = range(0, below, 10_000)
    found = 0
    for number, start in enumerate(starts, 1):
        stop = min(start + 10_000, below)
        # Stored when it returns: whatever ends this tab, no block is counted twice. Offloaded, it is counted in another
        # worker, and this one stays free.
        found += await step.run("count", count_primes, start, stop, pause, offload=input["offload"])
        step.progress(number, total=len(starts), message=f"{found} below {stop}")
    return {"primes": found}
