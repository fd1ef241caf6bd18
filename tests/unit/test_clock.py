"""A clock that is moved by hand."""

from __future__ import annotations

import asyncio

from durably_web.clock import ManualClock, SystemClock


def test_calls_are_made_in_the_order_of_their_times() -> None:
    clock = ManualClock(1000)
    made: list[tuple[str, int]] = []

    def call(name: str) -> None:
        made.append((name, clock.now()))

    clock.call_later(2, lambda: call("b"))
    clock.call_later(1, lambda: call("a"))

    def call_again() -> None:
        call("again")
        clock.call_later(0.5, lambda: call("later"))

    clock.call_later(1, call_again)
    clock.call_later(9, lambda: call("never"))
    cancelled = clock.call_later(1, lambda: call("cancelled"))
    cancelled.cancel()
    clock.advance(3)
    assert made == [("a", 2000), ("again", 2000), ("later", 2500), ("b", 3000)]
    assert clock.now() == 4000 and clock.monotonic() == 3.0


async def test_the_systems_clock_calls_on_the_loop() -> None:
    clock = SystemClock()
    called = asyncio.Event()
    before = clock.monotonic()
    clock.call_later(0, called.set)
    async with asyncio.timeout(60):
        await called.wait()
    assert clock.monotonic() >= before and clock.now() > 1_700_000_000_000
