"""A reader that follows everything that happens: python -m tests.torture.reader DATABASE LOG PLAN

One that was killed goes on behind the last event that it wrote down. It ends on SIGTERM, or with the process that
began it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

from durably_web import Durably
from tests.torture.plan import Plan
from tests.torture.processes import PASSING, Log, die_with_parent, pause, until_sigterm


def last_seq(path: Path) -> int:
    """Of the last event that an earlier process wrote down."""
    seqs = [
        line.split(" ")[2] for line in (path.read_text().splitlines() if path.exists() else ()) if " event " in line
    ]
    return int(seqs[-1]) if seqs else 0


async def follow(database: str, log: Log, plan: Plan, after: int) -> None:
    while True:
        durably = Durably(database, durability=plan.durability)
        try:
            await durably.migrate()
            async for event in durably.subscribe(after=after):
                log.write("event", event.seq, event.run_id, event.number, event.type)
                assert event.seq is not None, "stored events have one"
                after = event.seq
        except PASSING as error:
            log.write("away", type(error).__name__, error)
            await pause()
        finally:
            await durably.stop()


async def main(database: str, log_path: str, plan: Plan) -> None:
    after = last_seq(Path(log_path))
    log = Log(log_path)
    stopped = until_sigterm(log)
    following = asyncio.create_task(follow(database, log, plan, after))
    await asyncio.wait([following, asyncio.create_task(stopped.wait())], return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    log.write("over")


if __name__ == "__main__":
    die_with_parent()
    database, log_path, plan = sys.argv[1:]
    asyncio.run(main(database, log_path, Plan(**json.loads(plan))))
