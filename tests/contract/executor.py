"""What the waist promises: atomic batches, values that come back as they went, and errors with a name."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from durably_web.errors import ConstraintViolated, StoreError, StoreUnavailable
from durably_web.store.batch import Batch, Executor, Rows, Statement, Value
from tests.contract import Backend, needs
from tests.support.world import bounded, raised, until

CREATE = Statement("CREATE TABLE durably_test (id INTEGER PRIMARY KEY, value TEXT CHECK (value <> 'no')) STRICT")
INSERT = "INSERT INTO durably_test (id, value) VALUES (?, ?)"
ALL = Statement("SELECT id, value FROM durably_test ORDER BY id")


async def _open(backend: Backend) -> Executor:
    executor = backend.connect()
    await executor.open()
    return executor


async def _table(backend: Backend) -> Executor:
    executor = await _open(backend)
    await executor.run(Batch("write", (CREATE,)))
    return executor


async def _all(executor: Executor) -> Rows:
    [rows] = await executor.run(Batch("read", (ALL,)))
    return rows


async def values_come_back_as_they_went(backend: Backend) -> None:
    executor = await _open(backend)
    kinds: dict[str, list[Value]] = {
        "INTEGER": [None, 0, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)],
        "REAL": [None, 0.0, 1.0, -0.5, 1e300, 5e-324, math.pi, 2.0**60],
        "TEXT": [
            *(None, "", "text", "ü ß 漢字 🦆 \u2028", "quote ' and \" and \\ and \n", "{}", "1", "NULL", "\\x00"),
            "x" * 100_000,
        ],
        "BLOB": [None, b"", b"\x00\xff bytes", bytes(range(256)) * 10],
    }
    for kind, values in kinds.items():
        name = f"durably_{kind.lower()}"
        create: Any = f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, value {kind}) STRICT"
        insert: Any = f"INSERT INTO {name} (id, value) VALUES (?, ?)"
        select: Any = f"SELECT id, value FROM {name} ORDER BY id"
        await executor.run(Batch("write", (Statement(create),)))
        await executor.run(Batch("write", tuple(Statement(insert, pair) for pair in enumerate(values))))
        [rows] = await executor.run(Batch("read", (Statement(select),)))
        assert [row[0] for row in rows] == list(range(len(values)))
        for value, (number, found) in zip(values, rows, strict=True):
            assert found == value and type(found) is type(value), f"value {number!r}: {found!r}, not {value!r}"
    [direct] = await executor.run(Batch("read", (Statement("SELECT ?, ?, ?, ?", (1.0, 2**62, None, b"\x00")),)))
    assert direct == [(1.0, 2**62, None, b"\x00")] and type(direct[0][0]) is float
    await executor.close()


async def a_text_with_a_null_in_it_comes_back(backend: Backend) -> None:
    executor = await _table(backend)
    await executor.run(Batch("write", (Statement(INSERT, (1, "before\0after")),)))
    assert await _all(executor) == [(1, "before\0after")]
    await executor.close()


async def a_row_is_a_tuple_and_rows_are_a_list(backend: Backend) -> None:
    executor = await _table(backend)
    results = await executor.run(
        Batch("write", (Statement(INSERT, (1, "a")), ALL, Statement(INSERT + " RETURNING id", (2, "b")), ALL))
    )
    assert results == [[], [(1, "a")], [(2,)], [(1, "a"), (2, "b")]]
    assert all(type(rows) is list and all(type(row) is tuple for row in rows) for rows in results)
    await executor.close()


async def an_empty_batch_answers_nothing(backend: Backend) -> None:
    executor = await _open(backend)
    assert await executor.run(Batch("read", ())) == []
    assert await executor.run(Batch("write", ())) == []
    await executor.close()


async def a_batch_is_atomic_wherever_it_fails(backend: Backend) -> None:
    executor = await _table(backend)
    failures = (
        (Statement(INSERT, (1, "again")), ConstraintViolated),
        (Statement(INSERT, (99, "no")), ConstraintViolated),
        (Statement("INSERT INTO durably_nowhere VALUES (1)"), StoreError),
        (Statement("SELEC"), StoreError),
        (Statement(INSERT, (1,)), StoreError),
        (Statement("SELECT json('{')"), StoreError),
    )
    await executor.run(Batch("write", (Statement(INSERT, (1, "first")),)))
    before = await _all(executor)
    for failing, kind in failures:
        for length in (1, 2, 5):
            for index in range(length):
                statements = [Statement(INSERT, (10 + n, "x")) for n in range(length)]
                statements[index] = failing
                error = await raised(kind, executor.run(Batch("write", tuple(statements))))
                assert isinstance(error, StoreError)
                assert error.statement_index == index, (failing, error.statement_index)
                assert error.code and str(error), failing
                assert await _all(executor) == before, failing
    # The connection is fit for more.
    await executor.run(Batch("write", (Statement(INSERT, (2, "second")), Statement(INSERT, (3, "third")))))
    assert len(await _all(executor)) == 3
    await executor.close()


async def schema_changes_are_atomic_too(backend: Backend) -> None:
    executor = await _table(backend)
    await raised(
        StoreError,
        executor.run(
            Batch(
                "write",
                (
                    Statement("CREATE TABLE durably_second (id INTEGER)"),
                    Statement("ALTER TABLE durably_test RENAME TO durably_other"),
                    Statement("CREATE TABLE durably_second (id INTEGER)"),
                ),
            )
        ),
    )
    [names] = await executor.run(
        Batch("read", (Statement("SELECT name FROM sqlite_master WHERE name LIKE 'durably%' AND type = 'table'"),))
    )
    assert names == [("durably_test",)]
    await executor.close()


async def what_is_committed_is_there_for_the_next_executor(backend: Backend) -> None:
    first = await _table(backend)
    await first.run(Batch("write", (Statement(INSERT, (1, "a")),)))
    second = await _open(backend)
    assert await _all(second) == [(1, "a")]
    await first.close()
    await second.run(Batch("write", (Statement(INSERT, (2, "b")),)))
    assert len(await _all(second)) == 2
    await second.close()
    third = await _open(backend)
    assert len(await _all(third)) == 2
    await third.close()


async def life_is_forgiving(backend: Backend) -> None:
    executor = backend.connect()
    await executor.close()
    await executor.open()
    await executor.open()
    assert await executor.run(Batch("read", (Statement("SELECT 1"),))) == [[(1,)]]
    await executor.close()
    await executor.close()
    await executor.open()
    assert await executor.run(Batch("read", (Statement("SELECT 1"),))) == [[(1,)]]
    assert executor.gone([]) == []
    await executor.close()


@needs("busy")
async def a_closed_executor_refuses(backend: Backend) -> None:
    executor = backend.connect()
    select = Batch("read", (Statement("SELECT 1"),))
    error = await raised(StoreUnavailable, executor.run(select))
    assert "not open" in str(error)
    await executor.open()
    await executor.close()
    await raised(StoreUnavailable, executor.run(select))
    assert executor.version() is None


async def many_batches_at_once_do_not_mix(backend: Backend) -> None:
    executor = await _table(backend)

    async def move(n: int) -> list[Rows]:
        return await executor.run(
            Batch("write", (Statement(INSERT, (2 * n, str(n))), Statement(INSERT, (2 * n + 1, str(n))), ALL))
        )

    results = await bounded(asyncio.gather(*[move(n) for n in range(20)]))
    assert all(len(result[2]) % 2 == 0 for result in results)
    assert len(await _all(executor)) == 40
    await executor.close()


@needs("wakes")
async def the_version_changes_when_another_connection_has_written(backend: Backend) -> None:
    executor, other = await _table(backend), await _open(backend)
    first = executor.version()
    assert first == executor.version()
    await executor.run(Batch("write", (Statement(INSERT, (1, "own")),)))
    assert executor.version() == first, "its own writes do not count"
    await other.run(Batch("write", (Statement(INSERT, (2, "another's")),)))
    await until(lambda: executor.version() != first)
    second = executor.version()
    await other.run(Batch("read", (ALL,)))
    assert executor.version() == second
    await executor.close()
    await other.close()


@needs("busy")
async def a_busy_database_does_not_block_the_loop(backend: Backend) -> None:
    executor = await _table(backend)
    release = await backend.hold()
    writing: list[asyncio.Task[Any]] = [
        asyncio.ensure_future(executor.run(Batch("write", (Statement(INSERT, (n, "x")),) * 1))) for n in range(3)
    ]
    writing.append(
        asyncio.ensure_future(
            executor.run(Batch("write", (Statement(INSERT, (10, "x")), Statement(INSERT, (11, "x")))))
        )
    )
    for _ in range(100):
        await asyncio.sleep(0)
    assert not any(task.done() for task in writing)
    assert await _all(executor) == [], "readers are not kept waiting"
    await release()
    await bounded(asyncio.gather(*writing))
    assert len(await _all(executor)) == 5
    await executor.close()


@needs("busy")
async def a_write_that_waits_can_be_taken_back(backend: Backend) -> None:
    executor = await _table(backend)
    release = await backend.hold()
    waiting = asyncio.ensure_future(executor.run(Batch("write", (Statement(INSERT, (1, "x")),))))
    await asyncio.sleep(0)
    waiting.cancel()
    await raised(asyncio.CancelledError, waiting)
    closing = asyncio.ensure_future(executor.run(Batch("write", (Statement(INSERT, (2, "x")),))))
    await asyncio.sleep(0)
    await executor.close()
    await raised(StoreUnavailable, bounded(closing))
    await release()
    other = await _open(backend)
    assert await _all(other) == []
    await other.close()


async def a_value_that_fits_no_column_is_refused(backend: Backend) -> None:
    executor = await _table(backend)
    wrong: list[Any] = [2**63, -(2**63) - 1, "\ud800", object(), [1]]
    for value in wrong:
        for batch in (
            Batch("write", (Statement(INSERT, (1, value)),)),
            Batch("write", (Statement(INSERT, (1, "x")), Statement(INSERT, (2, value)))),
        ):
            await raised(Exception, executor.run(batch))
            assert await _all(executor) == [], value
    await executor.close()
