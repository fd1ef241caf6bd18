"""A worker process that is going to be killed, and tells in a file what it does.

python -m tests.torture.jobs DATABASE LOG DURABILITY

Each line is one write to a file of the process's own: the moment on a clock that all processes share, and what was
done. It says `ready` on stdout, and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any, Literal, cast

from durably_web import Durably, Step, job

STEPS = ("first", "second")


class Log:
    """What a process did, in the order in which it did it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *words: object) -> None:
        # The kernel has it then, whatever happens to the process.
        os.write(self._file, f"{time.monotonic_ns()} {' '.join(map(str, words))}\n".encode())


log: Log


async def work(run_id: str, name: str, number: int) -> int:
    log.write("ran", run_id, name)
    # Others get their turn, and a kill may come.
    await asyncio.sleep(0)
    return number + 1


@job
async def tortured(step: Step, input: dict[str, Any]) -> int:
    number = input["number"]
    for name in STEPS:
        number = await step.run(name, work, step.run_id, name, number)
        log.write("stored", step.run_id, name)
    return cast(int, number)


async def main(database: str, log_path: str, durability: Literal["full", "relaxed"]) -> None:
    global log
    log = Log(log_path)
    durably = Durably(database, jobs=[tortured], durability=durability)
    durably.on("worker:error", lambda event: log.write("error", event.error))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with durably:
        log.write("worker", os.getpid())
        os.write(1, b"ready\n")
        await stopped.wait()
    log.write("end", os.getpid())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], cast("Any", sys.argv[3])))
