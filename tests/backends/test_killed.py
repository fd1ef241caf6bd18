"""A worker process is killed at one moment after another, and the next one goes on at once.

Among them moments when the run waits: for another try of a step, for time, for a signal, for its child.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import TypeVar

import pytest

from durably_web.backends.sqlite import SqliteExecutor
from durably_web.codec import JsonCodec
from durably_web.store import operations
from durably_web.store.batch import Batch, Operation, Statement
from durably_web.store.operations import Filter
from tests.support.invariants import check_invariants, results_of
from tests.support.victim import EXPECTED, PARTS

T = TypeVar("T")

# Far below the thirty seconds of a lease: nobody waits for the end of a dead worker's.
SECONDS_PER_PROCESS = 60


async def _live(database: Path, root: Path, lines_to_live: int | None) -> list[str]:
    """Run a worker until it has told so many lines, then kill it; everything that it told."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.victim", str(database), cwd=root, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(SECONDS_PER_PROCESS):
            while line := await process.stdout.readline():
                lines.append(line.decode().strip())
                if len(lines) == lines_to_live:
                    process.kill()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return lines


@pytest.mark.parametrize("seed", range(6))
async def test_a_killed_worker_loses_nothing(tmp_path: Path, root: Path, seed: int) -> None:
    draw = random.Random(seed)
    database = tmp_path / "app.db"
    told: list[str] = []
    kills = 0
    while "done" not in told:
        told += await _live(database, root, draw.randrange(1, 45) if kills < 9 else None)
        kills += 1
        assert kills < 11, told
    acknowledged: set[str] = set()
    for line in told:
        what, _, name = line.partition(" ")
        if what == "acknowledged":
            acknowledged.add(name)
        assert not (what == "ran" and name in acknowledged), f"{line} again, after it was acknowledged: {told}"
    [run_id] = {line.split()[1] for line in told if line.startswith("triggered")}

    executor = SqliteExecutor(str(database))
    await executor.open()

    async def send(operation: Operation[T]) -> T:
        return operation.decode(await executor.run(operation.batch))

    run = await send(operations.get_run(run_id, JsonCodec()))
    assert run is not None and (run.status, run.output) == ("completed", EXPECTED), run
    assert run.progress == (PARTS, PARTS, None)
    logs = await send(operations.get_logs(run_id))
    assert [entry.data["n"] for entry in logs] == list(range(PARTS))
    # One child, however often the step that starts it was begun.
    [child] = [one for one in await send(operations.get_runs(Filter(), JsonCodec())) if one.id != run_id]
    assert (child.job_name, child.parent_run_id, child.status) == ("helper", run_id, "completed")
    for one in (run_id, child.id):
        assert set((await results_of(executor, one)).values()) == {1}
    # The first signal was taken, and no other.
    sql = "SELECT number, step_name FROM durably_signals ORDER BY number"
    [signals] = await executor.run(Batch("read", (Statement(sql),)))
    assert signals[0] == (1, "go") and all(row[1] is None for row in signals[1:]), signals
    await check_invariants(executor)
    await executor.close()
