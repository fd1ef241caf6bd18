"""What the code of a job does outside of its steps: time, chance, files, sockets, processes, threads.

Functions that are written in C are seen by a profiler, wherever they are known from; it is set only while code of a job
goes on. What the operating system is asked is seen by an audit hook, which can never be taken away again, and returns
at once while no job is watched.
"""

from __future__ import annotations

import _thread
import asyncio
import datetime
import os
import random
import sys
import time
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import Any

from durably_web.context import current_run, current_step
from durably_web.testing.errors import Finding
from durably_web.testing.frames import culprit_of
from durably_web.testing.loop import PROCESS

_IMPORTS = ("importlib",)
_HARMLESS = (*_IMPORTS, "logging", "warnings", "_pytest", "pluggy")
_LOOPS = ("asyncio", "concurrent", "pyodide", "webloop")

_IN_A_STEP = "Outside of steps it is done again at each execution. Do it in a step: await step.run(…)"

_ADVICE = {
    "time": 'It is another time at each execution. Ask in a step: await step.run("now", time.time)',
    "chance": 'It is another value at each execution. Draw in a step: await step.run("draw", random.random)',
    "effect": _IN_A_STEP,
    "waiting": "It is waited for anew at each execution, and keeps a worker busy. Use step.sleep, or wait in a step",
    "thread": "Nobody stops it when the run goes on elsewhere. A sync function in a step has a thread of its own",
    "task": "When the job returns, no step in it begins any more. Await it",
}


def _functions() -> dict[Any, tuple[str, str]]:
    found: dict[Any, tuple[str, str]] = {}
    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"):
        found[getattr(time, name)] = ("time", f"time.{name}")
    found[time.sleep] = ("waiting", "time.sleep")
    for name in ("start_new_thread", "start_joinable_thread"):
        if hasattr(_thread, name):
            found[getattr(_thread, name)] = ("thread", "")
    found[os.urandom] = ("chance", "os.urandom")
    common = random._inst
    for name in ("random", "getrandbits"):
        found[getattr(common, name)] = ("chance", f"random.{name}")
    uuid = sys.modules.get("_uuid")
    made = None if uuid is None else getattr(uuid, "generate_time_safe", None)
    if made is not None:
        found[made] = ("chance", "uuid.uuid1")
    return found


_NOW = frozenset({"now", "utcnow", "today"})
_UNSEEDED = random.Random.__init__.__code__

