"""Each operation of the store, as it is sent in the scene of `store_scene`; several ways where it has several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from durably_web.codec import JsonCodec
from durably_web.store import operations
from durably_web.store.batch import Operation
from durably_web.store.operations import Entry, Filter, JobLimits, Refusal, undoing
from durably_web.store.operations.scheduling import Timing
from durably_web.store.operations.taking import TakenRun
from tests.support.store_scene import (
    DEFINITION,
    DONE,
    EACH_RATED,
    END,
    FAILURE,
    FEW,
    LOG,
    NOW,
    PROGRESS,
    RATED,
    TICK,
    WAIT,
    WAITING,
    claim,
    coming_back,
    debounced,
    due,
    handed_over,
    keeping,
    make_child,
    recoded,
    restarting,
    stored,
    taken_entry,
    taking,
    trigger,
    undo_begun,
    undone,
)

CODEC = JsonCodec()
LATE = {"now": NOW + 100_000, "expires_at": NOW + 130_000}
LIMITS = [JobLimits("job"), JobLimits("other"), JobLimits("child", runs=3), FEW, RATED, EACH_RATED, JobLimits("held")]
OWN_KEYS = [JobLimits("job", per_key=3)]

COMPLETED = END._replace(number=4, effects=undoing.drop_undos("undoable", 1, 4))
TOOK = Entry(3, "step:complete", "wait", '"1"', NOW, NOW, operations.take_signal("leased", 1, 3, "wait", 1))
CHILD = make_child("leased", 3, "call", trigger("new", "child", labels={"a": "b"}))
KEYED_CHILD = make_child("leased", 4, "call#2", trigger("new 2", key="k", coalesce=None))

# The first of them has a run, of the schedules that have one.
TICKS = [(TICK, "new 1"), (TICK + 60_000, "new 2"), (TICK + 120_000, "new 3")]
OTHER_INPUT = DEFINITION._replace(input='{"n":2}', missed="one")
OTHER_TIME = DEFINITION._replace(timing=Timing("30 2 * * *", "Europe/Berlin", None), catch_up_window=5)

REFUSAL = Refusal("new", "none", '{"n":1}', {"a": "b"}, "NotFound: no job", '{"error":"NotFound: no job"}', NOW - 50)

ALL_FILTERS = Filter(
    ["pending", "failed"],
    ["job"],
    {"a": "b"},
    created_before=NOW + 1,
    ended_before=NOW + 1,
    paused=False,
    after="z",
    unrequested="q",
)


def _trigger(run_id: str = "new", *args: Any, **options: Any) -> Callable[[], Operation[Any]]:
    return lambda: operations.trigger(trigger(run_id, *args, **{"now": NOW, **options}))


def _import(run: TakenRun) -> Callable[[], Operation[Any]]:
    return lambda: operations.import_run(run, 1, NOW)


REGISTRY: dict[str, list[Callable[[], Operation[Any]]]] = {
    "has_schema": [operations.has_schema],
    "schema_version": [operations.schema_version],
    "create_schema_table": [operations.create_schema_table],
    "apply_migration": [],
    "trigger": [
        _trigger(),
        _trigger(input='{"ü":"🦆"}', labels={"a": "b", "ü": "🦆"}, idempotency_key="new", priority=-3),
        _trigger(labels={"a": "b"}, idempotency_key="used"),
        _trigger(run_at=NOW + 5, priority=2),
        _trigger(run_at=NOW - 5),
        # A key of its own; one that is held; one with a pending run, in each way to meet it.
        *[_trigger(key="none", coalesce=coalesce) for coalesce in (None, "skip", "replace", "queue")],
        *[_trigger(key="c", coalesce=coalesce) for coalesce in (None, "skip", "replace", "queue")],
        *[_trigger(key="f", coalesce=coalesce, labels={"a": "b"}) for coalesce in (None, "skip", "replace", "queue")],
        *[
            _trigger(key="f", coalesce=coalesce, idempotency_key="used")
            for coalesce in (None, "skip", "replace", "queue")
        ],
        _trigger(key="f", per_key=2),
        _trigger(key="f", per_key=2, run_at=NOW + 5),
        _trigger(key="p", coalesce="replace"),
        _trigger(key="k", job_name="other", coalesce="skip"),
        lambda: debounced("new", "none", 1),
        lambda: debounced("new", "d", 1),
        lambda: debounced("new", "d", 1, longest_wait=500),
        lambda: debounced("new", "d", 1, idempotency_key="used"),
        lambda: debounced("new", "k", 1),
    ],
    "trigger_many": [
        lambda: operations.trigger_many([]),
        lambda: operations.trigger_many(
            [
                trigger("new 1", labels={"a": "b"}),
                trigger("new 2", idempotency_key="used"),
                trigger("new 3", idempotency_key="fresh"),
                trigger("new 4", idempotency_key="fresh"),
                trigger("new 5", "other", run_at=NOW + 5, priority=1),
            ]
        ),
        lambda: operations.trigger_many(
            [
                trigger("new 1", key="none", coalesce=None),
                trigger("new 2", key="none", input='{"n":2}', coalesce="replace"),
                trigger("new 3", key="none", input='{"n":3}', coalesce="replace"),
                trigger("new 4", key="none", coalesce="skip"),
                trigger("new 5", key="none", coalesce="queue"),
                trigger("new 6", key="f", coalesce="skip"),
                trigger("new 7", key="k", coalesce="queue", per_key=5),
                trigger("new 8", key="none", coalesce=None, idempotency_key="used"),
            ]
        ),
    ],
    "retrigger": [
        *[
            lambda source=source: operations.retrigger("new", source, NOW)
            for source in ("completed", "cancelled", "pending", "none")
        ],
    ],
    "fork": [
        *[
            lambda source=source, step=step: operations.fork("new", source, step, NOW)
            for source in ("completed", "crashed", "asleep", "pending", "forked", "not undone", "none")
            for step in (None, "one", "nap", "one#undo", "no such step")
        ],
    ],
    "claim": [
        claim,
        lambda: claim(codes='{"job":"c1","other":null}'),
        lambda: claim(codes='{"job":"c1"}', **LATE),
        lambda: claim(jobs=[JobLimits("none")]),
        lambda: claim(limit=1, executing=["pending"]),
        lambda: claim(**LATE),
        lambda: claim(**LATE, executing=["leased"], limit=99),
        *[
            lambda jobs=jobs, more=more, limit=limit: claim(jobs=jobs, limit=limit, by_limits=True, **more)
            for jobs in (LIMITS, OWN_KEYS, [], [EACH_RATED], [RATED, FEW])
            for more in ({}, LATE)
            for limit in (1, 12)
        ],
        lambda: claim(by_limits=True, executing=["crashed", "first"], **LATE),
        lambda: claim(bare=True, **LATE),
        lambda: claim(bare=True, jobs=LIMITS, limit=1, by_limits=True),
    ],
    "renew_leases": [
        lambda: operations.renew_leases([("leased", 1), ("pending", 1), ("asleep", 1), ("none", 3)], NOW + 5),
        lambda: operations.renew_leases([], NOW),
    ],
    "other_owners": [lambda: operations.other_owners("w1"), lambda: operations.other_owners("w2")],
    "free_leases_of": [
        lambda: operations.free_leases_of(["w1", "w3"]),
        lambda: operations.free_leases_of([]),
        lambda: operations.free_leases_of(["w1"], ["leased", "none"]),
        lambda: operations.free_leases_of(["w1"], []),
    ],
    "write_entries": [
        lambda: operations.write_entries("leased", 1, [DONE], None),
        lambda: operations.write_entries("leased", 1, [DONE, LOG, PROGRESS], '{"current":1}'),
        lambda: operations.write_entries("leased", 1, [], None),
        lambda: operations.write_entries("none", 1, [DONE], None),
        lambda: operations.write_entries("leased", 1, [TOOK], None),
        lambda: operations.write_entries("leased", 1, [TOOK, recoded(4), restarting(5)], None),
        lambda: operations.write_entries("leased", 1, [restarting(3), taking(4)], None),
        lambda: operations.write_entries("leased", 1, [CHILD], None),
        lambda: operations.write_entries("leased", 1, [CHILD, KEYED_CHILD, PROGRESS], '{"current":1}'),
        lambda: operations.write_entries("crashed", 1, [DONE], None),
        lambda: operations.write_entries("leased", 1, [keeping("leased"), keeping("leased", 4, "two")], None),
        lambda: operations.write_entries("leased", 1, [keeping("leased"), undo_begun("leased")], None),
        lambda: operations.write_entries("undoing", 1, [undone("undoing")], None),
    ],
    "finish_run": [
        lambda: operations.finish_run("leased", 1, "completed", "7", None, [END], None, NOW + 9),
        lambda: operations.finish_run(
            "leased",
            1,
            "failed",
            None,
            "E: e",
            [PROGRESS._replace(number=3), FAILURE._replace(number=4)],
            '{"current":1}',
            NOW + 9,
        ),
        lambda: operations.finish_run(
            "leased", 1, "completed", "7", None, [TOOK, LOG, END._replace(number=5)], None, NOW + 9, empty_results=True
        ),
        lambda: operations.finish_run(
            "holder", 1, "completed", "7", None, [END], None, NOW + 9, queue=("k", "job"), empty_results=True
        ),
        lambda: operations.finish_run(
            "undoable", 1, "completed", "7", None, [COMPLETED], None, NOW + 9, queue=("u", "job")
        ),
        lambda: operations.finish_run(
            "undoing", 1, "failed", None, "E: e", [undone("undoing"), FAILURE._replace(number=6)], None, NOW + 9
        ),
        lambda: operations.finish_run(
            "child", 1, "failed", None, "E: e", [FAILURE._replace(number=4)], None, NOW + 9, parent="parent"
        ),
    ],
    "suspend_run": [
        lambda: operations.suspend_run("leased", 1, [WAIT, WAITING], None, NOW + 5_000),
        lambda: operations.suspend_run("leased", 1, [WAIT, WAITING], None, None, [("none", None)]),
        lambda: operations.suspend_run(
            "leased", 1, [WAITING._replace(number=3)], None, NOW + 5_000, [("none", None), ("go", None)]
        ),
        lambda: operations.suspend_run(
            "leased", 1, [TOOK, LOG, PROGRESS, WAITING._replace(number=6)], '{"current":1}', None, [("go", NOW + 99)]
        ),
        lambda: operations.suspend_run("leased", 1, [CHILD, WAITING], None, NOW + 5_000, (), ["new"]),
        lambda: operations.suspend_run("leased", 1, [WAIT, WAITING], None, None, (), ["pending", "completed"]),
        lambda: operations.suspend_run("leased", 1, [WAIT, WAITING], None, None, (), ["none"]),
        lambda: operations.suspend_run("leased", 1, [WAIT, WAITING], None, NOW + 5_000, network=True),
    ],
    "wake_for_network": [operations.wake_for_network],
    "release_run": [lambda: operations.release_run("leased", 1), lambda: operations.release_run("holder", 1)],
    "open_signals": [lambda: operations.open_signals("leased"), lambda: operations.open_signals("none")],
    "child_outcome": [
        *[
            lambda run_id=run_id: operations.child_outcome(run_id)
            for run_id in ("completed", "failed", "child", "none")
        ],
    ],
    "undos_of": [
        *[lambda run_id=run_id: operations.undos_of(run_id) for run_id in ("undoable", "undoing", "leased", "none")],
    ],
    "holders_among_ancestors": [
        lambda: operations.holders_among_ancestors("grandchild", "k"),
        lambda: operations.holders_among_ancestors("holder", "k"),
        lambda: operations.holders_among_ancestors("none", "k"),
    ],
    "pending_of": [
        lambda: operations.pending_of("job", "f"),
        lambda: operations.pending_of("job", "c"),
        lambda: operations.pending_of("job", "none"),
    ],
    "store_refusals": [
        lambda: operations.store_refusals([], NOW),
        lambda: operations.store_refusals([REFUSAL], NOW),
        lambda: operations.store_refusals(
            [REFUSAL, REFUSAL._replace(run_id="new 2", labels={}), REFUSAL._replace(run_id="pending")], NOW
        ),
        *[
            lambda run_id=run_id: operations.store_refusals([REFUSAL._replace(run_id=run_id)], NOW)
            for run_id in ("pending", "leased", "failed", "completed", "delayed")
        ],
    ],
    "find_answer": [lambda: operations.find_answer("q0"), lambda: operations.find_answer("p0")],
    "store_answer": [lambda: operations.store_answer("q", 7, NOW)],
    "signal": [
        *[
            lambda run_id=run_id: operations.signal(run_id, "go", '{"by":"me"}', "q", NOW)
            for run_id in ("listening", "asleep", "leased", "pending", "completed", "none")
        ],
    ],
    "pause": [
        lambda: operations.pause([], "q", NOW),
        lambda: operations.pause(["pending", "leased", "listening", "completed", "none", "paused"], "q", NOW),
        lambda: operations.pause(["first"], "q", NOW),
        lambda: operations.pause(["pending", "leased", "paused", "completed", "none"], "q", NOW, held=True),
        lambda: operations.pause(["first", "second", "next 1", "holder", "crashed", "after paused"], "q", NOW),
    ],
    "resume": [
        lambda: operations.resume([], "q", NOW),
        lambda: operations.resume(["paused", "pending", "leased", "completed", "none"], "q", NOW),
        lambda: operations.resume(["paused", "pending"], "q", NOW, held=True),
    ],
    "pause_job": [lambda: operations.pause_job("job", "q", NOW), lambda: operations.pause_job("held", "q", NOW)],
    "resume_job": [lambda: operations.resume_job("job", "q", NOW), lambda: operations.resume_job("held", "q", NOW)],
    "cancel": [
        *[
            lambda run_ids=run_ids: operations.cancel(run_ids, "q", NOW)
            for run_ids in (
                [],
                ["pending"],
                ["leased"],
                ["completed"],
                ["none"],
                ["parent"],
                ["child"],
                ["holder"],
                ["first"],
                ["paused"],
                ["undoable"],
                ["undoing"],
                ["undoable", "undoing", "not undone", "leased"],
                ["parent", "child", "holder", "next 2", "failed", "none", "asleep", "listening", "crashed"],
            )
        ],
    ],
    "retry": [
        *[
            lambda run_ids=run_ids: operations.retry(run_ids, "q", NOW)
            for run_ids in (
                [],
                ["failed"],
                ["cancelled"],
                ["pending"],
                ["not undone"],
                ["none"],
                ["failed", "none", "cancelled"],
            )
        ],
    ],
    "delete_runs": [
        *[
            lambda run_ids=run_ids: operations.delete_runs(run_ids, "q", NOW)
            for run_ids in (
                [],
                ["completed"],
                ["leased"],
                ["none"],
                ["not undone", "undoing"],
                ["completed", "failed", "child", "none"],
            )
        ],
        lambda: operations.delete_runs(["completed", "failed", "leased"], "q", NOW, NOW),
        lambda: operations.delete_runs(["completed", "failed", "leased"], "q", NOW, NOW - 1),
    ],
    "outlook": [
        lambda: operations.outlook(["job", "other"], NOW),
        lambda: operations.outlook([], NOW + 10**9),
    ],
    "offer_run": [
        *[
            lambda run_id=run_id: operations.offer_run(run_id, "h", "there", NOW)
            for run_id in (
                "pending leased asleep listening holder first second delayed paused parent child crashed retrying "
                "undoing completed offered given taken none"
            ).split()
        ],
        lambda: operations.offer_run("next 1", "h", "there", NOW),
        lambda: operations.offer_run("leased", "h", "there", NOW + 100_000),
        lambda: operations.offer_run("pending", "h offered", "there", NOW),
    ],
    "settle_handover": [
        *[
            lambda run_id=run_id, given=given: operations.settle_handover(run_id, f"h {run_id}", given, NOW)
            for run_id in ("offered", "given", "taken", "pending", "none")
            for given in (True, False)
        ],
        lambda: operations.settle_handover("offered", "h", True, NOW),
        lambda: operations.settle_handover("offered", "h given", False, NOW),
    ],
    "import_run": [
        _import(run)
        for run in (
            handed_over(),
            handed_over(status="waiting", awaits='["signal:go"]', concurrency_key="none", paused=True, undos=[]),
            handed_over(
                "new", "h", taken_entry(4, 1, "run:progress", '{"current":1}'), progress='{"current":1}', signals=[]
            ),
            handed_over(concurrency_key="k", idempotency_key="fresh"),
            handed_over(idempotency_key="used"),
            handed_over(schedule="busy", scheduled_at=TICK),
            handed_over(
                "new", "h", taken_entry(4, 1, "run:undo", '{"undoing":"failed","error":"e"}'), undoing="failed"
            ),
            handed_over("declined", "h declined"),
            handed_over("completed"),
            handed_over("pending"),
            handed_over("given"),
            handed_over("taken", "h taken", job_name="held"),
            handed_over("taken", "another", job_name="held"),
            coming_back("given", "h given", concurrency_key="key of given"),
            coming_back("given", "another"),
            coming_back("given", "h given", job_name="other"),
            coming_back("offered", "h offered"),
            coming_back("new", "h given"),
        )
    ],
    "decline_handover": [
        lambda: operations.decline_handover("new", "h"),
        lambda: operations.decline_handover("declined", "h declined"),
        lambda: operations.decline_handover("taken", "h taken"),
        lambda: operations.decline_handover("taken", "another"),
    ],
    "get_run": [lambda: operations.get_run("failed", CODEC), lambda: operations.get_run("none", CODEC)],
    "get_runs": [
        lambda: operations.get_runs(Filter(), CODEC),
        lambda: operations.get_runs(ALL_FILTERS, CODEC, 2, 0),
        lambda: operations.get_runs(Filter(paused=True), CODEC),
    ],
    "find_runs": [lambda: operations.find_runs(Filter(), 10), lambda: operations.find_runs(ALL_FILTERS, 3)],
    "get_steps": [lambda: operations.get_steps("completed", CODEC), lambda: operations.get_steps("none", CODEC)],
    "get_whole": [
        *[lambda name=name: operations.get_whole(name) for name in ("completed", "leased", "undoable", "none")],
    ],
    "get_head": [
        *[lambda name=name: operations.get_head(name) for name in ("completed", "leased", "undoable", "none")],
    ],
    "get_input": [lambda: operations.get_input("completed"), lambda: operations.get_input("none")],
    "journal_page": [
        lambda: operations.journal_page("completed", 0, 2),
        lambda: operations.journal_page("completed", 2, 9),
        lambda: operations.journal_page("none", 0, 9),
    ],
    "payloads_page": [
        lambda: operations.payloads_page("leased", 0, 2),
        lambda: operations.payloads_page("leased", 2, 9),
        lambda: operations.payloads_page("none", 0, 9),
    ],
    "schedule_names": [operations.schedule_names],
    "get_logs": [lambda: operations.get_logs("completed")],
    "read_events": [
        lambda: operations.read_events(None, 0, 10, CODEC),
        lambda: operations.read_events("completed", 0, 10, CODEC),
        lambda: operations.read_events("none", 0, 10, CODEC),
    ],
    "last_seq": [operations.last_seq],
    "queue_state": [lambda: operations.queue_state(1_000), lambda: operations.queue_state(1)],
    "waiting_page": [lambda: operations.waiting_page("", 1_000), lambda: operations.waiting_page("c", 2)],
    "due_since": [lambda: operations.due_since(["leased", "none"])],
    "stats": [operations.stats, lambda: operations.stats(ALL_FILTERS)],
    "get_schedules": [operations.get_schedules, lambda: operations.get_schedules("due")],
    "next_schedules": [lambda: operations.next_schedules(2, 0), lambda: operations.next_schedules(9, NOW)],
    "next_tick": [operations.next_tick],
    "put_schedule": [
        lambda: operations.put_schedule("new", DEFINITION, NOW + 5, None, "q", NOW),
        lambda: operations.put_schedule("due", DEFINITION, NOW + 5, None, "q", NOW),
        lambda: operations.put_schedule("due", OTHER_INPUT, NOW + 5, stored("due"), "q", NOW),
        lambda: operations.put_schedule("due", OTHER_TIME, NOW + 5, stored("due"), "q", NOW),
        lambda: operations.put_schedule("due", OTHER_TIME, None, stored("due"), "q", NOW - 200),
        lambda: operations.put_schedule("due", OTHER_TIME, NOW + 5, stored("due", updated_at=1), "q", NOW),
        lambda: operations.put_schedule("resting", OTHER_TIME, NOW + 5, stored("resting"), "q", NOW),
    ],
    "pause_schedule": [
        *[lambda name=name: operations.pause_schedule(name, "q", NOW) for name in ("due", "busy", "resting", "none")],
    ],
    "resume_schedule": [
        lambda: operations.resume_schedule("resting", NOW + 5, stored("resting", updated_at=NOW - 90), "q", NOW),
        lambda: operations.resume_schedule("resting", NOW + 5, stored("resting"), "q", NOW),
        lambda: operations.resume_schedule("due", NOW + 5, stored("due"), "q", NOW),
    ],
    "remove_schedule": [
        *[lambda name=name: operations.remove_schedule(name, "q", NOW) for name in ("due", "busy", "resting", "none")],
    ],
    "trigger_schedule": [
        *[
            lambda name=name: operations.trigger_schedule(name, "new", NOW)
            for name in ("due", "busy", "lined", "resting", "none")
        ],
    ],
    "fire_schedule": [
        lambda: operations.fire_schedule(due("due"), [], NOW + 60_000, "t", NOW),
        lambda: operations.fire_schedule(due("due"), TICKS, NOW + 60_000, "t", NOW),
        lambda: operations.fire_schedule(due("due"), TICKS[:1], None, "t", NOW),
        lambda: operations.fire_schedule(due("due", TICK + 1), TICKS, NOW + 60_000, "t", NOW),
        lambda: operations.fire_schedule(due("due", updated_at=1), TICKS, NOW + 60_000, "t", NOW),
        lambda: operations.fire_schedule(due("busy"), TICKS, NOW + 60_000, "t", NOW),
        lambda: operations.fire_schedule(due("busy", TICK + 60_000), TICKS, NOW + 60_000, "t", NOW),
        lambda: operations.fire_schedule(due("lined", TICK + 60_000), TICKS, NOW + 60_000, "t", NOW),
        lambda: operations.fire_schedule(due("resting"), TICKS, NOW + 60_000, "t", NOW),
        lambda: operations.fire_schedule(due("none"), TICKS, NOW + 60_000, "t", NOW),
    ],
    "correct_schedule": [
        lambda: operations.correct_schedule(due("due"), NOW + 5),
        lambda: operations.correct_schedule(due("due", TICK + 1), NOW + 5),
    ],
}
"""What `durably_web.store.operations` exports, by name."""
