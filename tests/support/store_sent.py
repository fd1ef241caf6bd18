"""What is sent in the scene of `store_scene` beside `REGISTRY`: with what it may touch; late; and by a stale owner."""

from __future__ import annotations

from typing import Any

from durably_web.store import operations
from durably_web.store.batch import Operation
from durably_web.store.operations import Entry, JobLimits, undoing
from durably_web.store.operations.firing import ByHand, Fired
from durably_web.store.operations.handing import Offered, Settled
from durably_web.store.operations.scheduling import Changed
from durably_web.store.operations.taking import Taken
from tests.support.store_registry import CHILD, COMPLETED, KEYED_CHILD, OTHER_TIME, REFUSAL, TICKS, TOOK
from tests.support.store_scene import (
    DEFINITION,
    DONE,
    END,
    FAILURE,
    LOG,
    NOW,
    PROGRESS,
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
    taking,
    trigger,
    undo_begun,
    undone,
)

# All that a worker holds in the scene.
LEASED_BY_W1 = ("leased", "holder", "child", "few 1", "rated 1", "each rated 1")


def _asked_of(run_id: str) -> list[Operation[Any]]:
    """What is asked of a run that is not this database's, or perhaps not, and does nothing."""
    return [
        operations.cancel([run_id], "q", NOW),
        operations.retry([run_id], "q", NOW),
        operations.signal(run_id, "go", "1", "q", NOW),
        operations.pause([run_id], "q", NOW),
        operations.resume([run_id], "q", NOW),
    ]


