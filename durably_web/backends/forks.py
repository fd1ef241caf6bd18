"""What a process that forks leaves to its child, and the child must not touch."""

from __future__ import annotations

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
