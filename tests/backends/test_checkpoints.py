"""SQLite's log is moved into the database while nobody else can write, where anything else loses commits."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from durably_web.backends import checkpoints
from durably_web.backends.checkpoints import Checkpoints, loses_commits
from durably_web.backends.sqlite import SqliteExecutor
from durably_web.store.batch import Batch, Statement

AFFECTED, REPAIRED = (3, 51, 2), (3, 51, 3)


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_the_versions_that_lose_commits(version: tuple[int, ...], affected: bool) -> None:
    assert loses_commits(version) is affected


async def _opened(path: Path, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> SqliteExecutor:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    executor = SqliteExecutor(str(path), "relaxed")
    await executor.open()
    await executor.run(Batch("write", (Statement("CREATE TABLE IF NOT EXISTS mine (value TEXT NOT NULL)"),)))
    return executor


async def _write(executor: SqliteExecutor, value: str, statements: int = 1) -> None:
    insert = Statement("INSERT INTO mine VALUES (?)", (value,))
    await executor.run(Batch("write", (insert,) * statements))


async def _ask(executor: SqliteExecutor, sql: str) -> Any:
    return (await executor.run(Batch("read", (Statement(sql),))))[0][0][0]


def _size(path: str | Path) -> int:
    return os.path.getsize(path)


async def test_a_repaired_version_does_it_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = await _opened(tmp_path / "app.db", REPAIRED, monkeypatch)
    assert await _ask(executor, "PRAGMA wal_autocheckpoint") == 1000
    assert executor._checkpoints is None
    await executor.close()


@pytest.mark.parametrize("version", [AFFECTED, sqlite3.sqlite_version_info], ids=["3.51.2", "this machine's"])
@pytest.mark.parametrize("statements", [1, 2])
async def test_an_affected_version_never_does_it_beside_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], statements: int
) -> None:
    if not loses_commits(version):
        pytest.skip(f"SQLite {sqlite3.sqlite_version} is repaired")
    path = tmp_path / "app.db"
    executor = await _opened(path, version, monkeypatch)
    assert await _ask(executor, "PRAGMA wal_autocheckpoint") == 0
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    made: list[tuple[int, ...]] = []

    def checkpoint(connection: sqlite3.Connection, sql: str) -> sqlite3.Cursor:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        found = sqlite3.Connection.execute(connection, sql).fetchone()
        made.append(found)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        return connection.execute(f"SELECT {', '.join(map(str, found))}")

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if "wal_checkpoint" in sql:
                return checkpoint(self, sql)
            return super().execute(sql, *parameters)

    def opened(self: Checkpoints) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, factory=Watched)
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    monkeypatch.setattr(Checkpoints, "_open", opened)
    count = 3 * checkpoints._WRITES
    for number in range(count):
        await _write(executor, f"{number}", statements)
    assert made and all(busy == 0 and pages == moved > 0 for busy, pages, moved in made)
    assert await _ask(executor, "SELECT count(*) FROM mine") == count * statements
    other.close()
    await executor.close()
    assert os.listdir(tmp_path) == ["app.db"], "the last one to close it still tidies up"


async def test_the_log_stays_about_as_long_as_sqlite_lets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large what is written is."""
    for size in (10, 100_000):
        path = tmp_path / f"{size}.db"
        executor = await _opened(path, AFFECTED, monkeypatch)
        for _ in range(600):
            await _write(executor, "x" * size)
        # Ten writes of this size at least, and a first stretch before it knows how large they are.
        assert _size(f"{path}-wal") < 4096 * 1100 + 130 * 1.1 * size
        assert _size(path) > 4096
        await executor.close()


async def test_the_log_stays_so_also_where_writers_are_short_lived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them writes until a checkpoint is due, and one that only looks on keeps SQLite from tidying up."""
    path = tmp_path / "app.db"
    onlooker = await _opened(path, AFFECTED, monkeypatch)
    for _ in range(50):
        executor = await _opened(path, AFFECTED, monkeypatch)
        for _ in range(5):
            await _write(executor, "x" * 100_000)
        await executor.close()
    assert _size(f"{path}-wal") < 4096 * 1100 + 2 * 5 * 1.1 * 100_000
    assert await _ask(onlooker, "SELECT count(*) FROM mine") == 250
    await onlooker.close()


async def test_a_checkpoint_that_fails_does_no_harm_to_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = await _opened(tmp_path / "app.db", AFFECTED, monkeypatch)
    assert executor._checkpoints is not None
    monkeypatch.setattr(executor._checkpoints, "_path", str(tmp_path))
    for _ in range(2 * checkpoints._WRITES):
        await _write(executor, "x")
    assert await _ask(executor, "SELECT count(*) FROM mine") == 2 * checkpoints._WRITES
    await executor.close()


async def test_while_another_one_writes_the_next_write_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.db"
    executor = await _opened(path, AFFECTED, monkeypatch)
    assert executor._checkpoints is not None and executor._connection is not None
    for _ in range(checkpoints._WRITES - 1):
        await _write(executor, "x")
    assert executor._checkpoints._writes == checkpoints._WRITES
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    executor._checkpoints.make(executor._connection)
    assert executor._checkpoints._onlooker is None and executor._checkpoints.is_due()
    other.execute("ROLLBACK")
    other.close()
    await _write(executor, "x")
    assert executor._checkpoints._onlooker is not None and not executor._connection.in_transaction
    await executor.close()
