"""A client that asks for runs until each is acknowledged: python -m tests.torture.client DATABASE LOG PLAN NUMBER

Whatever happened to a question, it is asked again with the same idempotency key. A client that was killed goes on by
its file. It ends when nothing is left to ask for, or with the process that began it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from durably_web import Durably, RunHandle
from tests.torture.jobs import JOBS, input_of
from tests.torture.plan import Plan
from tests.torture.processes import PASSING, Log, die_with_parent, pause

# So many are asked for before the client waits for one of those of before: nobody asks for all at once.
CHUNK = 50
AT_ONCE = 4


class Client:
    def __init__(self, durably: Durably, plan: Plan, log: Log) -> None:
        self._durably = durably
        self._plan = plan
        self._log = log
        self._few = asyncio.Semaphore(AT_ONCE)

    async def ask_for(self, numbers: list[int]) -> None:
        before: RunHandle[Any] | None = None
        for first in range(0, len(numbers), CHUNK):
            chunk = numbers[first : first + CHUNK]
            handles = await asyncio.gather(*(self._ask(number) for number in chunk))
            if before is not None:
                await self._wait_for(before)
            before = handles[-1]

    async def _ask(self, number: int) -> RunHandle[Any]:
        asked = self._plan.asked(number)
        options: dict[str, Any] = {"idempotency_key": str(number), "priority": asked.priority}
        if asked.key is not None:
            options |= {"concurrency_key": asked.key, "coalesce": "queue"}
        impatience = asked.impatience
        async with self._few:
            while True:
                self._log.write("asks", number)
                try:
                    async with asyncio.timeout(impatience):
                        handle = await self._durably.trigger(JOBS[asked.job], input_of(asked), **options)
                except (*PASSING, TimeoutError) as error:
                    self._log.write("unanswered", number, type(error).__name__, error)
                    impatience = None
                    await pause()
                else:
                    self._log.write("acknowledged", number, handle.id, handle.disposition)
                    return handle

    async def _wait_for(self, handle: RunHandle[Any]) -> None:
        while True:
            try:
                self._log.write("result", handle.id, await handle.result(timeout=self._plan.seconds))
                return
            except PASSING as error:
                self._log.write("away", type(error).__name__, error)
                await pause()


def acknowledged(path: Path) -> Iterator[int]:
    """By an earlier process of this client."""
    for line in path.read_text().splitlines() if path.exists() else ():
        _, what, *words = line.split(" ")
        if what == "acknowledged":
            yield int(words[0])


async def main(database: str, log_path: str, plan: Plan, client: int) -> None:
    answered = {*acknowledged(Path(log_path))}
    log = Log(log_path)
    durably = Durably(database, jobs=JOBS.values(), durability=plan.durability)
    while True:
        try:
            await durably.migrate()
            break
        except PASSING as error:
            log.write("away", type(error).__name__, error)
            await pause()
    await Client(durably, plan, log).ask_for([number for number in plan.asked_by(client) if number not in answered])
    await durably.stop()
    log.write("over")


if __name__ == "__main__":
    die_with_parent()
    database, log_path, plan, client = sys.argv[1:]
    asyncio.run(main(database, log_path, Plan(**json.loads(plan)), int(client)))
