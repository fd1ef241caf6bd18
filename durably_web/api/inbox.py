"""Triggers that were acknowledged before there was an engine, and are carried out now.

They cannot be refused any more: who asked has gone on with the run's id. One that turns out to be impossible becomes
a run that has failed, with that id, so that it can be seen, and retried when the cause is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from durably_web import codec, failures
from durably_web.api import Response, error_response
from durably_web.api.parsing import BadRequest, Request, request_id
from durably_web.api.routes import made, trigger_asked, triggers_asked
from durably_web.arguments import checked_labels
from durably_web.errors import InvalidInput, NotSerializable, StoreError
from durably_web.ids import counted_up
from durably_web.store.operations.refusing import Refusal, store_refusals

if TYPE_CHECKING:
    from durably_web.engine import Durably

_ENTRIES = ("run:trigger", "run:fail")


async def admit(durably: Durably, request: Request, received_at: int) -> Response:
    """Carry out a `POST /trigger` or `/trigger-many` as if at the moment at which it was received, in milliseconds.

    Answers as `respond`, but where that would refuse a trigger there are failed runs, and the answer is 200. Safe to
    repeat. With any other status nothing was stored, and the same may work later.
    """
    try:
        if (request.method, request.path) not in (("POST", "/trigger"), ("POST", "/trigger-many")):
            raise BadRequest(f"only triggers wait in the inbox, not {request.method} {request.path}")
        run_id = request_id(request.id)
        if run_id is None:
            raise BadRequest("what waits in the inbox has an id")
        try:
            return Response(200, await _carry_out(durably, request, received_at))
        except StoreError:
            raise
        except Exception as error:
            refusals = list(_refusals(durably, request, run_id, received_at, failures.describe(error)))
        await _store(durably, refusals)
        answers = [{"runId": one.run_id, "disposition": "created"} for one in refusals]
        return Response(200, answers[0] if request.path == "/trigger" else answers)
    except Exception as error:
        return error_response(error)


async def _carry_out(durably: Durably, request: Request, received_at: int) -> Any:
    if request.path == "/trigger":
        job, input, options = trigger_asked(request)
        return made(await durably.trigger_at(received_at, job, input, request_id=request.id, **options))
    job, items = triggers_asked(request)
    return [made(one) for one in await durably.trigger_many_at(received_at, job, items, request_id=request.id)]


def _refusals(durably: Durably, request: Request, run_id: str, received_at: int, error: str) -> Iterator[Refusal]:
    """What is kept of each run that was asked for: as much of it as makes sense."""
    body = request.body if isinstance(request.body, dict) else {}
    name = body.get("jobName")
    job_name = _clean(name) if isinstance(name, str) and name else "?"
    items = body.get("items") if request.path == "/trigger-many" else [body]
    error = _clean(error)
    for number, item in enumerate(items if isinstance(items, list) else [body]):
        given = item if isinstance(item, dict) else {"input": item}
        try:
            labels = checked_labels(given.get("labels"))
        except InvalidInput:
            labels = {}
        text = _text(durably, given.get("input"))
        data = codec.encode({"error": error})
        yield Refusal(counted_up(run_id, number), job_name, text, labels, error, data, received_at)


def _text(durably: Durably, input: Any) -> str:
    own = durably._codec
    try:
        return codec.store({} if input is None else input, own)[0]
    except NotSerializable:
        # Such as NaN, which is not JSON: what was asked for stays readable.
        return own.encode(json.dumps(input))


def _clean(text: str) -> str:
    """What the database can keep of a text."""
    return text.encode(errors="replace").decode()


async def _store(durably: Durably, refusals: list[Refusal]) -> None:
    stored = await durably._store.write(store_refusals(refusals, durably._clock.now()))
    durably._notify()
    for one, seqs in zip(refusals, stored, strict=True):
        for type_ in _ENTRIES:
            if type_ in seqs:
                await durably._tell_of(one.run_id, type_, seqs[type_])
