"""A PostgreSQL server on bad days: an operation is sent again until it is answered, and then the error says what to do.

What a server says of itself is said by a real one; where an executor waits, time is the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durably_web.backends import open_executor
from durably_web.backends.postgres import PostgresExecutor, connections, locks, order
from durably_web.engine import Durably
from durably_web.errors import (
    ConstraintViolated,
    InvalidInput,
    RequirementFailed,
    StorageFull,
    StoreBusy,
    StoreError,
    StoreNotDurable,
    StoreUnavailable,
)
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store.batch import Batch, Statement
from tests.support import servers
from tests.support.between import Between
from tests.support.executors import CountingExecutor
from tests.support.postgres import Listening
from tests.support.postgres_scene import COUNT, INSERT, READ, WRITE, Scene, terminate, through
from tests.support.servers import PASSWORD, PgBouncer, Postgres
from tests.support.world import bounded, until


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """A server that may be killed."""
    with contextlib.closing(servers.postgres_server()) as server:
        yield server


@pytest.fixture
async def between(postgres: Postgres) -> AsyncIterator[Between]:
    async with Between("127.0.0.1", postgres.port) as between:
        yield between


@pytest.fixture
async def far(between: Between, database: str) -> AsyncIterator[Scene]:
    """Its executor speaks to the server through `between`."""
    scene = Scene(through(database, between.port))
    await scene.begin()
    between.asked.clear()
    yield scene
    await scene.executor.close()


# -- what the server says ----------------------------------------------------------------------------------------------

PASSING = {
    "40001": StoreBusy,
    "40P01": StoreBusy,
    "55P03": StoreBusy,
    "57014": StoreBusy,
    "53300": StoreUnavailable,
    "53200": StoreUnavailable,
    "57P03": StoreUnavailable,
    "25006": StoreUnavailable,
    "XX000": StoreUnavailable,
}


@pytest.mark.parametrize("code", PASSING)
async def test_an_operation_is_sent_again(scene: Scene, code: str) -> None:
    results = await scene.executor.run(scene.failing(code, 3))
    assert results == [[(1,)], [(1,)], [(1,)]]
    assert len(scene.pauses) == 3 and all(pause > 0 for pause in scene.pauses)


@pytest.mark.parametrize("code", PASSING)
async def test_what_does_not_end_becomes_one_clear_error(scene: Scene, code: str) -> None:
    error = await scene.fails(scene.failing(code, 10**6), PASSING[code])
    assert scene.executor._where in str(error) and "30 seconds" in str(error) and error.code == code
    assert 15 < scene.time <= 30
    assert len(scene.pauses) < 60 and min(scene.pauses[-3:]) > scene.pauses[0], "the pauses grow"
    # It is fit for more, and nothing is left of it.
    assert await scene.count() == [(0,)]


async def test_pauses_are_uneven(scene: Scene) -> None:
    batch = scene.failing("40001", 4)
    await scene.executor.run(batch)
    ratios = [later / earlier for earlier, later in zip(scene.pauses, scene.pauses[1:], strict=False)]
    assert len(set(ratios)) == 3


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("53100", StorageFull, "no room left"),
        ("23505", ConstraintViolated, "no luck"),
        ("42501", StoreError, "GRANT"),
        ("22P05", StoreError, "U+0000"),
        ("58030", StoreUnavailable, "no luck"),
        ("P0001", StoreError, "no luck"),
    ],
)
async def test_refusals_are_not_asked_again(scene: Scene, code: str, kind: type[StoreError], words: str) -> None:
    error = await scene.fails(scene.failing(code, 10**6), kind)
    assert (error.code, error.statement_index) == (code, 1) and words in str(error)
    assert scene.pauses == []
    assert await scene.count() == [(0,)]


async def test_who_waits_in_a_circle_is_let_go_and_comes_again(scene: Scene, database: str) -> None:
    await scene.executor.run(Batch("write", (Statement("INSERT INTO durably_test VALUES (1, 'a'), (2, 'b')"),)))
    with psycopg.connect(database) as outsider:
        outsider.execute("SET deadlock_timeout = '1h'")
        outsider.execute(f"UPDATE {scene.schema}.durably_test SET value = 'theirs' WHERE id = 2")
        update = "UPDATE durably_test SET value = 'ours' WHERE id = ?"
        writing = asyncio.ensure_future(
            scene.executor.run(Batch("write", (Statement(update, (1,)), Statement(update, (2,)))))
        )
        theirs = asyncio.to_thread(
            outsider.execute, f"UPDATE {scene.schema}.durably_test SET value = 'theirs' WHERE id = 1"
        )
        await bounded(theirs)
        outsider.commit()
        await bounded(writing)
    assert scene.sql("SELECT value FROM durably_test") == [("ours",), ("ours",)]


async def test_who_waits_too_long_for_others_is_told_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOCK_SECONDS", 0.01)
    waiting = Scene(scene.url)
    await waiting.begin()
    with psycopg.connect(scene.url) as outsider:
        outsider.execute(f"SELECT {locks.alone(waiting.schema)}")
        error = await waiting.fails(kind=StoreBusy)
        assert error.code == "55P03" and "others write" in str(error)
        assert await waiting.count() == [(0,)], "readers are not kept waiting"
    assert await waiting.executor.run(WRITE) == [[(1,)], [(1,)]]
    await waiting.executor.close()


async def test_a_statement_that_takes_too_long(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STATEMENT_SECONDS", 0.01)
    hasty = Scene(scene.url)
    await hasty.executor.open()
    error = await hasty.fails(Batch("read", (Statement("SELECT pg_sleep(10)"),)), StoreBusy)
    assert error.code == "57014" and "took too long" in str(error)
    await hasty.executor.close()


async def test_tables_that_change_meanwhile(scene: Scene) -> None:
    every = Batch("read", (Statement("SELECT * FROM durably_test"),))
    for _ in range(3):
        assert await scene.executor.run(every) == [[]]
    scene.sql("ALTER TABLE durably_test ADD COLUMN more bigint")
    scene.sql("INSERT INTO durably_test VALUES (1, 'a', 2)")
    assert await scene.executor.run(every) == [[(1, "a", 2)]]


async def test_texts_with_a_null_are_found_by_it(scene: Scene) -> None:
    parts = ("\0", "\ufdd0", "\\", "\\\\", "\\u0000", "\\ufdd0", "0", "u0000")
    values = sorted({"".join(some) for some in itertools.product(parts, repeat=3)})
    insert, find = "INSERT INTO durably_test VALUES (?, ?)", "SELECT id, value FROM durably_test WHERE value = ?"
    await scene.executor.run(Batch("write", tuple(Statement(insert, pair) for pair in enumerate(values))))
    found = await scene.executor.run(Batch("read", tuple(Statement(find, (value,)) for value in values)))
    assert found == [[pair] for pair in enumerate(values)]


async def test_texts_with_a_null_are_the_same_in_json(scene: Scene) -> None:
    """Taken out of one, and put into one."""
    parts = ("\0", "\ufdd0", "\\", "\\\\", "\\u0000", "\\ufdd0", "0", "u0000")
    values = sorted({"".join(some) for some in itertools.product(parts, repeat=2)})
    take, put = "SELECT json_extract(?, '$.a') = ?", "SELECT json_object('a', ?)"
    taken = [Statement(take, (json.dumps({"a": value}), value)) for value in values]
    assert await scene.executor.run(Batch("read", tuple(taken))) == [[(1,)]] * len(values)
    rows = await scene.executor.run(Batch("read", tuple(Statement(put, (value,)) for value in values)))
    assert [json.loads(str(found[0][0])) for found in rows] == [{"a": value} for value in values]


# -- connections -------------------------------------------------------------------------------------------------------


async def test_connections_that_end_are_replaced(scene: Scene) -> None:
    assert terminate(scene) >= 1
    assert await bounded(scene.executor.run(WRITE)) == [[(1,)], [(1,)]]
    assert terminate(scene) >= 1
    assert await bounded(scene.executor.run(READ)) == [[(1,)], [(1,)]]


async def test_a_connection_that_ends_while_it_waits(scene: Scene) -> None:
    with psycopg.connect(scene.url) as outsider:
        outsider.execute(f"SELECT {locks.alone(scene.schema)}")
        writing = asyncio.ensure_future(scene.executor.run(WRITE))
        await until(lambda: terminate(scene, "wait_event = 'advisory'"))
    assert await bounded(writing) == [[(1,)], [(1,)]]
    assert len(scene.pauses) >= 1


async def test_a_reply_that_is_lost(far: Scene, between: Between) -> None:
    between.habit = "lose"
    assert await bounded(far.executor.run(Batch("write", (INSERT,)))) == [[]], "it was done, and then done again"
    assert await far.count() == [(1,)] and len(far.pauses) == 1


async def test_a_request_that_is_lost(far: Scene, between: Between) -> None:
    between.habit = "drop"
    assert await bounded(far.executor.run(WRITE)) == [[(1,)], [(1,)]]
    assert len(far.pauses) == 1


async def test_each_batch_is_one_round_trip(far: Scene, between: Between) -> None:
    between.habit = "withhold"
    for batch in (WRITE, READ, Batch("read", (COUNT,)), WRITE, READ, WRITE):
        before = between.syncs
        await bounded(far.executor.run(batch))
        assert between.syncs == before + 1, "all was asked before anything was answered"
    # Of this one, server and client could not hold the answers meanwhile.
    between.habit = "pass"
    large = Batch("write", tuple(Statement("SELECT ?", ("x" * 100_000,)) for _ in range(100)))
    assert len(await bounded(far.executor.run(large))) == 100


async def test_each_operation_is_one_round_trip(between: Between, database: str) -> None:
    between.habit = "withhold"
    schema = f"case_{secrets.token_hex(6)}"
    counted = CountingExecutor(PostgresExecutor(f"{through(database, between.port)}?schema={schema}", "relaxed"))

    @job
    async def three(step: Step, input: dict[str, Any]) -> int:
        return sum([await step.run(f"step {number}", int, number) for number in range(3)])

    durably = Durably(counted, jobs=[three])
    await durably.migrate()
    before, sent = between.syncs, len(counted.batches)
    handle = await durably.trigger(three, {})
    assert await bounded(durably.process_one())
    run = await durably.get_run(handle.id)
    assert run is not None and run.output == 3
    assert between.syncs - before == len(counted.batches) - sent >= 6
    await durably.stop()


async def test_a_close_ends_what_waits(scene: Scene) -> None:
    with psycopg.connect(scene.url) as outsider:
        outsider.execute(f"SELECT {locks.alone(scene.schema)}")
        writing = asyncio.ensure_future(scene.executor.run(WRITE))
        await until(lambda: scene.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"))
        await scene.executor.close()
        with pytest.raises(StoreUnavailable, match="not open"):
            await bounded(writing)
    with pytest.raises(StoreUnavailable, match="not open"):
        await scene.executor.run(READ)


async def test_who_is_cancelled_leaves_room_for_others(scene: Scene) -> None:
    with psycopg.connect(scene.url) as outsider:
        outsider.execute(f"SELECT {locks.alone(scene.schema)}")
        for _ in range(2 * connections.MOST):
            writing = asyncio.ensure_future(scene.executor.run(WRITE))
            await asyncio.sleep(0)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
    assert await bounded(scene.executor.run(READ))
    assert await bounded(scene.executor.run(WRITE))


async def test_a_server_that_says_nothing(far: Scene, between: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    from durably_web.backends.postgres import executor

    monkeypatch.setattr(executor, "REPLY_SECONDS", 0.02)
    between.habit = "swallow"
    error = await far.fails()
    assert "there was no answer" in str(error) and "30 seconds" in str(error)


def _said_by_a_child(executor: PostgresExecutor) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            executor.run(READ).send(None)
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().decode()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_a_fork_leaves_the_parent_its_connections(scene: Scene) -> None:
    await scene.executor.run(READ)
    assert "before a fork" in _said_by_a_child(scene.executor)
    assert await bounded(scene.executor.run(WRITE)) == [[(1,)], [(1,)]]
    assert scene.pauses == [], "it is the same connection as before"


# -- servers -----------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_killed_and_started_loses_nothing(own: Postgres) -> None:
    scene = Scene(own.create_database(), "full")
    await scene.begin()
    writers = [PostgresExecutor(f"{scene.url}?schema={scene.schema}", "full") for _ in range(3)]
    acknowledged: list[int] = []
    stopped = False

    async def write(writer: PostgresExecutor, first: int) -> None:
        await writer.open()
        number = first
        while not stopped:
            insert = "INSERT INTO durably_test (id) VALUES (?) ON CONFLICT DO NOTHING"
            await writer.run(Batch("write", (Statement(insert, (number,)),)))
            acknowledged.append(number)
            number += 3
        await writer.close()

    writing = [asyncio.ensure_future(write(writer, first)) for first, writer in enumerate(writers)]
    try:
        async with asyncio.timeout(100):
            await until(lambda: len(acknowledged) >= 30)
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
            before = len(acknowledged)
            await until(lambda: len(acknowledged) >= before + 30)
            await asyncio.to_thread(own.stop)
            await asyncio.to_thread(own.start)
            before = len(acknowledged)
            await until(lambda: len(acknowledged) >= before + 30)
            stopped = True
            await asyncio.gather(*writing)
    finally:
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
    stored = {row[0] for row in scene.sql("SELECT id FROM durably_test")}
    assert set(acknowledged) <= stored
    await scene.executor.close()


async def test_a_server_that_is_not_there_is_told_of_soon() -> None:
    from tests.support.guarded import free_port

    scene = Scene(f"postgresql://durably:{PASSWORD}@127.0.0.1:{free_port()}/nothing")
    with pytest.raises(StoreUnavailable, match="refused") as caught:
        await bounded(scene.executor.open())
    assert scene.time <= 6 and PASSWORD not in str(caught.value)
    with pytest.raises(StoreUnavailable, match="not open"):
        await scene.executor.run(READ)


async def test_a_database_that_is_not_there(scene: Scene) -> None:
    missing = Scene(f"{scene.url}_missing")
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await missing.executor.open()
    assert missing.pauses == []


def _ask_guests_for_a_password(server: Postgres) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
        [[path]] = connection.execute("SHOW hba_file").fetchall()
        access = Path(path)
        access.write_text(f"host all guest 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
        connection.execute("SELECT pg_reload_conf()")


async def test_a_wrong_password_is_told_of_at_once_and_never_shown(own: Postgres) -> None:
    _ask_guests_for_a_password(own)
    wrong = Scene(own.url().replace("durably:", "guest:"))
    with pytest.raises(StoreUnavailable) as caught:
        await bounded(wrong.executor.open())
    seen: BaseException | None = caught.value
    while seen is not None:
        assert PASSWORD not in str(seen) + repr(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    assert "password" in str(caught.value) and wrong.pauses == []
    assert PASSWORD not in repr(wrong.executor)
    right = PostgresExecutor(own.url().replace("durably:", "guest:").replace(PASSWORD, "right"))
    await bounded(right.open())
    await right.close()


async def test_a_server_that_does_not_flush_is_refused(own: Postgres) -> None:
    with psycopg.connect(own.url(), autocommit=True) as connection:
        try:
            for name in ("fsync", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {name} = off")
                connection.execute("SELECT pg_reload_conf()")
                await until(lambda name=name: connection.execute(f"SHOW {name}").fetchone() == ("off",))  # type: ignore[misc]
                with pytest.raises(StoreNotDurable, match=f"{name} = off"):
                    await PostgresExecutor(own.url()).open()
                relaxed = PostgresExecutor(own.url(), "relaxed")
                await relaxed.open()
                await relaxed.close()
                connection.execute(f"ALTER SYSTEM RESET {name}")
        finally:
            connection.execute("ALTER SYSTEM RESET ALL")
            connection.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
@pytest.mark.parametrize(("durability", "commits"), [("full", "on"), ("relaxed", "off")])
async def test_commits_wait_for_the_disk_as_asked(
    postgres: Postgres, pgbouncer: PgBouncer, pooled: bool, durability: Any, commits: str
) -> None:
    url = postgres.create_database(f"synchronous_commit = {'off' if commits == 'on' else 'on'}")
    executor = PostgresExecutor(pgbouncer.url(url) if pooled else url, durability)
    await executor.open()
    [rows] = await executor.run(Batch("write", (Statement("SELECT current_setting('synchronous_commit')"),)))
    assert rows == [(commits,)]
    await executor.close()
    postgres.drop_database(url)


# -- PgBouncer ---------------------------------------------------------------------------------------------------------


async def test_nothing_stays_behind_a_pooler(database: str, pgbouncer: PgBouncer) -> None:
    scene = Scene(pgbouncer.url(database))
    await scene.begin()
    for _ in range(4):
        await asyncio.gather(*[scene.executor.run(batch) for batch in (WRITE, READ, WRITE, READ)])
    assert scene.executor.version() is None or await _deaf(scene.executor)
    with psycopg.connect(pgbouncer.url(database), autocommit=True, prepare_threshold=None) as connection:
        asked = connection.execute(
            "SELECT current_setting('search_path'), current_setting('statement_timeout'),"
            " current_setting('synchronous_commit'), (SELECT count(*) FROM pg_prepared_statements)"
        )
        assert asked.fetchone() == ('"$user", public', "0", "on", 0)
    await scene.executor.close()


async def _deaf(executor: PostgresExecutor) -> bool:
    assert executor._doorbell is not None
    await bounded(executor._doorbell.listening())
    return executor.version() is None


async def test_a_pooler_that_is_started_again(postgres: Postgres, database: str) -> None:
    with contextlib.closing(servers.pgbouncer(postgres)) as pooler:
        scene = Scene(pooler.url(database))
        await scene.begin()
        await asyncio.to_thread(pooler.kill)
        starting = asyncio.ensure_future(asyncio.to_thread(pooler.start))
        # Its time does not pass by itself.
        scene.executor._sleep = asyncio.sleep
        assert await bounded(scene.executor.run(WRITE)) == [[(1,)], [(1,)]]
        await starting
        await scene.executor.close()


# -- schemas -----------------------------------------------------------------------------------------------------------


async def test_schemas_are_apart(database: str) -> None:
    first, second = Scene(database), Scene(database)
    second.schema += ' "of" % another'
    second.executor = PostgresExecutor(f"{database}?schema={second.schema.replace('%', '%25').replace(' ', '%20')}")
    for scene in (first, second):
        await scene.begin()
    await first.executor.run(WRITE)
    assert [await scene.count() for scene in (first, second)] == [[(1,)], [(0,)]]
    for scene in (first, second):
        await scene.executor.close()


_MIGRATES = """
import asyncio, sys
from durably_web import Durably

