"""Progress is let through at a pace; the first and the last always, and everything in its order."""

from __future__ import annotations

from typing import Any

from durably_web.events import Event
from durably_web.records import Progress, instant
from durably_web.server.streams import MOST_WAITING, Listener, Throttle, Told


def told(seq: int | None, type: Any = "run:progress", run_id: str = "r") -> Told:
    progress = Progress(seq or 0) if type == "run:progress" else None
    return Told(Event(type, seq, seq, instant(0), run_id, "job", {}, progress=progress))


def seqs(found: list[Told]) -> list[int | None]:
    return [one.event.seq for one in found]


def test_the_first_at_once_and_then_the_newest_of_each_interval() -> None:
    pace = Throttle(0.1)
    assert seqs(pace.take(told(1), 10.0)) == [1]
    assert pace.due(10.0) is None
    assert seqs(pace.take(told(2), 10.02)) == []
    assert seqs(pace.take(told(3), 10.05)) == []
    assert round(pace.due(10.05) or 0, 3) == 0.05
    assert pace.due(10.2) == 0
    assert seqs(pace.flush(10.1)) == [3]
    assert seqs(pace.take(told(4), 10.15)) == []
    # A stream that is never idle lets it through as well.
    assert seqs(pace.take(told(5), 10.21)) == [5]
    assert pace.due(10.21) is None


def test_nothing_overtakes_progress_that_is_held_back() -> None:
    pace = Throttle(0.1)
    assert seqs(pace.take(told(1, run_id="a"), 0.0)) == [1]
    assert seqs(pace.take(told(2, run_id="b"), 0.0)) == [2]
    assert seqs(pace.take(told(3, run_id="b"), 0.01)) == []
    assert seqs(pace.take(told(4, run_id="a"), 0.02)) == []
    assert seqs(pace.take(told(5, run_id="b"), 0.03)) == []
    # What is not stored has no place in the order.
    assert seqs(pace.take(told(None, "step:start"), 0.03)) == [None]
    assert seqs(pace.take(told(6, "step:complete", "c"), 0.04)) == [4, 5, 6]
    assert seqs(pace.take(told(7, run_id="a"), 0.05)) == []
    assert seqs(pace.take(told(8, "run:complete", "a"), 0.06)) == [7, 8]


def test_a_pace_of_zero_holds_nothing_back() -> None:
    pace = Throttle(0)
    assert [seqs(pace.take(told(seq), 0.0)) for seq in (1, 2, 3)] == [[1], [2], [3]]
    assert pace.due(0.0) is None


async def test_what_waits_for_a_slow_client_is_bounded() -> None:
    listener = Listener(lambda event: event.run_id == "r")
    listener.offer(told(1, run_id="other"))
    for seq in range(MOST_WAITING):
        listener.offer(told(seq))
    assert not listener.is_late
    listener.offer(told(MOST_WAITING))
    listener.offer(told(MOST_WAITING + 1))
    assert listener.is_late and await listener.next(0) == []
    listener.begin_again()
    listener.offer(told(9))
    listener.offer(told(10))
    assert seqs(await listener.next(0)) == [9, 10]
    assert await listener.next(0) == []
    listener.end()
    assert await listener.next(None) == []
