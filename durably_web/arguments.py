"""What callers pass, checked before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping

from durably_web.errors import InvalidInput


def checked_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    checked = dict(labels or {})
    for key, value in checked.items():
        check_text(key, "a label's key")
        check_text(value, f"the label {key!r}")
    return checked


def check_text(value: object, what: str) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{what} must be a text that is not empty, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} is not valid Unicode: {value!r}") from None
