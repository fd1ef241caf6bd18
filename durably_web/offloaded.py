"""What runs in the process, or in the browser's worker, of an offloaded function: reading a call, making it, answering.

A call is the place of a function and the key of its step as JSON, then its arguments, pickled. An answer is a pickled
pair: `"result"` and the result; `"error"` and what `dump` gives; or `"ended"` and what was raised, where a function
meant to end its process.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, TracebackType
from typing import Any

from durably_web import failures
from durably_web.context import given_key
from durably_web.errors import NotSerializable
from durably_web.pickling import Buffer, Foreign, pack, unpack
from durably_web.redaction import redacted_trace

Part = Callable[[Buffer], Any]


def call(parts: Sequence[bytes | Foreign]) -> Any:
    """Call what is asked for. Gives an awaitable when the function is async."""
    rest: Iterator[bytes | Foreign] = iter(parts)
    head = next(rest)
    module, name, file, key = json.loads(head if isinstance(head, bytes) else head.to_bytes())
    given_key.set(key)
    # Before the arguments: they may be of classes that it has.
    fn: Any = _import(module, file)
    for attribute in name.split("."):
        fn = getattr(fn, attribute)
    return fn(*unpack(rest))


def result(value: object, part: Part) -> list[Any]:
    """The answer with the result of a function, or that it cannot be passed on."""
    try:
        return pack(("result", value), part)
    except Exception as error:
        reason = f"it cannot be pickled: {failures.describe(error)}"
        return failure(NotSerializable(reason), part)


def failure(error: BaseException, part: Part) -> list[Any]:
    """The answer with what a function raised."""
    if not isinstance(error, Exception):
        return pack(("ended", failures.describe(error)), part)
    return pack(("error", dump(error)), part)


def dump(error: Exception) -> dict[str, Any]:
    """An exception as a whole, if it can be pickled, and in any case what the store would keep of it."""
    try:
        # Beside the rest, and not in it: what cannot be read should spoil nothing else.
        pickled = pickle.dumps(error, protocol=5)
    except Exception:
        pickled = None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _is_around(trace):
        trace = trace.tb_next
    text = redacted_trace(traceback.format_exception(type(error), error, trace))
    return {**failures.dump(error), "pickled": pickled, "traceback": text}


def _is_around(trace: TracebackType) -> bool:
    return str(trace.tb_frame.f_globals.get("__name__")).startswith(("durably_web.", "asyncio."))


def _import(name: str, file: str | None) -> ModuleType:
    """The module, and if it came from a file, of that file: by its name alone another one could be found."""
    if name in sys.modules:
        return sys.modules[name]
    if file is None or "." in name or not file.endswith(".py"):
        return importlib.import_module(name)
    found = importlib.util.find_spec(name)
    if found is not None and found.origin == file:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "it ends with .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