async def main():
    print("ready", flush=True)
    input()
    durably = Durably(sys.argv[1])
    await durably.migrate()
    await durably.stop()

asyncio.run(main())
"""


@pytest.mark.parametrize("isolation", ["read-committed", "serializable"])
def test_many_processes_migrate_at_once(postgres: Postgres, isolation: str) -> None:
    url = postgres.create_database()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MIGRATES, f"{url}?schema=jobs&isolation={isolation}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            _, said = process.communicate(timeout=100)
            assert (process.returncode, said) == (0, "")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    postgres.drop_database(url)


# -- being told --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def listening(scene: Scene) -> AsyncIterator[PostgresExecutor]:
    executor = scene.another()
    await Listening(executor).open()
    yield executor
    await executor.close()


async def test_only_what_others_have_written_is_told(scene: Scene, listening: PostgresExecutor) -> None:
    first = listening.version()
    assert first is not None
    await listening.run(WRITE)
    await scene.executor.run(READ)
    # It has nothing to change any more.
    await scene.executor.run(Batch("write", (INSERT,)))
    await scene.executor.run(Batch("write", (Statement("DELETE FROM durably_test WHERE id = 1"),)))
    await until(lambda: listening.version() != first)
    assert listening.version() == first + 1


async def test_who_listens_comes_back(scene: Scene, listening: PostgresExecutor) -> None:
    first = listening.version()
    assert first is not None
    assert terminate(scene, "query LIKE 'LISTEN%'") == 1
    await until(lambda: (listening.version() or 0) > first + 1)
    second = listening.version()
    await scene.executor.run(WRITE)
    await until(lambda: listening.version() != second)


_TRIGGERS = """
import asyncio, sys
from durably_web import Durably, job

