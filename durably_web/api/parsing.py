"""What a request says, checked: each value has the type that is asked for, and what nobody asked for is refused."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

from durably_web.records import STATUSES
from durably_web.retry import Debounce

# A hundred years: nobody means more, and what is due much later has no date at all.
_LONGEST_MS = 100 * 366 * 24 * 3600 * 1000


class Request(NamedTuple):
    """What is asked for. `query` has the last value of each name; `body` is parsed JSON or `None`."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    body: Any = None


class BadRequest(Exception):
    """The request itself is wrong, before any job or run was looked at."""


# -- the query ---------------------------------------------------------------------------------------------


def required(query: Mapping[str, str], name: str) -> str:
    value = query.get(name)
    if not value:
        raise BadRequest(f"{name} is missing")
    return value


def whole(query: Mapping[str, str], name: str) -> int | None:
    """A whole number from 0 on."""
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise BadRequest(f"{name} must be a whole number")
    return int(text)


def which(query: Mapping[str, str]) -> dict[str, Any]:
    """The conditions of a list of runs: `jobName`, `status` (several with commas), `label.<key>`, `createdBefore`."""
    found: dict[str, Any] = {}
    if "status" in query:
        found["status"] = query["status"].split(",")
        if not set(found["status"]) <= set(STATUSES):
            raise BadRequest(f"status must be one of {', '.join(STATUSES)}")
    if "jobName" in query:
        found["job"] = required(query, "jobName")
    labels = {name.removeprefix("label."): value for name, value in query.items() if name.startswith("label.")}
    if labels:
        found["labels"] = labels
    if "createdBefore" in query:
        found["created_before"] = moment(query["createdBefore"], "createdBefore")
    return found


# -- the body ----------------------------------------------------------------------------------------------


def mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be a JSON object")
    return value


def fields(value: Any, what: str, names: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object with these fields only, without those that are null."""
    given = mapping(value, what)
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise BadRequest(f"{what} has no {', '.join(unknown)}; it has {', '.join(names)}")
    return {name: item for name, item in given.items() if item is not None}


def text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{what} must be a string that is not empty")
    return value


def seconds(value: Any, what: str) -> float:
    """Milliseconds as seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST_MS:
        raise BadRequest(f"{what} must be a number of milliseconds from 0 to {_LONGEST_MS} (100 years)")
    return value / 1000


def moment(value: Any, what: str) -> datetime.datetime:
    """An ISO 8601 text with a zone."""
    try:
        found = datetime.datetime.fromisoformat(text(value, what))
        if found.utcoffset() is not None:
            # At the edges of the calendar another zone may have no such date.
            return found.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        pass
    raise BadRequest(f'{what} must be an instant with a zone, such as "2030-01-31T12:00:00Z"')


def count(value: Any, what: str) -> int:
    """A whole number from 0 on, as JSON has it."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 0:
        raise BadRequest(f"{what} must be a whole number from 0 on")
    return value


ITEM_FIELDS = (
    "input",
    "idempotencyKey",
    "concurrencyKey",
    "coalesce",
    "labels",
    "priority",
    "delayMs",
    "runAt",
)
TRIGGER_FIELDS = ("jobName", *ITEM_FIELDS, "debounceMs", "debounceMaxMs")


def trigger_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `Durably.trigger` that the fields of a trigger stand for; whether they go together it says."""
    options: dict[str, Any] = {}
    for name, option in (("idempotencyKey", "idempotency_key"), ("concurrencyKey", "concurrency_key")):
        if name in given:
            options[option] = text(given[name], name)
    if "coalesce" in given:
        if given["coalesce"] not in ("skip", "replace", "queue"):
            raise BadRequest('coalesce must be "skip", "replace" or "queue"')
        options["coalesce"] = given["coalesce"]
    if "labels" in given:
        labels = mapping(given["labels"], "labels")
        if not all(isinstance(value, str) for value in labels.values()):
            raise BadRequest("the values of labels must be strings")
        options["labels"] = labels
    if "priority" in given:
        priority = given["priority"]
        if type(priority) is not int or abs(priority) >= 2**31:
            raise BadRequest("priority must be a whole number of at most 32 bits")
        options["priority"] = priority
    if "delayMs" in given:
        options["delay"] = seconds(given["delayMs"], "delayMs")
    if "runAt" in given:
        options["run_at"] = moment(given["runAt"], "runAt")
    if "debounceMs" in given:
        longest = given.get("debounceMaxMs")
        options["debounce"] = Debounce(
            seconds(given["debounceMs"], "debounceMs"),
            None if longest is None else seconds(longest, "debounceMaxMs"),
        )
    elif "debounceMaxMs" in given:
        raise BadRequest("debounceMaxMs needs debounceMs beside it")
    return options


def age_or_moment(given: Mapping[str, Any]) -> float | datetime.datetime:
    """`olderThan`, an instant, or `olderThanMs`, an age."""
    if ("olderThan" in given) == ("olderThanMs" in given):
        raise BadRequest("give one of olderThan, an instant, and olderThanMs, an age in milliseconds")
    if "olderThan" in given:
        return moment(given["olderThan"], "olderThan")
    return seconds(given["olderThanMs"], "olderThanMs")
