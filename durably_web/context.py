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
