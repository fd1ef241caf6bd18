"""U+0000, which PostgreSQL stores in no text: neither as it is nor, where the server reads JSON, escaped.

It is stored as U+FDD0 and "0". No text has that one, which is for a program's own use; should it have, it becomes two.
In JSON the same is done with the escapes, so that the server finds a text that it takes out of JSON equal to one that
came by itself. Only what begins as JSON does is looked at in this way: a name may have the six letters of an escape in
it, which are an escape of the backslash in JSON. One that also begins so is only found by itself.
"""

from __future__ import annotations

import re

_MARK = "\ufdd0"
_MARKED = re.compile(f"{_MARK}(.)", re.DOTALL)

# An escape begins with a backslash that is not escaped itself.
_JSON = ('"', "[", "{")
_NULL, _ESCAPE = r"\u0000", r"\ufdd0"
_TO_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\u(0000|fdd0)")
_ESCAPED = re.compile(r"(?<!\\)((?:\\\\)*)\\ufdd0(0|\\ufdd0)")


def marked(text: str) -> str:
    """As it is stored."""
    if "\0" in text or _MARK in text:
        text = text.replace(_MARK, _MARK + _MARK).replace("\0", _MARK + "0")
    if (_NULL in text or _ESCAPE in text) and text.startswith(_JSON):
        text = _TO_ESCAPE.sub(lambda found: found[1] + _ESCAPE + ("0" if found[2] == "0000" else _ESCAPE), text)
    return text


def unmarked(text: str) -> str:
    """What was stored."""
    if _MARK in text:
        text = _MARKED.sub(lambda found: "\0" if found[1] == "0" else found[1], text)
    if _ESCAPE in text and text.startswith(_JSON):
        text = _ESCAPED.sub(lambda found: found[1] + (_NULL if found[2] == "0" else _ESCAPE), text)
    return text
