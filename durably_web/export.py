"""A run as plain JSON, with all that is stored of it. `docs/export.md` describes the format."""

from __future__ import annotations

import datetime
import json
from typing import Any, NamedTuple, cast

from durably_web.codec import Codec, JsonCodec
from durably_web.errors import InvalidInput
from durably_web.records import instant, wire_instant
from durably_web.store.batch import Row, Value
from durably_web.store.operations import Whole
from durably_web.store.rows import StoredEntry

FORMAT = "durably-web run"
VERSION = 1

# Columns by their names in an export, in the order in which the store gives them. Behind the colon is how one is
# written: as a value of the user, as JSON of ours, as an instant, or as yes or no; otherwise as it is.
_RUN = (
    "id jobName status input:value output:value error labels:json progress:json attempt idempotencyKey concurrencyKey "
    "priority runAt:instant createdAt:instant startedAt:instant completedAt:instant wakeAt:instant generation crashes "
    "paused:truth awaits:json parentRunId forkedFrom code restarted undoing schedule scheduledAt:instant"
)
_ENTRY = "number generation type stepName kind data:data startedAt:instant createdAt:instant calls requestId"
_SIGNAL = "number name payload:value createdAt:instant requestId stepName"
_UNDO = "number stepName"

# The entries whose data is a value of the user; that of all others is JSON of ours.
VALUES = ("step:complete", "run:coalesced")

# What a replay needs, as a claim reads it.
_REPLAYED = (
    "step:complete",
    "step:fail",
    "step:retry",
    "step:wait",
    "log:write",
    "run:retry",
    "run:undo",
    "run:patched",
    "step:unasked",
)


def exported(whole: Whole, codec: Codec) -> dict[str, Any]:
    """The export of a run that was stored by this codec."""
    values = "json" if is_json(codec) else "text"
    return {
        "format": FORMAT,
        "version": VERSION,
        "values": values,
        "run": _record(_RUN, whole.run, values),
        "journal": [_record(_ENTRY, row, values) for row in whole.journal],
        "signals": [_record(_SIGNAL, row, values) for row in whole.signals],
        "undos": [_record(_UNDO, row, values) for row in whole.undos],
    }


def is_json(codec: Codec) -> bool:
    """Whether the texts of a codec are tagged JSON, also behind a key."""
    return type(getattr(codec, "_inner", codec)) is JsonCodec


class Exported(NamedTuple):
    """An export, read back as far as a replay needs it. Values are as the database has them."""

    run_id: str
    job_name: str
    status: str
    input: str
    output: str | None
    labels: dict[str, str]
    attempt: int
    started_at: int
    code: str | None
    schedule: str | None
    scheduled_at: int | None
    entries: list[StoredEntry]
    values: str


def read(export: Any) -> Exported:
    """Raises `InvalidInput` for what is not an export, or one of a version that is not known here."""
    if not isinstance(export, dict) or export.get("format") != FORMAT:
        raise InvalidInput(f'this is no exported run: it has no "format": "{FORMAT}"')
    if export.get("version") != VERSION:
        raise InvalidInput(
            f"the export has version {export.get('version')!r}, and this durably_web knows version {VERSION}: update it"
        )
    try:
        run, values = export["run"], export["values"]
        entries: list[StoredEntry] = []
        for entry in export["journal"]:
            if entry["type"] == "run:restart":
                entries.clear()
            elif entry["type"] in _REPLAYED:
                entries.append(_entry(entry, values))
        _end_before_undo(entries)
        started_at = run.get("startedAt") or run["createdAt"]
        return Exported(
            run["id"],
            run["jobName"],
            run["status"],
            _text(run["input"], values),
            _text(run["output"], values) if "output" in run else None,
            run["labels"],
            run["attempt"],
            milliseconds(started_at),
            run.get("code"),
            run.get("schedule"),
            milliseconds(run["scheduledAt"]) if "scheduledAt" in run else None,
            entries,
            values,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"the export is damaged: {type(error).__name__}: {error}") from error


def _end_before_undo(entries: list[StoredEntry]) -> None:
    """A run that was undone, and not begun again since, is replayed as it was before."""
    for place in range(len(entries) - 1, -1, -1):
        if entries[place].type == "run:retry":
            return
        if entries[place].type == "run:undo":
            del entries[place:]


def _entry(entry: dict[str, Any], values: str) -> StoredEntry:
    data = None
    if "data" in entry:
        data = _text(entry["data"], values if entry["type"] in VALUES else "json")
    return StoredEntry(
        entry["type"],
        entry.get("stepName"),
        data,
        milliseconds(entry["createdAt"]),
        entry.get("calls"),
        entry.get("kind"),
    )


def _text(value: Any, values: str) -> str:
    return cast(str, value) if values == "text" else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def milliseconds(when: str) -> int:
    return round(datetime.datetime.fromisoformat(when).timestamp() * 1000)


def _record(columns: str, row: Row, values: str) -> dict[str, Any]:
    """What the columns hold; those that hold nothing are left out."""
    record: dict[str, Any] = {}
    for column, stored in zip(columns.split(), row, strict=True):
        name, _, kind = column.partition(":")
        if kind == "data":
            kind = "value" if record["type"] in VALUES else "json"
        if stored is not None and not (name == "runAt" and stored == 0):
            record[name] = _written(stored, kind, values)
    return record


def _written(stored: Value, kind: str, values: str) -> Any:
    if kind == "json" or (kind == "value" and values == "json"):
        return json.loads(cast(str, stored))
    if kind == "instant":
        return wire_instant(instant(cast(int, stored)))
    return bool(stored) if kind == "truth" else stored
