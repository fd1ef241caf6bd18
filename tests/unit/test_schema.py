"""Checking inputs against annotations."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, NewType, NotRequired, Optional, Required, TypedDict
from uuid import UUID

import pydantic
import pytest

from durably_web import schema
from durably_web.errors import InvalidInput


class Item(TypedDict):
    name: str
    tags: NotRequired[list[str]]


class Options(Item, total=False):
    fast: bool
    level: Required[int]


@dataclasses.dataclass
class Box:
    items: list[Item]
    size: float = 1.0
    lid: bool | None = None

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("a size is not negative")


@dataclasses.dataclass
class Shelf:
    boxes: dict[str, Box]


class Model(pydantic.BaseModel):
    count: int = pydantic.Field(gt=0)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Pair(NamedTuple):
    one: int
    other: str = "x"


@dataclasses.dataclass
class Node:
    name: str
    below: list[Node]


@dataclasses.dataclass
class Event:
    at: datetime.datetime
    day: datetime.date | None = None
    length: datetime.timedelta = datetime.timedelta()
    price: Decimal = Decimal(0)
    key: UUID | None = None
    body: bytes = b""
    colour: Colour = Colour.RED


Number = NewType("Number", int)

_AT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

_ACCEPTED: list[tuple[Any, Any, Any]] = [
    (Any, {"a": 1}, {"a": 1}),
    (dict, {"a": 1}, {"a": 1}),
    (dict[str, Any], {}, {}),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (Mapping[str, list[int]], {"a": [1]}, {"a": [1]}),
    (list, [1, "a"], [1, "a"]),
    (list[int], [1, 2], [1, 2]),
    (Sequence[str], ["a"], ["a"]),
    (int, 3, 3),
    (float, 3, 3.0),
    (str, "", ""),
    (bool, True, True),
    (None, None, None),
    (int | None, None, None),
    (Optional[int], 3, 3),  # noqa: UP045 — as older job files write it
    (int | str, "a", "a"),
    (Literal["a", "b"], "b", "b"),
    (Item, {"name": "nail"}, {"name": "nail"}),
    (Item, {"name": "nail", "tags": ["iron"]}, {"name": "nail", "tags": ["iron"]}),
    (Options, {"name": "nail", "level": 1}, {"name": "nail", "level": 1}),
    (Box, {"items": [{"name": "nail"}]}, Box([{"name": "nail"}])),
    (Shelf, {"boxes": {"a": {"items": [], "size": 2}}}, Shelf({"a": Box([], 2.0)})),
    (Model, {"count": 3}, Model(count=3)),
    (tuple[int, str], [1, "a"], (1, "a")),
    (list[Model], [{"count": 1}], [Model(count=1)]),
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple, [1, "a"], (1, "a")),
    (set[str], ["a", "a"], {"a"}),
    (frozenset, {1}, frozenset({1})),
    (dict[int, str], {1: "a"}, {1: "a"}),
    (dict[int, str], {"1": "a", "-2": "b"}, {1: "a", -2: "b"}),
    (datetime.datetime, _AT, _AT),
    (datetime.datetime, "2026-01-02T03:04:05.000Z", _AT),
    (datetime.date, "2026-01-02", datetime.date(2026, 1, 2)),
    (datetime.time, "03:04", datetime.time(3, 4)),
    (datetime.timedelta, 1.5, datetime.timedelta(seconds=1.5)),
    (Decimal, "1.10", Decimal("1.10")),
    (Decimal, 3, Decimal(3)),
    (UUID, "00000000-0000-0000-0000-000000000001", UUID(int=1)),
    (bytes, "/wA=", b"\xff\x00"),
    (bytes, b"\xff", b"\xff"),
    (datetime.datetime | str, "2026-01-02", "2026-01-02"),
    (bytes | str, b"a", b"a"),
    (float | int, 1, 1),
    (Colour, "red", Colour.RED),
    (dict[Colour, int], {"red": 1}, {Colour.RED: 1}),
    (Pair, [1, "a"], Pair(1, "a")),
    (Pair, {"one": 1}, Pair(1)),
    (Number, 3, 3),
    (Node, {"name": "a", "below": [{"name": "b", "below": []}]}, Node("a", [Node("b", [])])),
    (
        Event,
        {"at": "2026-01-02T03:04:05Z", "day": "2026-01-02", "length": 60, "price": "1.5", "body": "", "colour": "blue"},
        Event(_AT, _AT.date(), datetime.timedelta(minutes=1), Decimal("1.5"), None, b"", Colour.BLUE),
    ),
]

_REFUSED: list[tuple[Any, Any, str]] = [
    (dict, [], "input must be a dict"),
    (dict, None, "input must be dict, not null"),
    (dict[str, int], {"a": "1"}, "input['a'] must be int, not str"),
    (list[int], {"a": 1}, "input must be a list"),
    (list[int], [1, True], "input[1] must be int, not bool"),
    (int, 1.0, "must be int"),
    (int, True, "not bool"),
    (bool, 1, "must be bool"),
    (str, None, "not null"),
    (float, "1", "must be float"),
    (Literal["a", "b"], "c", "one of 'a', 'b'"),
    (int | None, "a", "must be int, not str; or input must be null"),
    (Item, {}, "input lacks 'name'"),
    (Options, {"fast": True}, "input lacks 'level', 'name'"),
    (Item, {"name": "a", "tags": [1]}, "input['tags'][0] must be str"),
    (Item, {"name": "a", "weight": 1}, "'weight', which is not known"),
    (Box, {"items": [{}]}, "input['items'][0] lacks 'name'"),
    (Box, {"items": [], "size": -1}, "a size is not negative"),
    (Shelf, {"boxes": {"a": {}}}, "input['boxes']['a'] lacks 'items'"),
    (Model, {"count": 0}, "greater than 0"),
    (Model, [], "input"),
    (tuple[int, str], [1], "input must have 2 items, not 1"),
    (tuple[int, ...], ["a"], "input[0] must be int"),
    (tuple[int, ...], "a", "input must be a list"),
    (set[int], {"a": 1}, "input must be a set or a list"),
    (set[list[int]], [[1]], "unhashable"),
    (dict[int, str], {"a": "b"}, "the key 'a' of input must be int"),
    (datetime.datetime, "today", "input must be datetime, or ISO 8601 text, not 'today'"),
    (datetime.date, _AT, "input must be date, or ISO 8601 text, not datetime"),
    (datetime.timedelta, "1", "a number of seconds, not str"),
    (datetime.timedelta, True, "not bool"),
    (datetime.timedelta, 1e30, "a number of seconds, not 1e+30"),
    (Decimal, "one", "input must be Decimal, or a number or text, not 'one'"),
    (UUID, "1", "input must be UUID, or text, not '1'"),
    (bytes, "?", "input must be bytes, or base64 text, not '?'"),
    (Colour, "green", "input must be one of 'red', 'blue', not 'green'"),
    (Pair, [1], "input must have 2 items, not 1"),
    (Pair, {"one": 1, "third": 2}, "'third', which is not known"),
    (Node, {"name": "a", "below": [{"name": 1, "below": []}]}, "input['below'][0]['name'] must be str"),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), _ACCEPTED)
def test_what_fits_is_built(annotation: Any, value: Any, expected: Any) -> None:
    built = schema.loader(annotation)(value, "input")
    assert built == expected and type(built) is type(expected)


@pytest.mark.parametrize(("annotation", "value", "complaint"), _REFUSED)
def test_what_does_not_fit_is_named(annotation: Any, value: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        schema.loader(annotation)(value, "input")
    assert complaint in str(raised.value).replace("input must be dict, not list", "input must be a dict, not list")


def test_without_pydantic_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(schema.Unsupported, match="install pydantic"):
        schema.loader(Path)
    assert schema.loader(list[Path], lenient=True)(["a"], "result") == ["a"]


def test_what_even_pydantic_cannot_check_is_unsupported() -> None:
    class Own:
        pass

    with pytest.raises(schema.Unsupported, match="Own"):
        schema.loader(Own)
    own = Own()
    assert schema.loader(dict[str, Own], lenient=True)({"a": own}, "result") == {"a": own}


def test_an_annotation_is_found_beside_ones_that_only_a_type_checker_finds() -> None:
    class Local:
        pass

    def fn(step: Nowhere, input: Box) -> Local:  # type: ignore[name-defined]  # noqa: F821
        return Local()

    assert schema.annotation_of(fn, "input") is Box
    assert schema.annotation_of(fn, "return") is Local
    assert schema.annotation_of(fn, "other") is Any
    with pytest.raises(NameError):
        schema.annotation_of(fn, "step")
