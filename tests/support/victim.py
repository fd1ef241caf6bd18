"""A worker process that tells each thing it does in a line, so that a test can kill it at any of them.

python -m tests.support.victim DATABASE
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from durably_web.backends.sqlite import SqliteExecutor
from durably_web.engine import Durably
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store.batch import Batch, Rows
from tests.support.executors import Wrapper

PARTS = 6
EXPECTED = {"parts": [n * n for n in range(PARTS)], "pairs": [0, 1, 2]}


def tell(line: str) -> None:
    # Written at once and whole, whatever happens to this process next.
    os.write(1, f"{line}\n".encode())


def work(name: str, value: Any) -> Any:
    tell(f"ran {name}")
    return value


@job
async def victim(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    async def acknowledged(name: str, coroutine: Any) -> Any:
        value = await coroutine
        tell(f"acknowledged {name}")
        return value

    parts = []
    for n in range(PARTS):
        name = f"part {n}"
        parts.append(await acknowledged(name, step.run(name, work, name, n * n)))
        step.log.info("saved", n=n)
        step.progress(n + 1, PARTS)
    pairs = [acknowledged(f"pair {n}", step.run(f"pair {n}", work, f"pair {n}", n)) for n in range(3)]
    return {"parts": parts, "pairs": await asyncio.gather(*pairs)}


class Telling(Wrapper):
    async def run(self, batch: Batch) -> list[Rows]:
        tell("sends")
        results = await self.inner.run(batch)
        tell("has sent")
        return results


async def main(database: str) -> None:
    async with Durably(Telling(SqliteExecutor(database, "relaxed")), jobs=[victim]) as durably:
        handle = await durably.trigger(victim, idempotency_key="the one")
        tell(f"triggered {handle.id}")
        await handle.result(timeout=60)
        tell("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
