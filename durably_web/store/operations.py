"""Every operation of the engine: arguments in, one batch and the reading of its outcome out.

No operation reads a clock, makes an id, or decides in Python what the next statement is. Fences and
conditions are in the SQL; the last statement tells what happened. Each is atomic and safe to send twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, LiteralString, NamedTuple, TypeVar, cast

from durably_web.events import Event
from durably_web.records import LogEntry, Run, Status, StepRecord
from durably_web.store import migrations, rows
from durably_web.store import statements as sql
from durably_web.store.batch import Batch, Mode, Operation, Rows, Statement, Value
from durably_web.store.rows import Lease, StoredEntry

T = TypeVar("T")


def _operation(
    name: str, mode: Mode, decode: Callable[[list[Rows]], T], *statements: tuple[LiteralString, tuple[Value, ...]]
) -> Operation[T]:
    return Operation(name, Batch(mode, tuple(Statement(*statement) for statement in statements)), decode)


def _nothing(_results: list[Rows]) -> None:
    return None


def _texts(values: Iterable[str]) -> str:
    return json.dumps(list(values))


# -- schema ----------------------------------------------------------------------------------------------


def has_schema() -> Operation[bool]:
    return _operation("has_schema", "read", lambda results: bool(results[0]), (sql.FIND_SCHEMA, ()))


def schema_version() -> Operation[int]:
    return _operation(
        "schema_version", "read", lambda results: cast(int, results[0][0][0]), (sql.READ_SCHEMA_VERSION, ())
    )


def create_schema_table() -> Operation[None]:
    return _operation("create_schema_table", "write", _nothing, (sql.CREATE_SCHEMA_TABLE, ()))


def apply_migration(version: int, now: int) -> Operation[None]:
    """Lead the schema from `version - 1` to `version`.

    Raises `ConstraintViolated`, and changes nothing, when it has been applied already: the one operation
    whose second send has another outcome, because DDL has no fence.
    """
    steps = [(statement, ()) for statement in migrations.statements(version)]
    return _operation("apply_migration", "write", _nothing, (sql.RECORD_MIGRATION, (version, now)), *steps)


# -- triggering ------------------------------------------------------------------------------------------


class Triggered(NamedTuple):
    """`seq` is that of the `run:trigger` entry, or `None` when an earlier run was found."""

    run_id: str
    created: bool
    seq: int | None


def trigger(
    run_id: str, job_name: str, input: str, labels: dict[str, str], idempotency_key: str | None, now: int
) -> Operation[Triggered]:
    """Store a run, unless the job has had one with this idempotency key."""

    def decode(results: list[Rows]) -> Triggered:
        if results[-2]:
            return Triggered(run_id, True, cast(int, results[-2][0][1]))
        return Triggered(cast(str, results[-1][0][0]), False, None)

    return _operation(
        "trigger",
        "write",
        decode,
        (sql.INSERT_RUN, (run_id, job_name, input, json.dumps(labels), idempotency_key, now)),
        *([(sql.INSERT_LABELS, (run_id,))] if labels else []),
        (sql.INSERT_TRIGGER_ENTRY, (run_id,)),
        (sql.SELECT_TRIGGERED, (run_id,)),
        (sql.SELECT_BY_IDEMPOTENCY_KEY, (job_name, idempotency_key)),
    )


class Outcome(NamedTuple):
    """What a request about a run came to: the status it found or left (`None`: no such run), and the seq of
    the entry it made (`None`: it changed nothing)."""

    status: Status | None
    seq: int | None


def retrigger(run_id: str, source_id: str, now: int) -> Operation[Outcome]:
    """Store a new run with the input and labels of a terminal one."""

    def decode(results: list[Rows]) -> Outcome:
        seq = results[-2][0][1] if results[-2] else None
        status = results[-1][0][0] if results[-1] else None
        return Outcome(cast("Status | None", status), cast("int | None", seq))

    return _operation(
        "retrigger",
        "write",
        decode,
        (sql.INSERT_RUN_LIKE, (run_id, now, source_id)),
        (sql.INSERT_LABELS, (run_id,)),
        (sql.INSERT_TRIGGER_ENTRY, (run_id,)),
        (sql.SELECT_TRIGGERED, (run_id,)),
        (sql.SELECT_STATUS, (source_id,)),
    )


# -- leases ----------------------------------------------------------------------------------------------


def claim(
    *,
    owner: str,
    token: str,
    job_names: Sequence[str],
    limit: int,
    executing: Iterable[str],
    now: int,
    expires_at: int,
) -> Operation[list[Lease]]:
    """Lease up to `limit` runs that are due, and read what is stored of them.

    Leases that have expired are freed first, but not those of runs that this worker is `executing` itself;
    and none of those is leased a second time, while its earlier execution comes to an end.
    """
    own = _texts(executing)

    def decode(results: list[Rows]) -> list[Lease]:
        entries: dict[str, list[StoredEntry]] = {}
        for run_id, *entry in cast("list[tuple[Any, ...]]", results[-1]):
            entries.setdefault(run_id, []).append(StoredEntry(*entry))
        return [rows.lease(row, entries.get(cast(str, row[0]), [])) for row in results[-2]]

    return _operation(
        "claim",
        "write",
        decode,
        (sql.FREE_EXPIRED, (now, own)),
        (sql.CLAIM, (owner, token, expires_at, now, now, _texts(job_names), own, limit, token)),
        (sql.INSERT_LEASED_ENTRIES, (now, token)),
        (sql.SELECT_CLAIMED, (token,)),
        (sql.SELECT_CLAIMED_ENTRIES, (token,)),
    )


class Ownership(NamedTuple):
    run_id: str
    generation: int
    status: Status


def renew_leases(leases: Sequence[tuple[str, int]], expires_at: int) -> Operation[list[Ownership]]:
    """Keep the leases on these `(run id, generation)`; tells what each run is at now."""
    held = json.dumps(leases)
    return _operation(
        "renew_leases",
        "write",
        lambda results: [Ownership(*cast("tuple[Any, Any, Any]", row)) for row in results[-1]],
        (sql.RENEW_LEASES, (expires_at, held)),
        (sql.SELECT_OWNERSHIP, (held,)),
    )


def other_owners(owner: str) -> Operation[list[str]]:
    """The workers that hold a lease, without `owner`."""
    return _operation(
        "other_owners",
        "read",
        lambda results: [cast(str, row[0]) for row in results[0]],
        (sql.SELECT_OTHER_OWNERS, (owner,)),
    )


def free_leases_of(owners: Iterable[str]) -> Operation[None]:
    """Free every lease of workers that are known to be dead."""
    return _operation("free_leases_of", "write", _nothing, (sql.FREE_LEASES_OF, (_texts(owners),)))


# -- executing -------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A journal entry that a worker writes; `number` is its place in the run."""

    number: int
    type: str
    step_name: str | None
    data: str | None
    started_at: int | None
    created_at: int


