"""Pairs of operations that meet on PostgreSQL: what has happened before, and what must be true of what they come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from durably_web.store import operations
from durably_web.store.batch import Operation
from durably_web.store.operations import JobLimits
from tests.support.store_scene import (
    DONE,
    END,
    FEW,
    NOW,
    PROGRESS,
    RATED,
    WAIT,
    WAITING,
    claim,
    debounced,
    make_child,
    trigger,
)

JOBS = [JobLimits("job"), JobLimits("other"), JobLimits("child")]
LIMITS = [*JOBS, FEW, RATED]
LATE: dict[str, Any] = {"now": NOW + 100_000, "expires_at": NOW + 130_000, "executing": []}

Scene = Sequence[Operation[Any]]
Judge = Callable[[Any, Any], None]


class Pair(NamedTuple):
    """What has happened; two operations; what must be true of their results, in whatever order they came; and what is
    in the end of runs that are not completed."""

    scene: Scene
    one: Operation[Any]
    other: Operation[Any]
    judge: Judge = lambda one, other: None
    left: dict[str, str] = {}  # noqa: RUF012


def _begun(run_id: str, job: str = "job", key: str | None = None, **options: Any) -> list[Operation[Any]]:
    return [operations.trigger(trigger(run_id, job, key, **options)), _leased(run_id, job)]


def _leased(run_id: str, job: str) -> Operation[Any]:
    limits = [limit for limit in LIMITS if limit.name == job]
    moments = {"now": NOW - 90, "expires_at": NOW + 60_000, "executing": []}
    return claim(owner="w1", token=f"t-{run_id}", jobs=limits, limit=1, by_limits=True, **moments)


def _taking(worker: str, limit: int = 2, by_limits: bool = False, **changes: Any) -> Operation[Any]:
    return claim(
        owner=worker,
        token=f"t-{worker}",
        jobs=LIMITS if by_limits else JOBS,
        limit=limit,
        by_limits=by_limits,
        **{"executing": [], **changes},
    )


def _ending(run_id: str, number: int = 3, **options: Any) -> Operation[Any]:
    end = END._replace(number=number)
    return operations.finish_run(run_id, 1, "completed", "7", None, [end], None, NOW + 9, **options)


def runs(*names: str, **options: Any) -> list[Operation[Any]]:
    return [operations.trigger(trigger(name, **options)) for name in names]


def _disjoint(one: Any, other: Any) -> None:
    first, second = ({lease.run_id for lease in claimed.leases} for claimed in (one, other))
    assert not first & second, f"both have {first & second}"


def _same(one: Any, other: Any) -> None:
    assert {lease.run_id for lease in one.leases} == {lease.run_id for lease in other.leases} != set()


def _kept(written: Any, claimed: Any) -> None:
    """What was acknowledged is known to who executes the run next, and nothing else is."""
    for lease in claimed.leases:
        steps = [entry.step_name for entry in lease.entries if entry.type == "step:complete"]
        assert steps == (["one"] if written is not None else []), f"{written=}, and then {steps}"


def _either(ended: Any, claimed: Any) -> None:
    assert (ended is None) == bool(claimed.leases), f"{ended=}, {claimed.leases}"


def _one_run(one: Any, other: Any) -> None:
    assert one.run_id == other.run_id and sorted([one.disposition, other.disposition]) == ["created", "idempotent"]


def _coalesced(one: Any, other: Any) -> None:
    made = [triggered.run_id for triggered in (one, other) if triggered.disposition == "created"]
    assert len(made) == 1 and one.run_id == other.run_id == made[0], (one, other)


def _one_refused(one: Any, other: Any) -> None:
    assert sorted([one.disposition or "", other.disposition or ""]) == ["", "created"], (one, other)


def _both_stored(one: Any, other: Any) -> None:
    assert one.stored and other.stored, (one, other)


def asked(run_id: str, **options: Any) -> Operation[Any]:
    return operations.trigger(trigger(run_id, **{"now": NOW, **options}))


_CALLING = [
    *_begun("parent"),
    operations.write_entries(
        "parent", 1, [make_child("parent", 3, "call", trigger("kid", "child"), "step:wait")], None
    ),
    _leased("kid", "child"),
]
_WAITING_FOR_KID = operations.suspend_run("parent", 1, [WAITING], None, None, (), ["kid"])
_TWO_KIDS = [
    *_begun("parent"),
    operations.write_entries(
        "parent",
        1,
        [
            make_child("parent", 3, "call", trigger("kid", "child"), "step:wait"),
            make_child("parent", 4, "call#2", trigger("kid 2", "child"), "step:wait"),
        ],
        None,
    ),
    _leased("kid", "child"),
    _leased("kid 2", "child"),
    operations.suspend_run("parent", 1, [WAITING._replace(number=5)], None, None, (), ["kid", "kid 2"]),
]
_HOLDER_ENDS = _ending("holder", queue=("k", "job"))
_LINE = [*_begun("holder", key="k"), *runs("next", key="k")]
_LISTENING = operations.suspend_run("run", 1, [WAIT, WAITING], None, None, [("go", None)])
_GO = operations.signal("run", "go", "1", "q1", NOW)
_ASLEEP = [*_begun("run"), operations.suspend_run("run", 1, [WAIT, WAITING], None, NOW - 5, [("go", None)])]
_PAUSED = {"run": "pending"}
_WRITTEN = operations.write_entries("run", 1, [DONE, PROGRESS._replace(number=4)], '{"current":1}')
_STEP = operations.write_entries("run", 1, [DONE], None)
_KEYED_CHILD = make_child("run", 3, "sub", trigger("kid", key="k", coalesce=None))

PAIRS: dict[str, Pair] = {
    "claim claim": Pair(runs("a", "b", "c"), _taking("w2"), _taking("w3"), _disjoint),
    "claim claim of due ones": Pair(
        [*runs("a", "b", run_at=NOW - 50, now=NOW - 100), *runs("c")], _taking("w2"), _taking("w3"), _disjoint
    ),
    "claim itself": Pair(runs("a", "b", "c"), _taking("w2", 1), _taking("w2", 1), _same),
    "claims by limits": Pair(
        [
            *runs("a 1", "a 2", key="a"),
            *runs("b 1", "b 2", job_name="few"),
            *runs("c 1", "c 2", job_name="rated"),
            *runs("d"),
        ],
        _taking("w2", 9, True),
        _taking("w3", 9, True),
        _disjoint,
    ),
    "claims of one key by two jobs": Pair(
        [*runs("a", key="k"), *runs("b", key="k", job_name="other")],
        claim(owner="w2", token="t2", jobs=[JobLimits("job")], by_limits=True, executing=[]),
        claim(owner="w3", token="t3", jobs=[JobLimits("other")], by_limits=True, executing=[]),
        _disjoint,
    ),
    "claim and claim by limits": Pair(runs("a", "b", "c"), _taking("w2"), _taking("w3", 2, True), _disjoint),
    "claim by limits of due ones and end": Pair(
        [*_begun("holder", key="k"), *runs("x", "y", key="k", run_at=NOW - 50)],
        _taking("w2", 2, True),
        _HOLDER_ENDS,
    ),
    "trigger in line and end": Pair(_begun("holder", key="k"), asked("new", key="k"), _HOLDER_ENDS),
    "triggers in many lines and end": Pair(
        _begun("holder", key="k"),
        operations.trigger_many([trigger(f"new {key}", key=key, now=NOW, coalesce="skip") for key in "abkcd"]),
        _HOLDER_ENDS,
    ),
    "trigger behind one in line and end": Pair(_LINE, asked("new", key="k"), _HOLDER_ENDS),
    "child in line and end": Pair(
        [*_begun("holder", key="k"), *_begun("run", "other")],
        operations.write_entries("run", 1, [_KEYED_CHILD], None),
        _HOLDER_ENDS,
    ),
    "coalescing trigger and claim": Pair(
        runs("first", key="k"), asked("new", key="k", coalesce="replace"), _taking("w2", 2, True)
    ),
    "skipping trigger and end": Pair(_LINE, asked("new", key="k", coalesce="skip"), _HOLDER_ENDS),
    "put off and claim": Pair([debounced("first", "k", -30_000)], debounced("new", "k", 1), _taking("w2", 2, True)),
    "put off and plain claim": Pair([debounced("first", "k", -30_000)], debounced("new", "k", 1), _taking("w2", 2)),
    "put off and trigger in line": Pair(
        [debounced("first", "k", -30_000), claim(jobs=[], token="t5")],
        debounced("new", "k", 1),
        asked("behind", key="k"),
    ),
    "triggers with one idempotency key": Pair(
        [], asked("a", idempotency_key="i"), asked("b", idempotency_key="i"), _one_run
    ),
    "triggers with one idempotency key, in line": Pair(
        [], asked("a", idempotency_key="i", key="k"), asked("b", idempotency_key="i"), _one_run
    ),
    "triggers in line": Pair([], asked("a", key="k"), asked("b", key="k")),
    "triggers that refuse": Pair(
        [], asked("a", key="k", coalesce=None), asked("b", key="k", coalesce=None), _one_refused
    ),
    "triggers that skip": Pair(
        [], asked("a", key="k", coalesce="skip"), asked("b", key="k", coalesce="skip"), _coalesced
    ),
    "triggers that replace": Pair(
        runs("first", key="k"), asked("a", key="k", coalesce="replace"), asked("b", key="k", coalesce="replace")
    ),
    "a trigger itself": Pair([], asked("a", key="k"), asked("a", key="k")),
    "wait for a child, and its end": Pair(_CALLING, _WAITING_FOR_KID, _ending("kid", parent="parent")),
    "ends of two children": Pair(_TWO_KIDS, _ending("kid", parent="parent"), _ending("kid 2", parent="parent")),
    "wait for a signal, and it": Pair(_begun("run"), _LISTENING, _GO),
    "signals": Pair(_begun("run"), _GO, operations.signal("run", "go", "2", "q2", NOW), _both_stored),
    "a signal itself": Pair(_begun("run"), _GO, _GO, _both_stored),
    "signal and claim of due ones": Pair(_ASLEEP, _GO, _taking("w2")),
    "signal and end": Pair(_begun("run"), _GO, _ending("run")),
    "claim and pause": Pair(runs("run"), _taking("w2"), operations.pause(["run"], "q", NOW), left=_PAUSED),
    "claim by limits and pause": Pair(
        [*runs("run", key="k"), *runs("next", key="k")],
        _taking("w2", 2, True),
        operations.pause(["run"], "q", NOW),
        left=_PAUSED,
    ),
    "write and claim of the expired": Pair(_begun("run"), _WRITTEN, _taking("w2", **LATE), _kept),
    "step and claim of the expired": Pair(_begun("run"), _STEP, _taking("w2", **LATE), _kept),
    "write and claim by limits of the expired": Pair(_begun("run"), _WRITTEN, _taking("w2", 2, True, **LATE), _kept),
    "end and claim of the expired": Pair(_begun("run"), _ending("run"), _taking("w2", **LATE), _either),
    "wait and claim of the expired": Pair(
        _begun("run"), _LISTENING, _taking("w2", **LATE), _either, {"run": "waiting"}
    ),
    "release and claim of the expired": Pair(_begun("run"), operations.release_run("run", 1), _taking("w2", **LATE)),
    "renewal and claim of the expired": Pair(
        _begun("run"),
        operations.renew_leases([("run", 1)], NOW + 300_000),
        _taking("w2", **LATE),
        lambda renewed, claimed: None,
    ),
    "claims of the expired": Pair(_begun("run"), _taking("w2", **LATE), _taking("w3", **LATE), _disjoint),
    "write and cancel": Pair(_begun("run"), _WRITTEN, operations.cancel(["run"], "q", NOW), left={"run": "cancelled"}),
    "wait for a child that is cancelled": Pair(
        _CALLING, _WAITING_FOR_KID, operations.cancel(["kid"], "q", NOW), left={"kid": "cancelled"}
    ),
}

_BOTH = [*_begun("run"), *_begun("another", "other", "k"), *runs("a")]
_OF_ANOTHER = operations.write_entries("another", 1, [DONE], None)

SIDE_BY_SIDE: dict[str, Pair] = {
    "writes": Pair(_BOTH, _WRITTEN, _OF_ANOTHER),
    "ends": Pair(_BOTH, _ending("run"), _ending("another", queue=("k", "other"))),
    "triggers": Pair([], asked("a"), asked("b")),
    "triggers of two keys": Pair([], asked("a", key="a"), asked("b", key="b")),
    "trigger and write": Pair(_BOTH, asked("b", idempotency_key="b"), _WRITTEN),
    "claim and write": Pair(_BOTH, _taking("w2"), _WRITTEN),
    "claim by limits and write": Pair(_BOTH, _taking("w2", 2, True), _WRITTEN),
    "claims": Pair(runs("a", "b", "c"), _taking("w2", 1), _taking("w3", 1)),
    "claim of the expired and its owner's write": Pair(_begun("run"), _WRITTEN, _taking("w2", **LATE)),
    "renewals": Pair(_BOTH, operations.renew_leases([("run", 1)], NOW + 300_000), _OF_ANOTHER),
    "signal and write": Pair(_BOTH, _GO, _OF_ANOTHER),
}
