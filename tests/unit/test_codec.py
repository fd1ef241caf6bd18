"""What can be stored, and what comes back."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import json
import math
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durably_web import codec
from durably_web.errors import NotSerializable

UTC = datetime.UTC
BERLIN = ZoneInfo("Europe/Berlin")

_TEXT = st.text(st.characters(codec=None)) | st.sampled_from(["$type", "value", 'a"$type', "datetime", "dict"])
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_LEAVES = st.none() | st.booleans() | st.integers() | _FLOATS | _TEXT
JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner) | st.dictionaries(_TEXT.filter("$type".__ne__), inner), max_leaves=20
)

# Offsets only: a zone becomes its offset, and would read otherwise. In whole minutes, as there are on earth; of others
# Python itself reads some wrongly.
_ZONES = st.none() | st.integers(-1439, 1439).map(
    lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))
)
_SCALARS = (
    st.datetimes(timezones=_ZONES)
    | st.dates()
    | st.times(timezones=_ZONES)
    | st.timedeltas()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
    | st.binary()
)
_HASHABLE = st.recursive(
    _LEAVES | _SCALARS,
    lambda inner: st.lists(inner).map(tuple) | st.frozensets(inner),
    max_leaves=8,
)
VALUES = st.recursive(
    _LEAVES | _SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(_HASHABLE, inner)
        | st.sets(_HASHABLE)
        | st.frozensets(_HASHABLE)
    ),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types all the way down; a set has no order to go by."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one.items(), other.items(), strict=True))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, set | frozenset):
        return one == other and sorted(map(_kinds, one)) == sorted(map(_kinds, other))
    return one == other and (isinstance(one, UUID) or repr(one) == repr(other))


def _kinds(value: Any) -> str:
    inside = sorted(map(_kinds, value)) if isinstance(value, tuple | frozenset) else []
    return f"{type(value).__name__}{inside}"


@given(JSON)
def test_json_comes_back_as_it_went(value: Any) -> None:
    text, again = codec.store(value)
    assert repr(again) == repr(value)
    assert repr(codec.decode(text)) == repr(value)
    text.encode()
    assert codec.encode(value) == text
    assert repr(json.loads(text)) == repr(value), "what JSON has is plain JSON"


@given(VALUES)
@example({"$type": "datetime", "value": "2026-01-01"})
@example([{"$type": {"$type": 1}}, "$type", ("$type",)])
@example({1: "a", "1": "b", None: {}, (1, b""): frozenset({(1,)})})
@example({"\ud800": (1,)})
def test_everything_else_comes_back_as_it_went(value: Any) -> None:
    text, again = codec.store(value)
    assert same(again, value)
    assert same(codec.decode(text), value)
    text.encode()
    json.loads(text)
    assert codec.JsonCodec().encode(value) == text and codec.store(again)[0] == text
    assert same(codec.store(value, codec.JsonCodec())[1], value)


@given(VALUES)
def test_on_the_wire_everything_is_json(value: Any) -> None:
    wire = codec.to_plain(codec.store(value)[1])
    assert same(json.loads(json.dumps(wire)), wire)


@given(JSON)
def test_what_is_plain_is_on_the_wire_as_it_is(value: Any) -> None:
    assert codec.to_plain(value) is value


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), "2026-01-02T03:04:05.678Z"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (
            datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
            "2026-01-02T03:00:00+02:00",
        ),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4), "03:04:00"),
        (datetime.timedelta(minutes=1, milliseconds=500), 60.5),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\xff\x00", "/wA="),
        ((1, (2,)), [1, [2]]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({2: {1}, None: 3, True: 4, UUID(int=1): 5}, {"2": [1], "null": 3, "true": 4, f"{UUID(int=1)}": 5}),
    ],
)
def test_the_form_on_the_wire(value: Any, wire: Any) -> None:
    assert same(codec.to_plain(value), wire)
    assert same(codec.to_plain({"in": [value]}), {"in": [wire]})


def test_a_tag_is_a_date_and_not_a_program() -> None:
    assert codec.encode(datetime.date(2026, 1, 2)) == '{"$type":"date","value":"2026-01-02"}'
    text = '{"$type":"os.system","value":"true"}'
    assert codec.decode(text) == {"$type": "os.system", "value": "true"}


@pytest.mark.parametrize(
    "value",
    [{"$type": "x"}, {"$type": "date"}, {"$type": ["date"], "value": 1}, {"$type": "date", "value": "", "more": 1}],
)
def test_texts_from_before_there_were_tags_read_as_they_did(value: Any) -> None:
    assert codec.decode(json.dumps(value)) == value


def test_a_zone_becomes_its_offset() -> None:
    # In the hour that comes twice Python calls an instant unequal to itself in another zone.
    for fold, hours in ((0, 2), (1, 1)):
        text, again = codec.store({"at": datetime.datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=BERLIN)})
        assert again["at"].isoformat() == f"2026-10-25T02:30:00+0{hours}:00"
        assert codec.decode(text) == again


def test_a_subclass_that_adds_nothing_is_its_base() -> None:
    class Moment(datetime.datetime):
        pass

    class Finer(datetime.datetime):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Finer)

        __hash__ = None  # type: ignore[assignment]

    assert same(codec.store(Moment(2026, 1, 1))[1], datetime.datetime(2026, 1, 1))
    with pytest.raises(NotSerializable, match="Finer"):
        codec.store(Finer(2026, 1, 1))


def test_what_the_first_execution_sees_is_what_a_replay_sees() -> None:
    class Colour(enum.IntEnum):
        RED = 1

    class Word(str):
        __slots__ = ()

    for more in ((), (datetime.date(2026, 1, 1),)):
        value = {
            "list": [1, [2], *more],
            "enum": Colour.RED,
            "word": Word("w"),
            "one": 1.0,
            "true": True,
            "ordered": collections.OrderedDict(a=1),
        }
        plain = {"list": [1, [2], *more], "enum": 1, "word": "w", "one": 1.0, "true": True, "ordered": {"a": 1}}
        text, again = codec.store(value)
        assert repr(again) == repr(codec.decode(text)) == repr(plain)


def test_a_stored_value_is_a_copy() -> None:
    value: dict[str, Any] = {"a": [], "b": set()}
    _, again = codec.store(value)
    value["a"].append(1)
    value["b"].add(1)
    assert again == {"a": [], "b": set()}


@dataclasses.dataclass(frozen=True)
class Point:
    x: int


class Colour(enum.Enum):
    RED = "red"


Pair = collections.namedtuple("Pair", "one other")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (object(), "value is a object"),
        ({"a": [0, {1j}]}, "1j in value['a'][1] is a complex"),
        ({"a": math.nan}, "value['a'] is nan"),
        ([-math.inf], "value[0] is -inf"),
        ((1, math.nan), "value[1] is nan"),
        ({math.inf: 1}, "the key inf of value is inf"),
        ({"a": {(1, 2j): 1}}, "the key (1, 2j) of value['a'][1] is a complex"),
        ([Decimal("NaN")], "value[0] is Decimal('NaN')"),
        (bytearray(b"a"), "value is a bytearray, which would come back as bytes"),
        ([memoryview(b"a")], "value[0] is a memoryview"),
        ([datetime.time(1, tzinfo=BERLIN)], "whose zone gives no offset"),
        ({"a": Point(1)}, "value['a'] is a Point: it can be stored where an annotation names it"),
        ([Pair(1, 2)], "value[0] is a Pair: it can be stored where"),
        (Colour.RED, "value is a Colour: it can be stored where"),
        (1j, "value is a complex"),
        (int, "value is a type"),
    ],
)
def test_what_cannot_be_stored_is_named(value: Any, complaint: str) -> None:
    for function in (codec.store, codec.JsonCodec().encode):
        with pytest.raises(NotSerializable) as raised:
            function(value)
        assert complaint in str(raised.value)


@pytest.mark.parametrize("looks_first", [False, True])
def test_what_has_no_end_is_refused(looks_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    tuples: Any = ()
    for _ in range(1000):
        tuples = (tuples,)
    monkeypatch.setattr(codec, "_LOOKS_FIRST", looks_first)
    for value in (cycle, deep, tuples, {"a": {1, 2}, "b": cycle}):
        with pytest.raises(NotSerializable, match="nested too deeply"):
            codec.store(value)
    with pytest.raises(NotSerializable):
        codec.store(10**10_000)


@pytest.mark.parametrize("looks_first", [False, True])
def test_plain_json_may_be_deeper_than_python_walks(looks_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_LOOKS_FIRST", looks_first)
    value: Any = []
    for _ in range(150):
        value = [value]
    text, again = codec.store(value)
    assert codec.to_plain(again) is again
    assert codec.decode(text) == value


def test_a_text_that_was_never_stored_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="not a text that was stored"):
        codec.decode("")


class Shouting:
    """A codec of somebody's own."""

    def encode(self, value: Any, /) -> str:
        return str(value).upper()

    def decode(self, text: str, /) -> Any:
        return text.lower()


def test_a_codec_of_ones_own_must_give_back_what_it_took() -> None:
    assert codec.store("a", Shouting()) == ("A", "a")
    with pytest.raises(NotSerializable, match="Shouting does not give the value back"):
        codec.store({"A": 1}, Shouting())

    class Silent(Shouting):
        def encode(self, value: Any, /) -> str:
            return None  # type: ignore[return-value]

    with pytest.raises(NotSerializable, match="must give a str"):
        codec.store("a", Silent())
