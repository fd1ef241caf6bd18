"""How much a request may ask for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.requests import Request as HttpRequest

from durably_web.api.parsing import BadRequest

# The body of a signal is whatever its job waits for.
_IMPORT = "/runs/import"
# Within a document are values that no request has brought, and so many levels around them.
_DOCUMENT_DEPTH = 110
_WITH_NAMES = ("/trigger", "/trigger-many", "/schedule")
# A schedule that ticks more often would keep the whole server at its ticks.
LEAST_EVERY_MS = 100
MOST_PARAMETERS = 500


class TooLarge(Exception):
    """The body of the request is larger than the server takes."""


@dataclass(frozen=True)
class Limits:
    """What more than this is refused: a body with 413, and everything else with 400.

    `body` is bytes, and `document` those of a run that is imported; `depth` is levels of JSON within JSON. `labels` is
    how many labels a run may be given, `items` how many runs one request may ask for, and
    `runs` how many a list of them has; `label` and `name` are characters: of a label's key or value, and of the name of
    a job, or a key. `streams` is how many streams of events
    there may be at once in this process; one more is refused with 503. `process_seconds` and `process_runs` are how
    long, and for how many runs, one call of `/process` works: it is also what a call gets that asks for nothing.
    """

    body: int = 1_048_576
    document: int = 16_777_216
    depth: int = 100
    labels: int = 50
    label: int = 256
    name: int = 512
    items: int = 1_000
    runs: int = 10_000
    streams: int = 1_000
    process_seconds: float = 50.0
    process_runs: int = 1_000


async def body_of(request: HttpRequest, path: str, limits: Limits) -> Any:
    """The JSON of the body, `None` when there is none. Raises `BadRequest` and `TooLarge`."""
    data = await bytes_of(request, limits, limits.document if path == _IMPORT else limits.body)
    if not data:
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        # A form on another site can send other types without being asked by the browser whether it may.
        raise BadRequest("the body must be JSON, with the header Content-Type: application/json")
    return parsed(data, path, limits)


async def bytes_of(request: HttpRequest, limits: Limits, most: int | None = None) -> bytes:
    """The body as it was sent, of `most` bytes. Raises `TooLarge`."""
    most = limits.body if most is None else most
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise TooLarge(f"the body must be at most {most} bytes")
    parts = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise TooLarge(f"the body must be at most {most} bytes")
        parts.append(part)
    return b"".join(parts)


def parsed(data: bytes, path: str, limits: Limits) -> Any:
    """The JSON that these bytes are. Raises `BadRequest`."""
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_refuse)
        if path == _IMPORT:
            return _document(found, limits)
    except RecursionError:
        raise BadRequest(f"the body must be at most {limits.depth} levels deep") from None
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    check_depth(found, limits.depth)
    if path in _WITH_NAMES:
        _check_names(found, path, limits)
    return found


def _document(found: Any, limits: Limits) -> Any:
    """The document of a run that is imported: the body, or a text in it. Whoever reads it checks what it says."""
    if isinstance(found, dict) and set(found) == {"document"} and isinstance(found["document"], str):
        found = json.loads(found["document"], parse_constant=_refuse)
    check_depth(found, limits.depth + _DOCUMENT_DEPTH)
    if isinstance(found, dict):
        _check_names(found.get("run"), _IMPORT, limits)
    return found


def check_depth(value: Any, depth: int) -> None:
    """Raises `BadRequest` for a value with more than so many levels of lists and objects."""
    level = [value]
    for _ in range(depth + 1):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise BadRequest(f"the body must be at most {depth} levels deep")


def query_of(request: HttpRequest) -> dict[str, Any]:
    """The parameters of a request: one value of each name, or a list of them. Raises `BadRequest`."""
    given = request.query_params.multi_items()
    if len(given) > MOST_PARAMETERS:
        raise BadRequest(f"at most {MOST_PARAMETERS} parameters")
    query: dict[str, list[str]] = {}
    for name, value in given:
        query.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in query.items()}


def check_query(query: dict[str, Any], limits: Limits) -> None:
    labels = [name for name in query if name.startswith("label.")]
    if len(labels) > limits.labels:
        raise BadRequest(f"at most {limits.labels} labels")
    for name, value in query.items():
        most = limits.label + len("label.") if name in labels else limits.name
        if any(len(text) > most for text in (name, *([value] if isinstance(value, str) else value))):
            raise BadRequest(f"{name[: limits.name]} is longer than {most} characters")


def _check_names(body: Any, path: str, limits: Limits) -> None:
    """The texts that a trigger, or a schedule, carries beside its input."""
    if not isinstance(body, dict):
        return
    items = body.get("items")
    if isinstance(items, list) and len(items) > limits.items:
        raise BadRequest(f"at most {limits.items} items at once")
    for one in (body, *(items if isinstance(items, list) else ())):
        if not isinstance(one, dict):
            continue
        for name in ("jobName", "idempotencyKey", "concurrencyKey", "name", "cron", "timezone"):
            if isinstance(value := one.get(name), str) and len(value) > limits.name:
                raise BadRequest(f"{name} must be at most {limits.name} characters")
        every = one.get("everyMs")
        if path == "/schedule" and isinstance(every, int | float) and 0 < every < LEAST_EVERY_MS:
            raise BadRequest(f"everyMs must be at least {LEAST_EVERY_MS}")
        labels = one.get("labels")
        if not isinstance(labels, dict):
            continue
        if len(labels) > limits.labels:
            raise BadRequest(f"at most {limits.labels} labels")
        if any(len(text) > limits.label for pair in labels.items() for text in pair if isinstance(text, str)):
            raise BadRequest(f"the keys and values of labels must be at most {limits.label} characters")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
