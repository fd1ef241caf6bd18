"""Texts without what should not be kept: exceptions of HTTP libraries repeat whole URLs and headers."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

# `scheme://user:password@host/path?query#fragment`, up to what a URL cannot have or is put around one.
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{1,20}://)([^\s'\"<>`{}\\|^]+)")
# Without a scheme, as urllib3 tells of one: `with url: /path?query`.
_PATH_WITH_QUERY = re.compile(r"(?<![\w/:.?&=*])(/[^\s'\"<>`?]*\?)([^\s'\"<>`?]*=[^\s'\"<>`]*)")
_SCHEME = re.compile(
    r"\b(bearer|basic|digest|token|negotiate)(\s+)(?=[A-Za-z0-9._~+/=-]*[0-9._~+/=-])([A-Za-z0-9._~+/=-]{8,})", re.I
)
_NAME = (
    r"(?:[A-Za-z0-9]+[_-])*(?:api[_-]?key|apikey|access[_-]?key|secret[_-]?key|private[_-]?key|client[_-]?secret|"
    r"access[_-]?token|refresh[_-]?token|id[_-]?token|auth[_-]?token|session[_-]?(?:id|token|key)|token|secret|passwd|"
    r"password|passphrase|pwd|signature|jwt)"
)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie|x-(?:api-key|auth-token|csrf-token))(['\"]?\s*[:=]\s*)"
    r"('[^'\n]*'|\"[^\"\n]*\"|[^\n'\"}\])]+)",
    re.I,
)
# A name, `=` without a space around it or `:` behind a quoted name, and a value.
_ASSIGNED = re.compile(
    rf"(?<![A-Za-z0-9])({_NAME})(=)('[^'\n]*'|\"[^\"\n]*\"|[^\s'\"&;,)\]}}=][^\s'\"&;,)\]}}]*)", re.I
)
_SECRET_KEY = re.compile(rf"(?:{_NAME}|(?:proxy-)?authorization|(?:set-)?cookie|x-(?:auth-token|csrf-token))", re.I)
_QUOTED = re.compile(rf"(['\"])({_NAME})\1(\s*:\s*)('[^'\n]*'|\"[^\"\n]*\"|[^\s'\",}}\]]+)", re.I)


def redacted(text: str) -> str:
    """The text with `***` in the place of what may be a secret: users and passwords in URLs, the values of queries and
    fragments, headers for authorization and cookies, and values after names like `token=` and `password=`.

    Everything else stays as it is. To do it twice changes nothing more.
    """
    if "://" in text:
        text = _URL.sub(_without_secrets, text)
    if "?" in text:
        text = _PATH_WITH_QUERY.sub(lambda found: found[1] + _query(found[2]), text)
    text = _HEADER.sub(lambda found: found[1] + found[2] + _in_quotes(found[3]), text)
    text = _SCHEME.sub(lambda found: found[1] + found[2] + HIDDEN, text)
    text = _ASSIGNED.sub(lambda found: found[1] + found[2] + _in_quotes(found[3]), text)
    return _QUOTED.sub(lambda found: f"{found[1]}{found[2]}{found[1]}{found[3]}{_in_quotes(found[4])}", text)


def redacted_trace(lines: list[str]) -> str:
    """What `traceback.format_exception` gives, as one text. Lines of source code keep their `token=token`."""
    return "".join(_URL.sub(_without_secrets, line) if line.startswith("  File ") else redacted(line) for line in lines)


def redacted_data(value: Any) -> Any:
    """The same for what is made of dicts and lists: texts as by `redacted`, and `***` for the values of such names."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {
            key: HIDDEN if isinstance(key, str) and _SECRET_KEY.fullmatch(key) else redacted_data(item)
            for key, item in value.items()
        }
    return [redacted_data(item) for item in value] if isinstance(value, list | tuple) else value


def _without_secrets(found: re.Match[str]) -> str:
    scheme, rest = found[1], found[2]
    rest, hash_, fragment = rest.partition("#")
    address, mark, query = rest.partition("?")
    host, slash, path = address.partition("/")
    user, at, name = host.rpartition("@")
    if at and user:
        host = f"{HIDDEN}@{name}"
    text = scheme + host + slash + path
    if mark:
        text += mark + _query(query)
    return text + hash_ + _query(fragment) if "=" in fragment else text + hash_ + fragment


def _query(text: str) -> str:
    """Names stay, values go. What closes a sentence or a bracket behind it stays too."""
    body = text.rstrip(".,;:!)]")
    tail = text[len(body) :]
    parts = []
    for part in re.split(r"([&;])", body):
        name, equals, value = part.partition("=")
        parts.append(name + equals + (HIDDEN if value else "") if equals else part)
    return "".join(parts) + tail


def _in_quotes(value: str) -> str:
    quote = value[0] if value[0] in "'\"" else ""
    return f"{quote}{HIDDEN}{quote}"
