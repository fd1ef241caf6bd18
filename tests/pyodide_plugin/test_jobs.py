"""Users test their jobs with pytest-pyodide: the site's wheel, Pyodide's own SQLite, a database in Pyodide's memory.

A function under `run_in_pyodide` runs as a whole in Chromium, so it imports what it needs itself.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytest_pyodide import run_in_pyodide

from durably_web import InvalidInput, RunFailed

pytestmark = pytest.mark.browser


@run_in_pyodide
def installed_files(selenium: Any) -> Any:
    from importlib.metadata import files

    return [str(file) for file in files("durably-web") or ()]


def test_the_wheel_is_that_of_the_site(selenium: Any) -> None:
    files = installed_files(selenium)
    assert "durably_web/worker.py" in files
    assert "durably_web/worker.pyc" in files


@run_in_pyodide
async def outcome_of_checkout(selenium: Any, database: str, order: Any) -> Any:
    from durably_web import Durably
    from tests.pyodide_plugin.jobs import checkout

    async with Durably(database, jobs=[checkout]) as durably:
        handle = await durably.trigger(checkout, order)
        output = await handle.result(timeout=30)
        events = [event.type async for event in handle.events()]
        steps = [(step.name, step.output) for step in await durably.get_steps(handle.id)]
        return output, events, steps, [line.message for line in await durably.get_logs(handle.id)]


@pytest.mark.parametrize("database", [":memory:", "checkout.db"])
def test_a_job_runs_on_pyodides_own_sqlite(selenium: Any, database: str) -> None:
    output, events, steps, logs = outcome_of_checkout(selenium, database, {"items": ["tea", "bread"]})
    assert output == {"total": 7, "receipt": "charged 7"}
    assert (events[0], events[-1]) == ("run:trigger", "run:complete")
    assert steps == [("price", 3), ("price#2", 4), ("charge", "charged 7")]
    assert logs == ["priced"]


def test_errors_arrive_as_what_they_are(selenium: Any) -> None:
    with pytest.raises(InvalidInput, match="items"):
        outcome_of_checkout(selenium, ":memory:", {"things": []})
    with pytest.raises(RunFailed, match="gold") as failure:
        outcome_of_checkout(selenium, ":memory:", {"items": ["tea", "gold"]})
    assert failure.value.run_id


@run_in_pyodide
async def managed(selenium: Any) -> Any:
    """What became of a run that was triggered twice, cancelled, retried, triggered anew and deleted."""
    from durably_web import Durably
    from tests.pyodide_plugin.jobs import Order, checkout

    durably = Durably(":memory:", jobs=[checkout])
    await durably.migrate()
    one = await durably.trigger(checkout, Order(["tea"]), idempotency_key="one", labels={"shop": "north"})
    again = await durably.trigger(checkout, Order(["tea"]), idempotency_key="one")
    await durably.cancel(one.id)
    cancelled = await one.run()
    await durably.retry(one.id)
    executed = await durably.process_until_idle()
    other = await durably.retrigger(one.id)
    executed += await durably.process_one()
    await durably.delete_run(one.id)
    left = await durably.get_runs(status="completed", labels={"shop": "north"})
    await durably.stop()
    return again.id == one.id, cancelled and cancelled.status, executed, [run.id for run in left] == [other.id]


def test_every_operation_works_on_the_sqlite_of_pyodide(selenium: Any) -> None:
    assert managed(selenium) == (True, "cancelled", 2, True)


@run_in_pyodide(packages=["pytest", "tblib"])
async def wrong_expectation(selenium: Any) -> None:
    from durably_web import Durably
    from tests.pyodide_plugin.jobs import Order, checkout

    async with Durably(":memory:", jobs=[checkout]) as durably:
        output = await durably.trigger_and_wait(checkout, Order(["jam"]), timeout=30)
    assert output["total"] == 6, f"the total is {output['total']}"


def test_a_failed_assertion_shows_its_line(selenium: Any) -> None:
    with pytest.raises(AssertionError, match="the total is 5") as failure:
        wrong_expectation(selenium)
    assert failure.traceback[-1].name == "wrong_expectation"


@run_in_pyodide
async def start_a_run_that_never_ends(selenium: Any, database: str) -> Any:
    import asyncio

    from durably_web import Durably
    from tests.pyodide_plugin import jobs

    charging = asyncio.Event()

    async def charge(total: int) -> str:
        charging.set()
        await asyncio.get_running_loop().create_future()
        return "never"

    jobs.charge = charge
    # Nothing tells another Pyodide that this one is gone but the end of its lease.
    durably = Durably(database, jobs=[jobs.checkout], heartbeat_interval=0.05, stale_threshold=0.2)
    await durably.init()
    handle = await durably.trigger(jobs.checkout, jobs.Order(["tea", "jam"]))
    await asyncio.wait_for(charging.wait(), 30)
    return handle.id


@run_in_pyodide
def files_of(selenium: Any, database: str) -> Any:
    from pathlib import Path

    return {path.name: path.read_bytes() for path in Path().glob(f"{database}*")}


@run_in_pyodide
def write(selenium: Any, files: dict[str, bytes]) -> None:
    from pathlib import Path

    for name, content in files.items():
        Path(name).write_bytes(content)


@run_in_pyodide
async def go_on(selenium: Any, database: str, run_id: str) -> Any:
    from durably_web import Durably
    from tests.pyodide_plugin import jobs

    priced: list[str] = []
    jobs.price = priced.append  # type: ignore[assignment]
    async with Durably(database, jobs=[jobs.checkout]) as durably:
        run = await durably.wait_for_run(run_id, timeout=30)
    return run.status, run.output, priced


def test_a_run_that_was_killed_goes_on_in_another_pyodide(selenium_standalone: Any) -> None:
    page = selenium_standalone
    run_id = start_a_run_that_never_ends(page, "killed.db")
    files = files_of(page, "killed.db")
    # A reload takes Python away in the middle of the step, without a word to it, and its files with it.
    page.refresh()
    page.load_pyodide()
    page.initialize_pyodide()
    assert files_of(page, "killed.db") == {}
    write(page, files)
    assert go_on(page, "killed.db", run_id) == ("completed", {"total": 8, "receipt": "charged 8"}, [])
