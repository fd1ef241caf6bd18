"""What happens, as records of Python's `logging`, and records as lines of JSON.

    from durably_web.logs import JsonFormatter, log_events

    stop = log_events(durably)               # writes what this engine does, until `stop()`

Loggers: `durably_web.runs` (runs and their steps), `durably_web.jobs` (what jobs say with `step.log`) and
`durably_web.worker` (what goes wrong beside the runs). Records have `event`, and where they are about a run `run_id`,
`job_name`, `labels`, `worker_id`, `attempt`, `generation` and `step_name` as fields. No handler is installed: where the
lines go, and from which level on, is the application's business. Inputs and outputs are never written, and in texts
and data `***` stands for what looks like a secret.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from durably_web.events import Event
from durably_web.readable import relative, until
from durably_web.redaction import redacted, redacted_data

if TYPE_CHECKING:
    from durably_web.engine import Durably

runs = logging.getLogger("durably_web.runs")
jobs = logging.getLogger("durably_web.jobs")
worker = logging.getLogger("durably_web.worker")

FIELDS = ("event", "run_id", "job_name", "step_name", "worker_id", "attempt", "generation", "labels")

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# Everything else is for who looks for a bug.
_LEVELS = {
    **dict.fromkeys(
        ("run:leased", "run:complete", "run:cancel", "run:delete", "run:pause", "run:resume", "run:progress"),
        logging.INFO,
    ),
    **dict.fromkeys(("run:handover", "run:restart", "step:wait", "network:online", "storage:room"), logging.INFO),
    **dict.fromkeys(("run:retry", "run:undo", "run:code-changed", "step:retry", "step:fail"), logging.WARNING),
    **dict.fromkeys(("schedule:skip", "network:offline", "storage:set-aside", "storage:cleared"), logging.WARNING),
    **dict.fromkeys(("run:fail", "worker:error", "storage:full"), logging.ERROR),
}
# What is about no run, or about more than it.
_BESIDE = ("worker:", "storage:", "network:", "schedule:")


def log_events(durably: Durably, *, job_logs: bool = True) -> Callable[[], None]:
    """Write what this engine does to the loggers of this module, until the result is called.

    With `job_logs=False`, what jobs say with `step.log` stays in the database alone.
    """

    def hear(event: Event) -> None:
        if job_logs or event.type != "log:write":
            log_event(event, durably)

    leave: Callable[[], None] = durably.on("*", hear)
    return leave


def log_event(event: Event, durably: Durably | None = None) -> None:
    """Write one event. Of what the engine executes itself, the fields tell of the lease too."""
    logger, level = logger_of(event), level_of(event)
    if logger.isEnabledFor(level):
        logger.log(level, "%s", message_of(event), extra=_fields(event, durably))


def logger_of(event: Event) -> logging.Logger:
    if event.type == "log:write":
        return jobs
    return worker if event.type.startswith(_BESIDE) else runs


def level_of(event: Event) -> int:
    if event.type == "log:write":
        return LEVELS.get(event.level or "info", logging.INFO)
    if event.type == "run:retry" and event.error is None:
        return logging.INFO
    return _LEVELS.get(event.type, logging.DEBUG)


def message_of(event: Event) -> str:
    """An event as a line for a person, without the run that it is about."""
    return redacted(_message(event))


def _message(event: Event) -> str:
    match event.type:
        case "log:write":
            return (event.message or "") + (f"  {_text_of(event.data)}" if event.data else "")
        case "run:leased":
            return f"started {event.job_name}, attempt {event.attempt}"
        case "run:progress" if event.progress is not None:
            progress = event.progress
            total = "" if progress.total is None else f"/{progress.total:g}"
            return f"progress {progress.current:g}{total}" + (f" {progress.message}" if progress.message else "")
        case "run:complete" | "run:pause" | "run:resume" | "run:delete":
            return {"complete": "completed", "pause": "paused", "resume": "resumed", "delete": "deleted"}[
                event.type[4:]
            ]
        case "run:handover" if event.data is not None:
            return f"handover to {event.data['target']}: {event.data['state']}"
        case "run:fail":
            return f"failed: {event.error}"
        case "run:cancel":
            return "cancelled" + (f": {event.error}" if event.error else "")
        case "run:retry":
            return f"the run failed: {event.error}; again {_soon(event)}" if event.error else "to be tried again"
        case "run:undo":
            return f"undoing what was done, then {event.undoing}" + (f": {event.error}" if event.error else "")
        case "step:retry":
            return f"{event.step_name} failed: {event.error}; again {_soon(event)}"
        case "step:fail":
            return f"{event.step_name} failed: {event.error}"
        case "step:wait":
            moment = "" if event.until is None else f", {until(event.until, event.timestamp)}"
            return f"waiting for {event.step_name}{moment}"
        case "step:start" | "step:complete" | "step:cancel":
            ending = {"step:start": "begins", "step:complete": "is done", "step:cancel": "is cancelled"}[event.type]
            return f"{event.step_name} {ending}"
        case "worker:error":
            return f"{event.error} ({event.context})"
        case "storage:full":
            return f"no room left, so runs wait: {event.error}"
        case "schedule:skip":
            return f"schedule {event.schedule}: {event.ticks} ticks got no run, {event.reason}"
    told = event.type.replace(":", " ").replace("-", " ")
    return told + (f": {event.reason or event.error}" if event.reason or event.error else "")


def _soon(event: Event) -> str:
    return "later" if event.until is None else relative(event.until, event.timestamp)


def _text_of(data: dict[str, Any]) -> str:
    data = redacted_data(data)
    return " ".join(f"{key}={value if isinstance(value, str) else _compact(value)}" for key, value in data.items())


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _fields(event: Event, durably: Durably | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"event": event.type, "run_id": event.run_id, "job_name": event.job_name}
    if event.run_id is not None:
        fields |= {"step_name": event.step_name, "labels": event.labels}
    attempt, generation, worker_id = event.attempt if event.type == "run:leased" else None, None, event.worker_id
    if durably is not None:
        worker = durably._worker
        executing = worker._executing.get(event.run_id or "")
        lease = (
            worker.beginning if event.type == "run:leased" else executing[0].lease if executing is not None else None
        )
        if lease is not None:
            attempt, generation, worker_id = lease.attempt, lease.generation, worker.worker_id
        elif event.type == "worker:error":
            worker_id = worker.worker_id
    fields |= {"worker_id": worker_id, "attempt": attempt, "generation": generation}
    if event.type.startswith("step:"):
        fields["step_attempt"] = event.attempt
    for name in ("duration", "error", "traceback", "data", "context", "reason"):
        fields[name] = getattr(event, name)
    if event.until is not None:
        fields["until"] = event.until
    return {name: value for name, value in fields.items() if value is not None and value != {}}


# -- lines -------------------------------------------------------------------------------------------------

_OWN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Each record as one line of JSON: `timestamp` (ISO 8601, UTC), `level`, `logger`, `message`, then whatever fields
    the record has, and `exception` where there is one. What looks like a secret is `***`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        more = {name: value for name, value in vars(record).items() if name not in _OWN and name not in line}
        line |= redacted_data(more)
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = redacted(self.formatStack(record.stack_info))
        return json.dumps(line, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    try:
        return redacted(str(value))
    except Exception:
        return f"a {type(value).__name__}"
