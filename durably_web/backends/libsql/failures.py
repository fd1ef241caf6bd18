"""What an answer means that is not the one hoped for: to be asked again, or an error with a name."""

from __future__ import annotations

import email.utils
import json
import time

from durably_web.backends.libsql.address import TOKEN_VARIABLE, is_plain
from durably_web.backends.libsql.hrana import ServerError
from durably_web.backends.libsql.transport import Reply
from durably_web.errors import (
    ConstraintViolated,
    NotADatabase,
    ResponseTooLarge,
    StorageFull,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)

_KINDS: dict[str, type[StoreError]] = {
    "SQLITE_CONSTRAINT": ConstraintViolated,
    "SQLITE_FULL": StorageFull,
    "RESPONSE_TOO_LARGE": ResponseTooLarge,
    "SQLITE_NOTADB": NotADatabase,
    "SQLITE_CANTOPEN": StoreUnavailable,
    "SQLITE_READONLY": StoreUnavailable,
    "SQLITE_IOERR": StoreUnavailable,
    "SQLITE_CORRUPT": StoreUnavailable,
    "BLOCKED": StoreUnavailable,
}
# Somebody else writes, or took the turn away from a transaction that was too slow. Nothing was written.
_BUSY = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED", "TRANSACTION_TIMEOUT", "TRANSACTION_BUSY"})
# The stream of a request was given up while it was executed, or the transaction in it was.
_GONE = frozenset({"STREAM_EXPIRED", "STREAM_NOT_FOUND", "STREAM_CLOSED", "SQLITE_INTERRUPT", "SQLITE_ABORT_ROLLBACK"})
# Something changed meanwhile; the next time it is as it is then.
_CHANGED = frozenset({"SQLITE_SCHEMA", "SQLITE_PROTOCOL"})

UNREADABLE = frozenset({"SQL_PARSE_ERROR", "SQL_NO_STATEMENT", "SQL_MANY_STATEMENTS", "SQL_INPUT_ERROR"})
"""Codes of a batch in which one statement cannot be read; the server does not say which."""

_AGAIN = frozenset({404, 408, 409, 421, 425, 429})


class Again(Exception):
    """The operation may be sent again, and should be; after `pause` seconds at least. `kind` is the error to raise
    when the time for that is up."""

    def __init__(
        self, message: str, kind: type[StoreError] = StoreUnavailable, code: str = "NO_REPLY", pause: float = 0.0
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.pause = pause
        self.late = False


def of_server(error: ServerError, where: str) -> Again | StoreError:
    """What the server said of a batch, by SQLite's names."""
    # Extended codes add a word: SQLITE_CONSTRAINT_UNIQUE, SQLITE_IOERR_WRITE.
    code, name = error.code, "_".join(error.code.split("_")[:2])
    if code in _BUSY or name in _BUSY:
        return Again(f"it is busy: {error}", StoreBusy, code)
    if code in _GONE or code in _CHANGED:
        return Again(f"{error} ({code})", code=code)
    if name == "SQLITE_FULL":
        message = f"there is no room left for {where}: delete runs, or make room on the server's disk"
    elif name == "SQLITE_CONSTRAINT":
        message = str(error)
    elif code == "RESPONSE_TOO_LARGE":
        message = f"{where}: {error} ({code}): what is to be read is more than the server says in one answer; "
        message += "raise --max-response-size of sqld, and keep large values elsewhere"
    elif code == "SQLITE_TOOBIG" or "too big" in str(error):
        message = f"{where}: {error} ({code}): the server takes no value, or no batch, that large; "
        message += "keep large values elsewhere"
    else:
        message = f"{where}: {error} ({code})"
    kind = _KINDS.get(code) or _KINDS.get(name, StoreError)
    return kind(message, code=code, statement_index=error.index)


def of_status(reply: Reply, where: str, *, has_token: bool) -> Again | StoreError:
    """What a reply means whose status is not that of an answer."""
    status, said = reply.status, _said(reply.body)
    code = f"HTTP_{status}"
    if status in (401, 403):
        if has_token:
            advice = (
                "the auth token is not one for this database, or has expired; make another one, "
                "for instance with `turso db tokens create NAME`"
            )
        elif is_plain(where):
            advice = "it asks for an auth token, and none is sent over http: use https://"
        else:
            advice = f"it asks for an auth token: set {TOKEN_VARIABLE}, or write ?authToken=… behind the URL"
        return StoreUnavailable(f"{where} refused access ({status}): {advice}", code=code)
    if status == 404 and "doesn't exist" in said:
        return StoreUnavailable(f"{where}: {said}", code=code)
    if status == 405:
        return StoreUnavailable(f"{where} is not the URL of a libSQL server: it takes no POST (405)", code=code)
    if status == 413:
        return StoreError(f"{where} takes no request that large (413)", code=code)
    if status in _AGAIN or status < 400 or status >= 500 or "STREAM_EXPIRED" in said or "baton" in said:
        return Again(f"it answered {status} {said}".rstrip(), code=code, pause=_pause(reply))
    return StoreError(f"{where} answered {status} {said}".rstrip(), code=code)


def _said(body: bytes) -> str:
    """One line of what stands in the body of an error."""
    text = body[:2000].decode(errors="replace")
    try:
        found = json.loads(text)
        text = " ".join(str(found[key]) for key in ("code", "message", "error") if found.get(key))
    except (ValueError, TypeError, AttributeError):
        pass
    return " ".join(text.split())[:200]


def _pause(reply: Reply) -> float:
    """The seconds of `Retry-After`, a number or a date; 0 without one."""
    asked = reply.headers.get("retry-after", "")
    if asked.isascii() and asked.isdigit():
        return float(asked)
    date = email.utils.parsedate_tz(asked)
    try:
        return 0.0 if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())
    except (ValueError, OverflowError):
        # In no calendar.
        return 0.0