def _insert(run_id: str, generation: int, entry: Entry) -> tuple[LiteralString, tuple[Value, ...]]:
    return sql.INSERT_ENTRY, (*entry, run_id, generation, run_id, entry.number - 1)


def _update_progress(
    run_id: str, generation: int, entries: Sequence[Entry], progress: str
) -> tuple[LiteralString, tuple[Value, ...]]:
    return sql.UPDATE_PROGRESS, (progress, run_id, generation, run_id, entries[-1].number)


def write_entries(
    run_id: str, generation: int, entries: Sequence[Entry], progress: str | None
) -> Operation[list[int] | None]:
    """Append to the journal of a leased run. Gives the seq of each entry, or `None` when the lease is lost."""

    def decode(results: list[Rows]) -> list[int] | None:
        seqs = [cast(int, result[0][0]) for result in results[: len(entries)] if result]
        return seqs if len(seqs) == len(entries) else None

    statements = [_insert(run_id, generation, entry) for entry in entries]
    if progress is not None:
        statements.append(_update_progress(run_id, generation, entries, progress))
    return _operation("write_entries", "write", decode, *statements)


def finish_run(
    run_id: str,
    generation: int,
    status: Status,
    output: str | None,
    error: str | None,
    entries: Sequence[Entry],
    progress: str | None,
    now: int,
) -> Operation[list[int] | None]:
    """Give a leased run its end, and append `entries`, of which the last tells of it.

    Gives the seq of each entry, or `None` when the lease is lost.
    """

    def decode(results: list[Rows]) -> list[int] | None:
        if [row[1] for row in results[-1]] != [entry.type for entry in entries]:
            return None
        return [cast(int, row[0]) for row in results[-1]]

    statements = [_insert(run_id, generation, entry) for entry in entries]
    if progress is not None:
        statements.append(_update_progress(run_id, generation, entries, progress))
    return _operation(
        "finish_run",
        "write",
        decode,
        *statements,
        (sql.FINISH_RUN, (status, output, error, now, run_id, generation, run_id, entries[-1].number)),
        (sql.SELECT_ENTRIES, (run_id, entries[0].number, entries[-1].number, generation)),
    )


def release_run(run_id: str, generation: int) -> Operation[None]:
    """Give a lease back, so that any worker can go on with the run at once."""
    return _operation("release_run", "write", _nothing, (sql.RELEASE_RUN, (run_id, generation)))


# -- requests about a run --------------------------------------------------------------------------------


def _outcome(results: list[Rows]) -> Outcome:
    return Outcome(*cast("tuple[Any, Any]", results[-1][0]))


