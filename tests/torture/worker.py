"""A worker that is going to be killed, stopped and cut off.

python -m tests.torture.worker DATABASE LOG PLAN NUMBER NAME

It ends on SIGTERM, or with the process that began it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from durably_web import Durably
from durably_web.events import Event
from tests.torture.jobs import JOBS, Around
from tests.torture.plan import Plan
from tests.torture.processes import PASSING, Log, die_with_parent, pause, until_sigterm


async def main(database: str, log_path: str, plan: Plan, number: int, name: str) -> None:
    log = Around.log = Log(log_path)
    Around.plan, Around.name = plan, name
    # Some know only the job without limits, and claim in the way that is for those.
    jobs = [JOBS["plain"]] if number % 8 >= 6 else [*JOBS.values()]

    def claimed(event: Event) -> None:
        moment = round(event.timestamp.timestamp() * 1000)
        log.write("leased", event.run_id, event.seq, moment, round(time.time() * 1000))

    stopped = until_sigterm(log)
    while not stopped.is_set():
        durably = Durably(
            database,
            jobs=jobs,
            durability=plan.durability,
            worker_id=name,
            heartbeat_interval=plan.lease / 4,
            stale_threshold=plan.lease,
        )
        durably.on("worker:error", lambda event: log.write("error", event.error))
        durably.on("run:leased", claimed)
        try:
            async with durably:
                log.write("ready")
                await stopped.wait()
        except PASSING as error:
            log.write("away", type(error).__name__, error)
            await pause(stopped)
    log.write("over")


if __name__ == "__main__":
    die_with_parent()
    database, log_path, plan, number, name = sys.argv[1:]
    asyncio.run(main(database, log_path, Plan(**json.loads(plan)), int(number), name))
