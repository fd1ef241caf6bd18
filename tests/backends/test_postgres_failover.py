"""A PostgreSQL server is lost, and its standby becomes the primary: runs go on there, and nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from durably_web.backends.postgres import PostgresExecutor
from durably_web.engine import Durably
from durably_web.errors import StoreUnavailable
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store.batch import Batch, Statement
from scripts import databases
from tests.support.invariants import check_invariants
from tests.support.servers import Postgres, postgres_server
from tests.support.world import bounded, raised

RUNS, STEPS = 40, 5


@pytest.fixture
def primary() -> Iterator[Postgres]:
    try:
        server = postgres_server()
    except databases.ServerMissing as missing:
        pytest.skip(str(missing))
    with contextlib.closing(server):
        yield server


async def test_runs_go_on_at_the_standby(primary: Postgres) -> None:
    url = primary.create_database()
    with contextlib.closing(await asyncio.to_thread(primary.standby)) as standby:
        executed: Counter[tuple[str, str]] = Counter()
        stored = 0
        halfway = asyncio.Event()

        @job
        async def climb(step: Step, input: int) -> int:
            nonlocal stored

            async def one(name: str) -> int:
                executed[step.run_id, name] += 1
                return 1

            height = 0
            for number in range(STEPS):
                height += await step.run(f"s{number}", one, f"s{number}")
                stored += 1
                if stored >= RUNS * STEPS // 2:
                    halfway.set()
            return height

        port, name = f":{primary.port}/", url.rpartition("/")[2]
        both = url.replace(port, f":{primary.port},127.0.0.1:{standby.port}/") + "?target_session_attrs=read-write"
        async with Durably(both, jobs=[climb], durability="full", polling_interval=0.05) as durably:
            handles = [await bounded(durably.trigger(climb, number)) for number in range(RUNS)]
            await bounded(halfway.wait())
            await asyncio.to_thread(primary.kill)
            late = asyncio.ensure_future(durably.trigger(climb, RUNS))
            await asyncio.to_thread(standby.promote)
            handles.append(await bounded(late))
            assert [await handle.result(timeout=60) for handle in handles] == [STEPS] * (RUNS + 1)

        assert len({handle.id for handle in handles}) == RUNS + 1
        # No worker died, so that not even a step under way was executed again.
        assert Counter(executed.values()) == {1: (RUNS + 1) * STEPS}
        executor = PostgresExecutor(standby.url(name), "full")
        await executor.open()
        await bounded(check_invariants(executor))
        await executor.close()


async def test_a_standby_that_stands_first_is_passed_by(primary: Postgres) -> None:
    url = primary.create_database()
    with contextlib.closing(await asyncio.to_thread(primary.standby)) as standby:
        port = f":{primary.port}/"
        both = PostgresExecutor(url.replace(port, f":{standby.port},127.0.0.1:{primary.port}/"), "relaxed")
        await bounded(both.open())
        [[[port_of_it]]] = await both.run(Batch("read", (Statement("SELECT inet_server_port()"),)))
        assert port_of_it == primary.port
        await both.close()
        alone = PostgresExecutor(url.replace(port, f":{standby.port}/"), "relaxed", now=_hours(), sleep=_not)
        error = await raised(StoreUnavailable, alone.open())
        assert "standby" in str(error) and error.code == "25006"  # type: ignore[attr-defined]


def _hours() -> Callable[[], float]:
    """Each time it is asked, a second more."""
    return map(float, itertools.count()).__next__


async def _not(seconds: float) -> None:
    """Time passes by itself."""
