"""A worker process that tells each thing it does in a line, so that a test can kill it at any of them.

python -m tests.support.victim DATABASE
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any

from durably_web.backends.sqlite import SqliteExecutor
from durably_web.engine import Durably
from durably_web.errors import Conflict
from durably_web.jobs import job
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Batch, Rows
from tests.support.executors import Wrapper

PARTS = 3
EXPECTED: dict[str, Any] = {
    "parts": [n * n for n in range(PARTS)],
    "signal": {"by": "a friend"},
    "stubborn": "at last",
    "child": 42,
    "pairs": [0, 1, 2],
}

# Longer than a wait for which the run keeps its lease, so that a process can be killed while it has none.
PAUSE = 0.15


def tell(line: str) -> None:
    # Written at once and whole, whatever happens to this process next.
    os.write(1, f"{line}\n".encode())


def work(name: str, value: Any) -> Any:
    tell(f"ran {name}")
    return value


def stubborn(database: str) -> str:
    """Fails at its first call, in whichever process that is."""
    tell("tried stubborn")
    if is_noted(f"{database}.tried"):
        return "at last"
    note(f"{database}.tried")
    raise ConnectionError("not yet")


def note(path: str) -> None:
    """For later processes too."""
    os.close(os.open(path, os.O_CREAT))


def is_noted(path: str) -> bool:
    return os.path.exists(path)


async def _acknowledged(name: str, coroutine: Any) -> Any:
    value = await coroutine
    tell(f"acknowledged {name}")
    return value


@job
async def helper(step: Step, input: dict[str, int]) -> int:
    half = await _acknowledged("half", step.run("half", work, "half", input["n"] // 2))
    await _acknowledged("nap", step.sleep("nap", PAUSE))
    return int(half * 2)


@job
async def victim(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    parts = []
    for n in range(PARTS):
        name = f"part {n}"
        parts.append(await _acknowledged(name, step.run(name, work, name, n * n)))
        step.log.info("saved", n=n)
        step.progress(n + 1, PARTS)
    signal = await _acknowledged("go", step.wait_for_signal("go"))
    patience = Retry(max_attempts=20, initial_delay=PAUSE, backoff=1, jitter=False)
    outcome = await _acknowledged("stubborn", step.run("stubborn", stubborn, input["database"], retry=patience))
    await _acknowledged("sleep", step.sleep("sleep", PAUSE))
    child = await _acknowledged("child", step.call(helper, {"n": 42}, name="child"))
    pairs = [_acknowledged(f"pair {n}", step.run(f"pair {n}", work, f"pair {n}", n)) for n in range(3)]
    return {
        "parts": parts,
        "signal": signal,
        "stubborn": outcome,
        "child": child,
        "pairs": await asyncio.gather(*pairs),
    }


class Telling(Wrapper):
    async def run(self, batch: Batch) -> list[Rows]:
        tell("sends")
        results = await self.inner.run(batch)
        tell("has sent")
        return results


async def main(database: str) -> None:
    async with Durably(Telling(SqliteExecutor(database, "relaxed")), jobs=[victim, helper]) as durably:
        handle = await durably.trigger(victim, {"database": database}, idempotency_key="the one")
        tell(f"triggered {handle.id}")
        if not is_noted(f"{database}.signalled"):
            # Once more when the process is killed before it has noted that it did.
            with contextlib.suppress(Conflict):
                await durably.signal(handle.id, "go", EXPECTED["signal"])
            note(f"{database}.signalled")
        await handle.result(timeout=60)
        tell("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
