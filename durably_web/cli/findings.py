"""What there is to see in a database, and what it means."""

from __future__ import annotations

import asyncio
import datetime
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from durably_web.backends.checkpoints import loses_commits
from durably_web.backends.presence import Presence
from durably_web.backends.sqlite import SqliteExecutor
from durably_web.cli.times import readable
from durably_web.errors import StoreError
from durably_web.store import migrations

Level = Literal["ok", "note", "warning", "problem"]

# A clock that is so much behind what was written with it has jumped.
_JUMP_SECONDS = 60
# Less room than this is little.
_LITTLE_ROOM = 256 * 2**20
# A log that is longer than this, and than the database, is not moved any more.
_LONG_LOG = 64 * 2**20
_MOUNTS = "/proc/self/mounts"
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "fuse.glusterfs")


class Finding(NamedTuple):
    """One thing that was looked at. `advice` says what to do, where there is something; `data` is for programs."""

    name: str
    level: Level
    message: str
    advice: str = ""
    data: dict[str, Any] = {}  # noqa: RUF012 — never changed


class _Patient(NamedTuple):
    connection: sqlite3.Connection
    path: str
    now: int
    late: float

    def ask(self, sql: str, *values: Any) -> list[Any]:
        return self.connection.execute(sql, values).fetchall()

    def age(self, moment: int) -> str:
        return readable(max(0, self.now - moment) / 1000)


