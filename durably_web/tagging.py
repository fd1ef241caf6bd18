"""Values that JSON does not have, as objects `{"$type": …, "value": …}` in it. Loaded when the first one comes along.

A dict of the user's that has the key "$type" is stored as a list of pairs itself, so nobody can make one of these by
accident or by intent; and all that a stored text can name is one of the types below.
"""

from __future__ import annotations

import binascii
import datetime
import json
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

from durably_web.records import wire_instant

_SCALARS = frozenset({str, int, float, bool, type(None)})
# Marks the second of two hours that the clocks showed alike; ISO 8601 has no word for it.
_FOLD = " fold"
_MICROSECOND = datetime.timedelta(microseconds=1)
_key = json.JSONEncoder(sort_keys=True).encode


class _Refused(TypeError):
    """The value cannot be tagged; `complaint` says where and why."""


# -- tagging ---------------------------------------------------------------------------------------------


def tag(value: Any, depth: int) -> Any:
    """`value` as JSON has it. Raises TypeError or ValueError when something in it cannot be stored."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth == 0:
        raise _Refused
    depth -= 1
    if kind is list:
        return [item if type(item) in _SCALARS else tag(item, depth) for item in value]
    if kind is dict:
        return _dict(value, depth)
    if kind is tuple:
        return {"$type": "tuple", "value": [tag(item, depth) for item in value]}
    if kind is set or kind is frozenset:
        return {"$type": kind.__name__, "value": _sorted([tag(item, depth) for item in value])}
    if (known := _kind_of(value)) is not None:
        return {"$type": known, "value": _WRITERS[known](value)}
    # As the encoder takes them: an IntEnum is an int, an OrderedDict is a dict.
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list):
        return [tag(item, depth) for item in value]
    if isinstance(value, dict):
        return _dict(value, depth)
    raise _Refused


def _dict(value: dict[Any, Any], depth: int) -> Any:
    for key in value:
        if key == "$type" or not isinstance(key, str):
            pairs = [[tag(key, depth), tag(item, depth)] for key, item in value.items()]
            return {"$type": "dict", "value": pairs}
    return {key: item if type(item) in _SCALARS else tag(item, depth) for key, item in value.items()}


def _sorted(items: list[Any]) -> list[Any]:
    """In an order of its own: two equal sets have one text."""
    if len({type(item) for item in items}) == 1 and type(items[0]) in (str, int):
        return sorted(items)
    return sorted(items, key=_key)


def _kind_of(value: Any) -> str | None:
    """The tag of a scalar that is worth one. A subclass counts as its base when it is nothing more than that."""
    kind = type(value)
    known = _NAMES.get((kind.__module__, kind.__qualname__))
    if known is not None:
        return known
    for base in kind.__mro__[1:-1]:
        known = _NAMES.get((base.__module__, base.__qualname__))
        if known is not None:
            return known if _READERS[known](_WRITERS[known](value)) == value else None
    return None


def _write_datetime(value: datetime.datetime) -> str:
    _check_zone(value)
    return datetime.datetime.isoformat(value) + (_FOLD if value.fold else "")


def _write_time(value: datetime.time) -> str:
    _check_zone(value)
    return datetime.time.isoformat(value) + (_FOLD if value.fold else "")


def _check_zone(value: datetime.datetime | datetime.time) -> None:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise _Refused


def _write_timedelta(value: datetime.timedelta) -> int:
    """Microseconds: a float of seconds would not be exact."""
    return value // _MICROSECOND


def _write_decimal(value: Any) -> str:
    if not value.is_finite():
        raise _Refused
    return str(value)


def _write_bytes(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


_NAMES = {
    ("datetime", "datetime"): "datetime",
    ("datetime", "date"): "date",
    ("datetime", "time"): "time",
    ("datetime", "timedelta"): "timedelta",
    ("decimal", "Decimal"): "Decimal",
    ("uuid", "UUID"): "UUID",
    ("builtins", "bytes"): "bytes",
}

_WRITERS: dict[str, Callable[[Any], Any]] = {
    "datetime": _write_datetime,
    "date": datetime.date.isoformat,
    "time": _write_time,
    "timedelta": _write_timedelta,
    "Decimal": _write_decimal,
    "UUID": str,
    "bytes": _write_bytes,
}

# -- and back --------------------------------------------------------------------------------------------


def untag(value: Any) -> Any:
    """What `tag` was given."""
    kind = type(value)
    if kind is list:
        return [item if type(item) in _SCALARS else untag(item) for item in value]
    if kind is not dict:
        return value
    if (name := value.get("$type")) is not None and len(value) == 2 and "value" in value and type(name) is str:
        content = value["value"]
        if name in _READERS:
            return _READERS[name](content)
        if name in _MAKERS:
            return _MAKERS[name](untag(item) for item in content)
    # Written before there were tags, or by somebody else.
    return {key: item if type(item) in _SCALARS else untag(item) for key, item in value.items()}


def _read_datetime(text: str) -> datetime.datetime:
    if text.endswith(_FOLD):
        return datetime.datetime.fromisoformat(text.removesuffix(_FOLD)).replace(fold=1)
    return datetime.datetime.fromisoformat(text)


def _read_time(text: str) -> datetime.time:
    if text.endswith(_FOLD):
        return datetime.time.fromisoformat(text.removesuffix(_FOLD)).replace(fold=1)
    return datetime.time.fromisoformat(text)


def read_decimal(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


def read_uuid(text: str) -> Any:
    from uuid import UUID

    return UUID(text)


def read_bytes(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


def _read_timedelta(microseconds: int) -> datetime.timedelta:
    return datetime.timedelta(microseconds=microseconds)


_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": _read_datetime,
    "date": datetime.date.fromisoformat,
    "time": _read_time,
    "timedelta": _read_timedelta,
    "Decimal": read_decimal,
    "UUID": read_uuid,
    "bytes": read_bytes,
}

_MAKERS: dict[str, Callable[[Iterable[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
}

# -- what is in the way ----------------------------------------------------------------------------------


def complaint(value: Any, path: str, depth: int) -> str | None:
    """What keeps `value` from being stored, and where; `None` when nothing does."""
    if depth == 0:
        return f"{path} is nested too deeply, or contains itself"
    depth -= 1
    if isinstance(value, dict):
        for key, item in value.items():
            if found := complaint(key, f"the key {key!r} of {path}", depth) if type(key) is not str else None:
                return found
            if found := complaint(item, f"{path}[{key!r}]", depth):
                return found
        return None
    if isinstance(value, list) or type(value) is tuple:
        for index, item in enumerate(value):
            if found := complaint(item, f"{path}[{index}]", depth):
                return found
        return None
    if type(value) in (set, frozenset):
        for item in value:
            if found := complaint(item, f"{item!r} in {path}", depth):
                return found
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value!r}, which JSON does not have"
    try:
        tag(value, 1)
    except (TypeError, ValueError) as error:
        return f"{path} {_why(value)}{'' if isinstance(error, _Refused) else f': {error}'}"
    return None


def _why(value: Any) -> str:
    kind = type(value)
    name = kind.__name__
    if is_record(value):
        return (
            f"is a {name}: it can be stored where an annotation names it, that of the step's function or the job; "
            f"annotate what is returned, such as -> {name}"
        )
    if isinstance(value, bytearray | memoryview):
        return f"is a {name}, which would come back as bytes: store bytes({name})"
    if isinstance(value, datetime.datetime | datetime.time) and value.tzinfo is not None:
        return f"is {value!r}, whose zone gives no offset"
    if (kind.__module__, name) == ("decimal", "Decimal"):
        return f"is {value!r}, which is not a finite number"
    if isinstance(value, str | int):
        return f"is a {name} that JSON cannot write"
    return f"is a {name}, which cannot be stored"


def is_record(value: Any) -> bool:
    """Whether an annotation could say how to build it again."""
    kind = type(value)
    enum = sys.modules.get("enum")
    return (
        hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__pydantic_validator__")
        or (isinstance(value, tuple) and hasattr(kind, "_fields"))
        or (enum is not None and isinstance(value, enum.Enum))
    )


# -- the wire --------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A decoded value as plain JSON; `codec.to_plain` says how."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict:
        return {_plain_key(key): plain(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    if kind is set or kind is frozenset:
        return _sorted([plain(item) for item in value])
    if kind is datetime.datetime:
        return wire_instant(value) if value.utcoffset() == datetime.timedelta(0) else value.isoformat()
    if kind is datetime.timedelta:
        return value.total_seconds()
    if kind is bytes:
        return _write_bytes(value)
    if kind is datetime.time:
        return value.isoformat()
    known = _kind_of(value)
    # Not a value of ours, so of a codec that has types of its own: whoever writes the JSON may know it.
    return value if known is None else str(_WRITERS[known](value))


def _plain_key(key: Any) -> str:
    if type(key) is str:
        return key
    content = plain(key)
    return content if type(content) is str else json.dumps(content, ensure_ascii=False)
