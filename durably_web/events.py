"""What happens to runs.

An event is the image of one journal entry, and has its `seq`. Some are told but not stored, and have none:
`step:start` and `run:lease-renewed`, which would cost a write each; `run:pause` and `run:resume`, which change no
run's course; `step:cancel`, whose run is not its worker's any more; `worker:error`, which may have no run;
`schedule:skip`, which tells of ticks that got no run; `worker:shutdown`, which tells that
the engine is about to stop; `network:offline` and `network:online`, which tell what the engine hears of the network;
and what happens to the storage as a whole.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

from durably_web.codec import to_plain
from durably_web.records import Instant, Progress, wire_instant

EventType = Literal[
    "run:trigger",
    "run:leased",
    "run:lease-renewed",
    "run:waiting",
    "run:coalesced",
    "run:pause",
    "run:resume",
    "run:progress",
    "run:retry",
    "run:undo",
    "run:code-changed",
    "run:restart",
    "run:patched",
    "run:handover",
    "run:complete",
    "run:fail",
    "run:cancel",
    "run:delete",
    "step:start",
    "step:wait",
    "step:retry",
    "step:complete",
    "step:fail",
    "step:cancel",
    "step:unasked",
    "log:write",
    "schedule:skip",
    "worker:error",
    "worker:shutdown",
    "network:offline",
    "network:online",
    "storage:full",
    "storage:room",
    "storage:set-aside",
    "storage:cleared",
]
EVENT_TYPES: frozenset[str] = frozenset(get_args(EventType))


class Event(NamedTuple):
    """Something that happened to a run.

    `seq` grows with every stored event of the database, and `number` counts a run's own from 1 without a
    gap; both are `None` for what is told but not stored. Fields that the type has no use for are `None`;
    `duration` is in seconds. `until` is when what waits goes on by time.
    """

    type: EventType
    seq: int | None
    number: int | None
    timestamp: Instant
    run_id: str | None
    job_name: str | None
    labels: dict[str, str]
    step_name: str | None = None
    input: Any = None
    output: Any = None
    error: str | None = None
    traceback: str | None = None
    duration: float | None = None
    progress: Progress | None = None
    level: str | None = None
    message: str | None = None
    data: dict[str, Any] | None = None
    worker_id: str | None = None
    attempt: int | None = None
    context: str | None = None
    until: Instant | None = None
    waits_for: str | None = None
    reason: str | None = None
    undoing: str | None = None
    schedule: str | None = None
    ticks: int | None = None
    first_at: Instant | None = None
    last_at: Instant | None = None

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = {
            "type": self.type,
            "seq": self.seq,
            "timestamp": wire_instant(self.timestamp),
            "runId": self.run_id,
            "jobName": self.job_name,
            "labels": self.labels,
        }
        for name, key in _WIRE_NAMES.get(self.type, ()):
            wire[key] = to_plain(getattr(self, name))
        if self.progress is not None:
            wire["progress"] = self.progress.to_wire()
        if self.until is not None:
            wire["until"] = wire_instant(self.until)
        if self.type == "schedule:skip":
            wire |= {"firstAt": wire_instant(self.first_at), "lastAt": wire_instant(self.last_at)}
        if self.duration is not None:
            wire["duration"] = round(self.duration * 1000)
        return wire


# What each type is about, beside its progress and duration: attribute and name on the wire.
_WIRE_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "run:trigger": (("input", "input"),),
    "run:leased": (("worker_id", "leaseOwner"), ("attempt", "attempt")),
    "run:lease-renewed": (("worker_id", "leaseOwner"),),
    "run:waiting": (("waits_for", "waitsFor"),),
    "run:coalesced": (("input", "input"),),
    "run:retry": (("error", "error"), ("attempt", "attempt")),
    "run:undo": (("undoing", "undoing"), ("error", "error"), ("step_name", "failedStepName")),
    "run:code-changed": (("data", "data"),),
    "run:restart": (("data", "data"),),
    "run:patched": (("data", "data"),),
    "run:handover": (("data", "data"),),
    "run:complete": (("output", "output"),),
    "run:fail": (("error", "error"), ("step_name", "failedStepName")),
    "step:start": (("step_name", "stepName"),),
    "step:complete": (("step_name", "stepName"), ("output", "output")),
    "step:wait": (("step_name", "stepName"), ("waits_for", "waitsFor"), ("error", "error")),
    "step:retry": (("step_name", "stepName"), ("error", "error"), ("attempt", "attempt")),
    "step:fail": (("step_name", "stepName"), ("error", "error"), ("attempt", "attempt")),
    "step:cancel": (("step_name", "stepName"),),
    "step:unasked": (("step_name", "stepName"), ("data", "data")),
    "log:write": (("step_name", "stepName"), ("level", "level"), ("message", "message"), ("data", "data")),
    "schedule:skip": (("schedule", "schedule"), ("reason", "reason"), ("ticks", "ticks")),
    "worker:error": (("error", "error"), ("context", "context")),
    "worker:shutdown": (("reason", "reason"),),
    "storage:full": (("error", "error"),),
    "storage:set-aside": (("reason", "reason"),),
}
