"""From rows to records."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from durably_web import codec as details
from durably_web.codec import Codec
from durably_web.events import Event, EventType
from durably_web.records import (
    TERMINAL,
    FailedAttempt,
    Kind,
    LogEntry,
    Progress,
    Run,
    Status,
    StepRecord,
    Undoing,
    instant,
    undo_of,
    undone_by,
)
from durably_web.store.batch import Row, Rows


class Lease(NamedTuple):
    """A worker's right to a run, and what it needs to execute it.

    `number` is the run's last journal entry; `entries` are the stored ones that a replay needs, oldest first.
    `crashes` counts the workers that died under the run since it last stored a step. `code` is the fingerprint of
    the code that it was last executed with. `has_undos`: earlier executions have stored steps that can be undone.
    `is_fork`: it was given stored results of another run, which may have gaps.
    """

    run_id: str
    job_name: str
    input: str
    labels: dict[str, str]
    generation: int
    attempt: int
    started_at: int
    crashes: int
    parent_run_id: str | None
    concurrency_key: str | None
    code: str | None
    undoing: Undoing | None
    schedule: str | None
    scheduled_at: int | None
    number: int
    seq: int
    entries: list[StoredEntry]
    has_undos: bool = False
    is_fork: bool = False


class StoredEntry(NamedTuple):
    """What a replay reads of a journal entry."""

    type: str
    step_name: str | None
    data: str | None
    created_at: int
    calls: int | None = None
    kind: Kind | None = None


def lease(row: Row, entries: list[StoredEntry]) -> Lease:
    given: list[Any] = [*row[:-2], entries, bool(row[-2]), bool(row[-1])]
    given[3] = details.decode(given[3])
    return Lease._make(given)


def run(row: Row, codec: Codec) -> Run:
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
        wake_at,
        paused,
        parent_run_id,
        forked_from,
        undoing,
        schedule,
        scheduled_at,
        step_count,
    ) = cast("tuple[Any, ...]", row)
    return Run(
        id=id_,
        job_name=job_name,
        status=cast(Status, status),
        input=codec.decode(input_),
        output=None if output is None else codec.decode(output),
        error=error,
        labels=details.decode(labels),
        progress=None if progress is None else Progress(**details.decode(progress)),
        attempt=attempt,
        idempotency_key=idempotency_key,
        concurrency_key=concurrency_key,
        priority=priority,
        created_at=instant(created_at),
        run_at=instant(run_at) if run_at else None,
        started_at=None if started_at is None else instant(started_at),
        completed_at=None if completed_at is None else instant(completed_at),
        step_count=step_count,
        wake_at=None if wake_at is None else instant(wake_at),
        paused=bool(paused),
        parent_run_id=parent_run_id,
        forked_from=forked_from,
        undoing=undoing,
        schedule=schedule,
        scheduled_at=None if scheduled_at is None else instant(scheduled_at),
    )


def steps(rows: Rows, codec: Codec) -> list[StepRecord]:
    """The steps of a run, of its entries about steps, oldest first."""
    records: dict[str, StepRecord] = {}
    for type_, name, data, started_at, created_at in cast("list[tuple[Any, ...]]", rows):
        begun, ended = instant(started_at), instant(created_at)
        earlier = records.get(name)
        failed = earlier.attempts if earlier is not None else ()
        attempt = len(failed) + 1
        if type_ == "step:complete":
            output = None if data is None else codec.decode(data)
            if earlier is not None and earlier.status == "waiting":
                begun = earlier.started_at
            records[name] = StepRecord(name, "completed", output, None, attempt, begun, ended, failed)
            undone = undone_by(name)
            if undone is None:
                # Of what is done anew, an undo is none any more.
                records.pop(undo_of(name), None)
            elif undone in records:
                records[undone] = records[undone]._replace(status="undone")
            continue
        detail = details.decode(data)
        until = instant(detail["until"]) if detail.get("until") is not None else None
        if type_ == "step:wait":
            waits_for = awaited(detail)
            records[name] = StepRecord(
                name, "waiting", None, detail.get("error"), attempt, begun, None, failed, until, waits_for
            )
            continue
        error = detail["error"]
        failed = (*failed, FailedAttempt(attempt, error, begun, ended))
        if type_ == "step:retry":
            records[name] = StepRecord(name, "retrying", None, error, attempt, begun, None, failed, until)
        else:
            records[name] = StepRecord(name, "failed", None, error, attempt, begun, ended, failed)
    return list(records.values())


def awaited(detail: dict[str, Any]) -> str | None:
    """What a `step:wait`, or a run, waits for beside time."""
    if "signal" in detail:
        return f"signal {detail['signal']}"
    if "network" in detail:
        return "network"
    return f"run {detail['child']}" if "child" in detail else None


def log(row: Row) -> LogEntry:
    data, step_name, created_at = cast("tuple[Any, ...]", row)
    entry = details.decode(data)
    return LogEntry(entry["level"], entry["message"], entry["data"], step_name, instant(created_at))


# The types whose data is a value of the user.
_VALUES = ("step:complete", "run:coalesced")


def event(row: Row, codec: Codec) -> Event:
    """The event of a journal row joined with its run."""
    (seq, number, run_id, type_, step_name, data, started_at, created_at, job_name, labels, value) = cast(
        "tuple[Any, ...]", row
    )
    labels = details.decode(labels) if labels is not None else {}
    detail: Any = None if data is None else codec.decode(data) if type_ in _VALUES else details.decode(data)
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
        case "run:coalesced":
            return event._replace(input=detail)
        case "run:leased":
            return event._replace(worker_id=detail["workerId"], attempt=detail["attempt"])
        case "run:progress":
            return event._replace(progress=Progress(**detail))
        case "run:complete":
            return event._replace(output=value)
        case "run:fail":
            return event._replace(error=detail["error"], traceback=detail.get("traceback"))
        case "run:undo":
            error, trace = detail.get("error"), detail.get("traceback")
            return event._replace(undoing=detail["undoing"], error=error, traceback=trace)
        case "run:cancel" if detail is not None:
            return event._replace(error=detail["error"])
        case "step:complete":
            return event._replace(output=detail)
        case "step:fail" | "step:retry" | "step:wait" | "run:waiting" | "run:retry" if detail is not None:
            until = detail.get("until")
            return event._replace(
                error=detail.get("error"),
                attempt=detail.get("attempt"),
                until=None if until is None else instant(until),
                waits_for=awaited(detail),
            )
        case "run:handover":
            # What the run was like before is nobody's concern but the engines'.
            return event._replace(data={name: detail[name] for name in ("state", "handover", "target")})
        case "run:code-changed" | "run:restart" | "run:patched" | "step:unasked":
            return event._replace(data=detail)
        case "log:write":
            return event._replace(level=detail["level"], message=detail["message"], data=detail["data"])
    return event


def is_terminal(status: Any) -> bool:
    return status is None or status in TERMINAL
