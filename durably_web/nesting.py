"""How deep JSON is nested, before it is read or written.

In a browser, Python cannot read, write or compare what is nested one or two thousand levels deep: the machine below it
ends, and there is no exception to catch. So what comes from elsewhere is looked at first.
"""

from __future__ import annotations

import re
from typing import Any

_NESTING = (dict, list, tuple)
# A string, ended or not; or a bracket outside of strings.
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)


def value_is_deeper_than(most: int, value: Any) -> bool:
    """Whether lists, dicts and tuples have more than `most` levels within each other, or contain themselves."""
    return isinstance(value, _NESTING) and _is_deeper_than(most, value)


def _is_deeper_than(most: int, value: Any) -> bool:
    return most == 0 or any(
        _is_deeper_than(most - 1, item)
        for item in (value.values() if isinstance(value, dict) else value)
        if isinstance(item, _NESTING)
    )


def text_is_deeper_than(most: int, text: str) -> bool:
    """Whether a text has more than `most` levels of lists and objects within each other. It need not be JSON."""
    if text.count("[") + text.count("{") <= most:
        return False
    depth = 0
    for token in _TOKENS.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > most:
                return True
        elif first in "]}":
            depth -= 1
    return False
