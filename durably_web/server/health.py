"""Health and metrics over HTTP: of an application, and on a port of their own."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from durably_web.health import Probes, Verdict
from durably_web.server.answers import HEADERS, json_response, refused

if TYPE_CHECKING:
    from durably_web.metrics import Metrics

Answer = Callable[[Request], Awaitable[Response]]

LIVE = "/health/live"
READY = "/health/ready"
METRICS = "/metrics"

_NO_METRICS = "metrics need prometheus-client: pip install 'durably-web[prometheus]'"


def health_routes(probes: Probes) -> list[Route]:
    """Liveness and readiness, for everybody: an answer says no more than its status."""

    async def live(request: Request) -> Response:
        return told(await probes.live())

    async def ready(request: Request) -> Response:
        return told(await probes.ready())

    return [*at(LIVE, live), *at(READY, ready)]


def watching_app(probes: Probes) -> Starlette:
    """Health and metrics alone, for a port that only whoever watches over the process reaches."""

    async def metrics(request: Request) -> Response:
        return exposed(await probes.metrics())

    return Starlette(routes=[*health_routes(probes), *at(METRICS, metrics)])


def metrics_routes(metrics: Metrics, token: str | None, admit: Callable[[Request], Awaitable[object]]) -> list[Route]:
    """`GET /metrics` for whoever knows the token; without one, for whoever `admit` does not raise for."""

    async def answer(request: Request) -> Response:
        try:
            if token is None:
                await admit(request)
            else:
                _check_token(request, token)
            return exposed(await metrics.text())
        except Exception as error:
            return await refused(request, error)

    return at(METRICS, answer)


def checked_token(token: str | None) -> str | None:
    """Raises `ValueError` for one that a forgotten setting would give, or that no header can have."""
    if token is not None and (not token or token != token.strip()):
        raise ValueError("metrics_token is empty, or has white space around it: leave it out, or set it")
    return token


def at(path: str, answer: Any) -> list[Route]:
    # Litestar ends the path that it hands on with a slash.
    return [Route(path + end, answer, methods=["GET"]) for end in ("", "/")]


def told(verdict: Verdict) -> Response:
    return json_response({"status": "ok" if verdict.ok else "unavailable"}, 200 if verdict.ok else 503)


def exposed(text: bytes | None) -> Response:
    if text is None:
        return Response(f"# {_NO_METRICS}\n", 501, HEADERS, "text/plain")
    from durably_web.metrics import CONTENT_TYPE

    return Response(text, 200, {**HEADERS, "Content-Type": CONTENT_TYPE})


def _check_token(request: Request, token: str) -> None:
    # Starlette reads headers as latin-1; these are the bytes that were sent.
    scheme, _, given = request.headers.get("authorization", "").encode("latin-1").partition(b" ")
    # In a time that says nothing of how much of it is right.
    if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), token.encode()):
        raise HTTPException(401, "metrics need the token", {"WWW-Authenticate": "Bearer"})
