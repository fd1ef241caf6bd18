"""Steps, runs and latency of one worker, each beside the raw limit of the driver; and beside DBOS on PostgreSQL."""

from __future__ import annotations

from benchmarks import jobs, latency
from benchmarks.native import engine, measure_runs, measure_steps, measure_triggers, measure_triggers_and_runs
from benchmarks.report import Figure, at_most
from benchmarks.servers.places import Place
from benchmarks.servers.raw import LibsqlLoop, PostgresLoop
from benchmarks.size import Size
from durably_web import Durably

# From another process, on PostgreSQL.
_OTHER_PROCESS = at_most(10)


async def measure(place: Place, size: Size) -> list[Figure]:
    where = place.name
    raw_url, ours_url = place.database(), place.database()
    async with engine(raw_url, "full"):
        pass
    raw = await PostgresLoop.connect(raw_url) if place.backend == "postgres" else LibsqlLoop(raw_url)
    try:
        async with engine(ours_url, "full") as durably:
            figures = [
                await measure_steps(where, "steps/s", durably, raw, jobs.many_steps, size),
                await measure_triggers(where, durably, raw, size),
                await measure_runs(where, durably, raw, size),
                await measure_triggers_and_runs(where, durably, raw, size),
            ]
        latency_url = place.database()
        # Default settings: they are what a user gets.
        async with Durably(latency_url, jobs=[jobs.first_line]) as durably:
            figures += [
                await latency.same_process(where, durably, raw, size),
                await latency.other_process(where, latency_url, durably, raw, "full", size, _OTHER_PROCESS),
            ]
    finally:
        await raw.close()
    return figures
