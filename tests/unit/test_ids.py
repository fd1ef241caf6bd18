"""Ids sort by the time they were made."""

from __future__ import annotations

import pytest

from durably_web.clock import ManualClock
from durably_web.ids import IdMaker, counted_up, first_id, is_id


def test_ids_increase_whatever_the_clock_does() -> None:
    clock = ManualClock()
    make = IdMaker(clock)
    ids = [make() for _ in range(1000)]
    clock.advance(1)
    ids.append(make())
    clock._now -= 60_000
    ids += [make() for _ in range(10)]
    clock.advance(120)
    ids.append(make())
    assert ids == sorted(set(ids)) and all(len(one) == 26 for one in ids)


def test_counting_up_does_not_reach_into_the_time() -> None:
    clock = ManualClock()
    make = IdMaker(clock, lambda size: b"\xff" * size)
    first, second = make(), make()
    clock.advance(0.001)
    assert first < second < make() and first[:10] == second[:10]


def test_makers_differ() -> None:
    clock = ManualClock()
    assert len({IdMaker(clock)() for _ in range(100)}) == 100


def test_an_id_holds_its_time() -> None:
    assert IdMaker(ManualClock(0), lambda size: bytes(size))() == "0" * 26
    assert IdMaker(ManualClock(1_469_918_176_385), lambda size: bytes(size))().startswith("01ARYZ6S41")


def test_what_is_an_id() -> None:
    clock = ManualClock()
    assert is_id(IdMaker(clock)()) and is_id("0" * 26) and is_id("7" + "Z" * 25)
    for text in ("", "0" * 25, "0" * 27, "8" + "0" * 25, "o" + "0" * 25, *("0" * 25 + other for other in "ILOUaz-é\n")):
        assert not is_id(text), text


def test_counting_up() -> None:
    assert counted_up("0" * 26, 0) == "0" * 26
    assert counted_up("0" * 26, 33) == "0" * 24 + "11"
    assert counted_up("01HF7YAT00" + "Z" * 16, 1) == "01HF7YAT01" + "0" * 16
    start = IdMaker(ManualClock())()
    ids = [counted_up(start, number) for number in range(2000)]
    assert ids == sorted(set(ids)) and all(is_id(one) for one in ids)
    assert counted_up("7" + "Z" * 24 + "Y", 1) == "7" + "Z" * 25
    with pytest.raises(ValueError, match="no id 2 behind"):
        counted_up("7" + "Z" * 24 + "Y", 2)


def test_the_first_id_of_a_moment() -> None:
    clock = ManualClock(1_469_918_176_385)
    made = IdMaker(clock)()
    assert first_id(1_469_918_176_385) <= made < first_id(1_469_918_176_386)
    assert first_id(-5) == first_id(0) == "0" * 26
