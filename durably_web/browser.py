"""What the browser's worker calls: start the engine on the job files, answer requests, stop.

Everything crosses as JSON text, so that no object of one language is kept alive by the other.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from durably_bridge import post, run_batch

from durably_web.api import Request, respond
from durably_web.backends.opfs import OpfsExecutor
from durably_web.codec import Codec
from durably_web.engine import Durably
from durably_web.errors import InvalidInput
from durably_web.events import EVENT_TYPES, Event
from durably_web.jobs import Job

JOBS_FOLDER = "/home/pyodide/jobs"

_engine: Durably | None = None
_unsubscribe: list[Callable[[], None]] = []


async def start(options: str) -> str:
    """Load the job files and run the engine; `{"jobs": names}`, or `{"error": {"name", "message"}}`."""
    global _engine
    settings = json.loads(options)
    _patch_network_when_imported(settings["http_wheel"])
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


class JobFileError(Exception):
    """A job file cannot be used. Its own error's name is kept, because it says more than ours."""


def load_jobs(files: list[dict[str, str]]) -> list[Job[Any, Any]]:
    """Import each file `{"name", "source"}` under its own name; the jobs that their namespaces hold."""
    os.makedirs(JOBS_FOLDER, exist_ok=True)
    # At the end: a job file must not hide a module that others import.
    sys.path.append(JOBS_FOLDER)
    for file in files:
        name = file["name"]
        module = name.removesuffix(".py")
        if not (name.endswith(".py") and module.isidentifier()):
            raise InvalidInput(f"a job file is called like a Python module, such as jobs.py: {name!r}")
        if module in sys.stdlib_module_names or module in sys.modules or os.path.exists(f"{JOBS_FOLDER}/{name}"):
            raise InvalidInput(f"another module has the name of the job file {name}: call it something else")
        with open(f"{JOBS_FOLDER}/{name}", "w", encoding="utf-8") as target:
            target.write(file["source"])
    importlib.invalidate_caches()
    jobs: dict[int, Job[Any, Any]] = {}
    for file in files:
        for value in vars(_import(file["name"])).values():
            if isinstance(value, Job):
                jobs[id(value)] = value
    if not jobs:
        raise InvalidInput(f"there is no @job in {', '.join(file['name'] for file in files) or 'no job file'}")
    return list(jobs.values())


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name.removesuffix(".py"))
    except Exception as error:
        kind = type(type(error).__name__, (JobFileError,), {})
        raise kind(f"{_where(error, name)}: {_what(error)}") from error


def _where(error: Exception, name: str) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{os.path.basename(error.filename)}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == f"{JOBS_FOLDER}/{name}"]
    return f"{name}, line {lines[-1]}" if lines else name


def _what(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


_PATCHES = {"urllib.request": "patch_urllib", "requests": "patch_requests"}


class _PatchAfterImport:
    """Makes blocking HTTP work when a job first imports a library that uses it, and costs nothing before.

    A browser has no sockets; pyodide_http routes these libraries through XMLHttpRequest.
    """

    def __init__(self, wheel: str) -> None:
        self.wheel = wheel

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _PATCHES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec = find(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Patching(spec.loader, self.wheel, _PATCHES[name])
                return spec
        return None


class _Patching:
    """A loader that patches once the module it loads is complete."""

    def __init__(self, loader: Any, wheel: str, patch: str) -> None:
        self.loader = loader
        self.wheel = wheel
        self.patch = patch

    def create_module(self, spec: Any) -> Any:
        return self.loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.loader.exec_module(module)
        # The import system does this only after us, and the patch looks the module up by its full name.
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
        if self.wheel not in sys.path:
            sys.path.append(self.wheel)
        getattr(importlib.import_module("pyodide_http"), self.patch)()

    def __getattr__(self, name: str) -> Any:
        # Whatever else is asked of a loader: its sources, its files.
        return getattr(self.loader, name)


def _patch_network_when_imported(wheel: str) -> None:
    sys.meta_path.insert(0, _PatchAfterImport(wheel))