def examine(connection: sqlite3.Connection, path: str, late: float, *, integrity: bool) -> list[Finding]:
    """Everything that can be found out, in the order in which it matters. `late` is seconds."""
    now = round(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
    patient = _Patient(connection, path, now, late)
    checks: list[Callable[[_Patient], Iterator[Finding]]] = [
        _file,
        _schema,
        _sqlite,
        _durability,
        _clock,
        _leases,
        _pending,
        _waiting,
        _blocked,
        _schedules,
        _room,
    ]
    if integrity:
        checks.append(_integrity)
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(patient)
        except sqlite3.OperationalError as error:
            # A table or a column that this schema does not have.
            found.append(Finding(check.__name__[1:], "note", f"cannot be told: {error}"))
        except sqlite3.DatabaseError as error:
            found.append(Finding(check.__name__[1:], "problem", f"the file is damaged: {error}", _RESTORE))
    return found


_RESTORE = "stop all processes, keep a copy of the file, and restore a backup, or try `sqlite3 FILE .recover`"


# -- the database ------------------------------------------------------------------------------------------


def _file(patient: _Patient) -> Iterator[Finding]:
    size = os.path.getsize(patient.path)
    [(runs,)] = patient.ask("SELECT count(*) FROM durably_runs")
    yield Finding(
        "database", "ok", f"{patient.path}: {_bytes(size)}, {_runs(runs)}", data={"bytes": size, "runs": runs}
    )
    if kind := _network_file_system(patient.path):
        yield Finding(
            "file system",
            "problem",
            f"the file is on {kind}, where the locks of SQLite cannot be relied on",
            "move it to a local disk",
            {"type": kind},
        )


def _schema(patient: _Patient) -> Iterator[Finding]:
    [(version,)] = patient.ask("SELECT coalesce(max(version), 0) FROM durably_schema")
    data = {"version": version, "known": migrations.LATEST}
    if version > migrations.LATEST:
        message = f"version {version} is newer than this durably_web, which knows {migrations.LATEST} and only reads it"
        yield Finding("schema", "problem", message, "update durably_web", data)
    elif version < migrations.LATEST:
        message = f"version {version}; this durably_web has {migrations.LATEST}"
        yield Finding("schema", "warning", message, "durably-web migrate brings it up to date", data)
    else:
        yield Finding("schema", "ok", f"version {version}, the newest", data=data)


def _sqlite(patient: _Patient) -> Iterator[Finding]:
    [(version,)] = patient.ask("SELECT sqlite_version()")
    affected = loses_commits(tuple(map(int, version.split("."))))
    data = {"version": version, "losesCommits": affected}
    if affected:
        message = (
            f"{version}; up to 3.51.2 a checkpoint beside a writer can lose commits. durably_web makes none of these; "
            "other programs that write to the file may"
        )
        yield Finding("SQLite", "note", message, "let no other program write to it, or update SQLite", data)
    else:
        yield Finding("SQLite", "ok", version, data=data)


def _durability(patient: _Patient) -> Iterator[Finding]:
    [(mode,)] = patient.ask("PRAGMA journal_mode")
    data = {"journalMode": mode}
    try:
        asyncio.run(_promised(patient.path))
    except StoreError as error:
        yield Finding("durability", "problem", str(error), "put the file on another disk", data)
        return
    message = "commits are flushed, into a write-ahead log"
    if mode != "wal":
        message += f" from the next write of durably_web on; the journal mode is {mode} now"
    yield Finding("durability", "ok" if mode == "wal" else "note", message, data=data)


async def _promised(path: str) -> None:
    """Raises `StoreNotDurable` when the database answers less than an engine asks for."""
    executor = SqliteExecutor(path, "full")
    await executor.open()
    await executor.close()


def _integrity(patient: _Patient) -> Iterator[Finding]:
    lines = [line for (line,) in patient.ask("PRAGMA quick_check(20)")]
    if lines == ["ok"]:
        yield Finding("integrity", "ok", "quick_check finds nothing")
    else:
        yield Finding("integrity", "problem", f"the file is damaged: {lines[0]}", _RESTORE, {"lines": lines})


def _room(patient: _Patient) -> Iterator[Finding]:
    usage = shutil.disk_usage(os.path.dirname(os.path.abspath(patient.path)))
    data = {"freeBytes": usage.free, "totalBytes": usage.total}
    little = usage.free < _LITTLE_ROOM
    yield Finding(
        "room",
        "warning" if little else "ok",
        f"{_bytes(usage.free)} free of {_bytes(usage.total)}",
        "make room, or delete old runs: durably-web runs purge" if little else "",
        data,
    )
    log = f"{patient.path}-wal"
    size = os.path.getsize(log) if os.path.exists(log) else 0
    long = size > max(_LONG_LOG, os.path.getsize(patient.path))
    yield Finding(
        "log",
        "warning" if long else "ok",
        f"{_bytes(size)} of write-ahead log",
        "some process keeps a transaction open, so that the log only grows: find and end it" if long else "",
        {"bytes": size},
    )


# -- time --------------------------------------------------------------------------------------------------


def _clock(patient: _Patient) -> Iterator[Finding]:
    [(newest,)] = patient.ask(
        "SELECT max(created_at) FROM (SELECT created_at FROM durably_journal ORDER BY seq DESC LIMIT 100)"
    )
    if newest is None:
        yield Finding("clock", "ok", "nothing was written yet")
        return
    ahead = (newest - patient.now) / 1000
    data = {"newestEntry": newest, "now": patient.now}
    if ahead > _JUMP_SECONDS:
        message = (
            f"the newest entry is {readable(ahead)} in the future: this clock was set back, or a writer's is ahead"
        )
        yield Finding("clock", "problem", message, "set the clocks; leases and delays end late until then", data)
    else:
        yield Finding("clock", "ok", f"the newest entry is {patient.age(newest)} old", data=data)


# -- runs --------------------------------------------------------------------------------------------------


def _leases(patient: _Patient) -> Iterator[Finding]:
    rows = patient.ask("SELECT id, lease_owner, lease_expires_at FROM durably_runs WHERE status = 'leased'")
    workers = {owner for _, owner, _ in rows}
    dead = set(Presence(os.path.abspath(patient.path)).dead(workers))
    over = [run_id for run_id, owner, end in rows if end <= patient.now or owner in dead]
    data = {"leased": len(rows), "workers": sorted(workers), "dead": sorted(dead), "stuck": over[:100]}
    if over:
        message = f"{_runs(len(over))} of {len(rows):,} leased belong to workers that are gone"
        yield Finding("leases", "warning", message, "start a worker: it takes them up at once", data)
    elif rows:
        yield Finding("leases", "ok", f"{_runs(len(rows))} executing, by {_many(len(workers), 'worker')}", data=data)
    else:
        yield Finding("leases", "ok", "no run is executing", data=data)


_PENDING = """
SELECT job_name, count(*), min(CASE WHEN run_at > 0 THEN run_at ELSE created_at END),
       EXISTS (SELECT 1 FROM durably_paused_jobs p WHERE p.job_name = r.job_name)
FROM durably_runs r WHERE status = 'pending' AND wake_at IS NULL AND paused = 0 AND blocked = 0
GROUP BY job_name ORDER BY 3
"""


def _pending(patient: _Patient) -> Iterator[Finding]:
    rows = patient.ask(_PENDING)
    if not rows:
        yield Finding("pending", "ok", "no run is due")
    for job, count, oldest, paused in rows:
        late = patient.now - oldest > patient.late * 1000
        data = {"job": job, "count": count, "oldest": oldest, "paused": bool(paused)}
        message = f"{_runs(count)} of {job} due, the oldest for {patient.age(oldest)}"
        if paused:
            yield Finding("pending", "note", f"{message}; the job is paused", data=data)
        elif late:
            advice = f"is there a worker that knows {job}, and does it keep up?"
            yield Finding("pending", "warning", message, advice, data)
        else:
            yield Finding("pending", "ok", message, data=data)
    [(delayed, paused_runs)] = patient.ask(
        "SELECT coalesce(sum(status = 'pending' AND wake_at > ?), 0), coalesce(sum(paused), 0) FROM durably_runs "
        "WHERE status IN ('pending', 'leased', 'waiting')",
        patient.now,
    )
    if delayed:
        yield Finding("delayed", "ok", f"{_runs(delayed)} begin later", data={"count": delayed})
    if paused_runs:
        yield Finding(
            "paused", "note", f"{_runs(paused_runs)} paused", "durably-web runs resume", {"count": paused_runs}
        )


# Waits of which nothing is left: neither a moment, nor a signal or the network, nor a run that has not ended.
_ENDLESS = """
SELECT id, job_name FROM durably_runs w WHERE status = 'waiting' AND wake_at IS NULL AND paused = 0 AND NOT EXISTS (
    SELECT 1 FROM json_each(coalesce(w.awaits, '[]')) WHERE value NOT LIKE 'run:%' OR EXISTS (
        SELECT 1 FROM durably_runs c WHERE c.id = substr(value, 5) AND c.status IN ('pending', 'leased', 'waiting')))
"""
_FOR_SIGNALS = """
SELECT job_name, count(*), min(created_at) FROM durably_runs w
WHERE status = 'waiting' AND wake_at IS NULL AND EXISTS (SELECT 1 FROM json_each(w.awaits) WHERE value LIKE 'signal:%')
GROUP BY job_name
"""


def _waiting(patient: _Patient) -> Iterator[Finding]:
    [(overdue, oldest)] = patient.ask(
        "SELECT count(*), min(wake_at) FROM durably_runs WHERE wake_at <= ?", patient.now - round(patient.late * 1000)
    )
    if overdue:
        message = f"{_runs(overdue)} should have woken, the first {patient.age(oldest)} ago"
        yield Finding("waiting", "warning", message, "start a worker", {"count": overdue, "oldest": oldest})
    endless = patient.ask(_ENDLESS)
    if endless:
        message = (
            f"{_runs(len(endless))} waiting for nothing that can still come, such as {endless[0][0]} ({endless[0][1]})"
        )
        advice = "cancel and retry them: durably-web runs cancel ID, then durably-web runs retry ID"
        yield Finding("waiting", "problem", message, advice, {"runs": [run_id for run_id, _ in endless[:100]]})
    for job, count, since in patient.ask(_FOR_SIGNALS):
        message = (
            f"{_runs(count)} of {job} waiting for a signal without limit, the oldest made {patient.age(since)} ago"
        )
        yield Finding("waiting", "note", message, data={"job": job, "count": count, "oldest": since})
    if not overdue and not endless:
        [(count,)] = patient.ask("SELECT count(*) FROM durably_runs WHERE status = 'waiting'")
        yield Finding("waiting", "ok", f"{_runs(count)} waiting, and each can be woken", data={"count": count})


_BEHIND_NOBODY = """
SELECT id FROM durably_runs b WHERE blocked = 1 AND status = 'pending' AND paused = 0 AND NOT EXISTS (
    SELECT 1 FROM durably_runs o
    WHERE o.concurrency_key = b.concurrency_key AND o.job_name = b.job_name AND o.id <> b.id
      AND o.status IN ('pending', 'leased', 'waiting') AND o.blocked = 0)
"""


def _blocked(patient: _Patient) -> Iterator[Finding]:
    [(count,)] = patient.ask("SELECT count(*) FROM durably_runs WHERE blocked = 1 AND status = 'pending'")
    alone = [run_id for (run_id,) in patient.ask(_BEHIND_NOBODY)]
    if alone:
        message = f"{_runs(len(alone))} behind others of their key that are not there, such as {alone[0]}"
        advice = "pause and resume them: durably-web runs pause ID, then durably-web runs resume ID"
        yield Finding("keys", "problem", message, advice, {"runs": alone[:100]})
    elif count:
        yield Finding("keys", "ok", f"{_runs(count)} behind others of their concurrency key", data={"count": count})


def _schedules(patient: _Patient) -> Iterator[Finding]:
    rows = patient.ask(
        "SELECT name, next_at FROM durably_schedules WHERE paused = 0 AND next_at IS NOT NULL ORDER BY next_at"
    )
    late = [(name, at) for name, at in rows if patient.now - at > patient.late * 1000]
    data = {"schedules": len(rows), "late": [name for name, _ in late]}
    if late:
        message = f"{late[0][0]} has been due for {patient.age(late[0][1])}" + (
            f", and {len(late) - 1} more" * (len(late) > 1)
        )
        yield Finding("schedules", "warning", message, "start a worker: one that runs looks after all of them", data)
    elif rows:
        yield Finding("schedules", "ok", f"{_many(len(rows), 'schedule')}, none is late", data=data)


# -- words -------------------------------------------------------------------------------------------------


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _runs(count: int) -> str:
    return _many(count, "run")


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TB"


def _network_file_system(path: str) -> str | None:
    """The kind of the file system, where it is known and is one that other machines serve."""
    if sys.platform != "linux":
        return None
    with open(_MOUNTS, encoding="utf-8") as mounts:
        found = [line.split(" ")[1:3] for line in mounts]
    here = os.path.realpath(path)
    fitting = [(point, kind) for point, kind in found if here.startswith(point.rstrip("/") + "/")]
    kind = max(fitting, key=lambda mount: len(mount[0]), default=("", ""))[1]
    return kind if kind.startswith(_NETWORK_FILE_SYSTEMS) else None
