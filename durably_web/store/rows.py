"""From rows to records."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from durably_web import codec
from durably_web.events import Event, EventType
from durably_web.records import TERMINAL, LogEntry, Progress, Run, Status, StepRecord, instant
from durably_web.store.batch import Row


class Lease(NamedTuple):
    """A worker's right to a run, and what it needs to execute it.

    `number` is the run's last journal entry; `entries` are the stored ones that a replay needs, oldest first.
    """

    run_id: str
    job_name: str
    input: str
    labels: dict[str, str]
    generation: int
    attempt: int
    started_at: int
    number: int
    seq: int
    entries: list[StoredEntry]


class StoredEntry(NamedTuple):
    """What a replay reads of a journal entry."""

    type: str
    step_name: str | None
    data: str | None


def lease(row: Row, entries: list[StoredEntry]) -> Lease:
    run_id, job_name, text, labels, generation, attempt, started_at, number, seq = cast("tuple[Any, ...]", row)
    return Lease(run_id, job_name, text, codec.decode(labels), generation, attempt, started_at, number, seq, entries)


def run(row: Row) -> Run:
    (
        id_,
        job_name,
        status,
        input_,
        output,
        error,
        labels,
        progress,
        attempt,
        idempotency_key,
        concurrency_key,
        priority,
        created_at,
        run_at,
        started_at,
        completed_at,
        step_count,
    ) = cast("tuple[Any, ...]", row)
    return Run(
        id=id_,
        job_name=job_name,
        status=cast(Status, status),
        input=codec.decode(input_),
        output=None if output is None else codec.decode(output),
        error=error,
        labels=codec.decode(labels),
        progress=None if progress is None else Progress(**codec.decode(progress)),
        attempt=attempt,
        idempotency_key=idempotency_key,
        concurrency_key=concurrency_key,
        priority=priority,
        created_at=instant(created_at),
        run_at=instant(run_at) if run_at else None,
        started_at=None if started_at is None else instant(started_at),
        completed_at=None if completed_at is None else instant(completed_at),
        step_count=step_count,
    )


def step(row: Row) -> StepRecord:
    type_, name, data, attempt, started_at, created_at = cast("tuple[Any, ...]", row)
    failed = type_ == "step:fail"
    value = codec.decode(data)
    return StepRecord(
        name=name,
        status="failed" if failed else "completed",
        output=None if failed else value,
        error=value["error"] if failed else None,
        attempt=attempt,
        started_at=instant(started_at),
        completed_at=instant(created_at),
    )


def log(row: Row) -> LogEntry:
    data, step_name, created_at = cast("tuple[Any, ...]", row)
    entry = codec.decode(data)
    return LogEntry(entry["level"], entry["message"], entry["data"], step_name, instant(created_at))


def event(row: Row) -> Event:
    """The event of a journal row joined with its run."""
    (seq, number, run_id, type_, step_name, data, started_at, created_at, job_name, labels, value) = cast(
        "tuple[Any, ...]", row
    )
    labels = codec.decode(labels) if labels is not None else {}
    detail: Any = codec.decode(data) if data is not None else None
    value = codec.decode(value) if value is not None else None
    if type_ == "run:delete":
        job_name, labels = detail["jobName"], detail["labels"]
    return entry_event(type_, seq, number, run_id, job_name, labels, step_name, detail, started_at, created_at, value)


def entry_event(
    type_: str,
    seq: int,
    number: int,
    run_id: str,
    job_name: str,
    labels: dict[str, str],
    step_name: str | None,
    detail: Any,
    started_at: int | None,
    created_at: int,
    value: Any = None,
) -> Event:
    """The event of a journal entry: the same, whether it was just written here or read back elsewhere.

    `detail` is the entry's decoded `data`; `value` is the run's input for `run:trigger` and its output for
    `run:complete`, which the journal does not keep a second time.
    """
    event = Event(
        cast(EventType, type_), seq, number, instant(created_at), run_id, job_name, labels, step_name=step_name
    )
    if started_at is not None:
        event = event._replace(duration=(created_at - started_at) / 1000)
    match type_:
        case "run:trigger":
            return event._replace(input=value)
        case "run:leased":
            return event._replace(worker_id=detail["workerId"], attempt=detail["attempt"])
        case "run:progress":
            return event._replace(progress=Progress(**detail))
        case "run:complete":
            return event._replace(output=value)
        case "run:fail":
            return event._replace(error=detail["error"], traceback=detail.get("traceback"))
        case "step:complete":
            return event._replace(output=detail)
        case "step:fail":
            return event._replace(error=detail["error"])
        case "log:write":
            return event._replace(level=detail["level"], message=detail["message"], data=detail["data"])
    return event


def is_terminal(status: Any) -> bool:
    return status is None or status in TERMINAL