# Audit event → what a person calls it.
_EVENTS = {
    "os.remove": "removes a file",
    "os.rename": "renames a file",
    "os.mkdir": "makes a directory",
    "os.rmdir": "removes a directory",
    "os.link": "makes a link",
    "os.symlink": "makes a link",
    "os.truncate": "changes a file",
    "os.chmod": "changes a file",
    "os.putenv": "changes the environment",
    "os.unsetenv": "changes the environment",
    "os.chdir": "changes the working directory",
    "os.system": "starts a process",
    "os.exec": "starts a process",
    "os.fork": "starts a process",
    "os.posix_spawn": "starts a process",
    "subprocess.Popen": "starts a process",
    "socket.connect": "opens a connection",
    "socket.sendto": "sends something",
    "socket.bind": "opens a socket",
    "socket.getaddrinfo": "asks for an address",
    "sqlite3.connect": "opens a database",
    "open": "writes a file",
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watcher:
    """Reports what code of jobs does outside of steps. One for a process of an engine."""

    def __init__(self, report: Callable[[Finding], object]) -> None:
        self._report = report
        self._functions = _functions()
        # Where a platform has put Python in its place, as browsers do with `time.sleep`.
        self._codes = {
            code: known for one, known in self._functions.items() if (code := getattr(one, "__code__", None))
        }
        self.tasks: dict[str, list[tuple[asyncio.Task[Any], str]]] = {}
        _install()

    # -- what is called ----------------------------------------------------------------------------------

    def dress(self, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """The coroutine of an execution, or of a task that one makes, watched while it goes on."""
        return coroutine if isinstance(coroutine, Watched) else Watched(coroutine, self.profile)

    def entered(self) -> None:
        """A step's function begins, which may do what it likes, and without being held up."""
        if sys.getprofile() == self.profile:
            sys.setprofile(None)

    def left(self) -> None:
        """It is over, and its job goes on at once. Whoever let it go on puts the profiler back that was there."""
        if sys.getprofile() is None:
            sys.setprofile(self.profile)

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call":
            kind, name = self._functions.get(arg, (None, ""))
            if kind is None:
                if getattr(arg, "__name__", None) in _NOW:
                    kind, name = _present(arg)
                elif type(getattr(arg, "__self__", None)).__module__.startswith("numpy.random"):
                    kind, name = _of_numpy(arg)
                if kind is None:
                    return
            self.saw(kind, name, frame)
        elif event == "call":
            code = frame.f_code
            if code in self._codes:
                self.saw(*self._codes[code], frame.f_back)
            elif code is _UNSEEDED and frame.f_locals.get("x") is None:
                if type(frame.f_locals.get("self")) is random.Random:
                    self.saw("chance", "random.Random", frame.f_back)

    def saw(
        self, kind: str, name: str, frame: FrameType | None, exempt: tuple[str, ...] = (*_HARMLESS, *_LOOPS)
    ) -> None:
        if current_step.get() is not None or current_run.get() is None:
            return
        culprit = culprit_of(frame, exempt)
        if culprit is not None:
            what = "starts a thread" if kind == "thread" else f"calls {culprit.called or name}()"
            self._report(Finding(kind, f"the job {what} outside of a step", culprit.where, _ADVICE[kind]))

    # -- what is asked of the system ---------------------------------------------------------------------

    def audited(self, event: str, args: tuple[Any, ...], frame: FrameType | None) -> None:
        if current_step.get() is not None or (event == "open" and not _is_for_writing(args)):
            return
        culprit = culprit_of(frame, _HARMLESS)
        if culprit is not None:
            about = f" ({args[0]})" if args and isinstance(args[0], str) else ""
            what = f"the job {_EVENTS[event]}{about} outside of a step"
            self._report(Finding("effect", what, culprit.where, _ADVICE["effect"]))

    # -- what is asked of the loop -----------------------------------------------------------------------

    def timer(self, delay: float) -> None:
        self.saw("waiting", "asyncio.sleep", sys._getframe(3), _HARMLESS)

    def task(self, task: asyncio.Task[Any]) -> None:
        run_id = current_run.get()
        if run_id is None or current_step.get() is not None:
            return
        culprit = culprit_of(sys._getframe(2), _HARMLESS)
        if culprit is not None and culprit.where and (culprit.called or "").endswith(("create_task", "ensure_future")):
            self.tasks.setdefault(run_id, []).append((task, culprit.where))

    def returned(self, run_id: str) -> None:
        """The job of a run has returned: its tasks are done."""
        for task, where in self.tasks.pop(run_id, ()):
            if not task.done() and not task.cancelling():
                self._report(
                    Finding("task", "the job returns before a task of its own is done", where, _ADVICE["task"])
                )


class Watched(Coroutine[Any, Any, Any]):
    """A coroutine during whose turns a profiler is set."""

    __slots__ = ("_coroutine", "_profile")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], profile: Callable[[FrameType, str, Any], object]) -> None:
        self._coroutine = coroutine
        self._profile = profile

    def send(self, value: Any) -> Any:
        before = sys.getprofile()
        if current_step.get() is None:
            sys.setprofile(self._profile)
        try:
            return self._coroutine.send(value)
        finally:
            sys.setprofile(before)

    def throw(self, *error: Any) -> Any:
        before = sys.getprofile()
        if current_step.get() is None:
            sys.setprofile(self._profile)
        try:
            return self._coroutine.throw(*error)
        finally:
            sys.setprofile(before)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()


def _present(function: Any) -> tuple[str | None, str]:
    owner = getattr(function, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, datetime.date):
        return "time", f"{owner.__name__}.{function.__name__}"
    return None, ""


def _of_numpy(method: Any) -> tuple[str | None, str]:
    module = sys.modules.get("numpy.random.mtrand")
    if module is not None and method.__self__ is getattr(module, "_rand", None) and method.__name__ != "seed":
        return "chance", f"numpy.random.{method.__name__}"
    return None, ""


def _is_for_writing(args: tuple[Any, ...]) -> bool:
    path, mode, flags = (*args, None, None, None)[:3]
    if path == os.devnull or isinstance(path, int):
        return False
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & _WRITES)


_installed = False


def _install() -> None:
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_audit)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event not in _EVENTS or current_run.get() is None:
        return
    process = PROCESS.get()
    if process is not None and process.watcher is not None and not process.dead:
        process.watcher.audited(event, args, sys._getframe(1))
