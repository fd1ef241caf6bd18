"""What a step's function can ask, wherever it runs: contexts are copied into tasks and threads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from durably_web.errors import InvalidInput

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

current_step: ContextVar[str | None] = ContextVar("durably_current_step", default=None)

current_run: ContextVar[str | None] = ContextVar("durably_current_run", default=None)

given_key: ContextVar[str | None] = ContextVar("durably_given_key", default=None)
"""Where a function was offloaded to, the key of the step that called it."""

# The least that servers are known to take.
_LONGEST_KEY = 255


def idempotency_key() -> str:
    """A text for a server that does what it is asked once for each such text, as with the header `Idempotency-Key`.

    It is made of the run's id and the step's name: the same in each attempt and each execution of the step, also after
    `retry` of the run, unless the step was undone before; and never that of another step or run. At most 255
    characters of `A-Z a-z 0-9 - . _ ~ / %`. Raises `InvalidInput` outside of a step's function.
    """
    key = given_key.get() or key_of(current_run.get(), current_step.get())
    if key is None:
        raise InvalidInput("idempotency_key() is asked in a step's function: outside of one there is no step to name")
    return key


def key_of(run_id: str | None, step: str | None) -> str | None:
    if run_id is None or step is None:
        return None
    name = "".join([one if one.isascii() and (one.isalnum() or one in "-._~") else _escaped(one) for one in step])
    if len(run_id) + 1 + len(name) > _LONGEST_KEY:
        # Not at the top: in a browser it is dear, and such names are rare.
        import hashlib

        name = f"sha256-{hashlib.sha256(step.encode()).hexdigest()}"
    return f"{run_id}/{name}"


def _escaped(one: str) -> str:
    return "".join([f"%{byte:02X}" for byte in one.encode()])


ended: ContextVar[Callable[[], bool] | None] = ContextVar("durably_ended", default=None)
"""Tells whether the result of what runs in this context is not wanted any more."""


def cancelled() -> bool:
    """Whether the step that asks should give up: its run was cancelled, took too long, or has another owner by now.

    For sync functions, which nobody can interrupt: ask in the loop, and return. `False` outside of a run.
    """
    has_ended = ended.get()
    return has_ended is not None and has_ended()


class Shutdown:
    """Whether an engine is about to stop, and why; whether its process is to be given nothing more to do before that;
    and what it must not stop before."""

    __slots__ = ("leaving", "reason", "wait_until")

    def __init__(self) -> None:
        self.reason: str | None = None
        self.leaving = False
        self.wait_until: Callable[[Awaitable[Any]], asyncio.Future[Any]] | None = None

    def is_near(self) -> bool:
        return self.reason is not None


shutdown: ContextVar[Shutdown | None] = ContextVar("durably_shutdown", default=None)
"""That of the engine which runs what runs in this context."""


def shutting_down() -> bool:
    """Whether the engine is about to stop: `stop()` was called, or in the browser the page is being closed or frozen.

    For a step's function that takes long, sync or async: what it returns is still stored if it comes in time, so
    this is the moment to save what it has. `False` outside of a run and of `wait_until`.
    """
    engine = shutdown.get()
    return engine is not None and engine.is_near()


def wait_until(awaitable: Awaitable[T]) -> asyncio.Future[T]:
    """`Durably.wait_until` of the engine that executes this run: for a job, or a step's async function.

    Also for work that was given to a `wait_until` itself. Raises `InvalidInput` elsewhere.
    """
    engine = shutdown.get()
    if engine is None or engine.wait_until is None:
        raise InvalidInput("wait_until() is called in a job or a step's function; elsewhere it is durably.wait_until()")
    return engine.wait_until(awaitable)
