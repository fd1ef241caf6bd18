"""Batches as Hrana over HTTP says them: one pipeline with one conditional batch, and what comes back.

The stream that a pipeline opens is closed in the same request, so that nothing of a batch outlives its answer: no
transaction is left open whatever becomes of the connection, and there is no baton to lose.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any, NamedTuple

from durably_web.errors import StoreError
from durably_web.store.batch import Batch, Rows, Statement, Value

_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_NEVER: dict[str, Any] = {"type": "or", "conds": []}
_CLOSE = {"type": "close"}
_INTEGERS = range(-(2**63), 2**63)


class Answer(NamedTuple):
    """The rows of each statement, and how far the writes of the primary had reached, where it tells."""

    rows: list[Rows]
    reached: int | None


class ServerError(Exception):
    """What the server says went wrong; `index` is that of the statement, where it is one's fault; `reached` is how far
    the writes of the primary had reached, where it tells."""

    def __init__(self, code: str, message: str, index: int | None = None, reached: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.index = index
        self.reached = reached


class Garbled(Exception):
    """The answer is not one: it was cut, or is another server's."""


def request(batch: Batch, *, index: int | None = None, locked: bool = False) -> bytes:
    """The body that has a batch executed. Raises `StoreError` for a value that no column holds.

    A replica that has not come as far as `index` waits before it answers. `locked` takes the right to write, also for a
    batch that reads: so it is executed where the writes are.
    """
    statements = [_statement(number, one) for number, one in enumerate(batch.statements)]
    if len(statements) == 1 and not locked:
        # A statement alone is a transaction already.
        steps = [{"stmt": statements[0]}]
    else:
        begin = "BEGIN IMMEDIATE" if locked or batch.mode == "write" else "BEGIN"
        steps = [{"stmt": _plain(begin)}]
        for statement in (*statements, _plain("COMMIT")):
            steps.append({"condition": _ok(len(steps) - 1), "stmt": statement})
        undone = {"type": "and", "conds": [_ok(0), {"type": "not", "cond": _ok(len(steps) - 1)}]}
        steps.append({"condition": undone, "stmt": _plain("ROLLBACK")})
    asked: dict[str, Any] = {"steps": steps}
    if index is not None:
        asked["replication_index"] = str(index)
    return _body([{"type": "batch", "batch": asked}])


def answer(body: bytes, batch: Batch, *, locked: bool = False) -> Answer:
    """What came back for that request. Raises `ServerError` where the server refused, `Garbled` where it is unclear,
    and `StoreError` for a value that has no form here."""
    (result,) = _results(body, 1)
    if isinstance(result, ServerError):
        raise result
    try:
        found = result["result"]
        outcomes, errors = found["step_results"], found["step_errors"]
        told = found.get("replication_index")
        reached = None if told is None else int(told)
        alone = len(batch.statements) == 1 and not locked
        begins = 0 if alone else 1
        count = len(batch.statements)
        for step, error in enumerate(errors):
            if error is not None:
                own = begins <= step < begins + count
                raise _error(error, step - begins if own else None, reached)
        asked = outcomes[: count + 2 * begins]
        if len(asked) < count + 2 * begins or None in asked:
            raise Garbled("a part of the batch was left out")
        rows = [[_row(row) for row in outcome["rows"]] for outcome in outcomes[begins : begins + count]]
        return Answer(rows, reached)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Garbled(f"an answer of another form: {error!r}") from None


def check(batch: Batch) -> bytes:
    """The body that has each statement read, and none executed: a batch that cannot be read does not say which one."""
    steps = [_statement(number, one) for number, one in enumerate(batch.statements)]
    return _body([{"type": "batch", "batch": {"steps": [{"condition": _NEVER, "stmt": step}]}} for step in steps])


def first_unreadable(body: bytes, batch: Batch) -> int | None:
    """The position of the first statement that the server cannot read."""
    results = _results(body, len(batch.statements))
    return next((number for number, result in enumerate(results) if isinstance(result, ServerError)), None)


def _body(requests: list[dict[str, Any]]) -> bytes:
    try:
        return _dumps({"requests": [*requests, _CLOSE]}).encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"a text cannot be stored: {error}", code="UnicodeEncodeError") from None


def _results(body: bytes, count: int) -> list[Any]:
    """The responses to the first requests, or the errors."""
    try:
        results = json.loads(body)["results"][:count]
        found = [
            _error(one["error"], None) if one["type"] == "error" else (one["response"] if one["type"] == "ok" else None)
            for one in results
        ]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Garbled(f"no answer of a libSQL server: {body[:80]!r}") from error
    if len(found) != count or None in found:
        raise Garbled(f"{len(found)} results where {count} were asked for")
    return found


def _error(error: Any, index: int | None, reached: int | None = None) -> ServerError:
    if not isinstance(error, dict):
        raise TypeError(f"an error that is a {type(error).__name__}")
    message = str(error.get("message") or "no reason given").removeprefix("SQLite error: ")
    return ServerError(str(error.get("code") or "UNKNOWN"), message, index, reached)


def _ok(step: int) -> dict[str, Any]:
    return {"type": "ok", "step": step}


def _plain(sql: str) -> dict[str, Any]:
    return {"sql": sql, "want_rows": False}


def _statement(number: int, statement: Statement) -> dict[str, Any]:
    sql, params = statement
    try:
        return {"sql": sql, "args": [_encoded(value) for value in params], "want_rows": True}
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreError(str(error), code=type(error).__name__, statement_index=number) from None


def _encoded(value: Value) -> dict[str, Any]:
    if value is None:
        return {"type": "null"}
    if isinstance(value, str):
        return {"type": "text", "value": value}
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise OverflowError(f"{value} has more than 64 bits")
        # As a text: a number of JSON has 53 bits.
        return {"type": "integer", "value": str(int(value))}
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
        return {"type": "float", "value": value}
    if isinstance(value, bytes):
        return {"type": "blob", "base64": base64.b64encode(value).decode()}
    raise TypeError(f"a {type(value).__name__} cannot be stored")


def _row(cells: list[dict[str, Any]]) -> tuple[Value, ...]:
    return tuple([_decoded(cell) for cell in cells])


def _decoded(cell: dict[str, Any]) -> Value:
    kind = cell["type"]
    if kind == "text":
        text: str = cell["value"]
        return text
    if kind == "integer":
        return int(cell["value"])
    if kind == "null":
        return None
    if kind == "float":
        if cell["value"] is None:
            # JSON has no infinity.
            raise StoreError("a number without an end cannot be read from a libSQL server", code="NOT_FINITE")
        return float(cell["value"])
    if kind == "blob":
        coded: str = cell["base64"]
        # Servers leave out the padding.
        return base64.b64decode(coded + "=" * (-len(coded) % 4))
    raise ValueError(f"a value of type {kind!r}")
