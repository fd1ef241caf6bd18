"""The doorbell of PostgreSQL rings behind what is committed: where it fails, nobody is told, and that is all."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import psycopg
import pytest
from psycopg import sql

from durably_web.backends.postgres import doorbell
from durably_web.backends.postgres.connections import Connections, Facts
from durably_web.backends.postgres.wire import Connection, Query, ServerError
from durably_web.store.batch import Batch, Statement
from tests.support import servers
from tests.support.between import Between
from tests.support.postgres_scene import READ, WRITE, Scene, through
from tests.support.servers import Postgres
from tests.support.world import bounded, until

# Two of the same are refused, but no sooner than at the end of the transaction.
LATE = "CREATE TABLE {}.late (id bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)"
TWICE = "INSERT INTO late VALUES (1), (1)"


def _listeners(scene: Scene) -> int:
    return len(scene.sql("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"))


async def _reads_and_writes(scene: Scene) -> None:
    for _ in range(2):
        assert await bounded(scene.executor.run(WRITE)) == [[(1,)], [(1,)]]
        assert await bounded(scene.executor.run(READ)) == [[(1,)], [(1,)]]
        await scene.executor.run(Batch("write", (Statement("DELETE FROM durably_test"),)))


async def test_what_fails_at_the_end_is_told_and_the_next_answer_is_the_next_ones(scene: Scene) -> None:
    scene.sql(LATE.format(scene.schema))
    assert scene.executor._connections is not None
    connection, _ = await scene.executor._connections.connect()
    for _ in range(3):
        with pytest.raises(ServerError) as caught:
            await bounded(connection.exchange([Query(b"SELECT 1"), Query(TWICE.encode())]))
        assert (caught.value.code, caught.value.index) == ("23505", 1)
        assert await bounded(connection.exchange([Query(b"SELECT 7::int8")])) == [[(7,)]]


async def test_a_ring_that_fails_at_its_end_harms_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.sql(LATE.format(scene.schema))
    monkeypatch.setattr(scene.executor._doorbell, "ring", lambda schema: TWICE)
    scene.executor._framed.clear()
    await _reads_and_writes(scene)
    assert scene.pauses == []


async def test_a_ring_does_not_wait_long_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those on the whole server who notify, only one commits at a time; and here one does not come to an end."""
    monkeypatch.setattr(doorbell, "_RING_SECONDS", 0.01)
    with contextlib.closing(servers.postgres_server()) as server:
        scene = Scene(server.create_database())
        await scene.begin()
        set_names = sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}")
        server._execute(set_names.format(sql.Literal("nobody")))
        server._execute(sql.SQL("SELECT pg_reload_conf()"))

        def notify() -> None:
            with psycopg.connect(scene.url) as outsider:
                outsider.execute("CREATE TABLE theirs (id int)")
                outsider.execute("NOTIFY them")

        notifying = threading.Thread(target=notify)
        notifying.start()
        try:
            await until(lambda: scene.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
            await _reads_and_writes(scene)
            assert scene.pauses == []
        finally:
            server._execute(set_names.format(sql.Literal("")))
            server._execute(sql.SQL("SELECT pg_reload_conf()"))
            await asyncio.to_thread(notifying.join)
            await scene.executor.close()


async def test_who_is_refused_to_listen_asks_no_more(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "channel", lambda schema: "1 no name")
    other = scene.another()
    await other.open()
    other.version()
    assert other._doorbell is not None
    await bounded(other._doorbell.listening())
    assert other.version() is None
    await until(lambda: _listeners(scene) == 0)
    await other.close()


async def test_who_is_put_off_as_he_would_listen_keeps_no_connection(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = 3

    async def exchange(connection: Connection, queries: list[Query]) -> object:
        nonlocal refusals
        if refusals and any(query.sql.startswith(b"LISTEN") for query in queries):
            refusals -= 1
            raise ServerError("no room", "53200", 0)
        return await real(connection, queries)

    real = Connection.exchange
    monkeypatch.setattr(Connection, "exchange", exchange)
    monkeypatch.setattr(doorbell, "_FIRST_PAUSE", 0.001)
    other = scene.another()
    await other.open()
    other.version()
    assert other._doorbell is not None and other._connections is not None
    await bounded(other._doorbell.listening())
    assert refusals == 0 and other.version() is not None
    assert len(other._connections._all) == 2, "one to ask by, and one that listens"
    await other.close()


async def test_who_gets_no_answer_as_he_would_listen_connects_again(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Connections._met
    async with Between("127.0.0.1", postgres.port) as between:
        scene = Scene(through(database, between.port))
        await scene.begin()

        async def met(connections: Connections, connection: Connection) -> Facts:
            monkeypatch.setattr(Connections, "_met", real)
            between.habit = "swallow"
            try:
                return await real(connections, connection)
            finally:
                between.habit = "pass"

        monkeypatch.setattr(Connections, "_met", met)
        monkeypatch.setattr(doorbell, "REPLY_SECONDS", 1.0)
        scene.executor.version()
        assert scene.executor._doorbell is not None
        await bounded(scene.executor._doorbell.listening())
        assert scene.executor.version() is not None
        await scene.executor.close()
