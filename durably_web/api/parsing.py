"""What a request says, checked: each value has the type that is asked for, and what nobody asked for is refused."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from durably_web.ids import is_id
from durably_web.records import STATUSES
from durably_web.retry import Debounce

# A hundred years: nobody means more, and what is due much later has no date at all.
_LONGEST_MS = 100 * 366 * 24 * 3600 * 1000


Query = Mapping[str, str | Sequence[str]]
"""The parameters of a request: one value of each name, or a list of values where a name came several times."""


class Request(NamedTuple):
    """What is asked for. `body` is parsed JSON or `None`.

    `id`, a ULID that the asker has made, is what a request that comes again is known by: it has the effect of one, and
    gets the same kind of answer. Where it makes a run, that has this id, and of many runs the first. Without an id
    each request is another one.
    """

    method: str
    path: str
    query: Mapping[str, str | Sequence[str]] = {}
    body: Any = None
    id: str | None = None


class BadRequest(Exception):
    """The request itself is wrong, before any job or run was looked at."""


# -- the query ---------------------------------------------------------------------------------------------


def request_id(given: object) -> str | None:
    if given is not None and not (isinstance(given, str) and is_id(given)):
        raise BadRequest("the request's id must be a ULID: 26 characters from 0 to 9 and A to Z, without I, L, O, U")
    return given


def check_query(query: Query, known: tuple[str, ...], several: tuple[str, ...], path: str) -> None:
    """Raises `BadRequest` for a name that is not `known`, where `label.` stands for all that begin like it, and for
    several values of one that is not among `several`."""
    labels = "label." in known
    unknown = [name for name in query if name not in known and not (labels and name.startswith("label."))]
    if unknown:
        told = f"it knows {', '.join(known)}" if known else "it knows none"
        raise BadRequest(f"{path} has no parameter {', '.join(sorted(unknown))}; {told}")
    for name, value in query.items():
        if isinstance(value, str):
            continue
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            raise BadRequest(f"{name} must be a string")
        if name not in several:
            raise BadRequest(f"{name} must be given once")


def optional(query: Query, name: str) -> str | None:
    """The value of a parameter that was given once, or not."""
    value = query.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be given once")
    return value


def required(query: Query, name: str) -> str:
    value = optional(query, name)
    if not value:
        raise BadRequest(f"{name} is missing")
    return value


def whole(query: Query, name: str) -> int | None:
    """A whole number from 0 on."""
    text = optional(query, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise BadRequest(f"{name} must be a whole number")
    return int(text)


def which(query: Query) -> dict[str, Any]:
    """The conditions of a list of runs: `jobName` and `status`, which may come several times (statuses also with
    commas), `label.<key>`, `createdBefore`."""
    found: dict[str, Any] = {}
    if "status" in query:
        statuses = query["status"]
        found["status"] = (statuses if isinstance(statuses, str) else ",".join(statuses)).split(",")
        if not set(found["status"]) <= set(STATUSES):
            raise BadRequest(f"status must be one of {', '.join(STATUSES)}")
    if "jobName" in query:
        names = query["jobName"]
        found["job"] = [names] if isinstance(names, str) else list(names)
        if not found["job"] or not all(found["job"]):
            raise BadRequest("jobName is missing")
    labels = {name.removeprefix("label."): required(query, name) for name in query if name.startswith("label.")}
    if labels:
        found["labels"] = labels
    if "createdBefore" in query:
        found["created_before"] = moment(optional(query, "createdBefore"), "createdBefore")
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
        delay, longest = seconds(given["debounceMs"], "debounceMs"), given.get("debounceMaxMs")
        if longest is not None and (longest := seconds(longest, "debounceMaxMs")) < delay:
            raise BadRequest("debounceMaxMs must not be shorter than debounceMs")
        options["debounce"] = Debounce(delay, longest)
    elif "debounceMaxMs" in given:
        raise BadRequest("debounceMaxMs needs debounceMs beside it")
    return options


SCHEDULE_FIELDS = (
    "name",
    "jobName",
    "cron",
    "everyMs",
    "timezone",
    "input",
    "labels",
    "priority",
    "missed",
    "overlap",
    "catchUpWindowMs",
)


def schedule_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `Durably.schedule` that the fields of a schedule stand for; whether they go together it says."""
    options: dict[str, Any] = {
        name: text(given[name], name) for name in ("name", "cron", "timezone", "missed", "overlap") if name in given
    }
    options |= trigger_options({name: given[name] for name in ("labels", "priority") if name in given})
    for name, option in (("everyMs", "every"), ("catchUpWindowMs", "catch_up_window")):
        if name in given:
            options[option] = seconds(given[name], name)
    return options


def age_or_moment(given: Mapping[str, Any]) -> float | datetime.datetime:
    """`olderThan`, an instant, or `olderThanMs`, an age."""
    if ("olderThan" in given) == ("olderThanMs" in given):
        raise BadRequest("give one of olderThan, an instant, and olderThanMs, an age in milliseconds")
    if "olderThan" in given:
        return moment(given["olderThan"], "olderThan")
    return seconds(given["olderThanMs"], "olderThanMs")
