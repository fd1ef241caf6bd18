"""Results that are dataclasses, models, named tuples or enums: they come back as they were, or are refused."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import gc
import weakref
from collections.abc import Awaitable, Coroutine
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, TypedDict
from zoneinfo import ZoneInfo

import pydantic
import pytest

from durably_web import codec, shapes
from durably_web.errors import InvalidInput, NotSerializable
from durably_web.jobs import Job, job
from durably_web.steps import Step


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Pair(NamedTuple):
    one: int
    other: Any = None


@dataclasses.dataclass
class Point:
    x: int
    at: datetime.datetime | None = None
    twice: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.twice = 2 * self.x


@dataclasses.dataclass
class Dog(Point):
    pass


@dataclasses.dataclass(frozen=True)
class Spot:
    x: int


@dataclasses.dataclass(frozen=True)
class Same:
    x: int


@dataclasses.dataclass
class Tree:
    leaves: list[Tree]
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Loose:
    what: Any
    path: PurePosixPath


class Order(pydantic.BaseModel):
    total: Decimal
    when: datetime.datetime
    url: pydantic.HttpUrl = pydantic.HttpUrl("https://example.org/a")
    colour: Colour = Colour.RED
    ids: set[int] = set()
    body: bytes = b""
    user_name: str = pydantic.Field(default="a", alias="userName")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def doubled(self) -> Decimal:
        return self.total * 2


class Special(Order):
    pass


class Hidden(pydantic.BaseModel):
    word: pydantic.SecretStr


class Both(TypedDict):
    point: Point
    count: int


BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=datetime.UTC)


def returns(annotation: Any) -> Any:
    def fn() -> Any: ...

    fn.__annotations__ = {"return": annotation}
    return fn


def through(fn: Any, value: Any) -> Any:
    """What a later execution sees of a result."""
    loader = shapes.result_loader(fn)
    assert loader is not None
    text, stored = codec.store(shapes.plain(value, loader))
    first, later = loader(stored, "result"), loader(codec.decode(text), "result")
    assert first == later
    return later


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Point, Point(1, AT)),
        (Point | None, None),
        (list[Point], [Point(1), Point(2, AT)]),
        (dict[str, Point], {"a": Point(1)}),
        (dict[Colour, list[Spot]], {Colour.RED: [Spot(1)]}),
        (tuple[Point, int], (Point(1), 2)),
        (tuple[Spot, ...], (Spot(1), Spot(2))),
        (set[Spot], {Spot(1), Spot(2)}),
        (frozenset[Pair], frozenset({Pair(1), Pair(2, (3,))})),
        (Tree, Tree([Tree([])])),
        (Both, {"point": Point(1), "count": 2}),
        (Pair, Pair(1, {2})),
        (Colour, Colour.RED),
        (Level, Level.HIGH),
        (Order, Order(total=Decimal("1.10"), when=AT, ids={1, 2}, body=b"\xff", userName="b")),
        (list[Order | Point], [Order(total=Decimal(1), when=AT), Point(1)]),
        (Awaitable[Point], Point(1)),
        (Coroutine[Any, Any, Point], Point(1)),
        ("list[Spot]", [Spot(1)]),
    ],
)
def test_what_the_annotation_names_comes_back(annotation: Any, value: Any) -> None:
    again = through(returns(annotation), value)
    assert again == value and type(again) is type(value)


def test_a_zone_in_a_model_becomes_its_offset() -> None:
    when = datetime.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN)
    assert through(returns(Order), Order(total=Decimal(1), when=when)).when.isoformat() == "2026-10-25T02:30:00+01:00"


@pytest.mark.parametrize(
    ("annotation", "value", "complaint"),
    [
        (Point, Dog(1), "value is a Dog, and would come back as a Point"),
        (Point, {"x": 1}, "value is a dict, and would come back as a Point"),
        (list[Spot], [{"x": 1}], "value[0] is a dict, and would come back as a Spot"),
        (Spot | Same, Same(1), "value is a Same, and would come back as a Spot"),
        (Point, None, "value must be a dict, not null"),
        (Point, Point("a"), "value['x'] must be int, not str"),  # type: ignore[arg-type]
        (Pair, Pair(1, Spot(1)), "value[1] is a Spot, and would come back as a dict"),
        (Order, Special(total=Decimal(1), when=AT), "value is a Special, and would come back as a Order"),
        (set[Any] | Spot, {Spot(1)}, "unhashable"),
        (dict[str, Spot], {"a": Colour.RED}, "must be a dict, not str"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(annotation: Any, value: Any, complaint: str) -> None:
    loader = shapes.result_loader(returns(annotation))
    assert loader is not None
    with pytest.raises(NotSerializable) as raised:
        shapes.plain(value, loader)
    assert complaint in str(raised.value), str(raised.value)


def test_a_secret_is_not_stored_as_stars() -> None:
    loader = shapes.result_loader(returns(Hidden))
    assert loader is not None
    with pytest.raises(NotSerializable, match=r"value\['word'\] is a SecretStr"):
        codec.store(shapes.plain(Hidden(word=pydantic.SecretStr("a")), loader))


def test_a_field_that_nobody_can_check_is_taken_as_it_is() -> None:
    loader = shapes.result_loader(returns(Loose))
    assert loader is not None
    assert through(returns(Loose), Loose({1}, PurePosixPath("a/b"))) == Loose({1}, PurePosixPath("a/b"))
    with pytest.raises(NotSerializable, match=r"value\['what'\] is a object"):
        codec.store(shapes.plain(Loose(object(), PurePosixPath("a")), loader))


@pytest.mark.parametrize(
    "annotation",
    [
        dict,
        dict[str, Any],
        list[int],
        None,
        Any,
        "None",
        "dict[str, list[int]]",
        "Nowhere",
        "list[Nowhere]",
        Literal["a"],
        datetime.datetime,
        tuple[int, ...],
        int | None,
        bytes,
    ],
)
def test_plain_annotations_need_no_loader(annotation: Any) -> None:
    assert shapes.result_loader(returns(annotation)) is None


def test_every_kind_of_callable_is_looked_at() -> None:
    class Callable_:
        def __call__(self) -> Point:
            return self.method()

        def method(self) -> Point:
            return Point(1)

        @classmethod
        def made(cls) -> Point:
            return Point(1)

    @functools.wraps(Callable_.made)
    def wrapped() -> Any:
        return Callable_.made()

    async def asynchronous(x: Nowhere) -> Point:  # type: ignore[name-defined]  # noqa: F821
        return Point(x)

    own = Callable_()
    for fn in (own, own.method, Callable_.made, wrapped, asynchronous, functools.partial(asynchronous, 1), Point):
        assert through(fn, Point(1)) == Point(1), fn
    for other in (len, print, dict, lambda: Point(1), functools.partial(len, []), "text", object(), Callable_):
        assert shapes.result_loader(other) is None, other


def test_a_local_class_is_found_when_the_function_uses_it() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    def make() -> Local:
        return Local(1)

    assert through(make, make()) == Local(1)


def test_a_function_is_not_kept_alive() -> None:
    fn = returns(Spot)
    assert shapes.result_loader(fn) is shapes.result_loader(fn)
    seen = weakref.ref(fn)
    del fn
    gc.collect()
    assert seen() is None


# -- jobs ------------------------------------------------------------------------------------------------


@job
async def takes_order(step: Step, input: Order) -> Point:
    return Point(int(input.total))


@job
async def takes_dict(step: Step, input: dict[str, Any]) -> Any:
    return input["result"]


@job
async def takes_both(step: Step, input: Both) -> None: ...


def seen_by(target: Job[Any, Any], value: Any) -> Any:
    return target._loaders()[0](codec.decode(target.encode_input(value)), "input")


def test_an_input_arrives_as_its_annotation_says() -> None:
    order = Order(total=Decimal("2.50"), when=AT)
    assert seen_by(takes_order, order) == order
    assert seen_by(takes_order, {"total": "2.50", "when": AT.isoformat()}) == order
    assert seen_by(takes_both, {"point": Point(1, AT), "count": 1}) == {"point": Point(1, AT), "count": 1}
    assert seen_by(takes_both, {"point": {"x": 1}, "count": 1}) == {"point": Point(1), "count": 1}
    assert seen_by(takes_dict, {"at": AT, "ids": {1, 2}}) == {"at": AT, "ids": {1, 2}}
    assert seen_by(takes_dict, None) == {}


@pytest.mark.parametrize(
    ("target", "value", "complaint"),
    [
        (takes_dict, {"a": Point(1)}, "value['a'] is a Point: it can be stored where an annotation names it"),
        (takes_dict, Point(1), "value is a Point"),
        (takes_both, {"point": Dog(1), "count": 1}, "input['point'] is a Dog, and would come back as a Point"),
        (takes_order, Point(1), "total"),
    ],
)
def test_an_input_that_would_arrive_as_something_else_is_refused(target: Any, value: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        target.encode_input(value)
    assert complaint in str(raised.value), str(raised.value)


async def test_an_output_comes_back_as_its_annotation_says() -> None:
    step: Any = None
    stored = await takes_order.execute(step, {"total": "3", "when": AT.isoformat()})
    assert stored == {"x": 3, "at": None}
    assert takes_order.load_output(stored) == Point(3)
    assert await takes_dict.execute(step, {"result": (1, 2)}) == (1, 2)
    with pytest.raises(NotSerializable, match=r"output of job 'wrong' cannot be stored: .* Dog"):
        await wrong.execute(step, {})


@job
async def wrong(step: Step, input: dict[str, Any]) -> Point:
    return Dog(1)
