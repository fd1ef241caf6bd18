"""Whom an executor connects to, what it takes over from the address, and whom it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import psycopg
import pytest
from psycopg import sql

from durably_web.backends.postgres import PostgresExecutor, connections, executor
from durably_web.backends.postgres.address import parse
from durably_web.backends.postgres.failures import Again, of_connecting
from durably_web.errors import StoreBusy, StoreError, StoreUnavailable
from durably_web.store.batch import Batch, Statement
from tests.support.guarded import free_port
from tests.support.postgres_scene import Scene
from tests.support.servers import USER, PgBouncer, Postgres
from tests.support.world import bounded, raised, until

SLOW = Batch("read", (Statement("SELECT current_schema(), pg_sleep(0.05)"),))


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_a_plus_is_a_plus() -> None:
    address = parse("postgresql://here/db?password=a+b%2Bc&application_name=d%20e")
    assert psycopg.conninfo.conninfo_to_dict(address.conninfo)["password"] == "a+b+c"
    assert address.secrets == ("a+b+c",)


def test_what_is_not_ours_goes_to_the_driver() -> None:
    address = parse("postgresql://here/db?schema=jobs&isolation=serializable&sslmode=require")
    assert (address.schema, address.serializable) == ("jobs", True)
    assert address.conninfo == "postgresql://here/db?sslmode=require"
    assert parse(f"postgresql://here/db?schema={'x' * 63}").schema == "x" * 63


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ('connection to server at "password-db" (10.0.0.1), port 5432 failed: Connection refused', True),
        ("failed to resolve host 'password-db': [Errno -2] Name or service not known", True),
        ('connection to server at "x", port 1 failed: FATAL:  canceling authentication due to timeout', True),
        ('connection to server at "x", port 1 failed: FATAL:  sorry, too many clients already', True),
        ('connection to server at "x", port 1 failed: FATAL:  too many connections for role "password"', True),
        ('connection to server at "x", port 1 failed: FATAL:  password authentication failed for user "u"', False),
        ('connection to server at "x", port 1 failed: FATAL:  role "of mine" does not exist', False),
        ('connection to server at "x", port 1 failed: FATAL:  database "mine" does not exist', False),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "u", database "d", no encryption', False),
        ('invalid integer value "port" for connection option "port"', False),
        ('invalid sslmode value: "perhaps"', False),
        ('connection to server at "x", port 1 failed: FATAL:  unsupported startup parameter: options', False),
    ],
)
def test_what_passes_when_connecting(said: str, passes: bool) -> None:
    assert isinstance(of_connecting(said, parse("postgresql://x/d")), Again) == passes


def test_a_password_that_is_a_word_changes_nothing_but_what_is_shown() -> None:
    error = of_connecting("password authentication failed", parse("postgresql://u:password@x/d"))
    assert isinstance(error, StoreUnavailable) and "*** authentication failed" in str(error)


async def test_a_host_may_be_called_anything() -> None:
    scene = Scene("postgresql://")
    scene.executor = PostgresExecutor(
        f"postgresql://u@password.internal:{free_port()}/d?hostaddr=127.0.0.1",
        sleep=scene._sleep,
        now=lambda: scene.time,
    )
    error = await raised(StoreUnavailable, bounded(scene.executor.open()))
    assert "could not be reached" in str(error) and len(scene.pauses) > 3


async def test_hosts_that_say_nothing_are_passed_by(postgres: Postgres, database: str) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
        hosts = ",".join(f"127.0.0.1:{port}" for port in (*silent, postgres.port))
        opened = PostgresExecutor(f"postgresql://{USER}@{hosts}/{database.rpartition('/')[2]}", "relaxed")
        await opened.open()
        assert await bounded(opened.run(Batch("read", (Statement("SELECT 1"),)))) == [[(1,)]]
        await opened.close()


# -- schemas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
async def test_an_executor_stays_in_the_schema_that_it_began_in(
    postgres: Postgres, pgbouncer: PgBouncer, pooled: bool
) -> None:
    url = postgres.create_database()
    opened = PostgresExecutor(pgbouncer.url(url) if pooled else url, "relaxed")
    await opened.open()
    await opened.run(Batch("write", (Statement("CREATE TABLE durably_test (id INTEGER)"),)))
    with psycopg.connect(url, autocommit=True) as connection:
        # It is the first of the role's search_path.
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(USER)))
    found = await asyncio.gather(*[opened.run(SLOW) for _ in range(3)])
    assert [rows[0][0][0] for rows in found] == ["public"] * 3
    assert opened._connections is not None
    assert len(opened._connections._all) == 3
    assert {facts.schema for _, facts in opened._connections._idle} == {"public"}
    await opened.close()
    postgres.drop_database(url)


# -- what a server must be, and is told --------------------------------------------------------------------------------


async def test_a_database_that_has_not_every_character_is_refused(postgres: Postgres) -> None:
    name = sql.Identifier("test_latin")
    postgres._execute(
        sql.SQL("CREATE DATABASE {} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'").format(name)
    )
    scene = Scene(postgres.url("test_latin"))
    error = await raised(StoreUnavailable, scene.executor.open())
    assert "LATIN1" in str(error) and "ENCODING 'UTF8'" in str(error) and scene.pauses == []
    postgres.drop_database(scene.url)


async def test_the_encoding_of_what_is_sent_is_not_the_addresses(database: str) -> None:
    opened = PostgresExecutor(f"{database}?client_encoding=LATIN1", "relaxed")
    await opened.open()
    assert await opened.run(Batch("read", (Statement("SELECT ?", ("ü漢",)),))) == [[("ü漢",)]]
    await opened.close()


async def test_only_of_a_null_it_is_said_that_it_cannot_be_stored(scene: Scene) -> None:
    for code, asked, null in (
        ("22021", "SELECT convert_from('\\x00', 'UTF8')", True),
        ("22021", "SELECT convert_from('\\xff', 'UTF8')", False),
        ("22P05", 'SELECT CAST(\'{"a": "\\u0000"}\' AS JSONB)', True),
    ):
        error = await scene.fails(Batch("read", (Statement(asked),)), StoreError)
        assert (error.code, "U+0000" in str(error)) == (code, null), error


@pytest.mark.parametrize("commits", ["on", "off", "local", "remote_apply"])
async def test_who_turns_off_flushes_for_all_later_changes_nothing(postgres: Postgres, commits: str) -> None:
    url = postgres.create_database(f"synchronous_commit = '{commits}'")
    opened = PostgresExecutor(url, "full")
    await opened.open()
    asked = Statement("SELECT setting, source FROM pg_settings WHERE name = 'synchronous_commit'")
    assert await opened.run(Batch("read", (asked,))) == [[("on" if commits == "off" else commits, "session")]]
    await opened.close()
    postgres.drop_database(url)


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
async def test_a_migration_takes_as_long_as_it_takes(
    database: str, pgbouncer: PgBouncer, pooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STATEMENT_SECONDS", 0.1)
    monkeypatch.setattr(executor, "REPLY_SECONDS", 0.3)
    scene = Scene(pgbouncer.url(database) if pooled else database)
    await scene.executor.open()
    slow = Statement("SELECT 1 FROM pg_sleep(0.5)")
    created = Statement("\nCREATE TABLE durably_test (id INTEGER PRIMARY KEY)")
    assert await bounded(scene.executor.run(Batch("write", (created, slow)))) == [[], [(1,)]]
    monkeypatch.setattr(executor, "PATIENCE_SECONDS", 0.05)
    error = await scene.fails(Batch("write", (slow,)), StoreBusy)
    assert error.code == "57014"
    await scene.executor.close()


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_a_server_that_can_only_be_read_is_left(scene: Scene) -> None:
    """By all: those at rest, who listens, and those who are being answered when it is told."""
    opened = scene.executor
    opened.version()
    assert opened._doorbell is not None and opened._connections is not None
    await bounded(opened._doorbell.listening())
    await asyncio.gather(*[opened.run(SLOW) for _ in range(3)])
    before = set(opened._connections._all)
    assert len(before) == 4
    slow = asyncio.ensure_future(opened.run(SLOW))
    await until(lambda: opened._connections is not None and opened._connections._lent)
    failing = scene.failing("25006", 1)
    assert await bounded(opened.run(failing)) == [[(1,)], [(1,)], [(1,)]]
    assert (await bounded(slow))[0][0][0] == scene.schema
    await until(lambda: all(connection.is_lost for connection in before))
    await bounded(opened._doorbell.listening())
    assert not opened._connections._left and not opened._connections._lent
