"""The demo's second job: an expense that waits for a decision."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from demo.approval import PATIENCE, expense
from durably_web import Durably, ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def durably(clock: ManualClock) -> AsyncIterator[Durably]:
    durably = Durably(":memory:", jobs=[expense], clock=clock)
    await durably.migrate()
    yield durably
    await durably.stop()


async def ask(durably: Durably) -> str:
    handle = await durably.trigger(expense, {"what": "Telescope", "amount": 249})
    await durably.process_until_idle()
    return handle.id


@pytest.mark.parametrize("decision", ["approved", "rejected"])
async def test_a_decision(durably: Durably, decision: str) -> None:
    run_id = await ask(durably)
    await durably.signal(run_id, "decision", decision)
    await durably.process_until_idle()
    run = await durably.get_run(run_id)
    assert run is not None and run.output["decision"] == decision
    assert ("payment" in run.output) == (decision == "approved")


async def test_nobody_decides(durably: Durably, clock: ManualClock) -> None:
    run_id = await ask(durably)
    clock.advance(PATIENCE.total_seconds() + 1)
    await durably.process_until_idle()
    run = await durably.get_run(run_id)
    assert run is not None and run.output["decision"] == "expired"


@pytest.mark.parametrize("wrong", [{"what": " ", "amount": 5}, {"what": "Telescope", "amount": 0}])
async def test_what_is_no_expense(durably: Durably, wrong: dict[str, object]) -> None:
    handle = await durably.trigger("expense", wrong)
    await durably.process_until_idle()
    run = await durably.get_run(handle.id)
    assert run is not None and run.status == "failed" and "an expense says what it is for" in (run.error or "")
