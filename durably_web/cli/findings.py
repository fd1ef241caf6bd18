"""What there is to see in a file of SQLite, and what it means."""

from __future__ import annotations

import asyncio
import datetime
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator

from durably_web.backends.checkpoints import loses_commits
from durably_web.backends.presence import Presence
from durably_web.backends.sqlite import SqliteExecutor
from durably_web.cli import findings_of_runs as of_runs
from durably_web.cli.patient import Check, Finding, Patient, amount, examined, many_runs
from durably_web.cli.patient import integrity as found_damage
from durably_web.errors import StoreError

# Less room than this is little.
_LITTLE_ROOM = 256 * 2**20
# A log that is longer than this, and than the database, is not moved any more.
_LONG_LOG = 64 * 2**20
_MOUNTS = "/proc/self/mounts"
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "fuse.glusterfs")


def examine(connection: sqlite3.Connection, path: str, late: float, *, integrity: bool) -> list[Finding]:
    """Everything that can be found out, in the order in which it matters. `late` is seconds."""
    now = round(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
    presence = Presence(os.path.abspath(path))
    patient = Patient(connection, path, now, late, presence.dead)
    checks: list[Check] = [
        *(_file, of_runs.schema, _sqlite, _durability),
        *(of_runs.clock, of_runs.leases, of_runs.pending, of_runs.waiting, of_runs.blocked, of_runs.schedules),
        _room,
    ]
    if integrity:
        checks.append(_integrity)
    return examined(patient, checks, _RESTORE)


_RESTORE = "stop all processes, keep a copy of the file, and restore a backup, or try `sqlite3 FILE .recover`"


# -- the database ------------------------------------------------------------------------------------------


def _file(patient: Patient) -> Iterator[Finding]:
    size = os.path.getsize(patient.name)
    [(runs,)] = patient.ask("SELECT count(*) FROM durably_runs")
    yield Finding(
        "database", "ok", f"{patient.name}: {amount(size)}, {many_runs(runs)}", data={"bytes": size, "runs": runs}
    )
    if kind := _network_file_system(patient.name):
        yield Finding(
            "file system",
            "problem",
            f"the file is on {kind}, where the locks of SQLite cannot be relied on",
            "move it to a local disk",
            {"type": kind},
        )


def _sqlite(patient: Patient) -> Iterator[Finding]:
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


def _durability(patient: Patient) -> Iterator[Finding]:
    [(mode,)] = patient.ask("PRAGMA journal_mode")
    data = {"journalMode": mode}
    try:
        asyncio.run(_promised(patient.name))
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


def _integrity(patient: Patient) -> Iterator[Finding]:
    return found_damage(patient, _RESTORE)


def _room(patient: Patient) -> Iterator[Finding]:
    usage = shutil.disk_usage(os.path.dirname(os.path.abspath(patient.name)))
    data = {"freeBytes": usage.free, "totalBytes": usage.total}
    little = usage.free < _LITTLE_ROOM
    yield Finding(
        "room",
        "warning" if little else "ok",
        f"{amount(usage.free)} free of {amount(usage.total)}",
        "make room, or delete old runs: durably-web runs purge" if little else "",
        data,
    )
    log = f"{patient.name}-wal"
    size = os.path.getsize(log) if os.path.exists(log) else 0
    long = size > max(_LONG_LOG, os.path.getsize(patient.name))
    yield Finding(
        "log",
        "warning" if long else "ok",
        f"{amount(size)} of write-ahead log",
        "some process keeps a transaction open, so that the log only grows: find and end it" if long else "",
        {"bytes": size},
    )


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
