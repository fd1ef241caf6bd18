"""What a step's function can ask, wherever it runs: contexts are copied into tasks and threads."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

current_step: ContextVar[str | None] = ContextVar("durably_current_step", default=None)

ended: ContextVar[Callable[[], bool] | None] = ContextVar("durably_ended", default=None)
"""Tells whether the result of what runs in this context is not wanted any more."""


def cancelled() -> bool:
    """Whether the step that asks should give up: its run was cancelled, took too long, or has another owner by now.

    For sync functions, which nobody can interrupt: ask in the loop, and return. `False` outside of a run.
    """
    has_ended = ended.get()
    return has_ended is not None and has_ended()


class Shutdown:
    """Whether an engine is about to stop, and why."""

    __slots__ = ("reason",)

    def __init__(self) -> None:
        self.reason: str | None = None

    def is_near(self) -> bool:
        return self.reason is not None


shutdown: ContextVar[Callable[[], bool] | None] = ContextVar("durably_shutdown", default=None)
"""Tells whether the engine that runs what runs in this context is about to stop."""


def shutting_down() -> bool:
    """Whether the engine is about to stop: `stop()` was called, or in the browser the page is being closed or frozen.

    For a step's function that takes long, sync or async: what it returns is still stored if it comes in time, so
    this is the moment to save what it has. `False` outside of a run.
    """
    is_near = shutdown.get()
    return is_near is not None and is_near()
