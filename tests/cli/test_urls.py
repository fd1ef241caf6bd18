"""The command line on databases that have a URL: what works on a file works there, and no secret is printed."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from durably_web import Durably, Step, job
from durably_web.cli import findings_of_libsql, findings_of_postgres, findings_of_servers, main
from durably_web.cli.database import kind, shown
from durably_web.cli.looking_at_libsql import look_at_libsql
from durably_web.cli.looking_at_postgres import look_at_postgres
from durably_web.cli.patient import Finding
from durably_web.store import migrations
from tests.cli.conftest import CommandLine
from tests.support.guarded import SECONDS, wait_until
from tests.support.servers import PASSWORD, Postgres, Sqld

JOBS = """
from durably_web import Durably, job

@job
async def greet(step, input: dict):
    return await step.run("greet", lambda: "hello")

@job
async def waits(step, input: dict):
    return await step.wait_for_signal("go")
"""


@job
async def greet(step: Step, input: dict[str, Any]) -> str:
    return await step.run("greet", lambda: "hello")


@job
async def waits(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("go")


@job
async def calls(step: Step, input: dict[str, Any]) -> Any:
    return await step.call(waits, {})


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def libsql_url(sqld: Sqld) -> Iterator[str]:
    url = sqld.namespace()
    yield url
    sqld.drop_namespace(url)


@pytest.fixture(params=["postgres", "libsql"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Commands:
    """Commands in this process: what they print has no password in it, whatever goes wrong."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.jobs = str(folder / "my_jobs.py")
        Path(self.jobs).write_text(JOBS)
        self._capsys = capsys

    def run(self, *arguments: str) -> Done:
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        done = Done(int(exit.value.code or 0), *self._capsys.readouterr())
        assert PASSWORD not in done.stdout + done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, capsys)


async def fill(url: str) -> None:
    """One completed run, one that waits for a signal for ever, and one that waits for that one."""
    durably = Durably(url, jobs=[greet, waits, calls])
    await durably.migrate()
    await durably.trigger(greet, {})
    await durably.trigger(calls, {})
    await durably.process_until_idle()
    await durably.stop()


# -- commands ----------------------------------------------------------------------------------------------