# What is sent, and the runs and paused jobs of which it changes anything.
TOUCHED: list[tuple[Operation[Any], set[str]]] = [
    (operations.write_entries("leased", 1, [DONE, LOG, PROGRESS], '{"current":1}'), {"leased"}),
    (operations.write_entries("leased", 1, [TOOK], None), {"leased"}),
    (operations.write_entries("leased", 1, [CHILD, KEYED_CHILD], None), {"leased", "new", "new 2"}),
    (operations.finish_run("leased", 1, "completed", "7", None, [END], None, NOW), {"leased"}),
    (
        operations.finish_run("holder", 1, "completed", "7", None, [END], None, NOW, queue=("k", "job")),
        {"holder", "next 2"},
    ),
    (
        operations.finish_run("child", 1, "completed", "7", None, [END._replace(number=4)], None, NOW, parent="parent"),
        {"child", "parent"},
    ),
    (operations.suspend_run("leased", 1, [WAIT, WAITING], None, None, [("go", None)]), {"leased"}),
    (operations.release_run("holder", 1), {"holder"}),
    (operations.wake_for_network(), {"disconnected"}),
    (operations.cancel(["pending"], "q", NOW), {"pending"}),
    (operations.cancel(["parent"], "q", NOW), {"parent", "child", "grandchild"}),
    (operations.cancel(["child"], "q", NOW), {"parent", "child", "grandchild"}),
    (operations.cancel(["grandchild"], "q", NOW), {"grandchild"}),
    (operations.cancel(["holder"], "q", NOW), {"holder", "next 2"}),
    (operations.cancel(["first"], "q", NOW), {"first", "second"}),
    (operations.cancel(["undoable"], "q", NOW), {"undoable"}),
    (operations.cancel(["undoing"], "q", NOW), set()),
    (operations.delete_runs(["not undone", "undoing"], "q", NOW), {"not undone"}),
    (operations.write_entries("leased", 1, [keeping("leased"), undo_begun("leased")], None), {"leased"}),
    (operations.write_entries("undoing", 1, [undone("undoing")], None), {"undoing"}),
    (
        operations.finish_run("undoable", 1, "completed", "7", None, [COMPLETED], None, NOW + 9, queue=("u", "job")),
        {"undoable", "behind undoable"},
    ),
    (operations.cancel(["first", "second", "completed", "none"], "q", NOW), {"first", "second"}),
    (operations.retry(["failed", "completed"], "q", NOW), {"failed"}),
    (operations.delete_runs(["completed", "leased"], "q", NOW), {"completed"}),
    (operations.delete_runs(["completed", "failed"], "q", NOW, NOW - 1), set()),
    (operations.retrigger("new", "cancelled", NOW), {"new"}),
    (operations.fork("new", "leased", None, NOW), {"new"}),
    (operations.signal("listening", "go", "1", "q", NOW), {"listening"}),
    (operations.pause(["pending", "completed"], "q", NOW), {"pending"}),
    (operations.pause(["first"], "q", NOW), {"first", "second"}),
    (operations.resume(["paused", "pending"], "q", NOW), {"paused", "pending"}),
    (operations.pause_job("other", "q", NOW), {"other", "job:other"}),
    (operations.resume_job("held", "q", NOW), {"held", "job:held"}),
    (operations.store_answer("q", 1, NOW), {""}),
    (operations.store_refusals([REFUSAL, REFUSAL._replace(run_id="pending")], NOW), {"new"}),
    (operations.free_leases_of(["w1"], ["leased"]), set(LEASED_BY_W1)),
    (operations.trigger(trigger("new", key="f", coalesce=None)), set()),
    (operations.trigger(trigger("new", key="f", coalesce="skip")), {"first"}),
    (operations.trigger(trigger("new", key="f", coalesce="replace")), {"first"}),
    (operations.trigger(trigger("new", key="f", coalesce="queue")), {"new"}),
    (operations.trigger(trigger("new", key="f", coalesce="replace", idempotency_key="used")), set()),
    (operations.free_leases_of(["w9"]), set()),
    (claim(limit=1), {"forked"}),
    (claim(limit=1, by_limits=True), {"after paused"}),
    (claim(jobs=[JobLimits("held")]), set()),
    (claim(jobs=[JobLimits("held")], by_limits=True), set()),
    (operations.fire_schedule(due("due"), TICKS, NOW + 60_000, "t", NOW), {"due", "new 1"}),
    (operations.fire_schedule(due("busy", TICK + 60_000), TICKS, NOW + 60_000, "t", NOW), {"busy"}),
    (
        operations.fire_schedule(due("lined", TICK + 60_000), TICKS, NOW + 60_000, "t", NOW),
        {"lined", "new 2", "new 3"},
    ),
    (operations.fire_schedule(due("due", updated_at=1), TICKS, NOW + 60_000, "t", NOW), set()),
    (operations.fire_schedule(due("resting"), TICKS, NOW + 60_000, "t", NOW), set()),
    (operations.trigger_schedule("due", "new", NOW), {"new"}),
    (operations.trigger_schedule("busy", "new", NOW), set()),
    (operations.pause_schedule("due", "q", NOW), {"due", "schedule:due", "schedule:due/done"}),
    (operations.remove_schedule("busy", "q", NOW), {"busy", "schedule:busy", "schedule:busy/done"}),
    (operations.put_schedule("due", OTHER_TIME, 5, stored("due", updated_at=1), "q", NOW), set()),
    (operations.offer_run("crashed", "h", "there", NOW), {"crashed"}),
    (operations.offer_run("first", "h", "there", NOW), {"first", "second"}),
    (operations.offer_run("leased", "h", "there", NOW + 100_000), {"leased"}),
    *[
        (operations.offer_run(run_id, "h", "there", NOW), set[str]())
        for run_id in ("leased", "parent", "child", "grandchild", "completed", "offered", "given")
    ],
    (operations.settle_handover("offered", "h offered", True, NOW), {"offered"}),
    (operations.settle_handover("offered", "h offered", False, NOW), {"offered"}),
    (operations.settle_handover("offered", "another", True, NOW), set()),
    (operations.settle_handover("given", "h given", False, NOW), set()),
    *[(sent, set[str]()) for run_id in ("offered", "given") for sent in _asked_of(run_id)],
    (operations.import_run(handed_over(), 1, NOW), {"new"}),
    (operations.import_run(coming_back("given", "h given"), 1, NOW), {"given"}),
    *[
        (operations.import_run(run, 1, NOW), set[str]())
        for run in (
            handed_over("declined", "h declined"),
            handed_over("completed"),
            handed_over("given"),
            handed_over("taken", "h taken", job_name="held"),
            handed_over(idempotency_key="used"),
            handed_over(schedule="busy", scheduled_at=TICK),
            coming_back("given", "another"),
            coming_back("given", "h given", job_name="other"),
            coming_back("given", "h given", generation=0),
            coming_back("offered", "h offered"),
        )
    ],
    (operations.decline_handover("new", "h"), {"new"}),
    (operations.decline_handover("taken", "h taken"), set()),
    (operations.correct_schedule(due("due"), NOW + 5), {"due"}),
]


