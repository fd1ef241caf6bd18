"""How values become the text that the store keeps. The only place that decides."""

from __future__ import annotations

import json
from typing import Any

from durably_web.errors import NotSerializable

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
# Without looking for white space around the text, which takes as long as reading a small one; `encode` writes none.
_decode = json.JSONDecoder().raw_decode

_PLAIN = (str, int, float, bool, type(None))


def encode(value: object) -> str:
    """The JSON text of `value`. Raises `NotSerializable`, naming the part that is in the way."""
    try:
        text = _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSerializable(_complaint(value, "value", 0) or f"the value is not JSON: {error}") from None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            # A lone surrogate has no UTF-8 form; escaped, it survives.
            return _encode_ascii(value)
    return text


def decode(text: str) -> Any:
    """The value of a text made by `encode`."""
    return _decode(text)[0]


def store(value: object) -> tuple[str, Any]:
    """The text of `value`, and the value that `decode` will make of it.

    A job gets the second one on its first execution too, so that it sees the same before and after a crash:
    a tuple is a list from the start. Keys that are not strings would change their type, and are refused.
    """
    text = encode(value)
    if type(value) in _PLAIN:
        return text, value
    again = decode(text)
    if again != value:
        complaint = _complaint(value, "value", 0)
        if complaint:
            raise NotSerializable(complaint)
    return text, again


def _complaint(value: object, path: str, depth: int) -> str | None:
    """What keeps `value` from being stored, and where; `None` when nothing does."""
    if depth > 200:
        return f"{path} is nested too deeply, or contains itself"
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                return f"{path} has the key {key!r}: keys must be strings"
            if complaint := _complaint(item, f"{path}[{key!r}]", depth + 1):
                return complaint
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if complaint := _complaint(item, f"{path}[{index}]", depth + 1):
                return complaint
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return f"{path} is {value!r}, which JSON does not have"
    elif not isinstance(value, _PLAIN):
        return f"{path} is a {type(value).__name__}, which JSON does not have"
    return None
