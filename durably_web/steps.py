"""What a job sees of its run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from durably_web.records import Level

if TYPE_CHECKING:
    from durably_web.execution import Execution

T = TypeVar("T")


class Step:
    """The first argument of a job."""

    __slots__ = ("_execution", "log")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self.log = StepLog(execution)

    @overload
    def run(self, name: str, fn: Callable[..., Awaitable[T]], /, *args: Any) -> Coroutine[Any, Any, T]: ...

    @overload
    def run(self, name: str, fn: Callable[..., T], /, *args: Any) -> Coroutine[Any, Any, T]: ...

    def run(self, name: str, fn: Callable[..., Any], /, *args: Any) -> Coroutine[Any, Any, Any]:
        """Run `fn(*args)` once, ever, and give its result.

        The result is stored before the call returns; every later execution of the run returns the stored one
        without calling `fn`. `fn` is sync (it runs in a thread, in the browser at once) or async. A name that
        is used again gets an occurrence number (`save`, `save#2`), counted in the order of the calls, so loops
        and `asyncio.gather` just work. The result comes back as JSON keeps it: a tuple as a list.

        An exception of `fn` is stored too, and raised again by later executions until the run is retried.
        Raises `NotSerializable` when the result is not JSON. A crash between the end of `fn` and the commit
        runs `fn` again: make its effects safe to repeat.
        """
        return self._execution.step(name, fn, args)

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the run is. Cheap in a tight loop: only the last of many is stored, and that always."""
        self._execution.progress(current, total, message)

    @property
    def run_id(self) -> str:
        return self._execution.lease.run_id

    @property
    def attempt(self) -> int:
        """How many times the run has been taken up, from 1."""
        return self._execution.lease.attempt

    @property
    def labels(self) -> Mapping[str, str]:
        return MappingProxyType(self._execution.lease.labels)


class StepLog:
    """Writes lines that are stored with the run. `data` is JSON; what is not is stored as its `repr`.

    Outside of a step, a line that an earlier execution has stored is not stored again.
    """

    __slots__ = ("_execution",)

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def debug(self, message: str, **data: Any) -> None:
        self._write("debug", message, data)

    def info(self, message: str, **data: Any) -> None:
        self._write("info", message, data)

    def warning(self, message: str, **data: Any) -> None:
        self._write("warning", message, data)

    def error(self, message: str, **data: Any) -> None:
        self._write("error", message, data)

    def _write(self, level: Level, message: str, data: dict[str, Any]) -> None:
        self._execution.log(level, message, data)
