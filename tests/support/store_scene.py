"""A database with a run in every state there is, made by the store's own operations; and what is in its tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, LiteralString

from durably_web.errors import StoreError
from durably_web.store import operations
from durably_web.store.batch import Batch, Executor, Operation, Row, Statement
from durably_web.store.operations import Entry, JobLimits, Trigger, undoing
from durably_web.store.operations.firing import Next
from durably_web.store.operations.scheduling import Definition, Stored, Timing
from durably_web.store.operations.taking import TakenEntry, TakenRun, TakenSignal

NOW = 1_700_000_000_000

# Each table, and the column that names the run.
TABLES: dict[str, int | None] = {
    "durably_schema": None,
    "durably_runs": 0,
    "durably_labels": 2,
    "durably_journal": 1,
    "durably_signals": 0,
    "durably_paused_jobs": None,
    "durably_starts": 3,
    "durably_requests": 1,
    "durably_schedules": None,
    "durably_undos": 0,
}

FEW = JobLimits("few", runs=1)
RATED = JobLimits("rated", rate=1, period=10_000)
EACH_RATED = JobLimits("each rated", rate=1, period=10_000, rate_per_key=True)

DONE = Entry(3, "step:complete", "one", '{"a":1}', NOW, NOW + 1)
LOG = Entry(4, "log:write", None, '{"level":"info","message":"m","data":{}}', None, NOW + 2)
PROGRESS = Entry(5, "run:progress", None, '{"current":1}', None, NOW + 3)
END = Entry(3, "run:complete", None, None, NOW, NOW + 9)
FAILURE = Entry(3, "run:fail", "one", '{"error":"E: e","traceback":"t"}', NOW, NOW + 9)
WAIT = Entry(3, "step:wait", "nap", '{"until":1700000005000}', NOW, NOW)
WAITING = Entry(4, "run:waiting", None, '{"until":null}', NOW, NOW)


def keeping(run_id: str, number: int = 3, step_name: str = "one", generation: int = 1) -> Entry:
    """The entry of a step that can be undone."""
    effects = undoing.keep_undo(run_id, generation, number, step_name)
    return Entry(number, "step:complete", step_name, '{"a":1}', NOW, NOW + 1, effects)


def undo_begun(run_id: str, number: int = 4, generation: int = 1) -> Entry:
    """The entry with which the undo of a run that has failed begins."""
    effects = undoing.begin_undo(run_id, generation, number)
    return Entry(number, "run:undo", None, '{"undoing":"failed","error":"E: e"}', NOW, NOW + 2, effects)


def undone(run_id: str, number: int = 5, step_name: str = "one", generation: int = 1, result: int = 3) -> Entry:
    """The entry with which a step has been undone."""
    name = f"{step_name}#undo"
    effects = undoing.drop_undo(run_id, generation, number, name, result)
    return Entry(number, "step:complete", name, "null", NOW, NOW + 3, effects)


# A tick that has come, of schedules that tick each minute.
TICK = NOW - 180_000
DEFINITION = Definition("scheduled", Timing(None, None, 60_000), '{"n":1}', {"a": "b"}, 0, "all", "skip", None)


def due(name: str, next_at: int = TICK, updated_at: int = NOW - 100) -> Next:
    timing = Timing(None, None, 60_000)
    return Next(name, "scheduled", {"a": "b"}, timing, "all", None, next_at, NOW - 100, updated_at)


def stored(name: str, **changes: Any) -> Stored:
    """A schedule of the scene, as it is there."""
    overlap: Any = {"due": "skip", "busy": "skip", "lined": "queue", "resting": "allow"}[name]
    found = Stored(name, DEFINITION._replace(overlap=overlap), False, TICK, None, NOW - 100, NOW - 100)
    return found._replace(**changes)


def trigger(run_id: str, job_name: str = "job", key: str | None = None, **options: Any) -> Trigger:
    given: dict[str, Any] = {"input": '{"n":1}', "labels": {}, "now": NOW - 100, "coalesce": "queue" if key else None}
    return Trigger(run_id, job_name, concurrency_key=key, **(given | options))


def claim(**changes: Any) -> Operation[operations.Claimed]:
    given: dict[str, Any] = {
        "owner": "w2",
        "token": "t2",
        "jobs": [JobLimits("job"), JobLimits("other")],
        "limit": 2,
        "executing": ["r9"],
        "now": NOW,
        "expires_at": NOW + 30_000,
    }
    return operations.claim(**(given | changes))


def debounced(run_id: str, key: str, moment: int, **options: Any) -> Operation[operations.Triggered]:
    """Asks for a run `moment` milliseconds after the others."""
    given: dict[str, Any] = {"now": NOW + moment, "run_at": NOW + moment + 20_000, "input": f'{{"moment":{moment}}}'}
    return operations.trigger(trigger(run_id, key=key, coalesce="replace", debounce=True, **(given | options)))


def make_child(
    parent: str, number: int, step_name: str, child: Trigger, type_: str = "step:complete", generation: int = 1
) -> Entry:
    """The entry of `parent` by which it starts a run."""
    effects = operations.create_child(parent, generation, number, step_name, child)
    return Entry(number, type_, step_name, f'"{child.run_id}"', NOW, NOW, effects)


def taking(number: int, generation: int = 1) -> Entry:
    """The entry by which the run `leased` takes its signal."""
    effects = operations.take_signal("leased", generation, number, "wait", 1)
    return Entry(number, "step:complete", "wait", "1", NOW, NOW, effects)


def restarting(number: int, generation: int = 1, run_id: str = "leased") -> Entry:
    """The entry by which a run begins anew with other code."""
    effects = (
        *operations.set_code(run_id, generation, number, "new code"),
        *operations.restart(run_id, generation, number),
    )
    return Entry(number, "run:restart", None, '{"notUndone":[]}', None, NOW, effects)


def recoded(number: int, generation: int = 1) -> Entry:
    """The entry with which the run `leased` goes on with other code."""
    data = '{"from":"a","to":"b","policy":"continue"}'
    effects = operations.set_code("leased", generation, number, "new code")
    return Entry(number, "run:code-changed", None, data, None, NOW, effects)


def handed_over(run_id: str = "new", handover: str = "h", *entries: TakenEntry, **changes: Any) -> TakenRun:
    """A run that comes from elsewhere; it has one result, and what `entries` say between that and its offer."""
    offered = f'{{"state":"offered","handover":"{handover}","target":"here"}}'
    journal = [
        taken_entry(1, 0, "run:trigger"),
        taken_entry(2, 1, "run:leased", '{"workerId":"w","attempt":1}'),
        taken_entry(3, 1, "step:complete", "1", "one"),
        *entries,
        taken_entry(4 + len(entries), 1, "run:handover", offered),
    ]
    given: dict[str, Any] = {
        "run_id": run_id,
        "handover_id": handover,
        "target": "here",
        "job_name": "job",
        "status": "pending",
        "input": '{"n":1}',
        "labels": {"a": "b"},
        "progress": None,
        "idempotency_key": None,
        "concurrency_key": None,
        "priority": 0,
        "run_at": 0,
        "created_at": NOW - 200,
        "started_at": NOW - 190,
        "wake_at": None,
        "awaits": None,
        "generation": 1,
        "crashes": 0,
        "paused": False,
        "forked_from": None,
        "code": "c0",
        "restarted": 0,
        "undoing": None,
        "schedule": None,
        "scheduled_at": None,
        "journal": journal,
        "signals": [TakenSignal(1, "go", "1", NOW - 150, "s", None)],
        "undos": [(3, "one")],
        "given": [],
    }
    return TakenRun(**(given | changes))


def taken_entry(number: int, generation: int, type_: str, data: str | None = None, step: Any = None) -> TakenEntry:
    kind = None if step is None else "run"
    return TakenEntry(number, generation, type_, step, data, NOW - 180, NOW - 170, None, kind)


def coming_back(run_id: str, gone: str, handover: str = "back", **changes: Any) -> TakenRun:
    """A run that was offered and given away as its entries 4 and 5, and is offered where it went."""
    data = f'{{"state":"%s","handover":"{gone}","target":"there"}}'
    entries = [
        taken_entry(4, 1, "run:handover", data % "offered"),
        taken_entry(5, 1, "run:handover", data % "taken"),
    ]
    return handed_over(run_id, handover, *entries, given=[(5, gone)], **changes)


def _begun(asked: Trigger, limits: JobLimits | None = None, owner: str = "w1") -> list[Operation[Any]]:
    """It is triggered, and claimed; nothing else of its job may be claimed at this moment."""
    return [operations.trigger(asked), _claimed(asked.run_id, limits or JobLimits(asked.job_name), owner)]


def _claimed(run_id: str, limits: JobLimits, owner: str = "w1") -> Operation[Any]:
    return claim(
        owner=owner,
        token=f"t-{run_id}",
        jobs=[limits],
        limit=1,
        now=NOW - 90,
        expires_at=NOW + 60_000,
        by_limits=True,
    )


def _operations() -> Iterable[Operation[Any]]:
    ab = {"a": "b"}
    # Ended.
    yield from _begun(trigger("completed", labels=ab, idempotency_key="used"))
    ending = [DONE._replace(created_at=NOW - 50), LOG, END._replace(number=5)]
    yield operations.finish_run("completed", 1, "completed", "7", None, ending, None, NOW)
    yield from _begun(trigger("failed"))
    yield operations.finish_run("failed", 1, "failed", None, "E: e", [FAILURE], None, NOW)
    yield from _begun(trigger("cancelled"))
    yield operations.cancel(["cancelled"], "q0", NOW)
    # Waiting: for time, for a signal, for the network, for a child that has one itself, for its job's retry.
    yield from _begun(trigger("asleep"))
    yield operations.suspend_run("asleep", 1, [WAIT, WAITING], None, NOW + 5_000)
    yield from _begun(trigger("listening", key="l"))
    yield operations.suspend_run("listening", 1, [WAIT, WAITING], None, NOW + 60_000, [("go", None)])
    yield from _begun(trigger("disconnected"))
    yield operations.suspend_run("disconnected", 1, [WAIT, WAITING], None, NOW + 60_000, network=True)
    yield from _begun(trigger("parent", labels={"family": "yes"}))
    child = trigger("child", "child", labels={"family": "yes"})
    begin = [make_child("parent", 3, "call", child, "step:wait"), WAITING]
    yield operations.suspend_run("parent", 1, begin, None, None, (), ["child"])
    yield _claimed("child", JobLimits("child"))
    yield from _begun(trigger("retrying"))
    retry = Entry(3, "run:retry", None, '{"error":"E: e","attempt":1,"until":1700000005000}', NOW, NOW)
    yield operations.suspend_run("retrying", 1, [retry], None, NOW + 5_000)
    # Held back by a limit.
    yield from _begun(trigger("few 1", "few"), FEW)
    yield operations.trigger(trigger("few 2", "few"))
    yield from _begun(trigger("rated 1", "rated"), RATED)
    yield operations.trigger(trigger("rated 2", "rated"))
    yield from _begun(trigger("each rated 1", "each rated", "x"), EACH_RATED)
    yield operations.trigger(trigger("each rated 2", "each rated", "y"))
    # Leased, with signals that came in; a holder of a key, and those behind it.
    yield from _begun(trigger("leased", labels=ab))
    for number, name in enumerate(("go", "go", "other"), 1):
        yield operations.signal("leased", name, f'"{number}"', f"s{number}", NOW)
    yield from _begun(trigger("holder", key="k"))
    yield operations.trigger(trigger("next 1", key="k"))
    yield operations.trigger(trigger("next 2", key="k", priority=5))
    sub = make_child("child", 3, "sub", trigger("grandchild", "child", "k", coalesce=None))
    yield operations.write_entries("child", 1, [sub], None)
    # With a step that can be undone: executed, and undone right now; one that could not be undone.
    yield from _begun(trigger("undoable", key="u"), owner="w5")
    yield operations.write_entries("undoable", 1, [keeping("undoable")], None)
    yield operations.trigger(trigger("behind undoable", key="u"))
    yield from _begun(trigger("undoing"), owner="w5")
    yield operations.write_entries("undoing", 1, [keeping("undoing"), undo_begun("undoing")], None)
    yield from _begun(trigger("not undone"))
    yield operations.write_entries("not undone", 1, [keeping("not undone"), undo_begun("not undone")], None)
    error = "E: e; not undone: one (E: e)"
    failed = Entry(5, "step:fail", "one#undo", '{"error":"E: e","attempt":1}', NOW, NOW)
    yield operations.finish_run(
        "not undone", 1, "failed", None, error, [failed, FAILURE._replace(number=6)], None, NOW - 40
    )
    # Offered to another database; given to it; one that was taken here, and one that is not to be.
    for run_id in ("offered", "given"):
        yield from _begun(trigger(run_id, key=f"key of {run_id}", labels=ab))
        yield operations.write_entries(run_id, 1, [keeping(run_id)], None)
        yield operations.release_run(run_id, 1)
        yield operations.offer_run(run_id, f"h {run_id}", "there", NOW - 60)
    yield operations.settle_handover("given", "h given", True, NOW - 50)
    yield operations.trigger(trigger("behind offered", "held", "key of offered"))
    yield operations.import_run(handed_over("taken", "h taken", job_name="held"), 1, NOW - 40)
    yield operations.decline_handover("declined", "h declined")
    # A worker died under it once it had stored a step.
    yield from _begun(trigger("crashed", key="c"), owner="w9")
    yield operations.write_entries("crashed", 1, [DONE], None)
    yield operations.free_leases_of(["w9"])
    # Never begun.
    yield operations.trigger(trigger("first", key="f"))
    yield operations.trigger(trigger("second", key="f"))
    yield operations.trigger(trigger("delayed", key="d", run_at=NOW + 10_000))
    yield operations.trigger(trigger("paused", key="p"))
    yield operations.trigger(trigger("after paused", key="p"))
    yield operations.pause(["paused"], "p0", NOW)
    yield operations.trigger(trigger("held", "held"))
    yield operations.pause_job("held", "p1", NOW)
    yield operations.trigger(trigger("pending"))
    yield operations.trigger(trigger("waits", "other", labels={"a": "c"}))
    yield operations.fork("forked", "completed", None, NOW)
    # Schedules: none of its runs is active; one is, beside which none may begin, or stands in line; it is paused.
    for name in ("due", "busy", "lined", "resting"):
        yield operations.put_schedule(name, stored(name).definition, TICK, None, f"sch {name}", NOW - 100)
    for name in ("busy", "lined"):
        yield operations.fire_schedule(due(name), [(TICK, f"{name} 1")], TICK + 60_000, f"fired {name}", NOW)
    yield operations.pause_schedule("resting", "sch paused", NOW - 90)


# What has no operation here.
_BY_HAND: tuple[LiteralString, ...] = (
    "INSERT INTO durably_undos (run_id, number, step_name) VALUES ('crashed', 3, 'one')",
)

_EMPTIED = tuple(Statement(f"DELETE FROM {table}") for table in TABLES if table != "durably_schema")

# Made once: all is decided beforehand.
SCENE = Batch(
    "write",
    (
        *_EMPTIED,
        *[statement for operation in _operations() for statement in operation.batch.statements],
        *[Statement(sql) for sql in _BY_HAND],
    ),
)

# A scene takes hundreds of statements; its rows are kept beside the tables, and copied back from there.
_KEPT = {table: f"kept_{table}" for table in TABLES if table != "durably_schema"}
_KEEP = Batch(
    "write",
    tuple(Statement(f"CREATE TABLE IF NOT EXISTS {kept} AS SELECT * FROM {table}") for table, kept in _KEPT.items()),
)
_COPY_BACK = Batch(
    "write",
    (*_EMPTIED, *[Statement(f"INSERT INTO {table} SELECT * FROM {kept}") for table, kept in _KEPT.items()]),
)

_DUMP = Batch("read", tuple(Statement(f"SELECT * FROM {table}") for table in TABLES))


async def set_scene(executor: Executor) -> None:
    """Whatever there was before is gone."""
    try:
        await executor.run(_COPY_BACK)
    except StoreError:
        # None is kept yet.
        await executor.run(SCENE)
        await executor.run(_KEEP)


async def dump(executor: Executor) -> dict[str, list[Row]]:
    """All rows of all tables."""
    return {table: sorted(rows, key=repr) for table, rows in zip(TABLES, await executor.run(_DUMP), strict=True)}


def touched(before: dict[str, list[Row]], after: dict[str, list[Row]]) -> set[str]:
    """The runs, and the jobs that are paused, of which a row is not as it was."""
    found: set[str] = set()
    for table, column in TABLES.items():
        for row in set(before[table]) ^ set(after[table]):
            found.add(str(row[column or 0]))
    return found


async def claim_run(executor: Executor, run_id: str) -> None:
    """Another worker takes this run, and no other one, when all is due."""
    [rows] = await executor.run(Batch("read", (Statement("SELECT id FROM durably_runs WHERE id <> ?", (run_id,)),)))
    operation = claim(
        owner="w7",
        token=f"late-{run_id}",
        jobs=[JobLimits(name) for name in ("job", "other", "child")],
        limit=1,
        executing=[str(row[0]) for row in rows],
        now=NOW + 50_000,
        expires_at=NOW + 200_000,
        by_limits=True,
    )
    claimed = operation.decode(await executor.run(operation.batch))
    assert [lease.run_id for lease in claimed.leases] == [run_id], (run_id, claimed)