def writes_of_an_owner(run_id: str, generation: int, number: int) -> list[Operation[Any]]:
    """All that it can send, with all that can come with it, from its entry `number` on."""
    took = operations.take_signal(run_id, generation, number, "stale", 1)
    born = operations.create_child(run_id, generation, number, "stale", trigger("new", "child", labels={"a": "b"}))
    entry = Entry(number, "step:complete", "stale", "1", NOW, NOW)
    undoable, begun = keeping(run_id, number, "stale", generation), undo_begun(run_id, number, generation)
    gone, end_of_it = undone(run_id, number, "one", generation), undoing.drop_undos(run_id, generation, number)
    end, failure = (one._replace(number=number) for one in (END, FAILURE))
    finish: Any = {"queue": ("k", "job"), "parent": "parent", "empty_results": run_id != "completed"}
    return [
        operations.write_entries(run_id, generation, [entry], '{"current":9}'),
        operations.write_entries(run_id, generation, [entry._replace(effects=took)], None),
        operations.write_entries(run_id, generation, [entry._replace(effects=born)], None),
        operations.write_entries(run_id, generation, [restarting(number, generation, run_id)], None),
        operations.finish_run(run_id, generation, "completed", "7", None, [end], '{"current":9}', NOW, **finish),
        *[operations.write_entries(run_id, generation, [one], None) for one in (undoable, begun, gone)],
        operations.finish_run(
            run_id, generation, "completed", "7", None, [end._replace(effects=end_of_it)], None, NOW, **finish
        ),
        operations.finish_run(run_id, generation, "failed", None, "e", [failure], None, NOW, **finish),
        operations.suspend_run(
            run_id, generation, [entry, WAITING._replace(number=number + 1)], None, NOW, [("go", None)]
        ),
        operations.release_run(run_id, generation),
    ]


def _suspended(run_id: str, child: str) -> list[Operation[Any] | str]:
    """It goes on, and then waits for the end of another run."""
    waiting = WAITING._replace(number=6)
    return [run_id, operations.suspend_run(run_id, 2, [waiting], None, None, (), [child])]


def _born(parent: str) -> Operation[Any]:
    """A run that was cancelled and retried starts another one."""
    child = trigger("new", "child", labels={"a": "b"})
    return operations.write_entries(parent, 2, [make_child(parent, 8, "again", child, generation=2)], None)


def _took(run_id: str) -> Operation[Any]:
    """It went on, and takes the signal that it was woken for."""
    effects = operations.take_signal(run_id, 2, 6, "wait", 1)
    return operations.write_entries(run_id, 2, [Entry(6, "step:complete", "wait", "1", NOW, NOW, effects)], None)


def _undone(run_id: str) -> list[Operation[Any] | str]:
    """It was claimed after it was cancelled; its step is undone, and it ends."""
    last = Entry(7, "run:cancel", None, None, NOW, NOW)
    return [
        operations.write_entries(run_id, 2, [undone(run_id, 6, generation=2)], None),
        operations.finish_run(run_id, 2, "cancelled", None, None, [last], None, NOW),
    ]


def _failed(run_id: str) -> Operation[Any]:
    """It went on, has failed, and its step is undone."""
    entries = [undo_begun(run_id, 6, 2), undone(run_id, 7, generation=2), FAILURE._replace(number=8)]
    return operations.finish_run(run_id, 2, "failed", None, "E: e", entries, None, NOW)


def lasting(outcome: Any) -> Any:
    """What an outcome says of the request itself, not of how the runs stand by now."""
    match outcome:
        case operations.Outcome():
            return outcome.changed
        case operations.Signalled():
            return outcome.stored
        case operations.Copied():
            return outcome.made
        case operations.Switched():
            return outcome.runs
        case Offered():
            return True
        case Settled():
            return outcome.ended
        case Taken():
            return outcome.seq is not None
        case Changed():
            return outcome.done
        case ByHand():
            return outcome.made
        case Fired():
            return outcome.made
        case operations.Triggered():
            # Its entry may be gone with the run.
            return outcome.run_id, outcome.disposition
    return outcome


# The run that was made is gone again.
_DELETED: list[Operation[Any] | str] = [
    operations.cancel(["new"], "q8", NOW),
    operations.delete_runs(["new"], "q9", NOW),
]

# The schedule is another one by now.
_REPLACED: list[Operation[Any] | str] = [
    operations.remove_schedule("due", "q8", NOW),
    operations.put_schedule("due", OTHER_TIME, TICK, None, "q9", NOW),
]

