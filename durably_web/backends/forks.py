"""What a process that forks leaves to its child, and the child must not touch."""

from __future__ import annotations

import os
import weakref
from typing import Protocol, TypeVar

from durably_web.errors import StoreUnavailable

_kept: list[object] = []


def forsake(thing: object) -> None:
    """Keep it for ever, also beyond the exit of the interpreter: nothing of the parent's is closed from here."""
    # Whatever is still there when the interpreter exits is taken apart; only a count that is too high prevents that.
    try:
        import ctypes
    except ImportError:
        _kept.append(thing)
    else:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class Forsaking(Protocol):
    def forsake(self) -> None:
        """In the child of a fork: let go of what is the parent's, and leave it as it is."""


E = TypeVar("E", bound=Forsaking)


def told_of_forks() -> weakref.WeakSet[E]:
    """A set for what is open: in the child of a fork each one forsakes what it has, and the set is empty."""
    opened: weakref.WeakSet[E] = weakref.WeakSet()

    def in_the_child() -> None:
        for each in list(opened):
            each.forsake()
        opened.clear()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_the_child)
    return opened


def not_open(where: str, *, forked: bool) -> StoreUnavailable:
    """The error of whoever asks an executor that is closed, was never opened, or is the parent's."""
    if forked:
        return StoreUnavailable(f"{where} was opened before a fork: each process opens it for itself, afterwards")
    return StoreUnavailable(f"{where} is not open: use `async with durably`, or `await durably.init()`")
