"""Checking inputs against annotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, Optional, Required, TypedDict

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
    (tuple[int, str], [1], "input"),
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
        schema.loader(tuple[int, str])


def test_records_become_json() -> None:
    assert schema.dump(Shelf({"a": Box([{"name": "nail"}])})) == {
        "boxes": {"a": {"items": [{"name": "nail"}], "size": 1.0, "lid": None}}
    }
    assert schema.dump(Model(count=3)) == {"count": 3}
    assert schema.dump([1]) == [1] and schema.dump(None) is None