# What was sent; what happened then (a run's id: it was claimed, by another worker); and it is sent again.
LATE: list[tuple[Operation[Any], list[Operation[Any] | str]]] = [
    (operations.trigger(trigger("new")), ["new", operations.cancel(["new"], "q9", NOW)]),
    *[
        (sent, _REPLACED)
        for sent in (
            operations.fire_schedule(due("due"), TICKS, NOW + 60_000, "t", NOW),
            operations.put_schedule("due", OTHER_TIME, NOW + 5, stored("due"), "q", NOW),
            operations.pause_schedule("due", "q", NOW),
            operations.remove_schedule("due", "q", NOW),
            operations.trigger_schedule("due", "new", NOW),
        )
    ],
    (
        operations.fire_schedule(due("due"), TICKS[:1], NOW + 60_000, "t", NOW),
        [operations.cancel(["new 1"], "q8", NOW), operations.delete_runs(["new 1"], "q9", NOW)],
    ),
    (operations.trigger_schedule("due", "new", NOW), _DELETED),
    (
        operations.put_schedule("new", DEFINITION, NOW + 5, None, "q", NOW),
        [operations.remove_schedule("new", "q9", NOW)],
    ),
    (
        operations.resume_schedule("resting", NOW + 5, stored("resting", updated_at=NOW - 90), "q", NOW),
        [operations.pause_schedule("resting", "q9", NOW)],
    ),
    *[
        (operations.trigger(asked), _DELETED)
        for asked in (
            trigger("new"),
            trigger("new", labels={"a": "b"}),
            trigger("new", idempotency_key="fresh"),
            trigger("new", key="none", coalesce=None),
            trigger("new", key="none", coalesce="queue"),
            trigger("new", key="none", coalesce="replace", labels={"a": "b"}),
        )
    ],
    (debounced("new", "none", 1), _DELETED),
    (operations.retrigger("new", "completed", NOW), _DELETED),
    (operations.fork("new", "completed", None, NOW), _DELETED),
    (operations.fork("new", "completed", "one", NOW), [operations.delete_runs(["completed"], "q9", NOW), *_DELETED]),
    (operations.trigger(trigger("new", key="none", coalesce=None)), ["new"]),
    (operations.trigger(trigger("new", key="f", coalesce="skip")), ["first"]),
    (operations.trigger(trigger("new", key="f", coalesce="replace")), ["first"]),
    (operations.trigger(trigger("new", key="f", coalesce="skip")), [operations.cancel(["first"], "q9", NOW)]),
    (
        operations.trigger(trigger("new", key="f", coalesce="replace", input="1")),
        [operations.trigger(trigger("newer", key="f", coalesce="replace", input="2"))],
    ),
    (debounced("new", "d", 1), [debounced("newer", "d", 2)]),
    (debounced("new", "d", 1), ["delayed"]),
    (debounced("new", "none", 1), [debounced("newer", "none", 2)]),
    (debounced("new", "none", 1), ["new"]),
    (
        operations.trigger_many(
            [
                trigger("new 1"),
                trigger("new 2", key="none", coalesce=None),
                trigger("new 3", key="f", coalesce="skip"),
                trigger("new 4", key="f", coalesce="replace", input="4"),
                trigger("new 5", key="f", coalesce="queue"),
                trigger("new 6", key="k", coalesce="skip"),
            ]
        ),
        ["new 1", "new 2", "first", operations.cancel(["first", "next 2"], "q9", NOW), "new 5"],
    ),
    (operations.retrigger("new", "completed", NOW), ["new", operations.delete_runs(["completed"], "q9", NOW)]),
    (operations.fork("new", "completed", None, NOW), ["new"]),
    (operations.cancel(["leased"], "q", NOW), [operations.retry(["leased"], "q9", NOW)]),
    (operations.cancel(["leased", "failed"], "q", NOW), [operations.retry(["leased"], "q9", NOW), "leased"]),
    (operations.cancel(["holder"], "q", NOW), [operations.retry(["holder"], "q9", NOW)]),
    (operations.cancel(["child"], "q", NOW), [operations.retry(["child"], "q9", NOW), *_suspended("parent", "child")]),
    (operations.cancel(["parent"], "q", NOW), [operations.retry(["parent"], "q9", NOW), "parent", _born("parent")]),
    (operations.cancel(["first"], "q", NOW), ["second", operations.cancel(["second"], "q9", NOW)]),
    (operations.pause(["pending"], "q", NOW), [operations.resume(["pending"], "q9", NOW)]),
    (operations.pause(["first"], "q", NOW), [operations.resume(["first"], "q9", NOW), "first"]),
    (operations.pause(["pending"], "q", NOW), [operations.cancel(["pending"], "q9", NOW)]),
    (operations.resume(["paused"], "q", NOW), [operations.pause(["paused"], "q9", NOW)]),
    (operations.resume(["paused"], "q", NOW), ["paused", operations.cancel(["paused"], "q9", NOW)]),
    (operations.store_refusals([REFUSAL], NOW), [operations.retry(["new"], "q9", NOW)]),
    (
        operations.store_refusals([REFUSAL], NOW),
        [operations.retry(["new"], "q8", NOW), operations.cancel(["new"], "q9", NOW)],
    ),
    (operations.retry(["failed"], "q", NOW), [operations.cancel(["failed"], "q9", NOW)]),
    (operations.retry(["failed", "cancelled"], "q", NOW), ["cancelled", operations.cancel(["failed"], "q9", NOW)]),
    (operations.delete_runs(["completed", "leased"], "q", NOW), [operations.delete_runs(["failed"], "q9", NOW)]),
    (operations.signal("listening", "go", "1", "q", NOW), ["listening", _took("listening")]),
    (operations.signal("listening", "go", "1", "q", NOW), _suspended("listening", "pending")),
    (
        operations.suspend_run("leased", 1, [WAIT, WAITING], None, None, [("none", None)]),
        [operations.signal("leased", "none", "1", "q9", NOW), "leased"],
    ),
    (operations.suspend_run("leased", 1, [WAIT, WAITING], None, NOW), [claim(jobs=[], now=NOW + 50_000)]),
    (
        operations.suspend_run("leased", 1, [taking(3), WAITING], None, NOW),
        ["leased", operations.write_entries("leased", 2, [restarting(6, 2)], None)],
    ),
    (
        operations.suspend_run("leased", 1, [restarting(3), WAITING], None, NOW),
        ["leased", operations.write_entries("leased", 2, [taking(6, 2), recoded(7, 2)], None)],
    ),
    (
        operations.write_entries("leased", 1, [restarting(3)], None),
        [operations.write_entries("leased", 1, [taking(4)], None)],
    ),
    (operations.suspend_run("leased", 1, [recoded(3), WAITING], None, NOW), ["leased"]),
    (operations.finish_run("holder", 1, "completed", "7", None, [END], None, NOW, queue=("k", "job")), ["next 2"]),
    (
        operations.finish_run("child", 1, "completed", "7", None, [END._replace(number=4)], None, NOW, parent="parent"),
        _suspended("parent", "pending"),
    ),
    (operations.free_leases_of(["w1"]), ["leased", "holder", "child"]),
    (operations.release_run("holder", 1), ["holder"]),
    (operations.cancel(["undoable"], "q", NOW), ["undoable"]),
    (operations.cancel(["undoable"], "q", NOW), [operations.pause(["undoable"], "q9", NOW)]),
    (
        operations.cancel(["undoable"], "q", NOW),
        ["undoable", *_undone("undoable"), operations.retry(["undoable"], "q9", NOW)],
    ),
    (operations.suspend_run("leased", 1, [keeping("leased"), WAITING], None, NOW), ["leased", _failed("leased")]),
    (
        operations.write_entries("leased", 1, [keeping("leased")], None),
        [operations.write_entries("leased", 1, [undo_begun("leased"), undone("leased")], None)],
    ),
    # It is withdrawn, or given and comes back, and goes on here.
    (
        operations.offer_run("crashed", "h", "there", NOW),
        [operations.settle_handover("crashed", "h", False, NOW), "crashed"],
    ),
    (operations.offer_run("first", "h", "there", NOW), [operations.settle_handover("first", "h", False, NOW)]),
    (
        operations.settle_handover("offered", "h offered", True, NOW),
        [
            operations.import_run(coming_back("offered", "h offered", concurrency_key="key of offered"), 1, NOW),
            "offered",
        ],
    ),
    (
        operations.settle_handover("offered", "h offered", False, NOW),
        [operations.offer_run("offered", "h", "there", NOW), operations.settle_handover("offered", "h", True, NOW)],
    ),
    # What was taken goes on here, is given away, is deleted.
    (operations.import_run(handed_over(), 1, NOW), ["new"]),
    (operations.import_run(handed_over(undos=[]), 1, NOW), [operations.cancel(["new"], "q9", NOW)]),
    (
        operations.import_run(handed_over(), 1, NOW),
        [operations.offer_run("new", "h2", "there", NOW), operations.settle_handover("new", "h2", True, NOW)],
    ),
    (
        operations.import_run(coming_back("given", "h given"), 1, NOW),
        [operations.offer_run("given", "h2", "there", NOW), operations.settle_handover("given", "h2", True, NOW)],
    ),
    (operations.retry(["not undone"], "q", NOW), ["not undone", operations.cancel(["not undone"], "q9", NOW)]),
]