@job
async def greet(step, input: dict):
    return "hello"

async def main():
    durably = Durably(sys.argv[1], jobs=[greet])
    await durably.migrate()
    await durably.trigger(greet, {})
    await durably.stop()

asyncio.run(main())
"""


async def test_a_worker_is_woken_by_another_process(database: str) -> None:
    came = asyncio.Event()

    @job
    async def greet(step: Step, input: dict[str, Any]) -> str:
        came.set()
        return "hello"

    url = f"{database}?schema=case_{secrets.token_hex(6)}"
    # Nobody looks by himself within the time of a test.
    durably = Durably(url, jobs=[greet], polling_interval=3600, heartbeat_interval=3600, stale_threshold=36000)
    async with durably:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _TRIGGERS, url)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
            await came.wait()


# -- the order of events -----------------------------------------------------------------------------------------------


async def test_who_reads_on_does_not_pass_by_what_is_not_committed(database: str) -> None:
    scene = Scene(database)
    counted = PostgresExecutor(f"{database}?schema={scene.schema}", "relaxed")

    @job
    async def waits(step: Step, input: dict[str, Any]) -> Any:
        return await step.wait_for_signal("go")

    durably = Durably(counted, jobs=[waits])
    await durably.migrate()
    first = await durably.trigger(waits, {})
    [begin] = [row[0] for row in scene.sql("SELECT max(seq) FROM durably_journal")]
    with psycopg.connect(database) as outsider:
        outsider.execute(f"SET search_path = {scene.schema}")
        # As an executor writes, but for the lock that lets only one of them.
        outsider.execute(f"SELECT {order.registration(scene.schema)}")
        outsider.execute(
            "INSERT INTO durably_journal (run_id, number, generation, type, data, created_at)"
            " SELECT run_id, 1000, generation, 'step:start', data, created_at FROM durably_journal WHERE seq = %s",
            (begin,),
        )
        await durably.trigger(waits, {})
        store = durably._store
        from durably_web.codec import JsonCodec
        from durably_web.store.operations import last_seq, read_events

        reads = read_events(None, begin, 100, JsonCodec())
        assert (await store.read(reads)).events == []
        assert await store.read(last_seq()) == begin
        outsider.commit()
    assert first is not None
    found = [event.seq or 0 for event in (await store.read(reads)).events]
    assert found == sorted(found) and len(found) >= 2 and found[0] == begin + 1
    assert await store.read(last_seq()) == found[-1]
    await durably.stop()


# -- what is asked for wrongly ----------------------------------------------------------------------------------------


def test_mistakes_in_a_url_are_told_of_without_the_password() -> None:
    for url in (
        "postgresql://me:sec/ret@here/db",
        "postgresql://me:sec?ret@here/db",
        "postgresql://me:sec#ret@here/db",
        "postgresql://me:secret@here/db?nonsense=1",
        "postgresql://me:secret@here/db?schema=",
        "postgresql://me:secret@here/db?schema=pg_temp",
        "postgresql://me:secret@here/db?schema=%24user",
        f"postgresql://me:secret@here/db?schema={'ä' * 32}",
        "postgresql://me:secret@here/db?isolation=",
        "postgresql://me:secret@here/db?isolation=repeatable-read",
        "postgresql://here/db?password=secret&sslmode=perhaps&nonsense=1",
    ):
        with pytest.raises(InvalidInput) as caught:
            open_executor(url, "full")
        assert "sec" not in str(caught.value) and "ret" not in str(caught.value), url


@pytest.mark.parametrize("wrong", ["127.0.0.1:port/db", "127.0.0.1/db?sslmode=perhaps"])
async def test_what_no_connection_can_be_made_of_is_told_of_at_once(wrong: str) -> None:
    scene = Scene("")
    scene.executor = PostgresExecutor(f"postgresql://me:{PASSWORD}@{wrong}", sleep=scene._sleep)
    with pytest.raises(StoreUnavailable, match="invalid") as caught:
        await bounded(scene.executor.open())
    assert PASSWORD not in str(caught.value) and scene.pauses == []


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("durably_web.backends.postgres"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RequirementFailed, match=r"durably-web\[postgres\]"):
        open_executor("postgresql://here/db", "full")
