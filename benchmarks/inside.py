"""What is measured in the browser: this module runs in Pyodide, in the worker that has the database."""

from __future__ import annotations

import asyncio
import json
import time
from statistics import median

from durably_bridge import run_batch

from benchmarks import jobs, statements
from benchmarks.measure import Comparison, Stopwatch, take_turns
from durably_web import Durably
from durably_web.backends.opfs import OpfsExecutor

_AT_ONCE = 10
_IDLE_SECONDS = 0.03
_SECONDS_EACH = 10.0


class RawBridge:
    """The limit: batches that were written beforehand, handed to JavaScript in a loop."""

    def __init__(self) -> None:
        self._ids = statements.Ids()

    def commit(self, transactions: list[statements.Transaction]) -> Stopwatch:
        texts = [json.dumps({"mode": "write", "statements": transaction}) for transaction in transactions]
        watch = Stopwatch()
        for text in texts:
            reply = run_batch(text)
            assert "error" not in reply, reply
        return watch

    async def steps(self, count: int) -> float:
        (run_id,) = self._ids.take(1)
        return self.commit(statements.steps(run_id, count)).rate(count)

    async def runs(self, count: int) -> float:
        ids = self._ids.take(count)
        self.commit(statements.triggers(ids))
        return self.commit(statements.runs(ids, _AT_ONCE)).rate(count)

    async def trigger_and_lease(self) -> float:
        ids = self._ids.take(1)
        milliseconds = self.commit([*statements.triggers(ids), statements.lease(ids)]).milliseconds()
        # The worker shares this database, and would find a lease to look after.
        self.commit([[(statements.FINISH, ("{}", 1, ids[0]))]])
        return milliseconds


async def _steps(durably: Durably, raw: RawBridge, count: int, rounds: int) -> Comparison:
    async def ours() -> float:
        handle = await durably.trigger(jobs.many_steps, {"count": count})
        watch = Stopwatch()
        await durably.process_one()
        rate = watch.rate(count)
        assert await handle.result() == count
        return rate

    return await take_turns(ours, lambda: raw.steps(count), rounds, enough_seconds=_SECONDS_EACH)


async def _runs(durably: Durably, raw: RawBridge, count: int, rounds: int) -> Comparison:
    async def ours() -> float:
        for _ in range(count):
            await durably.trigger(jobs.one_step, {})
        watch = Stopwatch()
        assert await durably.process_until_idle(max_runs=count) == count
        return watch.rate(count)

    return await take_turns(ours, lambda: raw.runs(count), rounds, enough_seconds=_SECONDS_EACH)


async def _replay(durably: Durably, rounds: int) -> float:
    """Milliseconds from the begin of the claim to the last of 1,000 stored results."""
    times: list[float] = []
    for _ in range(rounds):
        handle = await durably.trigger(jobs.replayed, {"count": 1000})
        await durably.process_one()
        await durably.retry(handle.id)
        begun = time.perf_counter()
        await durably.process_one()
        times.append((jobs.replayed_at[-1] - begun) * 1000)
    return median(times)


async def _latency(durably: Durably, raw: RawBridge, rounds: int) -> Comparison:
    async def ours() -> float:
        await asyncio.sleep(_IDLE_SECONDS)
        jobs.first_lines.clear()
        handle = await durably.trigger(jobs.first_line, {"sent": time.monotonic()})
        await handle.result(timeout=_SECONDS_EACH)
        return jobs.first_lines[0]

    await durably.start()
    return await take_turns(ours, raw.trigger_and_lease, rounds, enough_seconds=_SECONDS_EACH)


async def measure(text: str) -> str:
    """Everything, as `{name: [ours, raw, ratio]}`."""
    settings = json.loads(text)
    rounds = settings["rounds"]
    raw = RawBridge()
    durably = Durably(OpfsExecutor(run_batch), jobs=jobs.JOBS)
    await durably.migrate()
    try:
        found = {
            "import": [settings["importing"], None, None],
            "steps": await _steps(durably, raw, settings["steps"], rounds),
            "runs": await _runs(durably, raw, settings["runs"], rounds),
            "replay": [await _replay(durably, min(rounds, 3)), None, None],
            "latency": await _latency(durably, raw, settings["triggers"]),
        }
    finally:
        await durably.stop()
    return json.dumps(found)
