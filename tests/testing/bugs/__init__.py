"""Jobs with a bug that shows only after a crash, each with the same job as it should be."""

from __future__ import annotations

from typing import Any, NamedTuple

from durably_web import Job


class Bug(NamedTuple):
    """`wrong` has it, `right` has not; `kind` and `says`, a pattern, are what the kit says of it."""

    wrong: Job[Any, Any]
    right: Job[Any, Any]
    kind: str
    says: str
    input: Any = None
    options: dict[str, Any] = {}  # noqa: RUF012 — nobody changes it


def double(number: int) -> int:
    return 2 * number


def same(*values: Any) -> list[Any]:
    return list(values)
