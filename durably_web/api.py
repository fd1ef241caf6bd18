"""Requests and responses, whoever carries them: the browser's worker, or HTTP.

Bodies are values that JSON has. The routes are one table; errors become a status and `{"error", "name"}`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from durably_web.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    NotSerializable,
    StoreError,
)
from durably_web.records import STATUSES

if TYPE_CHECKING:
    from durably_web.engine import Durably


class Request(NamedTuple):
    """What is asked for. `query` has the last value of each name; `body` is parsed JSON or `None`."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    body: Any = None


class Response(NamedTuple):
    """The answer: an HTTP status and a value that JSON has."""

    status: int
    body: Any


class BadRequest(Exception):
    """The request itself is wrong, before any job or run was looked at."""


async def respond(durably: Durably, request: Request) -> Response:
    """Answer a request. Raises nothing but control flow: every error is a response."""
    try:
        handler = _route(request)
        return Response(200, await handler(durably, request))
    except Exception as error:
        return Response(_status_of(error), {"error": str(error), "name": type(error).__name__})


def _status_of(error: Exception) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (BadRequest, 400),
    (InvalidInput, 400),
    (NotSerializable, 400),
    (NotFound, 404),
    (Conflict, 409),
    (StoreError, 503),
)


def _route(request: Request) -> Handler:
    handler = _ROUTES.get((request.method, request.path))
    if handler is None:
        raise NotFound(f"there is no {request.method} {request.path}")
    return handler


async def _trigger(durably: Durably, request: Request) -> Any:
    body = _object(request.body, "the body")
    unknown = body.keys() - {"jobName", "input", "idempotencyKey", "labels"}
    if unknown:
        raise BadRequest(f"a trigger has no {', '.join(sorted(unknown))}")
    job_name, key = body.get("jobName"), body.get("idempotencyKey")
    if not isinstance(job_name, str):
        raise BadRequest("jobName must be a string")
    if not isinstance(key, str | None):
        raise BadRequest("idempotencyKey must be a string")
    labels = _object(body.get("labels") or {}, "labels")
    if not all(isinstance(value, str) for value in labels.values()):
        raise BadRequest("the values of labels must be strings")
    handle = await durably.trigger(job_name, body.get("input"), idempotency_key=key, labels=labels)
    return {"runId": handle.id, "disposition": handle.disposition}


async def _runs(durably: Durably, request: Request) -> Any:
    query = request.query
    status = query.get("status")
    if status is not None and status not in STATUSES:
        raise BadRequest(f"status must be one of {', '.join(STATUSES)}")
    runs = await durably.get_runs(
        status=status,
        job=query.get("jobName"),
        labels={name.removeprefix("label."): value for name, value in query.items() if name.startswith("label.")},
        limit=_count(query, "limit"),
        offset=_count(query, "offset"),
    )
    return [run.to_wire() for run in runs]


async def _run(durably: Durably, request: Request) -> Any:
    run_id = _run_id(request)
    run = await durably.get_run(run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    return run.to_wire()


async def _steps(durably: Durably, request: Request) -> Any:
    return [step.to_wire() for step in await durably.get_steps(_run_id(request))]


async def _logs(durably: Durably, request: Request) -> Any:
    return [entry.to_wire() for entry in await durably.get_logs(_run_id(request))]


async def _cancel(durably: Durably, request: Request) -> Any:
    await durably.cancel(_run_id(request))
    return {"success": True}


async def _retry(durably: Durably, request: Request) -> Any:
    await durably.retry(_run_id(request))
    return {"success": True}


async def _retrigger(durably: Durably, request: Request) -> Any:
    handle = await durably.retrigger(_run_id(request))
    return {"success": True, "runId": handle.id}


async def _delete(durably: Durably, request: Request) -> Any:
    await durably.delete_run(_run_id(request))
    return {"success": True}


Handler = Callable[["Durably", Request], Awaitable[Any]]

_ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/trigger"): _trigger,
    ("GET", "/runs"): _runs,
    ("GET", "/run"): _run,
    ("GET", "/steps"): _steps,
    ("GET", "/logs"): _logs,
    ("POST", "/cancel"): _cancel,
    ("POST", "/retry"): _retry,
    ("POST", "/retrigger"): _retrigger,
    ("DELETE", "/run"): _delete,
}


def _run_id(request: Request) -> str:
    run_id = request.query.get("runId")
    if not run_id:
        raise BadRequest("runId is missing")
    return run_id


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object")
    return value


def _count(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(f"{name} must be a whole number")
    return int(text)
