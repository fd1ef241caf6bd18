"""What the guide says in words, where an example would not show it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from durably_web import Debounce, Durably, ManualClock, Retry, Step, job

HOUR = 3600.0

called: list[Any] = []


@pytest.fixture
def clock() -> ManualClock:
    called.clear()
    return ManualClock()


@pytest.fixture
async def durably(clock: ManualClock) -> AsyncIterator[Durably]:
    engine = Durably(":memory:", jobs=[broken, breaks_beside_a_child, child, keyed], clock=clock)
    await engine.migrate()
    yield engine
    await engine.stop()


IN_AN_HOUR = Retry(initial_delay=HOUR, max_delay=HOUR, jitter=False)


@job(retry=IN_AN_HOUR)
async def broken(step: Step, input: dict[str, Any]) -> None:
    called.append("broken")
    raise ConnectionError


@job
async def child(step: Step, input: dict[str, Any]) -> None: ...


@job(retry=IN_AN_HOUR)
async def breaks_beside_a_child(step: Step, input: dict[str, Any]) -> None:
    called.append("parent")
    await step.trigger(child, delay=60)
    raise ConnectionError


@job
async def keyed(step: Step, input: dict[str, Any]) -> None:
    called.append(input["name"])


async def test_a_signal_does_not_cut_the_delay_of_a_runs_retry_short(durably: Durably, clock: ManualClock) -> None:
    """retries.md: the moment of the next attempt is stored, and none is made before."""
    run = await durably.trigger(broken)
    await durably.process_until_idle()
    await durably.signal(run.id, "hello")
    await durably.process_until_idle()
    assert called == ["broken"]
    clock.advance(HOUR)
    await durably.process_until_idle()
    assert called == ["broken", "broken"]


async def test_nor_does_the_end_of_a_child(durably: Durably, clock: ManualClock) -> None:
    await durably.trigger(breaks_beside_a_child)
    await durably.process_until_idle()
    clock.advance(60)
    await durably.process_until_idle()
    assert called == ["parent"]


@pytest.mark.parametrize("priority", [0, -1])
async def test_a_run_that_is_put_off_lets_the_others_of_its_key_pass(
    durably: Durably, clock: ManualClock, priority: int
) -> None:
    """flow-control.md: a burst moves the run that it made, no other one; and of the runs that may begin one does."""
    quiet = Debounce(10)
    await durably.pause_job(keyed)
    burst = await durably.trigger(keyed, {"name": "first"}, concurrency_key="key", debounce=quiet)
    clock.advance(11)
    await durably.process_until_idle()
    await durably.trigger(keyed, {"name": "queued"}, concurrency_key="key", coalesce="queue", priority=priority)
    again = await durably.trigger(keyed, {"name": "put off"}, concurrency_key="key", debounce=quiet)
    assert again.id == burst.id
    await durably.resume_job(keyed)
    await durably.process_until_idle()
    assert called == ["queued"]
