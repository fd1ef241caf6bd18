"""What earlier executions of a run have stored, as a replay needs it."""

from __future__ import annotations

from typing import Any, NamedTuple

from durably_web import codec
from durably_web.records import Kind, undone_by
from durably_web.store.rows import StoredEntry


class Tries(NamedTuple):
    """`failed` tries of a step, and the moment of the next one."""

    failed: int
    until: int


class Begun(NamedTuple):
    """A wait that has begun, and when; `detail` says what for. The run may have been `retried` since."""

    detail: dict[str, Any]
    at: int
    retried: bool = False


class History:
    """Outcomes of steps, tries that failed, and waits that have begun, each by the step's key.

    A failure counts until the run is retried, and a result until it is undone. `run_tries` are the failures of the run
    itself since somebody asked for it; `undo` is the entry with which its last undo began, and `undone` counts by step
    how often it was undone; `redone` tells that steps may be done again. `patches` are what `step.patched` has
    answered; `reported` are steps of which was told that nobody asks for them.
    """

    __slots__ = (
        *("outcomes", "patches", "redone", "reported", "run_tries", "tries", "undo", "undone", "waits"),
        *("_begun", "_failed", "_signals"),
    )

    def __init__(self, entries: list[StoredEntry]) -> None:
        self.outcomes: dict[str, StoredEntry] = {}
        self.tries: dict[str, Tries] = {}
        self.waits: dict[str, Begun] = {}
        self.patches: dict[str, bool] = {}
        self.reported: set[str | None] = set()
        # Steps that failed, and waits that began, since a retry has last looked at them.
        self._failed: list[str] = []
        self._begun: list[str] = []
        self._signals: list[str] = []
        self.run_tries = 0
        self.redone = False
        self.undo: StoredEntry | None = None
        self.undone: dict[str, int] = {}
        for entry in entries:
            # By far the most.
            if entry.type == "step:complete" and entry.step_name is not None:
                self.outcomes[entry.step_name] = entry
            else:
                self._add(entry)
        if self.undo is not None:
            self._leave_out_undone(entries)

    def begun_as(self, key: str) -> Kind | None:
        """What a step is that has begun and has no outcome yet."""
        if key in self.tries:
            return "run"
        begun = self.waits.get(key)
        if begun is None:
            return None
        told: dict[str, Kind] = {"signal": "signal", "child": "call", "network": "run"}
        return next((kind for name, kind in told.items() if name in begun.detail), "sleep")

    def _add(self, entry: StoredEntry) -> None:
        key = entry.step_name
        if entry.type == "run:retry":
            self.redone = True
            # Only what is new since the last one is looked at: a run may have been retried often.
            while self._failed:
                name = self._failed.pop()
                if name in self.outcomes and self.outcomes[name].type != "step:complete":
                    del self.outcomes[name]
            self.tries.clear()
            while self._begun:
                name = self._begun.pop()
                begun = self.waits.get(name)
                if begun is not None and "network" in begun.detail:
                    del self.waits[name]
                elif begun is not None:
                    self.waits[name] = begun._replace(retried=True)
            # Those of a policy say which one they are; a user's request begins anew, and with it the time in which
            # a signal must come. What sleeps, sleeps until the same instant.
            self.run_tries = 0 if entry.data is None else codec.decode(entry.data)["attempt"]
            while entry.data is None and self._signals:
                name = self._signals.pop()
                if name in self.waits and "signal" in self.waits[name].detail:
                    del self.waits[name]
        elif entry.type == "run:undo":
            self.undo = entry
        elif entry.type == "run:patched":
            detail = codec.decode(entry.data or "{}")
            self.patches[detail["name"]] = detail["patched"]
        elif entry.type == "run:restart":
            self.undone = codec.decode(entry.data or "{}").get("undone", {})
        elif entry.type == "step:unasked":
            self.reported.add(key)
        elif key is None or entry.type == "log:write":
            return
        elif entry.type == "step:fail":
            self.outcomes[key] = entry
            self._failed.append(key)
            self.waits.pop(key, None)
        elif entry.type == "step:retry":
            detail = codec.decode(entry.data or "{}")
            self.tries[key] = Tries(detail["attempt"], detail["until"])
            self.waits.pop(key, None)
        elif entry.type == "step:wait":
            self.waits[key] = begun = Begun(codec.decode(entry.data or "{}"), entry.created_at)
            self._begun.append(key)
            if "signal" in begun.detail:
                self._signals.append(key)

    def _leave_out_undone(self, entries: list[StoredEntry]) -> None:
        """What was done again stands where it was done last."""
        outcomes: dict[str, StoredEntry] = {}
        for entry in entries:
            key = entry.step_name or ""
            if entry.type == "step:complete":
                undone = undone_by(key)
                outcomes.pop(key if undone is None else undone, None)
                if undone is None:
                    outcomes[key] = entry
                else:
                    self.undone[undone] = self.undone.get(undone, 0) + 1
            elif self.outcomes.get(key) is entry:
                outcomes[key] = entry
        self.outcomes = outcomes
