"""The routes, as one table: what each asks of the engine, and which query parameters it knows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from durably_web.api import parsing
from durably_web.api.parsing import BadRequest, Request
from durably_web.errors import Conflict, NotFound
from durably_web.events import Event

if TYPE_CHECKING:
    from durably_web.engine import Durably
    from durably_web.handle import RunHandle

MOST_EVENTS = 500

LONGEST_HOLD = 30.0
"""So many seconds an offer waits for the current steps of its run, which is less than a page waits for an answer."""

_DONE = {"success": True}


async def answer(durably: Durably, request: Request) -> Any:
    """The body of the answer. Raises `BadRequest`, `NotFound`, and what the engine raises."""
    route = ROUTES.get((request.method, request.path))
    if route is None:
        raise NotFound(f"there is no {request.method} {request.path}")
    parsing.request_id(request.id)
    parsing.check_query(request.query, route.query, route.several, request.path)
    return await route.handler(durably, request)


# -- triggers and signals ----------------------------------------------------------------------------------


async def _trigger(durably: Durably, request: Request) -> Any:
    job, input, options = trigger_asked(request)
    return made(await durably.trigger(job, input, request_id=request.id, **options))


async def _trigger_many(durably: Durably, request: Request) -> Any:
    job, items = triggers_asked(request)
    return [made(handle) for handle in await durably.trigger_many(job, items, request_id=request.id)]


def trigger_asked(request: Request) -> tuple[str, Any, dict[str, Any]]:
    """The job, the input and the options that `POST /trigger` stands for. Raises `BadRequest`."""
    body = parsing.fields(request.body, "a trigger", parsing.TRIGGER_FIELDS)
    return parsing.text(body.get("jobName"), "jobName"), body.get("input"), parsing.trigger_options(body)


def triggers_asked(request: Request) -> tuple[str, list[dict[str, Any]]]:
    """The job and the items that `POST /trigger-many` stands for. Raises `BadRequest`."""
    body = parsing.fields(request.body, "the body", ("jobName", "items"))
    job = parsing.text(body.get("jobName"), "jobName")
    items = body.get("items")
    if not isinstance(items, list):
        raise BadRequest("items must be a JSON array")
    asked = []
    for number, item in enumerate(items):
        given = parsing.fields(item, f"items[{number}]", parsing.ITEM_FIELDS)
        try:
            asked.append({"input": given.get("input"), **parsing.trigger_options(given)})
        except BadRequest as error:
            raise BadRequest(f"items[{number}]: {error}") from None
    return job, asked


def made(handle: RunHandle[Any]) -> dict[str, Any]:
    return {"runId": handle.id, "disposition": handle.disposition}


async def _signal(durably: Durably, request: Request) -> Any:
    run_id, name = _run_id(request), parsing.required(request.query, "name")
    await durably.signal(run_id, name, request.body, request_id=request.id)
    return _DONE


# -- reading -----------------------------------------------------------------------------------------------


async def _runs(durably: Durably, request: Request) -> Any:
    runs = await durably.get_runs(
        **parsing.which(request.query),
        limit=parsing.whole(request.query, "limit"),
        offset=parsing.whole(request.query, "offset"),
        after=parsing.optional(request.query, "after"),
        schedule=parsing.optional(request.query, "schedule"),
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


async def _events(durably: Durably, request: Request) -> Any:
    """One page of stored events. `ended` says that no more can follow; `next`, unless it is `None`, that there may be
    more behind that seq by now."""
    run_id = parsing.optional(request.query, "runId")
    after = parsing.whole(request.query, "after") or 0
    limit = parsing.whole(request.query, "limit")
    limit = MOST_EVENTS if limit is None else limit
    if not 1 <= limit <= MOST_EVENTS:
        raise BadRequest(f"limit must be a number from 1 to {MOST_EVENTS}")
    page = await durably.get_events(run_id, after=after, limit=limit)
    return events_page(page.events, page.ended, page.events[-1].seq if len(page.events) == limit else None)


def events_page(events: Sequence[Event], ended: bool, behind: int | None) -> dict[str, Any]:
    """The answer to `GET /events`; the next page, if there is one by now, begins behind the seq `behind`."""
    return {"events": [event.to_wire() for event in events], "ended": ended, "next": None if ended else behind}


async def _stats(durably: Durably, request: Request) -> Any:
    return (await durably.stats(**parsing.which(request.query))).to_wire()


async def _health(durably: Durably, request: Request) -> Any:
    await durably.check_health()
    return {"ok": True}


# -- one run -----------------------------------------------------------------------------------------------


async def _cancel(durably: Durably, request: Request) -> Any:
    await durably.cancel(_run_id(request), request_id=request.id)
    return _DONE


async def _retry(durably: Durably, request: Request) -> Any:
    await durably.retry(_run_id(request), request_id=request.id)
    return _DONE


async def _retrigger(durably: Durably, request: Request) -> Any:
    return {**_DONE, "runId": (await durably.retrigger(_run_id(request), request_id=request.id)).id}


async def _fork(durably: Durably, request: Request) -> Any:
    from_step = parsing.required(request.query, "fromStep") if "fromStep" in request.query else None
    handle = await durably.fork(_run_id(request), from_step=from_step, request_id=request.id)
    return {**_DONE, "runId": handle.id}


async def _delete(durably: Durably, request: Request) -> Any:
    await durably.delete_run(_run_id(request), request_id=request.id)
    return _DONE


async def _pause(durably: Durably, request: Request) -> Any:
    run_id, job = _run_or_job(request)
    if run_id is not None:
        await durably.pause(run_id, request_id=request.id)
    else:
        await durably.pause_job(job, request_id=request.id)
    return _DONE


async def _resume(durably: Durably, request: Request) -> Any:
    run_id, job = _run_or_job(request)
    if run_id is not None:
        await durably.resume(run_id, request_id=request.id)
    else:
        await durably.resume_job(job, request_id=request.id)
    return _DONE


def _run_id(request: Request) -> str:
    return parsing.required(request.query, "runId")


def _run_or_job(request: Request) -> tuple[str | None, str]:
    if ("runId" in request.query) == ("jobName" in request.query):
        raise BadRequest("give one of runId and jobName")
    if "runId" in request.query:
        return _run_id(request), ""
    return None, parsing.required(request.query, "jobName")


# -- schedules ---------------------------------------------------------------------------------------------


async def _schedule(durably: Durably, request: Request) -> Any:
    body = parsing.fields(request.body, "a schedule", parsing.SCHEDULE_FIELDS)
    job, options = parsing.text(body.get("jobName"), "jobName"), parsing.schedule_options(body)
    return (await durably.schedule(job, input=body.get("input"), request_id=request.id, **options)).to_wire()


async def _schedules(durably: Durably, request: Request) -> Any:
    return [schedule.to_wire() for schedule in await durably.get_schedules()]


async def _one_schedule(durably: Durably, request: Request) -> Any:
    name = _name(request)
    schedule = await durably.get_schedule(name)
    if schedule is None:
        raise NotFound(f"there is no schedule {name!r}")
    return schedule.to_wire()


async def _pause_schedule(durably: Durably, request: Request) -> Any:
    return (await durably.pause_schedule(_name(request), request_id=request.id)).to_wire()


async def _resume_schedule(durably: Durably, request: Request) -> Any:
    return (await durably.resume_schedule(_name(request), request_id=request.id)).to_wire()


async def _trigger_schedule(durably: Durably, request: Request) -> Any:
    return made(await durably.trigger_schedule(_name(request), request_id=request.id))


async def _remove_schedule(durably: Durably, request: Request) -> Any:
    await durably.remove_schedule(_name(request), request_id=request.id)
    return _DONE


def _name(request: Request) -> str:
    return parsing.required(request.query, "name")


# -- handing over ------------------------------------------------------------------------------------------


async def _export(durably: Durably, request: Request) -> Any:
    return await durably.export_run(_run_id(request))


async def _offer(durably: Durably, request: Request) -> Any:
    """The document is a text: a page must not read its numbers as its own, which have no `1.0` and end at 2**53."""
    body = parsing.fields(request.body, "the body", ("target", "timeoutMs", "handoverId"))
    timeout = parsing.seconds(body["timeoutMs"], "timeoutMs") if "timeoutMs" in body else LONGEST_HOLD
    target = parsing.text(body.get("target"), "target")
    try:
        offer = await durably.offer_run(
            _run_id(request),
            target,
            timeout=min(timeout, LONGEST_HOLD),
            request_id=parsing.request_id(body.get("handoverId", request.id)),
        )
    except TimeoutError:
        raise Conflict("a step of the run takes too long, so it goes on here: try again later") from None
    document = None if offer.document is None else json.dumps(offer.document, allow_nan=False)
    return {"runId": offer.run_id, "handoverId": offer.handover_id, "state": offer.state, "document": document}


async def _confirm(durably: Durably, request: Request) -> Any:
    await durably.confirm_handover(_run_id(request), parsing.required(request.query, "handoverId"))
    return _DONE


async def _withdraw(durably: Durably, request: Request) -> Any:
    await durably.withdraw_handover(_run_id(request), parsing.required(request.query, "handoverId"))
    return _DONE


async def _import(durably: Durably, request: Request) -> Any:
    return imported(await durably.import_run(document_of(request)))


def document_of(request: Request) -> Any:
    """The document that `POST /runs/import` brings: the body itself, or a text in it."""
    body = parsing.mapping(request.body, "the document")
    if set(body) == {"document"}:
        return parsing.text(body["document"], "document")
    return body


def imported(handle: RunHandle[Any]) -> dict[str, Any]:
    return {**_DONE, "runId": handle.id}


async def _decline(durably: Durably, request: Request) -> Any:
    """`declined` is false where the run was taken before."""
    handover_id = parsing.required(request.query, "handoverId")
    return {"declined": await durably.decline_handover(_run_id(request), handover_id)}


# -- many runs ---------------------------------------------------------------------------------------------


def _bulk(verb: str) -> Handler:
    async def handler(durably: Durably, request: Request) -> Any:
        change = getattr(durably, f"{verb}_runs")
        return {"count": await change(request_id=request.id, **parsing.which(request.query))}

    return handler


async def _purge(durably: Durably, request: Request) -> Any:
    body = parsing.fields(request.body, "the body", ("olderThan", "olderThanMs", "limit"))
    limit: dict[str, Any] = {"limit": parsing.count(body["limit"], "limit")} if "limit" in body else {}
    age = parsing.age_or_moment(body)
    return {"count": await durably.purge_runs(older_than=age, request_id=request.id, **limit)}


Handler = Callable[["Durably", Request], Awaitable[Any]]


class Route(NamedTuple):
    """`query` names the parameters; `label.` stands for all that begin like it. `several` are those that may come
    more than once."""

    handler: Handler
    query: tuple[str, ...] = ()
    several: tuple[str, ...] = ()


_RUN = ("runId",)
_SEVERAL = ("jobName", "status")
_NAME = ("name",)
_HANDOVER = ("runId", "handoverId")
_FILTER = ("jobName", "status", "label.", "createdBefore")

ROUTES: dict[tuple[str, str], Route] = {
    ("POST", "/trigger"): Route(_trigger),
    ("POST", "/trigger-many"): Route(_trigger_many),
    ("POST", "/signal"): Route(_signal, ("runId", "name")),
    ("GET", "/runs"): Route(_runs, ("jobName", "status", "label.", "schedule", "limit", "offset", "after"), _SEVERAL),
    ("GET", "/run"): Route(_run, _RUN),
    ("GET", "/steps"): Route(_steps, _RUN),
    ("GET", "/logs"): Route(_logs, _RUN),
    ("GET", "/events"): Route(_events, ("runId", "after", "limit")),
    ("GET", "/stats"): Route(_stats, ("jobName", "label."), _SEVERAL),
    ("GET", "/health"): Route(_health),
    ("POST", "/cancel"): Route(_cancel, _RUN),
    ("POST", "/retry"): Route(_retry, _RUN),
    ("POST", "/retrigger"): Route(_retrigger, _RUN),
    ("POST", "/fork"): Route(_fork, ("runId", "fromStep")),
    ("DELETE", "/run"): Route(_delete, _RUN),
    ("POST", "/pause"): Route(_pause, ("runId", "jobName")),
    ("POST", "/resume"): Route(_resume, ("runId", "jobName")),
    ("POST", "/purge"): Route(_purge),
    ("PUT", "/schedule"): Route(_schedule),
    ("GET", "/schedules"): Route(_schedules),
    ("GET", "/schedule"): Route(_one_schedule, _NAME),
    ("POST", "/schedule/pause"): Route(_pause_schedule, _NAME),
    ("POST", "/schedule/resume"): Route(_resume_schedule, _NAME),
    ("POST", "/schedule/trigger"): Route(_trigger_schedule, _NAME),
    ("DELETE", "/schedule"): Route(_remove_schedule, _NAME),
    ("GET", "/export"): Route(_export, _RUN),
    ("POST", "/handover/offer"): Route(_offer, _RUN),
    ("POST", "/handover/confirm"): Route(_confirm, _HANDOVER),
    ("POST", "/handover/withdraw"): Route(_withdraw, _HANDOVER),
    ("POST", "/handover/decline"): Route(_decline, _HANDOVER),
    ("POST", "/runs/import"): Route(_import),
    **{
        ("POST", f"/runs/{verb}"): Route(_bulk(verb), _FILTER, _SEVERAL)
        for verb in "cancel retry pause resume delete".split()
    },
}
