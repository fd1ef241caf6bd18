"""Which right each route needs, and how an answer is kept within what its caller may see.

A route that is not named here concerns everybody, until somebody decides otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from durably_web.api import parsing, routes
from durably_web.api.parsing import Request
from durably_web.events import Event
from durably_web.server.asked import RunFilter, TriggerRequest
from durably_web.server.auth import Caller

if TYPE_CHECKING:
    from durably_web.engine import Durably
    from durably_web.store.operations.taking import TakenRun

# About one run, which the query names: what `on_run_access` is asked for.
OPERATIONS = {
    ("GET", "/run"): "read",
    ("GET", "/steps"): "steps",
    ("GET", "/logs"): "logs",
    ("GET", "/events"): "subscribe",
    ("POST", "/signal"): "signal",
    ("POST", "/cancel"): "cancel",
    ("POST", "/retry"): "retry",
    ("POST", "/retrigger"): "retrigger",
    ("POST", "/fork"): "fork",
    ("POST", "/pause"): "pause",
    ("POST", "/resume"): "resume",
    ("DELETE", "/run"): "delete",
    ("GET", "/export"): "export",
    ("POST", "/handover/offer"): "handover",
    ("POST", "/handover/confirm"): "handover",
    ("POST", "/handover/withdraw"): "handover",
}
# Of these, what takes a run away, or tells all of it: denied unless `auth` has a hook for it.
LEAVING = ("export", "handover")
# Runs of which a stream remembers whether its client may see them.
MOST_KNOWN = 10_000
# Events that one request for a page of them looks at, to find those that its caller may see.
MOST_LOOKED_AT = 10_000
# Of these, requests that name no run: they concern all runs of a job.
_OF_JOBS = (("POST", "/pause"), ("POST", "/resume"))


async def answer(durably: Durably, caller: Caller, request: Request, most_runs: int) -> Any:
    """The body of the answer for this caller. Raises what the engine raises, and `HTTPException`.

    A list of runs has no more than `most_runs`.
    """
    route = request.method, request.path
    if route == ("GET", "/runs"):
        return await _runs(durably, caller, request, most_runs)
    if (not caller.is_restricted and request.path != "/runs/import") or route == ("GET", "/health"):
        return await routes.answer(durably, request)
    if route in _RESTRICTED:
        _check_names(request)
    if route in OPERATIONS and ("runId" in request.query or (route not in _OF_JOBS and route != ("GET", "/events"))):
        run_id = parsing.required(request.query, "runId")
        await caller.check_run(run_id, OPERATIONS[route], request.id)
        if OPERATIONS[route] in LEAVING:
            await caller.check_leaving(run_id, OPERATIONS[route])
        return await routes.answer(durably, request)
    if route in _RESTRICTED:
        return await _RESTRICTED[route](durably, caller, request)
    await caller.check_admin(_name_of(request))
    if request.path.startswith("/runs/"):
        return await _bulk(durably, caller, request)
    return await routes.answer(durably, request)


def _check_names(request: Request) -> None:
    known = routes.ROUTES[request.method, request.path]
    parsing.request_id(request.id)
    parsing.check_query(request.query, known.query, known.several, request.path)


def _name_of(request: Request) -> str:
    """What `on_admin` is asked for: `"purge"`, `"pause_job"`, `"cancel_runs"`, `"schedule"`."""
    words = request.path.strip("/").split("/")
    if words[0] == "runs" and len(words) == 2:
        return f"{words[1]}_runs"
    if (request.method, request.path) in _OF_JOBS:
        return f"{words[0]}_job"
    return words[0]


async def _trigger(durably: Durably, caller: Caller, request: Request) -> Any:
    asked = await caller.allowed(TriggerRequest.of(*routes.trigger_asked(request)))
    return routes.made(await durably.trigger(asked.job_name, asked.input, request_id=request.id, **asked.arguments()))


async def _trigger_many(durably: Durably, caller: Caller, request: Request) -> Any:
    job, items = routes.triggers_asked(request)
    asked = [
        await caller.allowed(TriggerRequest.of(job, item.pop("input"), item)) for item in (dict(one) for one in items)
    ]
    if any(one.job_name != job for one in asked):
        raise TypeError("on_trigger gave one of many runs another job")
    given = [{"input": one.input, **one.arguments()} for one in asked]
    return [routes.made(handle) for handle in await durably.trigger_many(job, given, request_id=request.id)]


async def _runs(durably: Durably, caller: Caller, request: Request, most: int) -> Any:
    _check_names(request)
    limit = parsing.whole(request.query, "limit")
    if limit is not None and limit > most:
        raise parsing.BadRequest(f"limit must be at most {most}: the limit of this server")
    scope = await caller.scope(RunFilter.of(request.query))
    if scope.finds_nothing:
        return []
    query = {**scope.narrow(request.query), "limit": str(most + 1 if limit is None else limit)}
    runs = await routes.answer(durably, request._replace(query=query))
    if len(runs) > most:
        # A part of them would look like all of them.
        raise parsing.BadRequest(
            f"there are more than {most} such runs: give a limit, and go on with after, a run's id"
        )
    return [run for run in runs if await caller.sees(run["id"], "read")]


async def _stats(durably: Durably, caller: Caller, request: Request) -> Any:
    scope = await caller.scope(RunFilter.of(request.query))
    if scope.finds_nothing or scope.statuses is not None or not await caller.sees(None, "read"):
        # Counts of what one may not see would tell of it.
        raise HTTPException(403, "counts need a scope_runs of auth, and one without statuses")
    counts = await routes.answer(durably, request._replace(query=scope.narrow(request.query)))
    if not scope.is_open:
        counts["pausedJobs"] = [name for name in counts["pausedJobs"] if name in counts["byJob"]]
    return counts


async def _events(durably: Durably, caller: Caller, request: Request) -> Any:
    """A page of what the caller may see. One request looks at `MOST_LOOKED_AT` events: then `next` says where to go on,
    though fewer have been found than were asked for, or none."""
    fits, sees = stream_filter(caller, await caller.scope(RunFilter(), subscribe=True))
    limit = parsing.whole(request.query, "limit")
    limit = routes.MOST_EVENTS if limit is None else limit
    if not 1 <= limit <= routes.MOST_EVENTS:
        return await routes.answer(durably, request)
    after = parsing.whole(request.query, "after")
    found: list[Event] = []
    for _ in range(MOST_LOOKED_AT // routes.MOST_EVENTS):
        page = await durably.get_events(after=after, limit=routes.MOST_EVENTS)
        for event in page.events:
            after = event.seq
            if fits(event) and await sees(event):
                found.append(event)
            if len(found) == limit:
                return routes.events_page(found, False, after)
        if len(page.events) < routes.MOST_EVENTS:
            return routes.events_page(found, False, None)
    return routes.events_page(found, False, after)


async def _bulk(durably: Durably, caller: Caller, request: Request) -> Any:
    """Many runs, of those that the caller may see."""
    scope = await caller.scope(RunFilter.of(request.query))
    if scope.finds_nothing:
        return {"count": 0}
    if not await caller.sees(None, "read"):
        raise HTTPException(403, "many runs at once need a scope_runs of auth")
    return await routes.answer(durably, request._replace(query=scope.narrow(request.query)))


async def _import(durably: Durably, caller: Caller, request: Request) -> Any:
    # Before anything is read that somebody sends who may send nothing.
    await caller.check_arriving()
    # Large ones take a moment, in which others are served.
    read = await asyncio.to_thread(_read, routes.document_of(request), durably)
    return routes.imported(await durably._take_in(await caller.importable(read)))


def _read(document: Any, durably: Durably) -> TakenRun:
    from durably_web.importing import read

    return read(document, durably._codec)


async def _decline(durably: Durably, caller: Caller, request: Request) -> Any:
    await caller.check_arriving()
    await caller.check_id(parsing.required(request.query, "runId"))
    return await routes.answer(durably, request)


_RESTRICTED: dict[tuple[str, str], Callable[[Durably, Caller, Request], Awaitable[Any]]] = {
    ("POST", "/trigger"): _trigger,
    ("POST", "/trigger-many"): _trigger_many,
    ("GET", "/stats"): _stats,
    ("GET", "/events"): _events,
    ("POST", "/runs/import"): _import,
    ("POST", "/handover/decline"): _decline,
}


Fits = Callable[[Event], bool]
Sees = Callable[[Event], Awaitable[bool]]


def run_filter(run_id: str) -> tuple[Fits, Sees]:
    """Of one run, all events."""

    async def sees(event: Event) -> bool:
        return True

    return lambda event: event.run_id == run_id, sees


def stream_filter(caller: Caller, scope: RunFilter) -> tuple[Fits, Sees]:
    """Which events of all runs a caller gets to see: at once, and after asking.

    Raises `HTTPException` for a scope that cannot be kept.
    """
    if caller.is_restricted and scope.statuses:
        # An event does not say which status its run has, so all of them would be told.
        raise HTTPException(403, "events need a scope of auth without statuses")
    known: dict[str | None, bool] = {}

    def fits(event: Event) -> bool:
        if scope.finds_nothing:
            return False
        # What is about no run is about the server.
        is_open = scope.is_open and not caller.is_restricted
        return is_open if event.run_id is None else scope.admits(event.job_name, event.labels)

    async def sees(event: Event) -> bool:
        if event.run_id not in known:
            if len(known) >= MOST_KNOWN:
                known.clear()
            known[event.run_id] = await caller.sees(event.run_id, "subscribe")
        return known[event.run_id]

    return fits, sees
