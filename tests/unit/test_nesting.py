"""How deep a text or a value is nested; and a text that is no JSON does no harm."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from durably_web.nesting import text_is_deeper_than, value_is_deeper_than

TRICKY = some.text(alphabet='[]{}"\\,:a\n')
VALUES = some.recursive(
    TRICKY | some.integers() | some.none(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TRICKY, inner, max_size=3),
)


def _levels(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_levels, value.values() if isinstance(value, dict) else value), default=0)


@given(VALUES)
def test_levels_are_counted_outside_of_strings(value: Any) -> None:
    text, levels = json.dumps(value), _levels(value)
    assert not text_is_deeper_than(levels, text)
    assert levels == 0 or text_is_deeper_than(levels - 1, text)


@given(VALUES)
def test_levels_of_values_are_those_of_their_text(value: Any) -> None:
    levels = _levels(value)
    assert not value_is_deeper_than(levels, value)
    assert levels == 0 or value_is_deeper_than(levels - 1, value)


def test_what_contains_itself_is_deeper_than_anything() -> None:
    value: list[Any] = []
    value.append({"self": (value,)})
    assert value_is_deeper_than(300, value)


def test_what_is_no_json_is_looked_at_too() -> None:
    assert text_is_deeper_than(300, "[" * 100_000)
    assert text_is_deeper_than(300, '{"a":' * 100_000)
    assert not text_is_deeper_than(300, '"' + "[" * 100_000)
    assert not text_is_deeper_than(300, "]" * 1_000 + "[" * 300)
