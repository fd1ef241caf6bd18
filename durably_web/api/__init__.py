"""Requests and responses, whoever carries them: the browser's worker, or HTTP.

Bodies are values that JSON has. Durations are milliseconds, instants ISO 8601 texts with a zone. The routes are one
table (`routes`); errors become a status and `{"error", "name"}`. A field or parameter that a route does not know is
refused: a misspelt filter of `POST /runs/delete` would otherwise delete everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from durably_web.api.parsing import BadRequest, Request
from durably_web.api.routes import answer
from durably_web.errors import Conflict, InvalidInput, NotFound, NotSerializable, RequirementFailed, StoreError

if TYPE_CHECKING:
    from durably_web.engine import Durably

__all__ = ["BadRequest", "Request", "Response", "respond"]


class Response(NamedTuple):
    """The answer: an HTTP status and a value that JSON has."""

    status: int
    body: Any


async def respond(durably: Durably, request: Request) -> Response:
    """Answer a request. Raises nothing but control flow: every error is a response."""
    try:
        return Response(200, await answer(durably, request))
    except Exception as error:
        return error_response(error)


def error_response(error: Exception) -> Response:
    return Response(_status_of(error), {"error": str(error), "name": type(error).__name__})


def _status_of(error: Exception) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (BadRequest, 400),
    (InvalidInput, 400),
    (NotSerializable, 400),
    (NotFound, 404),
    (Conflict, 409),
    (RequirementFailed, 503),
    (StoreError, 503),
)
