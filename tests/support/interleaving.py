"""Two operations at once on PostgreSQL, step by step: one stops behind each of its statements in turn, and the other
one comes in between; it is through then, or it waits for the first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar, cast

import psycopg

from durably_web.backends.postgres import PostgresExecutor
from durably_web.backends.postgres.executor import _encoded
from durably_web.backends.postgres.wire import ServerError
from durably_web.errors import StoreError
from durably_web.store import operations
from durably_web.store.batch import Batch, Executor, Operation, Statement
from durably_web.store.operations import Entry, JobLimits
from tests.support.store_scene import NOW, RATED, TABLES, touched

T = TypeVar("T")

SECONDS = 30

_CLEAN = Batch("write", tuple(Statement(f"DELETE FROM {name}") for name in TABLES if name != "durably_schema"))
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Met(NamedTuple):
    """How it went when the second one came behind `point` statements of the first: what each came to, a result or a
    `StoreError`; and whether the second one had to wait."""

    point: int
    first: Any
    second: Any
    waited: bool


class Stage:
    """A database, an executor for each of two, and one who looks on."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.one = PostgresExecutor(url, "relaxed")
        self.other = PostgresExecutor(url, "relaxed")

    async def __aenter__(self) -> Stage:
        await self.one.open()
        await self.other.open()
        self._looking = await psycopg.AsyncConnection.connect(
            self._url.partition("?")[0], autocommit=True, prepare_threshold=None
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._looking.close()
        await self.one.close()
        await self.other.close()

    async def prepare(self, scene: Sequence[Operation[Any]]) -> None:
        """These have happened, and nothing else."""
        await self.one.run(_CLEAN)
        for operation in scene:
            operation.decode(await self.one.run(operation.batch))

    async def would_touch(self, operation: Operation[Any]) -> set[str]:
        """The runs of which it would change anything. Nothing is done."""
        tables = tuple(Statement(f"SELECT * FROM {name}") for name in TABLES)
        asked = _encoded(Batch("read", tables))
        queries = _encoded(operation.batch)
        async with self.one._connections.one() as (connection, facts):  # type: ignore[union-attr]
            begin, *_ = self.one._frame(operation.batch, queries, facts)[0]
            rollback = begin._replace(sql=b"ROLLBACK")
            try:
                found = await connection.exchange([begin, *asked, *queries, *asked, rollback])
            except ServerError:
                # It is refused.
                await connection.exchange([rollback])
                return set()
        count = len(tables)
        before, after = (
            {name: [tuple(row) for row in rows] for name, rows in zip(TABLES, part, strict=True)}
            for part in (found[1 : 1 + count], found[-1 - count : -1])
        )
        return touched(before, after)

    async def is_blocked(self, task: asyncio.Task[Any]) -> bool:
        """Whether it waits for a lock; `False` when it is through."""
        async with asyncio.timeout(SECONDS):
            while not task.done():
                found = await (await self._looking.execute(_WAITING)).fetchone()
                if found is not None and found[0]:
                    return True
        return False

    async def meet(
        self,
        first: Operation[Any],
        second: Operation[Any],
        point: int,
        *,
        before_the_end: Callable[[], Awaitable[None]] | None = None,
    ) -> Met:
        queries = _encoded(first.batch)
        again = False
        async with self.one._connections.one() as (connection, facts):  # type: ignore[union-attr]
            head, tail = self.one._frame(first.batch, queries, facts)
            for query in head:
                await connection.exchange([query])
            found = [(await connection.exchange([query]))[0] for query in queries[:point]]
            task = asyncio.create_task(_outcome(self.other, second))
            waited = await self.is_blocked(task)
            try:
                for query in queries[point:]:
                    found += await connection.exchange([query])
                if before_the_end is not None:
                    await before_the_end()
                await connection.exchange(tail[:-1])
                result: Any = first.decode(found)
            except ServerError as error:
                await connection.exchange([tail[-2]._replace(sql=b"ROLLBACK")])
                again, result = error.code in ("40001", "40P01"), StoreError(str(error), code=error.code)
        if again:
            result = await _outcome(self.one, first)
        async with asyncio.timeout(SECONDS):
            return Met(point, result, await task, waited)


async def _outcome(executor: PostgresExecutor, operation: Operation[Any]) -> Any:
    try:
        return operation.decode(await executor.run(operation.batch))
    except StoreError as error:
        return error


_LEASED = """
SELECT r.id, r.generation, r.job_name, r.concurrency_key, r.parent_run_id,
       (SELECT max(number) FROM durably_journal j WHERE j.run_id = r.id)
FROM durably_runs r WHERE r.status = 'leased' ORDER BY r.id
"""
_TOO_MANY = """
SELECT concurrency_key, count(*) FROM durably_runs WHERE holds_key = 1 GROUP BY concurrency_key HAVING count(*) > 1
"""
_WITHOUT_KEY = "SELECT id FROM durably_runs WHERE status = 'leased' AND concurrency_key IS NOT NULL AND holds_key = 0"
_BUSY = "SELECT job_name, count(*) FROM durably_runs WHERE status = 'leased' AND job_name = 'few' GROUP BY job_name"
_STARTS = "SELECT started_at FROM durably_starts WHERE job_name = 'rated' ORDER BY started_at"
_SEQS = "SELECT run_id, number, seq FROM durably_journal ORDER BY run_id, number"
_STATUSES = "SELECT id, status FROM durably_runs ORDER BY id"


async def statuses(executor: Executor) -> dict[str, str]:
    [rows] = await executor.run(Batch("read", (Statement(_STATUSES),)))
    return dict(rows)  # type: ignore[arg-type]


async def check_limits(executor: Executor) -> None:
    """One run for each key, one of the job `few` at a time, one start of `rated` in its period."""
    asked = (_TOO_MANY, _WITHOUT_KEY, _BUSY, _STARTS)
    many, without, few, starts = await executor.run(Batch("read", tuple(Statement(sql) for sql in asked)))
    assert not many, f"keys with several holders: {many}"
    assert not without, f"leased without its key: {without}"
    assert not few or few[0][1] == 1, f"too many at once: {few}"
    moments = [cast(int, row[0]) for row in starts]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(gap >= (RATED.period or 0) for gap in gaps), f"started too soon: {moments}"


async def drain(executor: Executor, limits: Sequence[JobLimits]) -> dict[str, str]:
    """Finish what is leased, and all that can be claimed, until there is nothing; the statuses then."""
    now = NOW + 20_000
    for number in range(100):
        now += 20_000
        [leased] = await executor.run(Batch("read", (Statement(_LEASED),)))
        await check_limits(executor)
        if not leased:
            claimed = await _done(
                executor,
                operations.claim(
                    owner="w9", token=f"drain {number}", jobs=limits, limit=3, executing=[], now=now,
                    expires_at=now + 900_000, by_limits=True,
                ),
            )  # fmt: skip
            if not claimed.leases:
                return await statuses(executor)
        for run_id, generation, job, key, parent, last in cast("list[tuple[Any, ...]]", leased):
            end = Entry(last + 1, "run:complete", None, None, now, now)
            queue: Any = (key, job) if key is not None else None
            ending = operations.finish_run(
                run_id, generation, "completed", "7", None, [end], None, now, queue=queue, parent=parent
            )
            assert await _done(executor, ending) is not None, run_id
    raise AssertionError(f"there is no end: {await statuses(executor)}")


async def _done(executor: Executor, operation: Operation[T]) -> T:
    return operation.decode(await executor.run(operation.batch))
