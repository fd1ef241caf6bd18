"""`doctor`, `migrate` and `sql`: what they see, and that they change nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from durably_web import Durably, Step, job
from durably_web.backends import checkpoints
from durably_web.cli import findings, looking
from durably_web.cli.findings import examine
from durably_web.cli.looking import look
from durably_web.cli.mistakes import Mistake
from durably_web.cli.patient import Finding
from durably_web.cli.sql import sql
from durably_web.store import migrations
from tests.cli.conftest import CommandLine

HOUR = 3600 * 1000


@job
async def greet(step: Step, input: dict[str, Any]) -> str:
    return await step.run("greet", lambda: "hello")


@job
async def waits(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("go", timeout=input.get("timeout"))


@job
async def calls(step: Step, input: dict[str, Any]) -> Any:
    return await step.call(waits, {})


async def _fill(path: Path) -> None:
    """One completed run, one that waits for a signal for ever, and one that waits for that one."""
    durably = Durably(str(path), jobs=[greet, waits, calls])
    await durably.migrate()
    await durably.trigger(greet)
    await durably.trigger(calls)
    await durably.process_until_idle()
    await durably.stop()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    asyncio.run(_fill(path))
    return path


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def seen(path: Path, name: str | None = None, *, late: float = 3600) -> list[Finding]:
    with look(str(path)) as connection:
        found = examine(connection, str(path), late, integrity=True)
    return [finding for finding in found if name in (None, finding.name)]


def only(path: Path, name: str, **options: Any) -> Finding:
    [finding] = seen(path, name, **options)
    return finding


NOW = "(unixepoch() * 1000)"


def test_a_healthy_database(database: Path) -> None:
    found = seen(database)
    # Of SQLite's version it is noted; of a signal that may never come, too.
    assert {f.name: f.level for f in found if f.level != "ok"}.keys() <= {"SQLite", "waiting"}, found
    assert {f.level for f in found} <= {"ok", "note"}
    assert not [f for f in found if "cannot be told" in f.message]
    assert [f.name for f in found][:3] == ["database", "schema", "SQLite"]


@pytest.mark.parametrize(
    ("version", "level"), [("3.40.1", "note"), ("3.51.2", "note"), ("3.51.3", "ok"), ("3.44.6", "ok")]
)
def test_the_version_of_sqlite(database: Path, version: str, level: str) -> None:
    with look(str(database)) as connection:
        connection.create_function("sqlite_version", 0, lambda: version)
        [finding] = [f for f in examine(connection, str(database), 3600, integrity=False) if f.name == "SQLite"]
    assert finding.level == level and version in finding.message
    assert finding.data == {
        "version": version,
        "losesCommits": checkpoints.loses_commits(tuple(map(int, version.split(".")))),
    }


def test_older_and_newer_schemas(database: Path) -> None:
    change(database, f"DELETE FROM durably_schema WHERE version = {migrations.LATEST}")
    assert "durably-web migrate" in only(database, "schema").advice
    change(database, f"INSERT INTO durably_schema VALUES ({migrations.LATEST + 1}, 0)")
    newer = only(database, "schema")
    assert newer.level == "problem" and newer.advice == "update durably_web"


def test_a_schema_without_what_is_asked_for(database: Path) -> None:
    change(database, "DROP TABLE durably_schedules")
    assert "cannot be told" in only(database, "schedules").message


def test_a_clock_that_was_set_back(database: Path) -> None:
    change(database, f"UPDATE durably_journal SET created_at = created_at + {2 * HOUR}")
    finding = only(database, "clock")
    assert finding.level == "problem" and "2 h" in finding.message and finding.data["newestEntry"] > finding.data["now"]


def test_leases_of_workers_that_are_gone(database: Path) -> None:
    def leased(owner: str, ends: str) -> None:
        change(
            database,
            f"UPDATE durably_runs SET status = 'leased', lease_owner = '{owner}', lease_token = 't', "
            f"lease_expires_at = {ends} WHERE job_name = 'greet'",
        )

    leased("elsewhere", f"{NOW} + {HOUR}")
    assert only(database, "leases").level == "ok"
    leased("elsewhere", f"{NOW} - 1000")
    over = only(database, "leases")
    assert over.level == "warning" and len(over.data["stuck"]) == 1
    # Its lock is free, so it is dead, long before its lease ends.
    leased("dead", f"{NOW} + {HOUR}")
    (database.parent / "app.db-worker-dead").touch()
    assert only(database, "leases").data["dead"] == ["dead"]
    assert (database.parent / "app.db-worker-dead").exists(), "and nobody tidies up here"


def test_runs_that_nobody_takes_up(database: Path) -> None:
    change(
        database, f"UPDATE durably_runs SET status = 'pending', run_at = {NOW} - {2 * HOUR} WHERE job_name = 'greet'"
    )
    finding = only(database, "pending")
    assert finding.level == "warning" and "greet" in finding.message and "2 h" in finding.message
    assert only(database, "pending", late=3 * 3600).level == "ok"
    change(database, "INSERT INTO durably_paused_jobs VALUES ('greet')")
    assert only(database, "pending").level == "note"
    change(database, f"UPDATE durably_runs SET wake_at = {NOW} + {HOUR} WHERE job_name = 'greet'")
    assert only(database, "delayed").data == {"count": 1}
    change(database, f"UPDATE durably_runs SET wake_at = {NOW} - {2 * HOUR} WHERE job_name = 'greet'")
    assert [f.level for f in seen(database, "waiting")] == ["warning", "note"]
    change(database, "UPDATE durably_runs SET paused = 1 WHERE job_name = 'greet'")
    assert only(database, "paused").data == {"count": 1}


def test_runs_that_nothing_can_wake(database: Path) -> None:
    [signal] = seen(database, "waiting")[:1]
    assert signal.level == "note" and "signal" in signal.message and signal.data["job"] == "waits"
    # The child has ended, and its parent has not heard of it.
    change(database, "UPDATE durably_runs SET status = 'completed', output = 'null' WHERE job_name = 'waits'")
    [endless] = seen(database, "waiting")
    assert endless.level == "problem" and "calls" in endless.message and "retry" in endless.advice
    change(database, "UPDATE durably_runs SET paused = 1 WHERE job_name = 'calls'")
    assert only(database, "waiting").level == "ok"


def test_runs_behind_others_that_are_not_there(database: Path) -> None:
    change(
        database,
        "UPDATE durably_runs SET status = 'pending', concurrency_key = 'k', blocked = 1 WHERE job_name = 'greet'",
    )
    assert only(database, "keys").level == "problem"
    change(database, "UPDATE durably_runs SET job_name = 'greet', concurrency_key = 'k' WHERE job_name = 'waits'")
    assert only(database, "keys").level == "ok"


def test_schedules_that_are_late(database: Path) -> None:
    change(
        database,
        "INSERT INTO durably_schedules (name, job_name, every, input, labels, missed, overlap, next_at, created_at, "
        f"updated_at) VALUES ('nightly', 'greet', 1000, 'null', '{{}}', 'skip', 'skip', {NOW} - {2 * HOUR}, 0, 0)",
    )
    assert only(database, "schedules").level == "warning"
    assert only(database, "schedules", late=3 * 3600).level == "ok"


def test_room_and_a_long_log(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (only(database, "room").level, only(database, "log").level) == ("ok", "ok")
    monkeypatch.setattr(findings, "_LITTLE_ROOM", 2**62)
    monkeypatch.setattr(findings, "_LONG_LOG", 1)
    size = os.path.getsize
    monkeypatch.setattr(os.path, "getsize", lambda path: 2**40 if str(path).endswith("-wal") else size(path))
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    assert (only(database, "room").level, only(database, "log").level) == ("warning", "warning")


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="only Linux tells where a file is")
def test_a_network_file_system(database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert seen(database, "file system") == []
    mounts = tmp_path / "mounts"
    mounts.write_text(f"tmpfs / tmpfs rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(findings, "_MOUNTS", str(mounts))
    assert only(database, "file system").level == "problem"


def test_damage(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[-4096:] = os.urandom(4096)
    content[8192:12288] = os.urandom(4096)
    database.write_bytes(content)
    assert "problem" in {f.level for f in seen(database)}


# -- as commands -------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_doctor_tells_and_exits_by_what_it_finds(command_line: CommandLine, database: Path) -> None:
    before = digest(database)
    done = command_line.run("doctor", "app.db")
    assert (done.returncode, done.stderr) == (0, "") and "version 4, the newest" in done.stdout
    assert digest(database) == before and os.listdir(database.parent) == ["app.db"]
    change(
        database, f"UPDATE durably_runs SET status = 'pending', run_at = {NOW} - {2 * HOUR} WHERE job_name = 'greet'"
    )
    assert command_line.run("doctor", "app.db").returncode == 3
    assert command_line.run("doctor", "app.db", "--late", "3h").returncode == 0
    change(database, f"UPDATE durably_journal SET created_at = created_at + {2 * HOUR}")
    done = command_line.run("doctor", "app.db", "--json", "--no-integrity")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["ok"] is False and {"clock", "pending"} <= {f["name"] for f in told["findings"] if f["level"] != "ok"}
    for arguments, complaint in ((("none.db",), "no database"), (("app.db", "--late", "soon"), "duration")):
        done = command_line.run("doctor", *arguments)
        assert done.returncode == 2 and complaint in done.stderr and done.stderr.count("\n") == 1


def test_migrate(command_line: CommandLine, database: Path) -> None:
    assert command_line.json("migrate", "app.db") == {
        "database": "app.db",
        "from": migrations.LATEST,
        "to": migrations.LATEST,
    }
    assert command_line.run("migrate", "new.db").returncode == 2
    assert not (database.parent / "new.db").exists()
    assert command_line.json("migrate", "new.db", "--create")["from"] == 0
    assert "the newest" in command_line.run("migrate", "new.db", "--create").stdout
    change(database, f"INSERT INTO durably_schema VALUES ({migrations.LATEST + 1}, 0)")
    newer = command_line.run("migrate", "app.db")
    assert newer.returncode == 2 and "update durably_web" in newer.stderr


def test_sql(command_line: CommandLine, database: Path) -> None:
    query = "SELECT job_name, count(*) AS runs FROM durably_runs GROUP BY 1 ORDER BY 1"
    assert command_line.json("sql", "app.db", query) == [
        {"job_name": name, "runs": 1} for name in ("calls", "greet", "waits")
    ]
    [values] = command_line.json("sql", "app.db", "SELECT 9e999 AS much, -9e999 AS little, NULL AS none, 1.5 AS some")
    # JSON has no infinite numbers.
    assert values == {"much": "inf", "little": "-inf", "none": None, "some": 1.5}
    shown = command_line.run("sql", "app.db", query, "--limit", "2")
    assert "greet" in shown.stdout and "waits" not in shown.stdout and "first 2 rows" in shown.stderr


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM durably_runs",
        "UPDATE durably_runs SET status = 'failed'",
        "WITH x AS (SELECT 1) INSERT INTO durably_paused_jobs SELECT 'greet' FROM x",
        "DROP TABLE durably_runs",
        "CREATE TEMP TABLE mine (id)",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = delete",
        "PRAGMA query_only = 0",
        "PRAGMA writable_schema = 1",
        "PRAGMA user_version = 7",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "VACUUM",
        "VACUUM INTO 'other.db'",
        "REINDEX",
        "BEGIN IMMEDIATE",
        "SELECT load_extension('nothing')",
        "SELECT 1; DELETE FROM durably_runs",
        "SELEC",
        "",
        "SELECT 1 AS a, 2 AS a",
    ],
)
def test_sql_changes_nothing(database: Path, query: str) -> None:
    before, names = digest(database), os.listdir(database.parent)
    with pytest.raises(Mistake):
        sql(str(database), query, json=True)
    assert digest(database) == before and os.listdir(database.parent) == names


def test_it_may_look_while_another_one_writes(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE durably_runs SET priority = 1")
    monkeypatch.setattr(looking, "_PATIENCE", 0.0)
    assert {f.level for f in seen(database)} <= {"ok", "note"}
    other.execute("ROLLBACK")
    other.close()
