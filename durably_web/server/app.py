"""The application: every request goes through authentication, the limits, and the routes of `durably_web.api`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from durably_web.api.parsing import BadRequest, Request, required
from durably_web.api.parsing import check_query as check_names
from durably_web.api.routes import ROUTES
from durably_web.health import EngineProbes
from durably_web.server import access, limits, streams
from durably_web.server.answers import HEADERS, json_response, log, refused
from durably_web.server.asked import RunFilter
from durably_web.server.auth import Caller, Guard
from durably_web.server.doors import Door
from durably_web.server.health import checked_token, health_routes, metrics_routes
from durably_web.server.life import lifespan
from durably_web.server.limits import Limits
from durably_web.server.openapi import document
from durably_web.server.origins import check_origin
from durably_web.server.processing import Processing
from durably_web.server.qstash import QStash, Receiving

if TYPE_CHECKING:
    from durably_web.engine import Durably
    from durably_web.metrics import Metrics

# A stream whose client has not taken anything for so long is ended; it goes on where it was when it comes back.
SEND_SECONDS = 30.0

# When the server stops, a stream has so long to end properly before it is cut.
END_SECONDS = 1.0

STREAMS = {"/subscribe": ("runId",), "/runs/subscribe": ("jobName", "label.")}


def create_app(
    durably: Durably,
    *,
    auth: object | None = None,
    on_request: Callable[..., Any] | None = None,
    sse_throttle: float = 0.1,
    limits: Limits | None = None,
    allow_origins: Sequence[str] = (),
    heartbeat: float = 15.0,
    work: bool = True,
    cron_secret: str | None = None,
    qstash: QStash | None = None,
    metrics: bool | Metrics = False,
    metrics_token: str | None = None,
) -> Starlette:
    """The engine over HTTP, as an application to serve, or to mount below a path of another one.

    Without `auth` everybody may do everything. `auth.authenticate(request)` gives a context for the other hooks, or
    raises an `HTTPException`; see the guide. `on_request(request)` is called for each request that was authenticated,
    before it is carried out. Both may be async.

    In a stream, progress of a run comes once in `sse_throttle` seconds at most, and a comment after `heartbeat` seconds
    without anything. Pages of other sites may read answers, and send anything, only from `allow_origins`.

    With a `cron_secret` there is `/process`, which executes what is due, for whoever sends
    `Authorization: Bearer <cron_secret>`; and with a `QStash` there is `/qstash`, for its messages. They have keys of
    their own, so `auth` is not asked about them. Without, neither of them is there.
    With `metrics` (the extra `prometheus`) it answers `GET /metrics`, for whoever sends `metrics_token` as a bearer
    token; without one for whoever `auth` lets, by `on_admin(context, "metrics")`. `/health/live` and `/health/ready`
    are answered to everybody.

    Served by itself, the application opens the engine and closes it, and executes runs unless `work` is false. Mounted
    in another one, it has no life of its own: give that one `lifespan(durably)`.
    """
    if sse_throttle < 0 or heartbeat <= 0:
        raise ValueError("sse_throttle must not be negative, and heartbeat must be more than 0 seconds")
    limits = limits or Limits()
    server = _Server(durably, Guard(durably, auth), on_request, sse_throttle, limits, heartbeat)
    server.origins = frozenset(allow_origins)
    if cron_secret is not None:
        server.doors.append(Processing(durably, cron_secret, limits))
    if qstash is not None:
        server.doors.append(Receiving(durably, qstash, limits))
    probes = health_routes(EngineProbes(durably))
    if metrics or metrics_token is not None:
        # Not at the top: it needs the extra.
        from durably_web.metrics import Metrics

        counted = metrics if isinstance(metrics, Metrics) else Metrics(durably)
        probes += metrics_routes(counted, checked_token(metrics_token), server.admit_to_metrics)
    methods: dict[str, set[str]] = {}
    for method, path in ROUTES:
        methods.setdefault(path, set()).add(method)
    for path in (*STREAMS, "/openapi.json"):
        methods[path] = {"GET"}
    middleware = [
        Middleware(
            CORSMiddleware,
            allow_origins=list(allow_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
            # With any origin, cookies would let any site act for whoever visits it.
            allow_credentials="*" not in allow_origins,
        )
    ]
    app = Starlette(
        routes=[
            *probes,
            *(
                # Litestar ends the path that it hands on with a slash.
                Route(path + end, partial(server.serve, path), methods=sorted(known))
                for path, known in methods.items()
                for end in ("", "/")
            ),
            *(
                Route(path, partial(server.serve_door, door), methods=list(door.methods))
                for door in server.doors
                for path in door.paths
            ),
        ],
        middleware=middleware if allow_origins else [],
        exception_handlers={HTTPException: _refuse},
        lifespan=lifespan(durably, work=work),
    )
    app.router.redirect_slashes = False
    return app


async def _refuse(request: HttpRequest, error: Exception) -> Response:
    """Of what has no route."""
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        error.detail = f"there is no {request.method} {request.url.path}"
    return await refused(request, error)


class _Server:
    """Carries out requests."""

    origins: frozenset[str] = frozenset()

    def __init__(
        self,
        durably: Durably,
        guard: Guard,
        on_request: Callable[..., Any] | None,
        throttle: float,
        limits: Limits,
        heartbeat: float,
    ) -> None:
        self._durably = durably
        self._guard = guard
        self._on_request = None if on_request is None else _with_request(on_request)
        self._throttle = throttle
        self._limits = limits
        self._heartbeat = heartbeat
        self._hub = streams.Hub(durably)
        self.doors: list[Door] = []

    async def admit_to_metrics(self, request: HttpRequest) -> None:
        """Raises `HTTPException` for who may not see what concerns all runs."""
        await (await self._guard.admit(request)).check_admin("metrics")

    async def serve(self, path: str, request: HttpRequest) -> Response:
        """The answer to any request of a route. Raises nothing."""
        try:
            check_origin(request, self.origins)
            caller = await self._guard.admit(request)
            if self._on_request is not None:
                await self._on_request(request)
            return await self._carry_out(path, request, caller)
        except Exception as error:
            return await refused(request, error)

    async def serve_door(self, door: Door, request: HttpRequest) -> Response:
        """The same for a route with a key of its own."""
        try:
            await door.admit(request)
            if self._on_request is not None:
                await self._on_request(request)
            return await door.answer(request)
        except Exception as error:
            return door.refused(error) or await refused(request, error)

    async def _carry_out(self, path: str, http: HttpRequest, caller: Caller) -> Response:
        method = "GET" if http.method == "HEAD" else http.method
        query = limits.query_of(http)
        limits.check_query(query, self._limits)
        if path == "/openapi.json":
            return json_response(document(_root_of(http), self._limits, self.doors))
        if path in STREAMS:
            return await self._stream(http, path, query, caller)
        # A request that carries nothing else may still carry a body that is nobody's business.
        body = None if method == "GET" else await limits.body_of(http, path, self._limits)
        request = Request(method, path, query, body, http.headers.get("idempotency-key"))
        return json_response(await access.answer(self._durably, caller, request, self._limits.runs))

    async def _stream(self, http: HttpRequest, path: str, query: dict[str, Any], caller: Caller) -> Response:
        check_names(query, STREAMS[path], ("jobName",), path)
        after = _last_event_id(http)
        run_id = required(query, "runId") if path == "/subscribe" else None
        if run_id is not None:
            await caller.check_run(run_id, "subscribe", None)
            # Raises for a run that there is not, and never was.
            await self._durably.get_events(run_id, limit=1)
            after = after or 0
            fits, sees = access.run_filter(run_id)
        else:
            await self._durably.check_health()
            fits, sees = access.stream_filter(caller, await caller.scope(RunFilter.of(query), subscribe=True))
        if self._hub.streams >= self._limits.streams:
            raise HTTPException(
                503, f"there are {self._limits.streams} streams of events already", {"Retry-After": "5"}
            )
        return _EventStream(
            streams.messages(self._durably, self._hub, fits, sees, run_id=run_id, after=after, throttle=self._throttle),
            headers=HEADERS,
            ping=self._heartbeat,
            ping_message_factory=lambda: ServerSentEvent(comment="still here"),
            send_timeout=SEND_SECONDS,
            # Of an event, only this is used.
            shutdown_event=cast(Any, self._hub),
            shutdown_grace_period=END_SECONDS,
        )


class _EventStream(EventSourceResponse):
    """Ends without a word when its client takes nothing for too long."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except TimeoutError:
            log.info("a stream of events ends: its client has taken nothing for %g seconds", SEND_SECONDS)


def _root_of(request: HttpRequest) -> str:
    """The path that the application is mounted at, of a request for its OpenAPI document."""
    # Not root_path, which not every framework sets.
    asked = request.scope.get("raw_path") or request.scope["path"].encode()
    path: str = asked.decode("ascii", "replace").partition("?")[0]
    return path.rstrip("/").removesuffix("/openapi.json")


def _last_event_id(request: HttpRequest) -> int | None:
    text = request.headers.get("last-event-id", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise BadRequest("Last-Event-ID must be the id of an event of this stream")
    return int(text)


def _with_request(hook: Callable[..., Any]) -> Callable[[HttpRequest], Awaitable[None]]:
    """`on_request` as an async function of a request, whether it is one, and whether it wants to know it."""
    wants = any(
        one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)
        for one in inspect.signature(hook).parameters.values()
    )

    async def call(request: HttpRequest) -> None:
        result = hook(request) if wants else hook()
        if inspect.isawaitable(result):
            await result

    return call
