"""How values become the text that the store keeps. The only place that decides.

What JSON has is plain JSON. What it has not (`tagging` has the list) is an object `{"$type": …, "value": …}` in it,
so that it comes back as it was. Nothing is ever imported or called by a name that stands in a stored text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Protocol

from durably_web.errors import DecryptionFailed, NotSerializable
from durably_web.nesting import value_is_deeper_than

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
# The scanner itself: no looking for white space around the text, which takes as long as reading a small one; `encode`
# writes none.
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]

_PLAIN = frozenset({str, int, float, bool, type(None)})

# Below the recursion limit, with room for whoever reads it.
_DEEPEST = 200

# In a browser, JSON of some thousand levels is the end of Python, and not an exception.
_LOOKS_FIRST = sys.platform == "emscripten"


class Codec(Protocol):
    """What turns values into the texts that the database keeps, and back.

    `decode(encode(value))` must give an equal value: a step's result is compared before it is stored. Beside these two
    a codec may have `async seal(texts: list[str]) -> list[str]` and `async unseal(texts)`, through which the texts of
    a transaction go on their way into the database and out of it; with them errors, log lines and progress.
    """

    def encode(self, value: Any, /) -> str:
        """The text of a value. Raises `NotSerializable`, naming the part that is in the way."""
        ...

    def decode(self, text: str, /) -> Any:
        """The value of a text that `encode` made."""
        ...


class JsonCodec:
    """The default: JSON, and beside it `datetime`, `date`, `time`, `timedelta`, `Decimal`, `UUID`, `bytes`, `set`,
    `frozenset`, `tuple` and dicts with other keys than texts, which come back as they were, wherever they are nested.

    A zone becomes its offset. Refused are NaN and infinities, named tuples, and `bytearray`, which would not come back
    as what they were.
    """

    def encode(self, value: Any, /) -> str:
        return store(value)[0]

    def decode(self, text: str, /) -> Any:
        return decode(text)


def encode(value: object) -> str:
    """The JSON text of `value`, as fast as it gets: what JSON takes for its own is not looked at a second time.

    For values that are JSON: a tuple alone would become a list, and a key 1 the key "1"; `store` sees to that. Raises
    `NotSerializable`, naming the part that is in the way.
    """
    if _LOOKS_FIRST and value_is_deeper_than(_DEEPEST, value):
        return _encode_tagged(value)
    try:
        text = _encode(value)
    except (TypeError, ValueError, RecursionError):
        return _encode_tagged(value)
    if '"$type"' in text:
        # A key of somebody else's, perhaps, which `decode` must not take for ours.
        return _encode_tagged(value)
    return text if text.isascii() else _as_unicode(text, value)


def decode(text: str) -> Any:
    """The value of a text made by `encode` or `store`."""
    try:
        value = _scan(text, 0)[0]
    except StopIteration:
        if text.startswith("sealed:"):
            raise DecryptionFailed(
                "the value is sealed, and there is no key: pass the codec that sealed it, as in "
                "Durably(codec=AesGcmCodec(key))"
            ) from None
        raise ValueError(f"this is not a text that was stored: {text[:40]!r}") from None
    if '"$type"' in text:
        from durably_web import tagging

        return tagging.untag(value)
    return value


def store(value: object, codec: Codec | None = None) -> tuple[str, Any]:
    """The text of `value`, and the value that `decode` will make of it, which is equal to it.

    A job gets the second one on its first execution too, so that it sees the same before and after a crash: a copy, and
    an `IntEnum` is an int from the start.
    """
    if codec is not None and type(codec) is not JsonCodec:
        return _store_by(codec, value)
    text = encode(value)
    if type(value) in _PLAIN:
        return text, value
    again = decode(text)
    if again != value:
        # JSON took a tuple for a list, or a number for a key.
        text = _encode_tagged(value)
        again = decode(text)
        if again != value and not _same_text(again, value):
            raise NotSerializable("the value does not come back as it was: something in it is equal only to itself")
    return text, again


def _store_by(codec: Codec, value: object) -> tuple[str, Any]:
    # Ours around another codec, which is looked at once and not twice.
    own = getattr(codec, "_store", None)
    if own is not None:
        stored: tuple[str, Any] = own(value)
        return stored
    text = codec.encode(value)
    if type(text) is not str:
        raise NotSerializable(f"{type(codec).__name__}.encode() must give a str, not a {type(text).__name__}")
    again = codec.decode(text)
    if again != value and not _same_text(again, value):
        raise NotSerializable(f"{type(codec).__name__} does not give the value back as it was")
    return text, again


def _same_text(again: object, value: object) -> bool:
    """Of some instants Python says that they are not equal to themselves in another zone; their texts are."""
    try:
        return _encode_tagged(again) == _encode_tagged(value)
    except NotSerializable:
        return False


def to_plain(value: Any) -> Any:
    """A decoded value as the wire has it: plain JSON.

    Instants are ISO 8601 (in UTC with milliseconds and `Z`), dates and times of day too; a duration is a number of
    seconds; `Decimal` and `UUID` are text, bytes are base64; tuples and sets are lists, and every key is a text. What
    is plain already is given back itself.
    """
    if type(value) in _PLAIN:
        return value
    try:
        if _is_plain(value):
            return value
    except RecursionError:
        # Only plain JSON is let so deep.
        return value
    from durably_web import tagging

    return tagging.plain(value)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or (type(item) not in _PLAIN and not _is_plain(item)):
                return False
        return True
    if kind is list:
        for item in value:
            if type(item) not in _PLAIN and not _is_plain(item):
                return False
        return True
    return kind in _PLAIN


def _as_unicode(text: str, value: object) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8 form; escaped, it survives.
        return _encode_ascii(value)
    return text


def _encode_tagged(value: object) -> str:
    from durably_web import tagging

    try:
        tagged = tagging.tag(value, _DEEPEST)
        text = _encode(tagged)
    except (TypeError, ValueError, RecursionError) as error:
        complaint = tagging.complaint(value, "value", _DEEPEST)
        raise NotSerializable(complaint or f"the value cannot be stored: {error}") from None
    return text if text.isascii() else _as_unicode(text, tagged)
