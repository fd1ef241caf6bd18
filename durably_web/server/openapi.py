"""The OpenAPI document: what `durably_web.api` takes and gives, for tools that read it.

Routes and their parameters come from the table of routes, so that none is missing; bodies and answers are written here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

from durably_web import __version__
from durably_web.api.parsing import ITEM_FIELDS, SCHEDULE_FIELDS, TRIGGER_FIELDS
from durably_web.api.routes import MOST_EVENTS, ROUTES
from durably_web.events import EVENT_TYPES
from durably_web.records import STATUSES, Missed, Overlap
from durably_web.server.health import LIVE, READY
from durably_web.server.limits import Limits

if TYPE_CHECKING:
    from durably_web.server.doors import Door

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_WHOLE: Schema = {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999}
_INSTANT: Schema = {"type": "string", "format": "date-time"}
_INSTANT_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
_ID: Schema = {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$", "description": "A ULID."}
_MILLISECONDS: Schema = {"type": "number", "minimum": 0, "maximum": 3_162_240_000_000}
_ANY: Schema = {}


def document(root: str, limits: Limits, doors: Iterable[Door] = ()) -> dict[str, Any]:
    """The document of an application that is mounted at `root`, and has these routes beside those of everybody."""
    paths: dict[str, Any] = {}
    for (method, path), route in ROUTES.items():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, route.query, route.several, limits)
    for path, query in (("/subscribe", ("runId",)), ("/runs/subscribe", ("jobName", "label."))):
        paths[path] = {"get": _stream(path, query)}
    keys: dict[str, Any] = {}
    for door in doors:
        paths |= door.operations()
        keys |= door.keys()
    for path, summary in _PROBES.items():
        paths[path] = {"get": _probe(path, summary)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "durably_web",
            "version": __version__,
            "description": "Runs of jobs: asking for them, following them, changing their course.",
        },
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(limits), **({"securitySchemes": keys} if keys else {})},
    }


def _operation(method: str, path: str, query: tuple[str, ...], several: tuple[str, ...], limits: Limits) -> Schema:
    operation: Schema = {
        "operationId": f"{method.lower()}{''.join(word.title() for word in path.replace('-', '/').split('/'))}",
        "parameters": [_parameter(name, path, several) for name in query],
        "responses": _responses(_ANSWERS.get((method, path), _ANY)),
    }
    if path == "/runs":
        limit = next(one for one in operation["parameters"] if one["name"] == "limit")
        limit["schema"] = _WHOLE | {"maximum": limits.runs}
    if summary := _SUMMARIES.get((method, path)):
        operation["summary"] = summary
    if method != "GET":
        operation["parameters"].append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "schema": _ID,
                "description": "Asking again with the same one has the effect of asking once.",
            }
        )
    if (method, path) in _BODIES:
        content = {"application/json": {"schema": _BODIES[method, path]}}
        operation["requestBody"] = {"required": path != "/signal", "content": content}
    return operation


def _stream(path: str, query: tuple[str, ...]) -> Schema:
    events = {"schema": _TEXT | {"description": "Server-sent events: an Event as JSON in each message."}}
    last = {"name": "Last-Event-ID", "in": "header", "schema": _TEXT | {"pattern": "^[0-9]{1,15}$"}}
    return {
        "operationId": f"get{''.join(word.title() for word in path.split('/'))}",
        "summary": "The events of a run, from its first"
        if path == "/subscribe"
        else "The events of all runs, from now",
        "parameters": [*(_parameter(name, path, ("jobName",)) for name in query), last],
        "responses": {**_responses(_ANY), "200": {"description": "events", "content": {"text/event-stream": events}}},
    }


def _probe(path: str, summary: str) -> Schema:
    operation = _operation("GET", path, (), (), Limits())
    answers = {
        status: {
            "description": told,
            "content": {"application/json": {"schema": _object("*", status={"const": told})}},
        }
        for status, told in (("200", "ok"), ("503", "unavailable"))
    }
    return {**operation, "summary": summary, "responses": answers}


def _parameter(name: str, path: str, several: tuple[str, ...]) -> Schema:
    if name == "label.":
        labels = {"type": "object", "additionalProperties": _TEXT, "maxProperties": 0}
        text = "The parameter label.KEY=VALUE, for any KEY: only runs with this label."
        return {"name": "label.*", "in": "query", "schema": labels, "style": "form", "description": text}
    schema = _PARAMETERS.get(name, _TEXT)
    if name in several:
        schema = {"type": "array", "items": schema, "minItems": 1}
    needed = name in ("runId", "name", "handoverId") and path not in ("/events", "/pause", "/resume")
    return {"name": name, "in": "query", "required": needed, "schema": schema}


def _responses(answer: Schema) -> Schema:
    failed = {"content": {"application/json": {"schema": _ref("Error")}}}
    return {
        "200": {"description": "done", "content": {"application/json": {"schema": answer}}},
        "400": {"description": "the request is wrong", **failed},
        "401": {"description": "who asks is unknown", **failed},
        "403": {"description": "who asks may not do this", **failed},
        "404": {"description": "there is no such run or job", **failed},
        "409": {"description": "the state of the run forbids this", **failed},
        "413": {"description": "the body is too large", **failed},
        "503": {"description": "the database cannot be reached", **failed},
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(required: str, **properties: Schema) -> Schema:
    """An object; of its properties those in `required` are always there, which is all of them for `*`."""
    names = sorted(properties) if required == "*" else required.split()
    return {"type": "object", "properties": properties, "required": names}


# What routes with a key of their own are described with.
TEXT, WHOLE, ANY = _TEXT, _WHOLE, _ANY
ref, object_of, responses = _ref, _object, _responses

_PARAMETERS: dict[str, Schema] = {
    "runId": _TEXT | {"minLength": 1},
    "name": _TEXT | {"minLength": 1},
    "jobName": _TEXT | {"minLength": 1},
    "status": {"enum": list(STATUSES)},
    "limit": _WHOLE,
    "offset": _WHOLE,
    "after": _TEXT,
    "createdBefore": _INSTANT,
    "handoverId": _ID,
}
_DONE = _object("success", success={"const": True}, runId=_ID)
_COUNT = _object("count", count=_WHOLE)

_SUMMARIES = {
    ("POST", "/trigger"): "Ask for a run",
    ("POST", "/trigger-many"): "Ask for runs, all or none",
    ("POST", "/signal"): "Send a signal to a run, with the body as its payload",
    ("GET", "/runs"): "Runs, newest first",
    ("GET", "/run"): "One run",
    ("GET", "/steps"): "The steps of a run",
    ("GET", "/logs"): "What a run has logged",
    ("GET", "/events"): f"Stored events, {MOST_EVENTS} at most",
    ("GET", "/stats"): "How many runs there are",
    ("GET", "/health"): "Whether the database answers",
    ("POST", "/cancel"): "End a run",
    ("POST", "/retry"): "Let the same run go on from where it failed",
    ("POST", "/retrigger"): "Ask for a new run with the same input",
    ("POST", "/fork"): "Ask for a new run that goes on where this one is",
    ("DELETE", "/run"): "Delete a run that has ended",
    ("POST", "/pause"): "Let nobody go on with a run, or begin one of a job",
    ("POST", "/resume"): "Take a pause back",
    ("POST", "/purge"): "Delete runs that ended long ago",
    ("PUT", "/schedule"): "Let a job run again and again",
    ("GET", "/schedule"): "One schedule",
    ("GET", "/schedules"): "All schedules",
    ("POST", "/schedule/trigger"): "Ask for a run of a schedule now",
    ("DELETE", "/schedule"): "Remove a schedule; its runs stay",
    ("GET", "/export"): "All that is stored of a run",
    ("POST", "/handover/offer"): "Hold a run back, and give the document by which another engine takes it",
    ("POST", "/handover/confirm"): "Say that an offered run was taken",
    ("POST", "/handover/withdraw"): "Let an offered run go on here, which nobody has taken or will take",
    ("POST", "/handover/decline"): "Never take a run by this handover",
    ("POST", "/runs/import"): "Let a run go on here that was offered elsewhere",
}

_PROBES = {
    LIVE: "Whether the process is alive, for everybody",
    READY: "Whether the process can do its work now, for everybody",
}

_ANSWERS: dict[tuple[str, str], Schema] = {
    ("POST", "/trigger"): _ref("Triggered"),
    ("POST", "/trigger-many"): _list(_ref("Triggered")),
    ("GET", "/runs"): _list(_ref("Run")),
    ("GET", "/run"): _ref("Run"),
    ("GET", "/steps"): _list(_ref("Step")),
    ("GET", "/logs"): _list(_ref("LogEntry")),
    ("GET", "/events"): _object(
        "*", events=_list(_ref("Event")), ended={"type": "boolean"}, next={"type": ["integer", "null"]}
    ),
    ("GET", "/stats"): _ref("Stats"),
    ("GET", "/health"): _object("*", ok={"const": True}),
    ("PUT", "/schedule"): _ref("Schedule"),
    ("GET", "/schedule"): _ref("Schedule"),
    ("GET", "/schedules"): _list(_ref("Schedule")),
    ("POST", "/schedule/pause"): _ref("Schedule"),
    ("POST", "/schedule/resume"): _ref("Schedule"),
    ("POST", "/schedule/trigger"): _ref("Triggered"),
    ("DELETE", "/schedule"): _DONE,
    ("POST", "/purge"): _COUNT,
    ("GET", "/export"): {"type": "object"},
    ("POST", "/handover/offer"): _object(
        "*", runId=_ID, handoverId=_ID, state={"enum": ["offered", "given"]}, document=_TEXT_OR_NULL
    ),
    ("POST", "/handover/confirm"): _DONE,
    ("POST", "/handover/withdraw"): _DONE,
    ("POST", "/handover/decline"): _object("*", declined={"type": "boolean"}),
    ("POST", "/runs/import"): _DONE,
    **{("POST", f"/{verb}"): _DONE for verb in "signal cancel retry retrigger fork pause resume".split()},
    ("DELETE", "/run"): _DONE,
    **{("POST", f"/runs/{verb}"): _COUNT for verb in "cancel retry pause resume delete".split()},
}

_BODIES: dict[tuple[str, str], Schema] = {
    ("POST", "/trigger"): _ref("Trigger"),
    ("POST", "/trigger-many"): _ref("TriggerMany"),
    ("POST", "/signal"): _ANY,
    ("PUT", "/schedule"): _ref("Scheduling"),
    ("POST", "/handover/offer"): _object(
        "target", target=_TEXT | {"minLength": 1}, timeoutMs=_MILLISECONDS, handoverId=_ID
    )
    | {"additionalProperties": False},
    ("POST", "/runs/import"): {
        "anyOf": [
            _object("document", document=_TEXT) | {"additionalProperties": False},
            {"type": "object", "required": ["format", "version", "values", "run", "journal", "handover"]},
        ]
    },
    ("POST", "/purge"): {
        "oneOf": [
            _object("olderThan", olderThan=_INSTANT, limit=_WHOLE) | {"additionalProperties": False},
            _object("olderThanMs", olderThanMs=_MILLISECONDS, limit=_WHOLE) | {"additionalProperties": False},
        ]
    },
}


def _schemas(limits: Limits) -> dict[str, Schema]:
    name = _TEXT | {"minLength": 1, "maxLength": limits.name}
    label = _TEXT | {"minLength": 1, "maxLength": limits.label}
    labels = {
        "type": "object",
        "additionalProperties": label,
        "propertyNames": label,
        "maxProperties": limits.labels,
    }
    asked = {
        "jobName": name,
        "input": _ANY,
        "idempotencyKey": name,
        "concurrencyKey": name,
        "coalesce": {"enum": ["skip", "replace", "queue"], "description": "Needs a concurrencyKey."},
        "labels": labels,
        "priority": {"type": "integer", "exclusiveMinimum": -(2**31), "exclusiveMaximum": 2**31},
        "delayMs": _MILLISECONDS,
        "runAt": _INSTANT,
        "debounceMs": _MILLISECONDS,
        "debounceMaxMs": _MILLISECONDS,
    }
    scheduled = {
        "name": name,
        "jobName": name,
        "cron": _TEXT | {"minLength": 1, "examples": ["*/5 * * * *"]},
        "everyMs": _MILLISECONDS,
        "timezone": _TEXT | {"minLength": 1, "examples": ["UTC"]},
        "input": _ANY,
        "labels": labels,
        "priority": asked["priority"],
        "missed": {"enum": list(get_args(Missed))},
        "overlap": {"enum": list(get_args(Overlap))},
        "catchUpWindowMs": _MILLISECONDS,
    }
    item = _object("", **{field: asked[field] for field in ITEM_FIELDS}) | {"additionalProperties": False}
    times = {"startedAt": _INSTANT_OR_NULL, "completedAt": _INSTANT_OR_NULL}
    known_labels = {"type": "object", "additionalProperties": _TEXT}
    return {
        "Error": _object("error", error=_TEXT, name=_TEXT),
        "Trigger": _object("jobName", **{field: asked[field] for field in TRIGGER_FIELDS})
        | {"additionalProperties": False},
        "TriggerMany": _object("*", jobName=name, items=_list(item) | {"maxItems": limits.items})
        | {"additionalProperties": False},
        "Triggered": _object("*", runId=_ID, disposition={"enum": ["created", "idempotent", "coalesced"]}),
        "Run": _object(
            "id jobName status input output error labels progress createdAt startedAt completedAt stepCount "
            "isTerminal isActive",
            id=_TEXT,
            jobName=_TEXT,
            status={"enum": list(STATUSES)},
            input=_ANY,
            output=_ANY,
            error=_TEXT_OR_NULL,
            labels=known_labels,
            progress={"oneOf": [_ref("Progress"), {"type": "null"}]},
            createdAt=_INSTANT,
            runAt=_INSTANT_OR_NULL,
            wakeAt=_INSTANT_OR_NULL,
            stepCount=_WHOLE,
            isTerminal={"type": "boolean"},
            isActive={"type": "boolean"},
            **times,
        ),
        "Scheduling": _object("jobName", **{field: scheduled[field] for field in SCHEDULE_FIELDS})
        | {"additionalProperties": False},
        "Schedule": _object(
            "name jobName cron everyMs timezone input labels priority missed overlap paused nextAt lastAt",
            **scheduled
            | {key: {"anyOf": [scheduled[key], {"type": "null"}]} for key in ("cron", "everyMs", "timezone")}
            | {"catchUpWindowMs": {"type": ["number", "null"]}},
            paused={"type": "boolean"},
            nextAt=_INSTANT_OR_NULL,
            lastAt=_INSTANT_OR_NULL,
            createdAt=_INSTANT,
            updatedAt=_INSTANT,
        ),
        "Progress": _object("current", current={"type": "number"}, total={"type": "number"}, message=_TEXT),
        "Step": _object(
            "name status output error attempt startedAt completedAt",
            name=_TEXT,
            status={"enum": ["completed", "failed", "retrying", "waiting", "undone"]},
            output=_ANY,
            error=_TEXT_OR_NULL,
            attempt=_WHOLE,
            **times,
        ),
        "LogEntry": _object(
            "*",
            level={"enum": ["debug", "info", "warning", "error"]},
            message=_TEXT,
            data={"type": "object"},
            stepName=_TEXT_OR_NULL,
            createdAt=_INSTANT,
        ),
        "Event": _object(
            "type seq timestamp runId jobName labels",
            type={"enum": sorted(EVENT_TYPES)},
            seq={"type": ["integer", "null"]},
            timestamp=_INSTANT,
            runId=_TEXT_OR_NULL,
            jobName=_TEXT_OR_NULL,
            labels=known_labels,
        ),
        "Processed": _object("*", processed=_WHOLE, due=_WHOLE, leased=_WHOLE, later=_WHOLE, nextAt=_INSTANT_OR_NULL),
        "Stats": _object(
            "*",
            total=_WHOLE,
            byStatus={"type": "object", "additionalProperties": _WHOLE},
            byJob={"type": "object", "additionalProperties": {"type": "object", "additionalProperties": _WHOLE}},
            pausedJobs=_list(_TEXT),
            storageFull={"type": "boolean"},
        ),
    }
