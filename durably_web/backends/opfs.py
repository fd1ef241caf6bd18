"""SQLite in the browser, on the origin private file system: one synchronous call into JavaScript per batch.

The worker's JavaScript has opened the database and verified its durability before Python starts, and holds the
lock that keeps every other tab and worker out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any

from durably_web.errors import (
    ConstraintViolated,
    InvalidInput,
    NotADatabase,
    StorageFull,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from durably_web.store.batch import Batch, Rows, Value

# What a JavaScript number holds exactly.
_MAX_SAFE = 2**53 - 1

_ERRORS: dict[str, type[StoreError]] = {
    "SQLITE_BUSY": StoreBusy,
    "SQLITE_LOCKED": StoreBusy,
    "SQLITE_FULL": StorageFull,
    "SQLITE_CONSTRAINT": ConstraintViolated,
    "SQLITE_NOTADB": NotADatabase,
    "SQLITE_IOERR": StoreUnavailable,
    "SQLITE_CANTOPEN": StoreUnavailable,
    "NOT_OWNER": StoreUnavailable,
}

_dumps = json.JSONEncoder(separators=(",", ":")).encode
_loads = json.JSONDecoder().decode


class OpfsExecutor:
    """An executor over the bridge's `run_batch`, which executes a batch in one transaction."""

    def __init__(self, run_batch: Callable[[str], str]) -> None:
        self._run_batch = run_batch
        self._open = False

    async def open(self) -> None:
        """Verifies nothing: the bridge exists only once the database is open and keeps its promise."""
        self._open = True

    async def close(self) -> None:
        """Sends nothing more; the worker closes the database after Python has stopped."""
        self._open = False

    async def run(self, batch: Batch) -> list[Rows]:
        if not self._open:
            raise StoreUnavailable("the database is not open: use `async with durably`, or `await durably.init()`")
        statements = [(sql, [_encode(value) for value in params]) for sql, params in batch.statements]
        message: dict[str, Any] = {"mode": batch.mode, "statements": statements}
        if batch.frees:
            message["frees"] = True
        reply = _loads(self._run_batch(_dumps(message)))
        if "error" in reply:
            raise _error(reply["error"])
        return [[tuple([_decode(value) for value in row]) for row in rows] for rows in reply["rows"]]

    def version(self) -> int | None:
        """Nobody else writes while the lock is held."""
        return None

    def announce(self, worker_id: str) -> None:
        """Nobody else could look."""

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        """All of them: who holds the lock is the only one alive."""
        return list(worker_ids)


def _encode(value: Value) -> Any:
    kind = type(value)
    if kind is str or value is None:
        return value
    if kind is int:
        return value if -_MAX_SAFE <= value <= _MAX_SAFE else {"i": str(value)}  # type: ignore[operator]
    if kind is float:
        return {"f": value}
    if kind is bytes:
        return {"b": base64.b64encode(value).decode()}  # type: ignore[arg-type]
    if isinstance(value, int):
        return int(value)
    raise InvalidInput(f"a {kind.__name__} cannot be stored")


def _decode(value: Any) -> Value:
    if type(value) is not dict:
        return value  # type: ignore[no-any-return]
    ((tag, content),) = value.items()
    if tag == "f":
        return float(content)
    return int(content) if tag == "i" else base64.b64decode(content)


def _error(error: dict[str, Any]) -> StoreError:
    code: str = error["code"]
    # Extended codes add a word: SQLITE_CONSTRAINT_UNIQUE, SQLITE_IOERR_WRITE.
    kind = _ERRORS.get("_".join(code.split("_")[:2]), StoreError)
    return kind(f"{code}: {error['message']}", code=code, statement_index=error["index"])
