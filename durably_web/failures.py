"""Exceptions as the store keeps them, and as a later execution raises them again."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from durably_web.errors import RunCancelled, RunFailed, StepFailed


def describe(error: BaseException) -> str:
    """The name of an exception's class and its message: what a person reads first."""
    message = message_of(error)
    name = type(error).__name__
    return f"{name}: {message}" if message else name


def message_of(error: BaseException) -> str:
    """An exception's message as the store may keep it, whatever it is made of: texts of HTTP libraries have secrets."""
    # Not at the top: its patterns take a millisecond, and most starts see no failure.
    from durably_web.redaction import redacted

    try:
        message = str(error)
    except Exception:
        return ""
    # Such as the name of a file that is not UTF-8.
    return redacted(message.encode("utf-8", "backslashreplace").decode())


def dump(error: BaseException) -> dict[str, Any]:
    """What is stored of an exception: how it reads, and where its class is found."""
    stored = {
        "error": describe(error),
        "module": type(error).__module__,
        "name": type(error).__qualname__,
        "message": message_of(error),
    }
    # The one attribute that is ours: which run it was.
    return {**stored, "runId": error.run_id} if isinstance(error, RunFailed | RunCancelled) else stored


def revive(stored: dict[str, Any]) -> Exception:
    """An exception of the stored class and message, so that a job's `except` clauses decide as before.

    Its constructor is not called; attributes that it set are lost. Where the class cannot be found, `StepFailed`.
    """
    error = _revive(stored)
    if isinstance(error, RunFailed | RunCancelled):
        error.run_id = stored.get("runId")
    return error


def _revive(stored: dict[str, Any]) -> Exception:
    try:
        found: Any = importlib.import_module(stored["module"])
        for part in stored["name"].split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        found = None
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return StepFailed(stored["error"])
    message = stored["message"]
    with contextlib.suppress(Exception):
        error: Exception = found.__new__(found, message)
        error.args = (message,)
        if str(error) == message:
            return error
    # Its class makes its message of what its constructor sets: a class of our own, which is one of those too.
    return _revive_as_subclass(found, message)


def _revive_as_subclass(found: type[Exception], message: str) -> Exception:
    lines = {"__str__": lambda self: message, "__module__": found.__module__, "__qualname__": found.__qualname__}
    try:
        kind: type[Exception] = type(found.__name__, (found,), lines)
        arguments = (message, [Exception(message)]) if issubclass(found, BaseExceptionGroup) else (message,)
        error: Exception = kind.__new__(kind, *arguments)
        return error
    except Exception:
        return StepFailed(f"{found.__name__}: {message}" if message else found.__name__)
