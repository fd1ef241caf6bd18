"""Waiting for changes without asking the database."""

from __future__ import annotations

import asyncio

import pytest

from durably_web.clock import ManualClock
from durably_web.store.changes import JOURNAL, RUNNABLE, WATCH_INTERVAL, Changes, end_of


class Version:
    """What another connection's writes change."""

    value: int | None = 1
    asked = 0

    def __call__(self) -> int | None:
        self.asked += 1
        return self.value


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def version() -> Version:
    return Version()


@pytest.fixture
def changes(clock: ManualClock, version: Version) -> Changes:
    made = Changes(clock, version)
    return made


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def _settled(changes: Changes, clock: ManualClock, topic: str) -> asyncio.Future[None]:
    """A wait behind the first look, which wakes for no reason."""
    first = asyncio.ensure_future(changes.wait(topic, 100))
    await _turns()
    first.cancel()
    waiting = asyncio.ensure_future(changes.wait(topic, 100))
    await _turns()
    assert not waiting.done()
    return waiting


async def test_a_notice_wakes_those_who_wait_for_it(changes: Changes, clock: ManualClock) -> None:
    waiting = await _settled(changes, clock, JOURNAL)
    other = await _settled(changes, clock, end_of("r"))
    changes.notify(RUNNABLE)
    changes.notify(end_of("another"))
    await _turns()
    assert not waiting.done() and not other.done()
    changes.notify(JOURNAL)
    changes.notify(end_of("r"))
    await _turns()
    assert waiting.done() and other.done()


@pytest.mark.parametrize("topic", [JOURNAL, RUNNABLE, end_of("r"), "recovery"])
async def test_a_notice_between_the_mark_and_the_wait_is_not_missed(
    changes: Changes, clock: ManualClock, topic: str
) -> None:
    (await _settled(changes, clock, "other")).cancel()
    for everything in (False, True):
        mark = changes.mark(topic)
        if everything:
            changes.notify_all()
        else:
            changes.notify(topic)
        async with asyncio.timeout(60):
            await changes.wait(topic, 100, mark)
    waiting = asyncio.ensure_future(changes.wait(topic, 100, changes.mark(topic)))
    await _turns()
    assert not waiting.done()
    waiting.cancel()


async def test_a_wait_ends_by_itself(changes: Changes, clock: ManualClock) -> None:
    waiting = await _settled(changes, clock, JOURNAL)
    clock.advance(99)
    await _turns()
    assert not waiting.done()
    clock.advance(1)
    await _turns()
    assert waiting.done()


async def test_another_connections_write_wakes_everyone(changes: Changes, clock: ManualClock, version: Version) -> None:
    waiting = [await _settled(changes, clock, topic) for topic in (JOURNAL, end_of("r"), "recovery")]
    clock.advance(WATCH_INTERVAL * 3)
    await _turns()
    assert not any(task.done() for task in waiting)
    version.value = 2
    clock.advance(WATCH_INTERVAL)
    await _turns()
    assert all(task.done() for task in waiting)


async def test_nobody_watches_when_nobody_waits(changes: Changes, clock: ManualClock, version: Version) -> None:
    waiting = await _settled(changes, clock, JOURNAL)
    waiting.cancel()
    await _turns()
    clock.advance(1)
    asked = version.asked
    clock.advance(10)
    assert version.asked == asked
    assert not changes._waiting and all(timer.cancelled for timer in clock._timers)


async def test_what_came_before_the_watch_began_is_noticed(
    changes: Changes, clock: ManualClock, version: Version
) -> None:
    (await _settled(changes, clock, JOURNAL)).cancel()
    await _turns()
    clock.advance(1)
    mark = changes.mark(JOURNAL)
    version.value = 7
    async with asyncio.timeout(60):
        await changes.wait(JOURNAL, 100, mark)


async def test_without_a_version_there_is_only_the_time(changes: Changes, clock: ManualClock, version: Version) -> None:
    version.value = None
    waiting = asyncio.ensure_future(changes.wait(JOURNAL, 1))
    await _turns()
    clock.advance(0.5)
    await _turns()
    assert version.asked == 1 and not waiting.done()
    clock.advance(0.5)
    await waiting
