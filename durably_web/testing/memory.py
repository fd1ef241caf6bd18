"""What is in variables, as a text that is the same for what is equal: to see whether somebody has changed it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from durably_web.jobs import Job
from durably_web.testing.frames import is_users

_DEEPEST = 8
_MOST = 10_000

_SCALARS = (str, int, float, bool, bytes, type(None), complex, decimal.Decimal, uuid.UUID, datetime.date,
            datetime.time, datetime.timedelta)  # fmt: skip


def fingerprint(value: Any) -> str:
    """A text that changes when the value does. What cannot be looked into is its class alone."""
    return _text(value, 0, set())


def _text(value: Any, depth: int, seen: set[int]) -> str:
    kind = type(value)
    if isinstance(value, _SCALARS):
        return repr(value)
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType | type | Job):
        return f"<{getattr(value, '__qualname__', kind.__name__)}>"
    if isinstance(value, functools.partial):
        return f"partial({_text((value.func, value.args, value.keywords), depth + 1, seen)})"
    if depth >= _DEEPEST or id(value) in seen:
        return f"<{kind.__name__}>"
    seen = seen | {id(value)}
    if isinstance(value, dict):
        items = [
            f"{_text(key, depth + 1, seen)}: {_text(one, depth + 1, seen)}" for key, one in list(value.items())[:_MOST]
        ]
        return f"{'' if kind is dict else kind.__name__}{{{', '.join(items)}}}"
    if isinstance(value, set | frozenset):
        return f"{kind.__name__}({', '.join(sorted(_text(one, depth + 1, seen) for one in list(value)[:_MOST]))})"
    if isinstance(value, list | tuple):
        items = [_text(one, depth + 1, seen) for one in value[:_MOST]]
        opening, closing = "()" if isinstance(value, tuple) else "[]"
        return f"{'' if kind in (list, tuple) else kind.__name__}{opening}{', '.join(items)}{closing}"
    if kind.__module__ == "collections" and hasattr(value, "__iter__"):
        return f"{kind.__name__}({', '.join(_text(one, depth + 1, seen) for one in list(value)[:_MOST])})"
    if dataclasses.is_dataclass(value) or (
        is_users(getattr(_module(kind), "__file__", None), kind.__module__) and hasattr(value, "__dict__")
    ):
        return f"{kind.__name__}({_text(vars(value) if hasattr(value, '__dict__') else {}, depth + 1, seen)})"
    return f"<{kind.__name__}>"


def _module(kind: type) -> Any:
    import sys

    return sys.modules.get(kind.__module__)


Places = dict[str, Callable[[], Any]]


def places_of(fn: Any) -> Places:
    """The variables outside of a function that it and the functions it names can reach, each with what reads it."""
    found: Places = {}
    _collect(fn, found, set())
    return found


def _collect(fn: Any, found: Places, seen: set[int]) -> None:
    if not isinstance(fn, types.FunctionType) or id(fn) in seen or not is_users(fn.__code__.co_filename, fn.__module__):
        return
    seen.add(id(fn))
    if fn.__defaults__ or fn.__kwdefaults__:
        found[f"the defaults of {fn.__qualname__}()"] = lambda: (fn.__defaults__, fn.__kwdefaults__)
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False):
        _add(name, functools.partial(_cell, cell), found, seen)
    for code in _codes(fn.__code__):
        for name in code.co_names:
            if name in fn.__globals__:
                _add(name, functools.partial(fn.__globals__.get, name), found, seen)


def _add(name: str, read: Callable[[], Any], found: Places, seen: set[int]) -> None:
    value = read()
    if isinstance(value, types.FunctionType):
        _collect(value, found, seen)
    elif not isinstance(value, types.ModuleType | type | Job):
        found.setdefault(name, read)


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def snapshot(places: Places) -> dict[str, str]:
    return {name: fingerprint(read()) for name, read in places.items()}


def variables_of(fn: Any) -> Places:
    """The variables of the job that a step's function closes over."""
    if not isinstance(fn, types.FunctionType):
        return {}
    return {
        name: functools.partial(_cell, cell)
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False)
    }
