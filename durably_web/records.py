"""What the store gives back: read-only records, and their form on the wire."""

from __future__ import annotations

import datetime
from typing import Any, Literal, NamedTuple

from durably_web.codec import to_plain

Status = Literal["pending", "leased", "waiting", "completed", "failed", "cancelled"]
Disposition = Literal["created", "idempotent", "coalesced"]
Undoing = Literal["failed", "cancelled"]
Kind = Literal["run", "sleep", "signal", "call", "trigger"]
"""What a step is, by the method that it was asked for with."""
Missed = Literal["skip", "one", "all"]
Overlap = Literal["skip", "queue", "allow"]
Level = Literal["debug", "info", "warning", "error"]

TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
STATUSES: tuple[Status, ...] = ("pending", "leased", "waiting", "completed", "failed", "cancelled")

Instant = datetime.datetime

_UNDO = "#undo"


def undo_of(step_name: str) -> str:
    """The name of the step that undoes another one."""
    return step_name + _UNDO


def undone_by(step_name: str) -> str | None:
    """The step that one of this name undoes, if that is what it does. Jobs give no such names."""
    return step_name.removesuffix(_UNDO) if step_name.endswith(_UNDO) else None


def instant(milliseconds: int) -> Instant:
    """An aware UTC datetime of milliseconds since the epoch."""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)


def wire_instant(when: Instant | None) -> str | None:
    """ISO 8601 with milliseconds and `Z`."""
    if when is None:
        return None
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


class Progress(NamedTuple):
    """How far a run says it is."""

    current: float
    total: float | None = None
    message: str | None = None

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = {"current": self.current}
        if self.total is not None:
            wire["total"] = self.total
        if self.message is not None:
            wire["message"] = self.message
        return wire


class Run(NamedTuple):
    """One execution of a job, as it was when it was read."""

    id: str
    job_name: str
    status: Status
    input: Any
    output: Any
    error: str | None
    labels: dict[str, str]
    progress: Progress | None
    attempt: int
    idempotency_key: str | None
    concurrency_key: str | None
    priority: int
    created_at: Instant
    run_at: Instant | None
    started_at: Instant | None
    completed_at: Instant | None
    step_count: int
    wake_at: Instant | None = None
    """When a run that is delayed, or waits, becomes due by time; `None` when time alone does not wake it."""
    paused: bool = False
    parent_run_id: str | None = None
    forked_from: str | None = None
    undoing: Undoing | None = None
    """How the run will end once the steps that can be undone are."""
    schedule: str | None = None
    """The name of the schedule that asked for the run."""
    scheduled_at: Instant | None = None
    """The tick of that schedule; `None` for a run that was asked for by hand."""

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def is_active(self) -> bool:
        """It is on its way: everything but terminal."""
        return self.status not in TERMINAL

    def to_wire(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "jobName": self.job_name,
            "status": self.status,
            "input": to_plain(self.input),
            "output": to_plain(self.output),
            "error": self.error,
            "labels": self.labels,
            "progress": self.progress.to_wire() if self.progress else None,
            "createdAt": wire_instant(self.created_at),
            "startedAt": wire_instant(self.started_at),
            "completedAt": wire_instant(self.completed_at),
            "runAt": wire_instant(self.run_at),
            "wakeAt": wire_instant(self.wake_at),
            "priority": self.priority,
            "concurrencyKey": self.concurrency_key,
            "paused": self.paused,
            "parentRunId": self.parent_run_id,
            "forkedFrom": self.forked_from,
            "undoing": self.undoing,
            "schedule": self.schedule,
            "scheduledAt": wire_instant(self.scheduled_at),
            "stepCount": self.step_count,
            "isTerminal": self.is_terminal,
            "isActive": self.is_active,
        }


class Schedule(NamedTuple):
    """A job that is to run again and again, and when. Durations are seconds."""

    name: str
    job_name: str
    cron: str | None
    every: float | None
    timezone: str | None
    """Of `cron`; `None` with `every`."""
    input: Any
    labels: dict[str, str]
    priority: int
    missed: Missed
    overlap: Overlap
    catch_up_window: float | None
    paused: bool
    next_at: Instant | None
    """The next tick; `None` while it is paused, or when there is none any more."""
    last_at: Instant | None
    """The last tick that got a run."""
    created_at: Instant
    updated_at: Instant

    def to_wire(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "jobName": self.job_name,
            "cron": self.cron,
            "everyMs": None if self.every is None else round(self.every * 1000),
            "timezone": self.timezone,
            "input": to_plain(self.input),
            "labels": self.labels,
            "priority": self.priority,
            "missed": self.missed,
            "overlap": self.overlap,
            "catchUpWindowMs": None if self.catch_up_window is None else round(self.catch_up_window * 1000),
            "paused": self.paused,
            "nextAt": wire_instant(self.next_at),
            "lastAt": wire_instant(self.last_at),
            "createdAt": wire_instant(self.created_at),
            "updatedAt": wire_instant(self.updated_at),
        }


class FailedAttempt(NamedTuple):
    """A try of a step that raised; `attempt` counts from 1."""

    attempt: int
    error: str
    started_at: Instant
    failed_at: Instant

    def to_wire(self) -> dict[str, Any]:
        return {
            "attempt": self.attempt,
            "error": self.error,
            "startedAt": wire_instant(self.started_at),
            "failedAt": wire_instant(self.failed_at),
        }


class StepRecord(NamedTuple):
    """A step of which something is stored.

    `attempt` is the number of the try that gave the outcome, or that comes next; `attempts` are all that failed.
    `until` is when a step that is `"retrying"` or `"waiting"` goes on by time. `"undone"` has been completed, and
    `save#undo`, a step too, has taken that back.
    """

    name: str
    status: Literal["completed", "failed", "retrying", "waiting", "undone"]
    output: Any
    error: str | None
    attempt: int
    started_at: Instant
    completed_at: Instant | None
    attempts: tuple[FailedAttempt, ...] = ()
    until: Instant | None = None
    waits_for: str | None = None
    """`"signal approval"` or `"run 01…"`, for a step that waits for more than time."""

    def to_wire(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "output": to_plain(self.output),
            "error": self.error,
            "attempt": self.attempt,
            "startedAt": wire_instant(self.started_at),
            "completedAt": wire_instant(self.completed_at),
            "attempts": [attempt.to_wire() for attempt in self.attempts],
            "until": wire_instant(self.until),
            "waitsFor": self.waits_for,
        }


class Stats(NamedTuple):
    """How many runs there are, and in which state.

    `storage_full` is true while results of this engine's runs wait for room on the disk.
    """

    total: int
    by_status: dict[str, int]
    by_job: dict[str, dict[str, int]]
    paused_jobs: list[str]
    storage_full: bool = False

    def to_wire(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "byStatus": self.by_status,
            "byJob": self.by_job,
            "pausedJobs": self.paused_jobs,
            "storageFull": self.storage_full,
        }


class LogEntry(NamedTuple):
    """A line that a job wrote with `step.log`; `step_name` is the step that was executing, if one was."""

    level: Level
    message: str
    data: dict[str, Any]
    step_name: str | None
    created_at: Instant

    def to_wire(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "message": self.message,
            "data": to_plain(self.data),
            "stepName": self.step_name,
            "createdAt": wire_instant(self.created_at),
        }
