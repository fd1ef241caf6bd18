"""What jobs and callers were told: from then on it must be true for ever."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.simulation.loop import EPOCH, PROCESS
from tests.simulation.model import Model, RunModel
from tests.simulation.trace import Trace


class Ledger:
    """Written by the jobs themselves and by their callers, and compared with the model at once."""

    def __init__(self, model: Model, trace: Trace) -> None:
        self.model = model
        self.trace = trace
        self.made = 0
        self.begun: Counter[tuple[str, str]] = Counter()
        self.undos_begun: Counter[tuple[str, str]] = Counter()
        # Of what was undone there is another result later.
        self.results: dict[tuple[str, str, int], Any] = {}
        self.failures: set[tuple[str, str, int]] = set()
        self.acknowledged: dict[str, Counter[str]] = {}
        self.idempotent: dict[tuple[str, str], str] = {}
        self.to_delete: set[str] = set()
        self.purged = False
        # (run, signal) → payloads that were sent, and those whose sending was acknowledged, by when.
        self.sent: dict[tuple[str, str], set[str]] = {}
        self.signalled: dict[tuple[str, str], dict[str, float]] = {}
        self.received: dict[tuple[str, str], dict[str, str]] = {}

    # -- jobs --------------------------------------------------------------------------------------------

    def begin(self, run_id: str, key: str, in_thread: bool = False) -> int:
        """A step's function is called; tells for the how-many-eth time."""
        process = PROCESS.get()
        assert process is not None
        run = self.model.runs[run_id]
        self.begun[run_id, key] += 1
        self.trace.count("step functions called")
        self.trace.say(process.name, f"begins {run_id[-6:]}/{key}, time {self.begun[run_id, key]}")
        stored = run.results.get(key)
        if stored is not None and not run.deleted:
            self.trace.count("stale executions")
            current = run.status == "leased" and self.model.is_owner(run, process)
            told = (run_id, key, run.undone[key]) in {**self.results, **dict.fromkeys(self.failures)}
            self.trace.check(
                not current and (not told or in_thread or self._may_not_know(run)),
                f"{process.name} begins {key} of run {run_id} again, which has {stored}",
            )
        return self.begun[run_id, key]

    def _may_not_know(self, run: RunModel) -> bool:
        """An owner that time alone makes a former one can tell; not one that a user took the run away from."""
        return self.model.clocks_jump or run.seen["run:cancel"] > 0 or run.seen["run:retry"] > 0

    def unique(self, key: str) -> str:
        """A value that no other execution gives."""
        self.made += 1
        return f"{key} gave {self.made}"

    def given(self, run_id: str, key: str, value: Any) -> None:
        """A job got a step's value."""
        self.trace.count("results given")
        run = self.model.runs[run_id]
        plain = json.loads(json.dumps(value))
        known = ("step:complete", plain) in run.ever.get(key, ())
        self.trace.check(known, f"run {run_id} was given {value!r} by {key}, and stored {run.ever.get(key)}")
        process = PROCESS.get()
        if run.undone[key] and run.results.get(key) != ("step:complete", plain):
            # Only whoever does not know that the run is another's by now, or who looks how it is undone.
            current = process is not None and run.status == "leased" and self.model.is_owner(run, process)
            self.trace.check(
                not current or run.undoing is not None, f"run {run_id} was given {value!r} by {key}, which is undone"
            )
            return
        before = self.results.setdefault((run_id, key, run.undone[key]), plain)
        self.trace.check(before == plain, f"run {run_id} was given {before!r} by {key}, and then {value!r}")

    def failed(self, run_id: str, key: str, error: Exception) -> None:
        """A job got a step's failure."""
        self.trace.count("failures given")
        run = self.model.runs[run_id]
        known = [data for type_, data in run.ever.get(key, ()) if type_ == "step:fail"]
        matches = any(str(error) in data.get("message", data["error"]) for data in known)
        self.trace.check(matches, f"run {run_id} was given {error!r} by {key}, and stored {known}")
        self.failures.add((run_id, key, run.undone[key]))

    def undoable(self, run_id: str, keys: list[str]) -> None:
        """A job is about to ask for these steps, which can be undone."""
        self.model.undoable.update((run_id, key) for key in keys)

    def undo(self, run_id: str, value: str, in_thread: bool = False) -> int:
        """The undo of a result is called; tells for the how-many-eth time."""
        process = PROCESS.get()
        assert process is not None
        self.trace.count("undos called")
        run, key = self.model.runs[run_id], value.partition(" gave ")[0]
        self.undos_begun[run_id, value] += 1
        self.trace.say(process.name, f"undoes {run_id[-6:]}/{key}, time {self.undos_begun[run_id, value]}")
        known = ("step:complete", value) in run.ever.get(key, ())
        self.trace.check(known, f"run {run_id} undoes {value!r}, and stored {run.ever.get(key)}")
        if not in_thread and run.status == "leased" and self.model.is_owner(run, process) and not run.deleted:
            self.trace.check(
                run.undoing is not None and run.next_undo == key and run.results.get(key) == ("step:complete", value),
                f"run {run_id} undoes {key} while {run.undoing}, and the next is {run.next_undo}",
            )
        return self.undos_begun[run_id, value]

    # -- callers -----------------------------------------------------------------------------------------

    def triggered(self, run_id: str, job: str, key: str | None, disposition: str) -> None:
        self.trace.count(f"triggers acknowledged ({disposition})")
        self.trace.check(run_id in self.model.runs, f"run {run_id} was acknowledged ({disposition}) and is not stored")
        # One that was coalesced with an earlier run leaves its key unused.
        if key is not None and disposition != "coalesced":
            first = self.idempotent.setdefault((job, key), run_id)
            same = first == run_id or self.model.runs[first].deleted
            self.trace.check(same, f"key {key!r} gave run {first}, and then {run_id}")
            self.idempotent[job, key] = run_id

    def done(self, run_id: str, what: str) -> None:
        """A request about a run was acknowledged; each of them has an entry of its own."""
        self.trace.count(f"{what} acknowledged")
        counts = self.acknowledged.setdefault(run_id, Counter())
        counts[what] += 1
        found = self.model.runs[run_id].seen[what]
        gone = self.model.runs[run_id].deleted
        self.trace.check(gone or found >= counts[what], f"{counts[what]} times {what} of run {run_id}, {found} entries")

    # -- signals -----------------------------------------------------------------------------------------

    def sending(self, run_id: str, name: str, payload: str) -> None:
        self.sent.setdefault((run_id, name), set()).add(payload)

    def signal_acknowledged(self, run_id: str, name: str, payload: str, now: float) -> None:
        self.trace.count("signals acknowledged")
        self.signalled.setdefault((run_id, name), {})[payload] = now

    def signal_received(self, run_id: str, name: str, key: str, payload: str) -> None:
        self.trace.count("signals received")
        known = payload in self.sent.get((run_id, name), ()) or self.model.runs[run_id].row["forked_from"] is not None
        self.trace.check(known, f"run {run_id} got {payload!r} for {name}, which nobody sent")
        by = self.received.setdefault((run_id, name), {}).setdefault(payload, key)
        self.trace.check(by == key, f"signal {payload!r} of run {run_id} was given to {by} and to {key}")

    def signal_missed(self, run_id: str, name: str, key: str) -> None:
        """A wait came to its time-out: a signal that was sent before counts, whoever was alive then."""
        self.trace.count("signals timed out")
        run = self.model.runs[run_id]
        until = run.limits.get(key)
        if self.model.clocks_jump or until is None:
            return
        stored = [data for results in run.ever.values() for type_, data in results if type_ == "step:complete"]
        missed = [
            payload
            for payload, when in self.signalled.get((run_id, name), {}).items()
            if EPOCH + when * 1000 < until - 1 and payload not in stored
        ]
        self.trace.check(not missed, f"{key} of run {run_id} timed out at {until}, and there were {missed}")
