"""Ids sort by the time they were made."""

from __future__ import annotations

from durably_web.clock import ManualClock
from durably_web.ids import IdMaker


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
