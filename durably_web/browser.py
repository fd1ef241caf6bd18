"""What the browser's worker calls: start the engine on the job files, answer requests, stop.

Everything crosses as JSON text, so that no object of one language is kept alive by the other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from durably_web.api import Request, Response, respond
from durably_web.backends.opfs import OpfsExecutor
from durably_web.codec import Codec
from durably_web.engine import Durably
from durably_web.events import EVENT_TYPES, Event
from durably_web.fetches import BrowserNetwork, patch_when_imported
from durably_web.files import load_jobs
from durably_web.running import Running

_engine: Durably | None = None
# Of the bridge, which is not there yet when a memory with this module in it is made.
_post: Callable[[str, str], None]
_unsubscribe: list[Callable[[], None]] = []
_network = BrowserNetwork()


async def start(options: str) -> str:
    """Load the job files and make the engine; `{"jobs": names}`, or `{"error": {"name", "message"}}`.

    `orphaned` tells that the worker before this one was ended because it hung, and `blamed` under which run, if any.
    """
    global _engine, _post
    from durably_bridge import broken, post, run_batch, running

    _post = post
    settings = json.loads(options)
    patch_when_imported(settings["http_wheel"])
    try:
        jobs = load_jobs(settings["jobs"])
        _network.tell(settings["online"])
        codec = _codec([bytes(key) for key in settings["keys"]])
        engine = Durably(OpfsExecutor(run_batch), jobs=jobs, codec=codec, network=_network)
        _tell_of(engine, settings["events"])
        _tell_of_runs(engine, running)
        if settings["orphaned"]:
            engine.blame(settings["blamed"])
        await engine.migrate()
    except Exception as error:
        return json.dumps({"error": {"name": type(error).__name__, "message": str(error)}})
    _engine = engine
    # Of `sys.exit` in a job: elsewhere it ends the process, here it would leave an interpreter that answers nobody.
    setattr(asyncio.get_running_loop(), "_system_exit_handler", lambda code: broken())  # noqa: B010
    return json.dumps({"jobs": [job.name for job in jobs]})


async def begin() -> str:
    """Execute runs from now on; `{}`, or `{"error": {"name", "message"}}`, and then it may be called again.

    Not before the inbox is empty: a job could take the key of a trigger in it.
    """
    assert _engine is not None, "the worker begins only after start() has returned"
    try:
        await _engine.start()
    except Exception as error:
        return json.dumps({"error": {"name": type(error).__name__, "message": str(error)}})
    return "{}"


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


def hear_of_network(online: bool) -> None:
    """The browser says that there is a network, or none. Not before `start()` has returned."""
    _network.tell(online)


def _tell_of(engine: Durably, types: list[str]) -> None:
    while _unsubscribe:
        _unsubscribe.pop()()
    # "*" hears the others too, and nobody wants to be told twice.
    # The worker wants to know of these in any case.
    types = [*types, *({"storage:full", "storage:room"}.difference(types))]
    known = ["*"] if "*" in types else [name for name in types if name in EVENT_TYPES]
    _unsubscribe.extend(engine.on(name, _forward) for name in known)
    if "journal" in types:
        _unsubscribe.append(engine.on("*", _hint))


def _tell_of_runs(engine: Durably, running: Callable[[str | None], None]) -> None:
    watching = Running(running)
    watching.watch_branches(asyncio.get_running_loop())
    engine.watch_executions(watching.watch)


async def handle(request: str) -> str:
    """Answer a request `{id, method, path, query, body}` with `{status, body}`."""
    assert _engine is not None, "the worker sends requests only after start() has returned"
    return _text(await respond(_engine, _request(request)))


async def admit(request: str, received_at: int) -> str:
    """Carry out a trigger that was acknowledged before there was an engine, at that moment in milliseconds.

    As `handle`; but one that is refused becomes a run that has failed.
    """
    # Not at the top: most starts find nothing in the inbox.
    from durably_web.api.inbox import admit

    assert _engine is not None, "the worker sends requests only after start() has returned"
    return _text(await admit(_engine, _request(request), int(received_at)))


def _request(text: str) -> Request:
    parts = json.loads(text)
    return Request(parts["method"], parts["path"], parts.get("query") or {}, parts.get("body"), parts.get("id"))


def _text(response: Response) -> str:
    return json.dumps({"status": response.status, "body": response.body})


async def stop(reason: str) -> None:
    """Finish the current step of each run and give the leases back; listeners, and steps that ask, hear the reason:
    `close` or `pagehide`."""
    if _engine is not None:
        _engine.announce_stop(reason)
        await _engine.stop()


def _forward(event: Event) -> None:
    _post(event.type, json.dumps(event.to_wire()))


def _hint(event: Event) -> None:
    if event.seq is not None:
        _post("journal", json.dumps({"type": "journal", "runId": event.run_id, "seq": event.seq}))
