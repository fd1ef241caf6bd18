"""Users test their jobs inside Pyodide with `durably_web.testing`: the browser's own Python, and no time passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_pyodide import run_in_pyodide

from durably_web.testing import NotDurable

pytestmark = pytest.mark.browser

BUGS = Path(__file__).parent.parent / "testing" / "bugs"
# What a browser has not: processes, threads, sockets.
ABSENT = {"starts_a_process", "starts_a_thread", "opens_a_connection"}


@run_in_pyodide
async def a_day_with_a_crash(selenium: Any) -> Any:
    from durably_web import Step, job
    from durably_web.testing import engine

    sent = []

    def send() -> str:
        sent.append("mail")
        return "sent"

    @job
    async def remind(step: Step, input: dict) -> str:  # type: ignore[type-arg]
        await step.sleep("wait", 24 * 3600)
        return await step.run("send", send)

    async with engine(jobs=[remind]) as durably:
        begun = durably.now()
        run = await durably.trigger(remind)
        durably.crash_after("send")
        await durably.advance(hours=23)
        before = list(sent)
        await durably.advance(hours=1)
        return before, sent, await run.result(), durably.crashes, (durably.now() - begun).total_seconds()


def test_time_passes_and_engines_die(selenium: Any) -> None:
    assert a_day_with_a_crash(selenium) == ([], ["mail"], "sent", ["after step 'send'"], 86_400)


@run_in_pyodide
async def check_checkout(selenium: Any, order: Any) -> Any:
    from durably_web.testing import check
    from tests.pyodide_plugin.jobs import checkout

    return [(point.what, point.output) for point in await check(checkout, order)]


def test_a_job_comes_to_the_same_wherever_it_dies(selenium: Any) -> None:
    points = check_checkout(selenium, {"items": ["tea", "bread"]})
    assert len(points) > 8
    assert {repr(output) for _, output in points} == {repr({"total": 7, "receipt": "charged 7"})}


@run_in_pyodide
async def findings_of_planted_bugs(selenium: Any, files: Any) -> Any:
    """What is found in each bug, and in the same job without it."""
    import importlib
    from pathlib import Path

    from durably_web.testing import NotDurable, check

    Path("tests/testing/bugs").mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 — in there nobody else waits
    for name, text in files.items():
        Path("tests/testing/bugs", name).write_text(text)  # noqa: ASYNC240
    importlib.invalidate_caches()
    found = {}
    # Those which depend on what Python is made of here. Of one that is as it should be, one point does.
    for bug in importlib.import_module("tests.testing.bugs.effects").BUGS:
        for job in (bug.wrong, bug.right):
            try:
                await check(job, bug.input, most=1, **bug.options)
                said = ""
            except NotDurable as error:
                said = str(error)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            found[job.fn.__name__] = bug.says, job is bug.wrong, said
    return found


def test_what_is_found_is_found_there_too(selenium: Any) -> None:
    import re

    files = {path.name: path.read_text("utf-8") for path in BUGS.glob("*.py")}
    found = findings_of_planted_bugs(selenium, files)
    assert len(found) > 40
    missed = [name for name, (says, wrong, said) in found.items() if wrong and not re.search(says, said)]
    assert set(missed) <= ABSENT, "\n".join(f"{name}: {found[name][2]}" for name in missed)
    alarms = {name: said for name, (_, wrong, said) in found.items() if not wrong and said}
    assert set(alarms) <= {f"{name}_in_a_step" for name in ABSENT}, alarms
    assert issubclass(NotDurable, AssertionError)
