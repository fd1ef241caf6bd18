"""What holds for SQLite files beyond the contract: names, damage, durability, two processes' waits."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Literal

import pytest

from durably_web.backends import open_executor
from durably_web.backends.sqlite import SqliteExecutor
from durably_web.clock import ManualClock
from durably_web.engine import Durably
from durably_web.errors import Conflict, InvalidInput, NotADatabase, SchemaTooNew, StoreNotDurable, StoreUnavailable
from durably_web.store import migrations
from durably_web.store.batch import Batch, Statement
from durably_web.store.operations import schema
from durably_web.store.store import Store


async def _ask(executor: SqliteExecutor, statement: str) -> object:
    return (await executor.run(Batch("read", (Statement(statement),))))[0][0][0]


def _names(folder: Path) -> list[str]:
    return [found.name for found in folder.iterdir()]


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("relaxed", 1)])
async def test_the_promised_durability_is_set(
    tmp_path: Path, durability: Literal["full", "relaxed"], synchronous: int
) -> None:
    executor = SqliteExecutor(str(tmp_path / "app.db"), durability)
    await executor.open()
    await executor.run(Batch("write", (Statement("CREATE TABLE mine (id)"),)))
    assert await _ask(executor, "PRAGMA journal_mode") == "wal"
    assert await _ask(executor, "PRAGMA synchronous") == synchronous
    await executor.close()


async def test_a_database_that_cannot_promise_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"PRAGMA journal_mode = wal": "delete", "PRAGMA synchronous": 0}
    asked = SqliteExecutor._ask

    for pragma, answer in answers.items():

        async def ask(self: SqliteExecutor, text: str, pragma: str = pragma, answer: object = answer) -> object:
            return answer if text == pragma else await asked(self, text)

        monkeypatch.setattr(SqliteExecutor, "_ask", ask)
        with pytest.raises(StoreNotDurable, match=str(answer)):
            await Durably(str(tmp_path / "app.db")).init()


@pytest.mark.parametrize("content", [b"not a database", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_file_that_is_no_database_is_left_as_it_was(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    durably = Durably(str(path))
    with pytest.raises(NotADatabase, match=r"notes\.txt"):
        await durably.init()
    assert path.read_bytes() == content
    assert _names(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
async def test_a_newer_database_is_left_as_it_was(tmp_path: Path, journal_mode: str) -> None:
    path = tmp_path / "app.db"
    executor = SqliteExecutor(str(path))
    await executor.open()
    await Store(executor, ManualClock()).migrate()
    await executor.run(Batch("write", (Statement(schema.RECORD_MIGRATION, (migrations.LATEST + 1, 0)),)))
    assert await _ask(executor, f"PRAGMA journal_mode = {journal_mode}") == journal_mode
    await executor.close()
    before = path.read_bytes()
    async with Durably(str(path)) as durably:
        assert await durably.get_runs() == []
        with pytest.raises(SchemaTooNew):
            await durably.cancel("none")
    assert path.read_bytes() == before
    assert _names(tmp_path) == ["app.db"], "and it is closed"


async def test_an_engine_that_cannot_begin_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "app.db")
    async with Durably(path, worker_id="same"):
        second = Durably(path, worker_id="same")
        with pytest.raises(Conflict, match="same"):
            async with second:
                pass
        with pytest.raises(StoreUnavailable):
            await second.get_runs()
    async with second:
        assert await second.get_runs() == []


async def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "app.db", tmp_path):
        with pytest.raises(StoreUnavailable, match=str(tmp_path)):
            await Durably(str(path)).init()


async def test_an_empty_file_is_a_fresh_database(tmp_path: Path) -> None:
    (tmp_path / "app.db").touch()
    async with Durably(str(tmp_path / "app.db")) as durably:
        assert await durably.get_runs() == []


async def test_nothing_is_left_beside_the_file_after_a_stop(tmp_path: Path) -> None:
    async with Durably(str(tmp_path / "app.db")):
        assert len(_names(tmp_path)) > 1
    assert _names(tmp_path) == ["app.db"]


async def test_a_write_goes_through_when_the_other_lets_go(tmp_path: Path) -> None:
    """Also the first one: a database that is being written when it is opened."""
    path = tmp_path / "app.db"
    async with Durably(str(path)):
        pass
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    durably = Durably(str(path))
    beginning = asyncio.ensure_future(durably.init())
    turned = 0
    while turned < 200:
        await asyncio.sleep(0)
        turned += 1
    assert not beginning.done() or beginning.exception() is None
    other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(20):
        await beginning
        await durably.stop()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("app.db", "app.db"),
        ("sqlite:///app.db", "app.db"),
        ("sqlite:////var/app.db", "/var/app.db"),
        (":memory:", ":memory:"),
        ("/tmp/with space/ü.db", "/tmp/with space/ü.db"),
    ],
)
def test_urls_of_files(url: str, path: str) -> None:
    executor = open_executor(url, "full")
    assert isinstance(executor, SqliteExecutor) and executor._path == path


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///", "sqlite:app.db", "mysql://host/db", "redis://host/0"])
def test_urls_that_mean_nothing_here(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_executor(url, "full")


def test_postgresql_is_for_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "emscripten")
    with pytest.raises(StoreUnavailable, match="use libsql://"):
        open_executor("postgresql://host/name", "full")


def test_opfs_is_for_the_browser() -> None:
    with pytest.raises(StoreUnavailable, match="browser"):
        open_executor("opfs:app", "full")
    with pytest.raises(InvalidInput, match="durability"):
        open_executor("app.db", "half")  # type: ignore[arg-type]
