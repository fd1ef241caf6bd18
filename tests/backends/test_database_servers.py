"""The servers that the tests of databases are about to trust: what is written stays, and nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from scripts import databases
from tests.support import guarded, servers
from tests.support.servers import PgBouncer, Postgres, Sqld


def _skipping(start: Any) -> Any:
    try:
        return start()
    except databases.ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    with contextlib.closing(_skipping(servers.postgres_server)) as server:
        yield server


@pytest.fixture
def own_sqld() -> Iterator[Sqld]:
    with contextlib.closing(_skipping(servers.sqld_server)) as server:
        yield server


def _ask(url: str, statement: str) -> list[Any]:
    """The rows of a database of libSQL."""
    execute = {"type": "execute", "stmt": {"sql": statement}}
    with httpx.Client(trust_env=False, timeout=guarded.SECONDS) as client:
        response = client.post(f"{url}/v2/pipeline", json={"requests": [execute, {"type": "close"}]})
    assert response.status_code == 200, response.text
    [result, _] = response.json()["results"]
    assert result["type"] == "ok", result
    return [[cell["value"] for cell in row] for row in result["response"]["result"]["rows"]]


def test_each_database_is_new_and_sorts_text_as_people_do(postgres: Postgres) -> None:
    first, second = postgres.create_database(), postgres.create_database()
    assert first != second
    with psycopg.connect(first, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        assert connection.execute("SELECT current_setting('fsync'), 'a' < 'B'").fetchone() == ("on", True)
    with psycopg.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)
    for url in (first, first, second):
        postgres.drop_database(url)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first)


def test_postgres_keeps_what_was_committed_when_it_is_killed(own_postgres: Postgres) -> None:
    url, port, pid = own_postgres.create_database(), own_postgres.port, own_postgres.pid
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        backend = connection.info.backend_pid
        own_postgres.kill()
        assert not guarded.runs(backend)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(guarded.ServerFailed, match="does not run"):
        _ = own_postgres.pid
    own_postgres.start()
    assert (own_postgres.port, own_postgres.pid != pid) == (port, True)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


def test_postgres_is_stopped_and_started(own_postgres: Postgres) -> None:
    url = own_postgres.create_database()
    own_postgres.stop()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url)
    own_postgres.start()
    psycopg.connect(url).close()


def test_pgbouncer_gives_each_transaction_a_connection(postgres: Postgres, pgbouncer: PgBouncer) -> None:
    url = postgres.create_database()
    with (
        psycopg.connect(pgbouncer.url(url), autocommit=True) as first,
        psycopg.connect(pgbouncer.url(url), autocommit=True) as second,
    ):
        # One after the other they get the same one, which no client has to itself.
        pids = [connection.execute("SELECT pg_backend_pid()").fetchone() for connection in (first, second)]
        assert pids[0] == pids[1]
        with first.transaction():
            first.execute("SELECT 1")
            assert second.execute("SELECT pg_backend_pid()").fetchone() != pids[0]
    postgres.drop_database(url)


def test_databases_of_one_libsql_server_are_apart(sqld: Sqld) -> None:
    first, second = sqld.namespace(), sqld.namespace()
    for url, number in ((first, 1), (second, 2), (sqld.url, 3)):
        _ask(url, f"CREATE TABLE IF NOT EXISTS kept AS SELECT {number} AS number")
    assert [_ask(url, "SELECT number FROM kept") for url in (first, second, sqld.url)] == [[["1"]], [["2"]], [["3"]]]
    sqld.drop_namespace(first)
    with pytest.raises(AssertionError, match="doesn't exist"):
        _ask(first, "SELECT number FROM kept")


def test_libsql_keeps_what_was_committed_when_it_is_killed(own_sqld: Sqld) -> None:
    url = own_sqld.namespace()
    _ask(url, "CREATE TABLE kept AS SELECT 7 AS number")
    own_sqld.kill()
    with pytest.raises(httpx.ConnectError):
        _ask(url, "SELECT number FROM kept")
    own_sqld.start()
    assert _ask(url, "SELECT number FROM kept") == [["7"]]


def test_a_replica_follows_and_passes_writes_on(own_sqld: Sqld) -> None:
    _ask(own_sqld.url, "CREATE TABLE kept AS SELECT 7 AS number")
    with contextlib.closing(own_sqld.replica()) as replica:

        def follows(rows: list[list[str]]) -> bool:
            try:
                return _ask(replica.url, "SELECT number FROM kept ORDER BY number") == rows
            except AssertionError:
                return False

        guarded.wait_until(lambda: follows([["7"]]), "the replica to follow")
        _ask(replica.url, "INSERT INTO kept VALUES (8)")
        assert _ask(own_sqld.url, "SELECT number FROM kept ORDER BY number") == [["7"], ["8"]]
        guarded.wait_until(lambda: follows([["7"], ["8"]]), "the replica to follow")


_STARTS_BOTH = """
from tests.support import servers
for server in servers.postgres_server(), servers.sqld_server():
    print(server.pid, server.folder, flush=True)
input()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_servers_whose_starter_was_killed(root: Path, how: signal.Signals) -> None:
    for find in (databases.postgres, databases.sqld):
        _skipping(find)
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTS_BOTH],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with starter:
        assert starter.stdout is not None
        started = [starter.stdout.readline().split() for _ in range(2)]
        starter.send_signal(how)
    for pid, folder in started:
        assert folder.startswith(tempfile.gettempdir())
        guarded.wait_until(lambda folder=folder: not os.path.exists(folder), f"{folder} to go")  # type: ignore[misc]
        assert not guarded.runs(int(pid))


def test_what_does_not_start_says_why(postgres: Postgres) -> None:
    with pytest.raises(guarded.ServerFailed, match="unrecognized configuration parameter"):
        servers.postgres_server("no_such_setting = on")


def test_a_named_program_that_is_not_there_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable, find in (
        ("POSTGRES", databases.postgres),
        ("PGBOUNCER", databases.pgbouncer),
        ("SQLD", databases.sqld),
    ):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
        with pytest.raises(databases.ServerMissing, match=f"{variable} is .*nothing"):
            find()


def test_what_apt_is_kept_from_is_kept_from_it_meanwhile_only(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "a" / "b" / "ours"
    theirs.write_text("as it was")
    with databases.for_now(theirs, "other", 0o644), databases.for_now(ours, "text", 0o755):
        assert (theirs.read_text(), ours.read_text(), os.access(ours, os.X_OK)) == ("as it was", "text", True)
    assert (theirs.read_text(), list(tmp_path.iterdir())) == ("as it was", [theirs])


def test_what_cannot_be_installed_keeps_nothing_else_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*packages: str) -> None:
        raise subprocess.CalledProcessError(100, ["apt-get", "update"])

    installed: list[str] = []
    monkeypatch.setattr(databases, "_missing", lambda find: True)
    monkeypatch.setattr(databases, "install_with_apt", offline)
    monkeypatch.setattr(databases, "install_sqld", lambda: installed.append("sqld"))
    for variable in ("POSTGRES", "PGBOUNCER"):
        monkeypatch.delenv(variable, raising=False)
    databases.install()
    assert installed == ["sqld"] and "apt-get" in capsys.readouterr().err
