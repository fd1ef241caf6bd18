"""Answers as HTTP has them: JSON, a status, and of an error no more than its caller should know."""

from __future__ import annotations

import json
import logging
import secrets
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from durably_web.api import Response as Answer
from durably_web.api import error_response
from durably_web.server.auth import rejection_of
from durably_web.server.limits import TooLarge

log = logging.getLogger("durably_web.server")

# Nothing here is for a cache, and nothing is a page.
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    return Response(content, status, {**HEADERS, **(headers or {})}, "application/json")


async def refused(request: HttpRequest, error: Exception) -> Response:
    """The answer to a request that raised.

    What is wrong with the request is told. Of what is wrong with the server the caller learns the kind, and an id
    under which the log has the rest.
    """
    rejection = rejection_of(error)
    if rejection is not None:
        return json_response({"error": rejection.detail}, rejection.status_code, dict(rejection.headers or {}))
    if isinstance(error, TooLarge):
        return json_response({"error": str(error), "name": "PayloadTooLarge"}, 413)
    answer: Answer = error_response(error)
    if answer.status < 500:
        return json_response(answer.body, answer.status)
    reference = secrets.token_hex(8)
    log.error("%s %s failed, %s", request.method, request.url.path, reference, exc_info=error)
    if answer.status == 500:
        return json_response({"error": f"internal error {reference}", "name": "InternalError"}, 500)
    # The first line of its class says what it is, without a path or an address.
    kind = (type(error).__doc__ or type(error).__name__).partition("\n")[0].rstrip(".")
    return json_response({"error": f"{kind} ({reference})", "name": type(error).__name__}, answer.status)