def cancel(run_id: str, request_id: str, now: int) -> Operation[Outcome]:
    """End a run that is not terminal. Its owner's next write finds the lease lost."""
    return _operation(
        "cancel",
        "write",
        _outcome,
        (sql.INSERT_CANCEL_ENTRY, (run_id, now, request_id, run_id, run_id, request_id)),
        (sql.CANCEL_RUN, (now, run_id, request_id)),
        (sql.SELECT_REQUEST_OUTCOME, (run_id, run_id, request_id)),
    )


def retry(run_id: str, request_id: str, now: int) -> Operation[Outcome]:
    """Make a failed or cancelled run pending again; its stored results stay."""
    return _operation(
        "retry",
        "write",
        _outcome,
        (sql.INSERT_RETRY_ENTRY, (run_id, now, request_id, run_id, run_id, request_id)),
        (sql.RETRY_RUN, (run_id, request_id)),
        (sql.SELECT_REQUEST_OUTCOME, (run_id, run_id, request_id)),
    )


def delete_run(run_id: str, request_id: str, now: int) -> Operation[Outcome]:
    """Delete a terminal run with all that is stored of it, but for one entry that tells of the deletion."""
    return _operation(
        "delete_run",
        "write",
        _outcome,
        (sql.INSERT_DELETE_ENTRY, (run_id, now, request_id, run_id)),
        (sql.DELETE_LABELS, (run_id,)),
        (sql.DELETE_RUN, (run_id,)),
        (sql.DELETE_JOURNAL, (run_id, run_id)),
        (sql.SELECT_REQUEST_OUTCOME, (run_id, run_id, request_id)),
    )


# -- reading ---------------------------------------------------------------------------------------------


def get_run(run_id: str) -> Operation[Run | None]:
    return _operation(
        "get_run",
        "read",
        lambda results: rows.run(results[0][0]) if results[0] else None,
        (sql.SELECT_RUNS + "WHERE r.id = ?", (run_id,)),
    )


def get_runs(
    *,
    statuses: Sequence[str] = (),
    job_name: str | None = None,
    labels: dict[str, str] | None = None,
    limit: int | None = None,
    offset: int | None = None,
    after: str | None = None,
) -> Operation[list[Run]]:
    """Runs, newest first. `after` is the id of the last run of the page before."""
    conditions: list[LiteralString] = []
    params: list[Value] = []
    if statuses:
        conditions.append("r.status IN (SELECT value FROM json_each(?))")
        params.append(_texts(statuses))
    if job_name is not None:
        conditions.append("r.job_name = ?")
        params.append(job_name)
    for key, value in (labels or {}).items():
        conditions.append("r.id IN (SELECT run_id FROM durably_labels WHERE key = ? AND value = ?)")
        params += [key, value]
    if after is not None:
        conditions.append("r.id < ?")
        params.append(after)
    where: LiteralString = "WHERE " + " AND ".join(conditions) if conditions else ""
    params += [-1 if limit is None else limit, offset or 0]
    return _operation(
        "get_runs",
        "read",
        lambda results: [rows.run(row) for row in results[0]],
        (sql.SELECT_RUNS + where + " ORDER BY r.id DESC LIMIT ? OFFSET ?", tuple(params)),
    )


def get_steps(run_id: str) -> Operation[list[StepRecord]]:
    """The last outcome of each step, in the order of their first."""

    def decode(results: list[Rows]) -> list[StepRecord]:
        by_name: dict[str, StepRecord] = {}
        for row in results[0]:
            by_name[cast(str, row[1])] = rows.step(row)
        return list(by_name.values())

    return _operation("get_steps", "read", decode, (sql.SELECT_STEPS, (run_id,)))


def get_logs(run_id: str) -> Operation[list[LogEntry]]:
    return _operation(
        "get_logs", "read", lambda results: [rows.log(row) for row in results[0]], (sql.SELECT_LOGS, (run_id,))
    )


class EventPage(NamedTuple):
    """Events in order; `ended` is true when no more can follow: the run is terminal or gone."""

    events: list[Event]
    ended: bool
    known: bool


def read_events(run_id: str | None, after: int, limit: int) -> Operation[EventPage]:
    """The stored events after the seq `after`: of a run, or of all."""
    if run_id is None:
        return _operation(
            "read_events",
            "read",
            lambda results: EventPage([rows.event(row) for row in results[0]], False, True),
            (sql.SELECT_EVENTS, (after, limit)),
        )

    def decode(results: list[Rows]) -> EventPage:
        status = results[1][0][0] if results[1] else None
        events = [rows.event(row) for row in results[0]]
        ended = rows.is_terminal(status) and len(events) < limit
        return EventPage(events, ended, status is not None or bool(events) or after > 0)

    return _operation(
        "read_events",
        "read",
        decode,
        (sql.SELECT_EVENTS_OF_RUN, (run_id, after, after, run_id, limit)),
        (sql.SELECT_STATUS, (run_id,)),
    )
