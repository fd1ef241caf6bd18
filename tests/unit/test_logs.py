"""What happens, as records of `logging`, and records as lines of JSON."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from durably_web import logs
from durably_web.engine import Durably
from durably_web.events import EVENT_TYPES, Event
from durably_web.jobs import job
from durably_web.logs import JsonFormatter, log_events
from durably_web.records import instant
from durably_web.retry import Retry
from durably_web.steps import Step
from tests.support.backends import SqliteMemory
from tests.support.scenes import LONG, Flaky, becomes
from tests.support.world import World, bounded


@pytest.fixture
async def world() -> AsyncIterator[World]:
    backend = SqliteMemory()
    async with World(backend) as world:
        yield world
    await backend.close()


async def engine(world: World, *jobs: Any) -> Durably:
    durably: Durably = await world.engine(*jobs, polling_interval=LONG)
    await durably.start()
    return durably


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The records as they would be written."""
    formatter = JsonFormatter()
    return [json.loads(formatter.format(record)) for record in caplog.records if record.name.startswith("durably_web")]


async def test_the_story_of_a_run_with_its_fields(world: World, caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky(world, ValueError("password=hunter2 is wrong"))

    @job
    async def booking(step: Step, input: dict[str, Any]) -> str:
        step.log.warning("few seats", left=2, api_key="k-123", url="https://me:pw@host/?token=t1")
        step.progress(1, total=2, message="half")
        await step.run("book", flaky.work, retry=Retry(max_attempts=2, initial_delay=0, jitter=False))
        return "the secret output"

    caplog.set_level(logging.DEBUG, "durably_web")
    durably = await engine(world, booking)
    stop = log_events(durably)
    handle = await durably.trigger(booking, {"card": "the secret input"}, labels={"org": "acme"})
    await world.drive(handle.result())
    stop()
    found = lines(caplog)
    told = {line["event"]: line for line in found}
    assert set(told) == {
        *("run:trigger", "run:leased", "run:progress", "run:complete", "log:write"),
        *("step:start", "step:retry", "step:complete"),
    }
    worker_id = durably._worker.worker_id
    for event in set(told) - {"run:trigger"}:
        line = told[event]
        assert (line["run_id"], line["job_name"], line["labels"]) == (handle.id, "booking", {"org": "acme"}), event
        assert (line["worker_id"], line["attempt"], line["generation"]) == (worker_id, 1, 1), event
    assert {event: line["level"] for event, line in told.items() if line["level"] != "debug"} == {
        "run:leased": "info",
        "run:progress": "info",
        "run:complete": "info",
        "log:write": "warning",
        "step:retry": "warning",
    }
    said = told["log:write"]
    assert said["logger"] == "durably_web.jobs"
    assert said["message"] == "few seats  left=2 api_key=*** url=https://***@host/?token=***"
    assert said["data"] == {"left": 2, "api_key": "***", "url": "https://***@host/?token=***"}
    retried = told["step:retry"]
    assert (retried["step_name"], retried["step_attempt"], retried["attempt"]) == ("book", 1, 1)
    assert retried["message"].startswith("book failed: ValueError: password=*** is wrong; again")
    assert told["run:progress"]["message"] == "progress 1/2 half"
    assert told["run:complete"]["duration"] >= 0
    text = json.dumps(found)
    for secret in ("hunter2", "k-123", "pw@", "t1", "secret input", "secret output"):
        assert secret not in text
    # Nobody listens any more.
    caplog.clear()
    await bounded(durably.trigger(booking, {}))
    assert not lines(caplog)


async def test_a_failed_run_and_an_error_of_the_worker(world: World, caplog: pytest.LogCaptureFixture) -> None:
    @job
    async def failing(step: Step, input: dict[str, Any]) -> None:
        raise ValueError("token=abc was refused")

    caplog.set_level(logging.INFO, "durably_web")
    durably = await engine(world, failing)
    log_events(durably)
    handle = await durably.trigger(failing)
    await becomes(durably, handle.id, "failed")
    durably._emitter.error(ValueError("no"), "claiming runs")
    failed, error = lines(caplog)[-2:]
    assert (failed["level"], failed["logger"]) == ("error", "durably_web.runs")
    assert failed["message"] == "failed: ValueError: token=*** was refused"
    assert "Traceback" in failed["traceback"] and "abc" not in failed["traceback"].replace("token=abc was", "")
    assert (error["level"], error["logger"], error["message"]) == (
        "error",
        "durably_web.worker",
        "ValueError: no (claiming runs)",
    )
    assert error["worker_id"] == durably._worker.worker_id and "run_id" not in error


async def test_what_jobs_say_can_stay_in_the_database(world: World, caplog: pytest.LogCaptureFixture) -> None:
    @job
    async def talking(step: Step, input: dict[str, Any]) -> None:
        step.log.info("hello")

    caplog.set_level(logging.DEBUG, "durably_web")
    durably = await engine(world, talking)
    log_events(durably, job_logs=False)
    handle = await durably.trigger(talking)
    await bounded(handle.result())
    events = {line["event"] for line in lines(caplog)}
    assert "log:write" not in events and "run:complete" in events
    assert [entry.message for entry in await durably.get_logs(handle.id)] == ["hello"]


async def test_a_level_that_is_off_costs_no_text(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    @job
    async def plain(step: Step, input: dict[str, Any]) -> None: ...

    monkeypatch.setattr(logs, "message_of", lambda event: pytest.fail("nobody reads it"))
    monkeypatch.setattr(logs.runs, "level", logging.CRITICAL)
    logs.runs.manager._clear_cache()  # type: ignore[attr-defined]
    durably = await engine(world, plain)
    log_events(durably)
    await bounded(durably.trigger_and_wait(plain))
    monkeypatch.undo()
    logs.runs.manager._clear_cache()  # type: ignore[attr-defined]


@pytest.mark.parametrize("type_", sorted(EVENT_TYPES))
def test_every_event_has_a_line(type_: Any) -> None:
    """Also one of which hardly anything is known."""
    event = Event(type_, None, None, instant(0), "R", "j", {}, message="said")
    assert logs.message_of(event) and "\n" not in logs.message_of(event)
    assert logs.level_of(event) in logs.LEVELS.values()
    logs.log_event(event)


def test_levels_are_of_events_that_there_are() -> None:
    assert set(logs._LEVELS) <= EVENT_TYPES


def test_records_of_others_are_lines_too() -> None:
    formatter = JsonFormatter()
    try:
        raise ValueError("Authorization: Bearer abcdefgh12345678")
    except ValueError:
        exc_info = sys.exc_info()

    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

    record = logging.LogRecord("other", logging.CRITICAL, "f.py", 1, "a %s\nb", ("x",), exc_info)
    record.moment, record.odd, record.password, record.seen = instant(0), Odd(), "p", {"token": "t", "n": [1, None]}
    text = formatter.format(record)
    assert "\n" not in text
    line = json.loads(text)
    exception = line.pop("exception")
    assert "ValueError" in exception and "abcdefgh12345678" not in exception
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "critical",
        "logger": "other",
        "message": "a x\nb",
        "moment": "1970-01-01T00:00:00+00:00",
        "odd": "a Odd",
        "password": "***",
        "seen": {"token": "***", "n": [1, None]},
    }


def test_the_library_installs_no_handler(root: Path) -> None:
    code = """
import asyncio, logging
from durably_web import Durably, job
from durably_web.logs import log_events
import durably_web.server
@job
async def fails(step, input: dict): raise ValueError("no")
async def main():
    async with Durably(":memory:", jobs=[fails]) as durably:
        log_events(durably)
        await (await durably.trigger(fails, {})).run()
        await durably.wait_for_run((await durably.trigger(fails, {})).id, timeout=30)
asyncio.run(main())
names = [None, *(name for name in logging.root.manager.loggerDict if "durably" in name)]
assert not any(logging.getLogger(name).handlers for name in names), names
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    # What is an error is seen without any set-up, as Python does it.
    assert set(done.stderr.splitlines()) == {"failed: ValueError: no"}
