"""Telling listeners."""

from __future__ import annotations

import asyncio

import pytest

from durably_web.emitter import Emitter
from durably_web.events import Event
from durably_web.records import instant

EVENT = Event("run:complete", 1, 1, instant(0), "r", "job", {})


def test_it_knows_who_would_hear() -> None:
    emitter = Emitter(lambda: 0)
    assert not emitter.hears("run:complete")
    leave = emitter.on("run:complete", lambda event: None)
    assert emitter.hears("run:complete") and not emitter.hears("run:fail")
    everything = emitter.on("*", lambda event: None)
    assert emitter.hears("run:fail")
    leave()
    everything()
    leave()
    assert not emitter.hears("run:complete") and not emitter.hears("run:fail")


def test_a_listener_may_come_and_go_while_it_is_told() -> None:
    emitter = Emitter(lambda: 0)
    heard: list[str] = []

    def once(event: Event) -> None:
        heard.append("once")
        leave()
        emitter.on("run:complete", lambda event: heard.append("late"))

    leave = emitter.on("run:complete", once)
    emitter.on("run:complete", lambda event: heard.append("always"))
    emitter.emit(EVENT)
    assert heard == ["once", "always"]
    emitter.emit(EVENT)
    assert heard[2:] == ["always", "late"]


async def test_errors_of_listeners_are_told_once() -> None:
    emitter = Emitter(lambda: 0)
    heard: list[Event] = []

    async def later(event: Event) -> None:
        raise ValueError("later")

    def now(event: Event) -> None:
        raise ValueError("now")

    emitter.on("*", heard.append)
    emitter.on("*", later)
    emitter.on("*", now)
    emitter.emit(EVENT)
    for _ in range(10):
        await asyncio.sleep(0)
    assert [event.type for event in heard] == ["run:complete", "worker:error", "worker:error"]
    assert {event.error for event in heard[1:]} == {"ValueError: now", "ValueError: later"}
    assert all(event.run_id == "r" and "run:complete" in str(event.context) for event in heard[1:])


def test_only_known_events_can_be_listened_to() -> None:
    with pytest.raises(ValueError, match="run:complete"):
        Emitter(lambda: 0).on("run:completed", lambda event: None)
