"""How deep JSON is nested, before it is read.

In a browser, Python cannot read what is nested some thousand levels deep: the machine below it ends, and there is no
exception to catch. So somebody else's text is looked at first.
"""

from __future__ import annotations

import re

# A string, ended or not; or a bracket outside of strings.
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)


def is_deeper_than(most: int, text: str) -> bool:
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