def test_an_empty_database_stays_empty_until_it_is_asked_for(commands: Commands, url: str) -> None:
    for arguments in (("stats", "-d", url), ("runs", "list", "-d", url), ("migrate", url), ("doctor", url)):
        done = commands.run(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "is not a database of durably_web" in done.stderr and "migrate --create" in done.stderr
    made = commands.json("migrate", "--create", url)
    assert (made["from"], made["to"]) == (0, migrations.LATEST)
    again = commands.json("migrate", "--create", url)
    assert (again["from"], again["to"]) == (migrations.LATEST, migrations.LATEST)
    assert commands.json("stats", "-d", url)["total"] == 0


def test_runs_are_made_seen_and_acted_on(commands: Commands, command_line: CommandLine, url: str) -> None:
    done = commands.run("run", commands.jobs, "greet", "-d", url)
    assert (done.returncode, done.stdout.strip()) == (0, '"hello"'), done.stderr
    asyncio.run(fill(url))
    listed = commands.json("runs", "list", "-d", url)
    assert sorted(run["status"] for run in listed) == ["completed", "completed", "waiting", "waiting"]
    [waiting] = [run["id"] for run in listed if run["jobName"] == "waits"]
    assert commands.run("runs", "show", waiting, "-d", url).returncode == 0
    assert commands.run("runs", "signal", waiting, "go", "7", "-d", url).returncode == 0
    worker = command_line.start("worker", commands.jobs, "-d", url)
    assert PASSWORD not in worker.wait_for_line(lambda line: "worker on" in line)
    worker.wait_for_line(lambda line: waiting in line and "completed" in line)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0
    assert commands.json("runs", "show", waiting, "-d", url)["output"] == 7
    assert commands.json("runs", "cancel", "--status", "pending", "--yes", "-d", url) == {"count": 1}
    assert commands.json("runs", "purge", "--older-than", "0s", "-d", url)["count"] == 4
    assert commands.json("stats", "-d", url)["total"] == 0
    assert commands.json("schedules", "list", "-d", url) == []


def test_one_select_and_nothing_else(commands: Commands, url: str) -> None:
    asyncio.run(fill(url))
    [row] = commands.json(
        "sql", url, "SELECT count(*) AS number, sum(attempt) AS attempts, max(output) FROM durably_runs"
    )
    assert (row["number"], row["attempts"] > 0) == (3, True)
    assert "100%" in commands.run("sql", url, "SELECT '100%' AS share, '?' AS mark").stdout
    assert "share" in commands.run("sql", url, "SELECT 1 AS share WHERE 1 = 2").stdout
    cut = commands.run("sql", url, "SELECT id FROM durably_runs", "--limit", "2")
    assert "the first 2 rows" in cut.stderr
    for query in (
        "DELETE FROM durably_runs",
        "DROP TABLE durably_runs",
        "SELECT 1; DELETE FROM durably_runs",
        "COMMIT; DELETE FROM durably_runs",
        "COMMIT",
        "SELEC",
        "SELECT * FROM nowhere",
    ):
        done = commands.run("sql", url, query)
        assert (done.returncode, done.stdout) == (2, ""), query
        assert done.stderr.count("\n") == 1
    [row] = commands.json("sql", url, "SELECT count(*) AS number FROM durably_runs")
    assert row == {"number": 3}


def test_values_that_json_does_not_have(commands: Commands, postgres_url: str) -> None:
    query = (
        "SELECT now() AS moment, 1.5 AS part, CAST('a' AS bytea) AS bytes, gen_random_uuid() AS id, ARRAY[1, 2] AS list"
    )
    [row] = commands.json("sql", postgres_url, query)
    assert (row["part"], row["bytes"], row["list"], len(row["id"])) == (1.5, "x'61'", [1, 2], 36)
    assert row["moment"].startswith("20")


def test_what_is_not_there_is_said_without_a_secret(commands: Commands, postgres: Postgres, postgres_url: str) -> None:
    nobody = f"postgresql://u:{PASSWORD}@127.0.0.1:1/app"
    for arguments, words in (
        (("stats", "-d", nobody), "127.0.0.1:1"),
        (("sql", nobody, "SELECT 1"), "127.0.0.1:1"),
        (("doctor", nobody), "127.0.0.1:1"),
        (("sql", postgres.url("nowhere"), "SELECT 1"), "nowhere"),
        (("sql", f"postgresql://u:{PASSWORD}@h/app?nonsense=1", "SELECT 1"), "nonsense"),
        (("doctor", f"http://127.0.0.1:1/?authToken={PASSWORD}"), "127.0.0.1:1"),
    ):
        done = commands.run(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert words in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    "wrong", ["libsql:h?authToken={}", "libsql://h?{}", "libsql://h#authToken={}", "libsql://h:{}", "libsql:{}@h"]
)
@pytest.mark.parametrize("command", [("doctor",), ("sql", "SELECT 1"), ("stats", "-d"), ("migrate",)])
def test_a_mistyped_address_hides_the_token(commands: Commands, command: tuple[str, ...], wrong: str) -> None:
    name, *rest = command
    last = rest if name == "sql" else []
    done = commands.run(name, *(rest if not last else []), wrong.format(PASSWORD), *last)
    assert (done.returncode, done.stdout) == (2, "")
    assert "libsql:" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_name_below_localhost_is_this_machine(
    commands: Commands, libsql_url: str, sqld: Sqld, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(fill(libsql_url))
    # Nobody listens there.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    url = f"http://{libsql_url.rpartition('/')[2]}.localhost:{sqld.port}"
    assert commands.run("doctor", url).returncode == 0
    [row] = commands.json("sql", url, "SELECT count(*) AS number FROM durably_runs")
    assert row == {"number": 3}


def test_a_worker_does_not_tell_of_its_requests(command_line: CommandLine, libsql_url: str) -> None:
    (command_line.folder / "my_jobs.py").write_text(JOBS)
    worker = command_line.start("worker", "my_jobs.py", "--database", libsql_url)
    worker.wait_for_line(lambda line: line.startswith("worker on "))
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0
    assert not [line for line in worker.told if "HTTP" in line], worker.told


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ("app.db", "app.db"),
        ("postgresql://me:secret@host:5432/app", "postgresql://me:***@host:5432/app"),
        (
            "postgresql://me@host/app?password=secret&sslmode=require",
            "postgresql://me@host/app?password=***&sslmode=require",
        ),
        ("postgres://me:sec/ret:@x@host/app", "postgres://***@host/app"),
        ("libsql://name.turso.io?authToken=secret", "libsql://name.turso.io?authToken=***"),
        ("https://name.turso.io?auth_token=secret", "https://name.turso.io?auth_token=***"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_a_database_is_shown_without_its_secret(database: str, expected: str) -> None:
    assert shown(database) == expected


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ("app.db", "sqlite"),
        (":memory:", "sqlite"),
        ("sqlite:///app.db", "sqlite"),
        ("postgres://h/app", "postgres"),
        ("postgresql://h/app", "postgres"),
        ("libsql://h", "libsql"),
        ("https://h", "libsql"),
        ("libsql:h", "libsql"),
    ],
)
def test_the_kind_of_a_database(database: str, expected: str) -> None:
    assert kind(database) == expected


# -- doctor ------------------------------------------------------------------------------------------------


def seen(url: str, late: float = 3600) -> dict[str, Finding]:
    if kind(url) == "postgres":
        with look_at_postgres(url) as look:
            found = findings_of_postgres.examine(look, shown(url), late)
    else:
        with look_at_libsql(url) as look_there:
            found = findings_of_libsql.examine(look_there, url, late, integrity=True)
    assert not [finding for finding in found if "cannot be told" in finding.message], found
    return {finding.name: finding for finding in found}


def change(url: str, *statements: str) -> None:
    """With the parameters of no dialect."""
    if kind(url) == "postgres":
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())
    else:
        with look_at_libsql(url) as look:
            for statement in statements:
                look._request({"type": "execute", "stmt": {"sql": statement}})


