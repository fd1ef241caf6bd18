"""What can be stored, and what comes back."""

from __future__ import annotations

import enum
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably_web import codec
from durably_web.errors import NotSerializable

_TEXT = st.text(st.characters(codec=None))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back_as_it_went(value: Any) -> None:
    text, again = codec.store(value)
    assert repr(again) == repr(value)
    assert repr(codec.decode(text)) == repr(value)
    text.encode()
    assert codec.encode(value) == text


def test_what_the_first_execution_sees_is_what_a_replay_sees() -> None:
    class Colour(enum.IntEnum):
        RED = 1

    class Word(str):
        __slots__ = ()

    value = {"tuple": (1, (2,)), "enum": Colour.RED, "word": Word("w"), "one": 1.0, "true": True}
    text, again = codec.store(value)
    assert (
        repr(again)
        == repr(codec.decode(text))
        == repr({"tuple": [1, [2]], "enum": 1, "word": "w", "one": 1.0, "true": True})
    )


def test_a_stored_value_is_a_copy() -> None:
    value: dict[str, list[int]] = {"a": []}
    _, again = codec.store(value)
    value["a"].append(1)
    assert again == {"a": []}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (object(), "value is a object"),
        ({"a": [0, {1}]}, "value['a'][1] is a set"),
        ({"a": math.nan}, "value['a'] is nan"),
        ([-math.inf], "value[0] is -inf"),
        (b"", "value is a bytes"),
        (1j, "value is a complex"),
    ],
)
def test_what_is_not_json_is_named(value: Any, complaint: str) -> None:
    for function in (codec.encode, codec.store):
        with pytest.raises(NotSerializable) as raised:
            function(value)
        assert complaint in str(raised.value)


@pytest.mark.parametrize("key", [1, 1.5, True, None, (1,)])
def test_keys_that_would_change_are_refused_in_results(key: Any) -> None:
    for value in ({key: 1}, [{"a": ({key: 1},)}]):
        with pytest.raises(NotSerializable, match="key"):
            codec.store(value)


def test_what_has_no_end_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(NotSerializable):
            codec.store(value)
    with pytest.raises(NotSerializable):
        codec.store(10**10_000)
