"""What must hold of every database at every moment, whatever happened to those who wrote it.

The model is the journal: each run is folded from its entries, and its row must say the same.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast

from durably_web.records import undone_by
from durably_web.store.batch import Batch, Executor, Row, Statement
from tests.support.catalog import integrity

_RUNS = """
SELECT id, status, output, error, labels, progress, attempt, generation, started_at, completed_at,
       concurrency_key, wake_at, blocked, holds_key, forked_from, undoing, restarted,
       lease_owner, lease_token, lease_expires_at, awaits
FROM durably_runs ORDER BY id
"""
_ENTRIES = "SELECT run_id, number, seq, generation, type, step_name, data FROM durably_journal ORDER BY run_id, number"
_SIGNALS = "SELECT run_id, name, step_name, number FROM durably_signals ORDER BY run_id, number"
_UNDOS = "SELECT run_id, number, step_name FROM durably_undos ORDER BY run_id, number"
_LABELS = "SELECT run_id, key, value FROM durably_labels ORDER BY run_id, key"

# An entry about the run itself: the statuses that it may follow, and the one that it leads to. A lease that was given
# back or ran out, and a wait that is over, make a run pending without an entry.
_CHANGES = {
    "run:trigger": ((None,), "pending"),
    "run:coalesced": (("pending",), "pending"),
    "run:leased": (("pending", "leased", "waiting"), "leased"),
    "run:waiting": (("leased",), "waiting"),
    "run:complete": (("leased",), "completed"),
    # Without a lease only where the job's code is not asked any more.
    "run:fail": (("leased", "pending", "waiting"), "failed"),
    "run:cancel": (("pending", "leased", "waiting"), "cancelled"),
    # It fails, and its lease goes on; or it was cancelled, and then it has none.
    "run:undo": (("leased", "pending", "waiting"), ""),
    # By a user, of a run that has ended; by the job's own policy, of one that would end now.
    "run:retry": (("failed", "cancelled", "leased"), "pending"),
}
_LEASED_ONLY = {
    "step:complete", "step:fail", "step:retry", "step:wait", "step:unasked", "log:write", "run:progress",
    "run:complete", "run:code-changed", "run:restart", "run:patched",
}  # fmt: skip
_TERMINAL = ("completed", "failed", "cancelled")


async def check_invariants(executor: Executor) -> None:
    """Raises `AssertionError` at the first thing that is wrong with the database behind an open executor."""
    damages = await integrity(executor)
    assert not damages, f"the database is damaged: {damages}"
    asked = (_RUNS, _ENTRIES, _LABELS, _SIGNALS, _UNDOS)
    runs, entries, labels, signals, undos = await executor.run(Batch("read", tuple(Statement(sql) for sql in asked)))
    journals: dict[str, list[Row]] = {}
    for row in entries:
        journals.setdefault(cast(str, row[0]), []).append(row)
    label_rows: dict[str, dict[str, str]] = {}
    for run_id, key, value in cast("list[tuple[str, str, str]]", labels):
        label_rows.setdefault(run_id, {})[key] = value
    results = {(row[0], row[5]) for row in entries if row[4] == "step:complete"}
    _check_signals(signals, {row[0] for row in runs}, results)
    undo_rows: dict[str, dict[int, str]] = {}
    for run_id, number, step in cast("list[tuple[str, int, str]]", undos):
        undo_rows.setdefault(run_id, {})[number] = step
    for row in runs:
        run_id = cast(str, row[0])
        _check_run(row, journals.pop(run_id, []), label_rows.pop(run_id, {}), undo_rows.pop(run_id, {}))
    assert not undo_rows, f"what can be undone of no run: {undo_rows}"
    for run_id, journal in journals.items():
        types = [row[4] for row in journal]
        assert types == ["run:delete"], f"run {run_id} is gone, and left behind {types}"
    assert not label_rows, f"labels of no run: {label_rows}"


def _check_signals(signals: list[Row], runs: set[Any], results: set[Any]) -> None:
    takers: set[Any] = set()
    for run_id, name, taker, number in cast("list[tuple[Any, ...]]", signals):
        where = f"signal {number} ({name}) of run {run_id}"
        assert run_id in runs, f"{where}: there is no such run"
        if taker is not None:
            assert (run_id, taker) in results, f"{where}: {taker}, which took it, has no result"
            assert (run_id, taker) not in takers, f"{where}: {taker} took another one too"
            takers.add((run_id, taker))


def _check_run(row: Row, journal: list[Row], labels: dict[str, str], undos: dict[int, str]) -> None:
    (id_, status, output, error, own_labels, progress, attempt, generation, started, completed, *more) = cast(
        "tuple[Any, ...]", row
    )
    key, wake_at, blocked, holds_key, forked_from, undoing, restarted, *lease, awaits = more
    story = f"run {id_}: {[(number, type_, step) for _, number, _, _, type_, step, _ in journal]}"
    numbers = [entry[1] for entry in journal]
    assert numbers == list(range(1, len(journal) + 1)), f"numbers are not dense in {story}"
    seqs = [cast(int, entry[2]) for entry in journal]
    assert seqs == sorted(set(seqs)), f"seqs do not grow in {story}"

    model = _Model(story, forked_from is not None)
    for entry in journal:
        model.add(*cast("tuple[Any, ...]", entry[1:]))
    # A lease that was given back or ran out, and a wait that is over, leave no entry.
    assert status == model.status or (status == "pending" and model.status in ("leased", "waiting")), (
        f"{status}, not {model.status}: {story}"
    )
    assert restarted == model.restarted, f"restarted by {restarted}, not {model.restarted}: {story}"
    leases = model.leases
    assert attempt == generation == leases, f"attempt {attempt}, generation {generation}, {leases} leases in {story}"
    assert (output is not None) == (status == "completed"), f"output {output!r} while {status}: {story}"
    # That of a cancelled one says what could not be undone.
    assert (error is not None) == (status == "failed") or status == "cancelled", f"error {error!r}, {status}: {story}"
    assert undoing == model.undoing, f"{undoing=}, not {model.undoing}: {story}"
    _check_undos(status, error, undos, model, story)
    assert (completed is not None) == (status in _TERMINAL), f"ended at {completed}: {story}"
    assert (started is not None) == model.begun, f"started at {started} with {leases} leases: {story}"
    # A delay, or a wait; a run that is due, is executed or has ended waits for no moment.
    open_handover = [f"handover:{model.handover}"] if model.handover is not None else []
    if open_handover or "handover:" in (awaits or ""):
        assert json.loads(awaits) == open_handover and wake_at is None, f"{awaits=}, {open_handover}: {story}"
        assert status == "waiting", f"offered while {status}: {story}"
    assert wake_at is None or status == "waiting" or (status == "pending" and leases == 0), f"{wake_at=}: {story}"
    assert not holds_key or (key is not None and leases > 0 and status not in _TERMINAL), f"{holds_key=}: {story}"
    assert not blocked or (key is not None and not holds_key), f"{blocked=}: {story}"
    assert all((value is not None) == (status == "leased") for value in lease), f"lease {lease} while {status}: {story}"
    assert (None if progress is None else json.loads(progress)) == model.progress, f"progress {progress}: {story}"
    assert json.loads(own_labels) == labels, f"labels {own_labels}, and {labels} to search by: {story}"


def _check_undos(status: str, error: str | None, undos: dict[int, str], model: _Model, story: str) -> None:
    assert status != "completed" or not undos, f"completed, and {undos} can be undone: {story}"
    for number, step in undos.items():
        assert model.results.get(step) == number, f"{step} can be undone, and has no result {number}: {story}"
        told = status not in _TERMINAL or (error is not None and step in error.partition("not undone: ")[2])
        assert told, f"{step} was not undone, and {error!r} does not say so: {story}"


class _Model:
    """What a run's entries, one after another, say about it."""

    def __init__(self, story: str, is_fork: bool) -> None:
        self.status: str | None = None
        self.leases = 0
        # There was a lease since the run was triggered, or was retried by a user.
        self.begun = False
        self.progress: Any = None
        self._story = story
        # Results that a fork was given come right behind its trigger, and nobody's lease wrote them.
        self._copied = is_fork
        self.undoing: str | None = None
        # The number of each result that counts.
        self.results: dict[str, int] = {}
        self._failed: set[str] = set()
        self._waiting: set[str] = set()
        self._offline: dict[str, int] = {}
        self._retried: Counter[str] = Counter()
        self._patches: dict[str, bool] = {}
        self._unasked: set[tuple[str | None, str]] = set()
        self.restarted = 0
        # The id of the one that is open.
        self.handover: str | None = None
        self._last_handover: Any = None
        self._undoing_given: str | None = None

    def add(self, number: int, _: int, generation: int, type_: str, step_name: str, data: str | None) -> None:
        where = f"entry {number} ({type_}) in {self._story}"
        detail: Any = json.loads(data) if data is not None else None
        if type_ == "run:leased":
            self.leases += 1
            self.begun = True
        assert generation == self.leases, f"generation {generation} under lease {self.leases}: {where}"
        self._copied = self._copied and type_ in ("run:trigger", "step:complete", "run:patched")
        if type_ == "run:handover":
            self._hand_over(detail, where)
            return
        assert self.handover is None, f"while it is offered: {where}"
        if self._last_handover == "given":
            # It came back: what follows was taken elsewhere.
            self.status, self.undoing, self._last_handover = "waiting", self._undoing_given, None
        if type_ in _LEASED_ONLY and not self._copied:
            assert self.status == "leased", f"without a lease: {where}"
        if type_.startswith("step:"):
            self._add_step(number, type_, step_name, detail, where)
        elif type_ == "run:progress":
            self.progress = detail
        elif type_ == "run:restart":
            self.restarted = number
            for forgotten in (self.results, self._failed, self._waiting, self._offline, self._retried, self._patches):
                forgotten.clear()
            self._unasked.clear()
        elif type_ == "run:patched":
            assert detail["name"] not in self._patches, f"answered a second time: {where}"
            self._patches[detail["name"]] = detail["patched"]
        if type_ in _CHANGES:
            allowed, after = _CHANGES[type_]
            assert self.status in allowed, f"after the status {self.status}: {where}"
            if type_ == "run:undo":
                assert self.undoing is None and detail is not None, f"it is undone already: {where}"
                self.undoing = detail["undoing"]
                after = "leased" if self.undoing == "failed" else "pending"
            self._change(number, type_, detail, where)
            self.status = "waiting" if type_ == "run:retry" and self.status == "leased" else after
            if self.status in _TERMINAL:
                assert self.undoing in (None, self.status), f"undone to be {self.undoing}: {where}"
                self.undoing = None

    def _hand_over(self, detail: Any, where: str) -> None:
        state, handover = detail["state"], detail["handover"]
        if state == "offered":
            if self._last_handover == "given":
                self.status, self.undoing = "waiting", self._undoing_given
            assert self.handover is None and self.status in ("pending", "leased", "waiting"), f"{self.status}: {where}"
            self.handover, self.status = handover, "waiting"
        else:
            assert self.handover == handover, f"{self.handover} is open: {where}"
            self.handover, self.status = None, "cancelled" if state == "given" else "waiting"
            if state == "given":
                self.undoing, self._undoing_given = None, self.undoing
        self._last_handover = state

    def _add_step(self, number: int, type_: str, name: str, detail: Any, where: str) -> None:
        if type_ == "step:unasked":
            assert (name, str(detail)) not in self._unasked, f"told a second time: {where}"
            self._unasked.add((name, str(detail)))
            stored = {*self.results, *self._failed, *self._waiting, *self._retried, *self._offline}
            patch = "" if detail is None else detail["patch"]
            assert name in stored or self._patches.get(patch) is False, f"not stored: {where}"
            return
        known = name in self.results or name in self._failed
        assert not known, f"step {name} has a result already: {where}"
        undone = undone_by(name)
        assert (undone is None) is (self.undoing is None), f"while it is undone ({self.undoing}): {where}"
        assert undone is None or undone in self.results, f"step {undone} has no result: {where}"
        if type_ == "step:wait" and "network" in detail:
            # With each attempt that did not count; or before the first of them.
            failed = self._offline.get(name)
            expected = [(failed or 0) + 1] if failed is not None else [0, 1]
            assert detail["network"] in expected, f"not {expected}: {where}"
            assert ("error" in detail) is (detail["network"] > 0), f"an attempt fails with an error: {where}"
            self._offline[name] = detail["network"]
        elif type_ == "step:wait":
            assert name not in self._waiting, f"step {name} waits already: {where}"
            self._waiting.add(name)
        elif type_ == "step:retry":
            self._retried[name] += 1
            self._offline.pop(name, None)
            assert detail["attempt"] == self._retried[name], f"attempt {detail['attempt']} of {self._retried}: {where}"
        elif type_ == "step:complete":
            if undone is None:
                self.results[name] = number
            else:
                del self.results[undone]
        elif type_ == "step:fail":
            self._failed.add(name)

    def _change(self, number: int, type_: str, detail: Any, where: str) -> None:
        if type_ == "run:coalesced":
            assert self.leases == 0, f"after a lease: {where}"
        elif type_ == "run:fail" and self.status != "leased":
            allowed = ("PoisonRun: ", "TimeoutError: the run took longer")
            # Or it was refused before it could begin.
            refused = number == 2 and self.leases == 0
            assert refused or detail["error"].startswith(allowed), f"without a lease: {where}"
        elif type_ == "run:retry":
            self.begun = self.begun and self.status == "leased"
            self._failed.clear()
            self._waiting.clear()
            self._offline.clear()
            self._retried.clear()


async def results_of(executor: Executor, run_id: str) -> Counter[str]:
    """How often each step of a run has a stored result."""
    sql = "SELECT step_name FROM durably_journal WHERE run_id = ? AND type = 'step:complete'"
    [found] = await executor.run(Batch("read", (Statement(sql, (run_id,)),)))
    return Counter(cast(str, row[0]) for row in found)