def test_a_healthy_database(commands: Commands, url: str) -> None:
    asyncio.run(fill(url))
    done = commands.run("doctor", url)
    assert done.returncode == 0, done.stdout + done.stderr
    found = seen(url)
    assert {finding.level for finding in found.values()} <= {"ok", "note"}, found
    assert list(found)[:3] == ["database", "schema", "durability"]
    assert found["database"].data["runs"] == 3
    assert commands.json("doctor", url)["ok"] is True


def test_what_a_libsql_server_does_not_flush_is_told_once(command_line: CommandLine, libsql_url: str) -> None:
    asyncio.run(fill(libsql_url))
    done = command_line.run("doctor", libsql_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("before its disk has flushed") == 1


def test_what_is_wrong_with_runs(url: str) -> None:
    asyncio.run(fill(url))
    change(
        url,
        "UPDATE durably_runs SET status = 'leased', lease_owner = 'gone', lease_token = 't', lease_expires_at = 1, "
        "generation = 2 WHERE job_name = 'waits'",
        "UPDATE durably_runs SET awaits = '[\"run:nobody\"]' WHERE job_name = 'calls'",
        "INSERT INTO durably_runs (id, job_name, status, input, labels, created_at) VALUES ('x', 'greet', 'pending', "
        "'{}', '{}', 1)",
        f"DELETE FROM durably_schema WHERE version = {migrations.LATEST}",
        "UPDATE durably_journal SET created_at = created_at + 7200000",
    )
    found = seen(url)
    assert (found["leases"].level, found["leases"].data["stuck"]) == ("warning", found["leases"].data["stuck"])
    assert len(found["leases"].data["stuck"]) == 1
    assert (found["waiting"].level, len(found["waiting"].data["runs"])) == ("problem", 1)
    assert (found["pending"].level, found["pending"].data["count"]) == ("warning", 1)
    assert (found["schema"].level, found["clock"].level) == ("warning", "problem")


def test_what_is_wrong_with_a_postgres(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(fill(postgres_url))
    change(
        postgres_url,
        "CREATE TABLE durably_bloat AS SELECT 1 AS number FROM generate_series(1, 20)",
        "CREATE INDEX durably_broken ON durably_runs (id)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'durably_broken'::regclass",
        "DELETE FROM durably_bloat",
    )
    monkeypatch.setattr(findings_of_postgres, "_LONG_SECONDS", 0.0)
    monkeypatch.setattr(findings_of_postgres, "_FULL", 0.0)
    monkeypatch.setattr(findings_of_servers, "_FAR_SECONDS", -1.0)
    monkeypatch.setattr(findings_of_postgres, "_OLD_TRANSACTIONS", -1)
    with (
        psycopg.connect(postgres_url, application_name="somebody else") as writer,
        psycopg.connect(postgres_url, autocommit=True) as waiting,
    ):
        writer.execute("UPDATE durably_runs SET priority = 1")
        blocked = threading.Thread(target=waiting.execute, args=("UPDATE durably_runs SET priority = 2",))
        blocked.start()
        wait_until(lambda: "locks" in seen(postgres_url), "a lock that is waited for")
        found = seen(postgres_url)
        writer.rollback()
        blocked.join(SECONDS)
    assert {name for name, finding in found.items() if finding.level == "warning"} >= {
        *("writers", "locks", "connections", "clocks", "transactions", "indexes")
    }
    assert "somebody else" in found["writers"].message and "pg_terminate_backend" in found["writers"].advice
    assert "durably_broken" in found["indexes"].message


def test_a_postgres_that_forgets_is_a_problem(postgres_url: str) -> None:
    asyncio.run(fill(postgres_url))
    name = postgres_url.rpartition("/")[2]
    change(postgres_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    assert seen(postgres_url)["durability"].level == "warning"
    change(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert seen(postgres_url)["standby"].level == "problem"


def test_a_look_leaves_no_trace_behind_a_pooler(pgbouncer: Any, postgres_url: str) -> None:
    through = pgbouncer.url(postgres_url)
    asyncio.run(fill(through))
    with look_at_postgres(through) as look:
        assert look.execute("SELECT count(*) FROM durably_runs WHERE job_name <> ?", ["nothing"]).fetchall() == [(3,)]
        # The next client gets the same connection to the server, and may write on it.
        change(through, "CREATE TABLE written (number int)")
    assert seen(through)["database"].level == "ok"
