"""What the browser's worker calls: start the engine on the job files, answer requests, stop.

Everything crosses as JSON text, so that no object of one language is kept alive by the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from durably_bridge import post, run_batch

from durably_web.api import Request, respond
from durably_web.backends.opfs import OpfsExecutor
from durably_web.codec import Codec
from durably_web.engine import Durably
from durably_web.events import EVENT_TYPES, Event
from durably_web.files import load_jobs, patch_network_when_imported

_engine: Durably | None = None
_unsubscribe: list[Callable[[], None]] = []


async def start(options: str) -> str:
    """Load the job files and run the engine; `{"jobs": names}`, or `{"error": {"name", "message"}}`."""
    global _engine
    settings = json.loads(options)
    patch_network_when_imported(settings["http_wheel"])
    try:
        jobs = load_jobs(settings["jobs"])
        engine = Durably(OpfsExecutor(run_batch), jobs=jobs, codec=_codec([bytes(key) for key in settings["keys"]]))
        _tell_of(engine, settings["events"])
        await engine.init()
    except Exception as error:
        return json.dumps({"error": {"name": type(error).__name__, "message": str(error)}})
    _engine = engine
    return json.dumps({"jobs": [job.name for job in jobs]})


def _codec(keys: list[bytes]) -> Codec | None:
    if not keys:
        return None
    # Not at the top: only a page with a key needs it.
    from durably_web.encryption import AesGcmCodec

    return AesGcmCodec(keys)


def listen(events: str) -> None:
    """Tell the page of these types of events from now on, a list, and of no others.

    `journal` tells of each stored event that it is there, and not what it is about.
    """
    assert _engine is not None, "the worker listens only after start() has returned"
    _tell_of(_engine, json.loads(events))


def _tell_of(engine: Durably, types: list[str]) -> None:
    while _unsubscribe:
        _unsubscribe.pop()()
    # "*" hears the others too, and nobody wants to be told twice.
    known = ["*"] if "*" in types else [name for name in types if name in EVENT_TYPES]
    _unsubscribe.extend(engine.on(name, _forward) for name in known)
    if "journal" in types:
        _unsubscribe.append(engine.on("*", _hint))


async def handle(request: str) -> str:
    """Answer a request `{method, path, query, body}` with `{status, body}`."""
    assert _engine is not None, "the worker sends requests only after start() has returned"
    parts = json.loads(request)
    response = await respond(_engine, Request(parts["method"], parts["path"], parts["query"], parts.get("body")))
    return json.dumps({"status": response.status, "body": response.body})


async def stop() -> None:
    """Finish the current step of each run and give the leases back."""
    if _engine is not None:
        await _engine.stop()


def _forward(event: Event) -> None:
    post(json.dumps(event.to_wire()))


def _hint(event: Event) -> None:
    if event.seq is not None:
        post(json.dumps({"type": "journal", "runId": event.run_id, "seq": event.seq}))
