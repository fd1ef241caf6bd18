"""The pytest plugin, in sessions of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

JOBS = """
import time
from durably_web import Step, job

@job
async def remind(step: Step, input: dict) -> str:
    await step.sleep("wait", 24 * 3600)
    return await step.run("send", lambda: "sent")

@job
async def late(step: Step, input: dict) -> bool:
    return time.time() > await step.run("one", lambda: 1)
"""

TEST = """
async def scenario(durably_engine):
    async with durably_engine(jobs=[remind]) as durably:
        run = await durably.trigger(remind)
        await durably.advance(hours=24)
        assert (await run.run()).status == "completed"
        assert await run.result() == "sent"
"""

WATCHED = """
from jobs import late
from durably_web.testing import engine

def test_late(durably_run):
    async def scenario():
        async with engine(jobs=[late]) as durably:
            assert await durably.trigger_and_wait(late) is True
    durably_run(scenario())
"""

# pytest would take each job file for a test of the plugins that are installed here.
BARE = ("-p", "no:pyodide", "-p", "no:cacheprovider")


@pytest.fixture
def session(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(jobs=JOBS)
    return pytester


def outcomes(session: pytest.Pytester, *options: str) -> pytest.RunResult:
    return session.runpytest_subprocess(*BARE, *options, timeout=60)


def test_in_tests_of_every_kind(session: pytest.Pytester) -> None:
    session.makepyfile(
        test_sync=f"from jobs import remind\n{TEST}\n"
        "def test_it(durably_engine, durably_run):\n    durably_run(scenario(durably_engine))\n",
        test_asyncio=f"import pytest\nfrom jobs import remind\n{TEST}\n"
        "@pytest.mark.asyncio\nasync def test_it(durably_engine):\n    await scenario(durably_engine)\n",
        test_anyio=f"import pytest\nfrom jobs import remind\n{TEST}\n"
        "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n\n"
        "@pytest.mark.anyio\nasync def test_it(durably_engine):\n    await scenario(durably_engine)\n",
    )
    outcomes(session).assert_outcomes(passed=3)


def test_crash_points_in_a_test_that_is_not_async(session: pytest.Pytester) -> None:
    session.makepyfile(
        "from jobs import late, remind\nfrom durably_web.testing import check\n"
        "def test_remind(durably_run):\n    assert len(durably_run(check(remind))) > 5\n"
        "def test_late(durably_run):\n    durably_run(check(late))\n"
    )
    result = outcomes(session)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*jobs.py:11: the job calls time.time() outside of a step*"])


@pytest.mark.parametrize("ini", [False, True])
def test_every_engine_is_watched_where_somebody_wants_it(session: pytest.Pytester, ini: bool) -> None:
    session.makepyfile(WATCHED)
    outcomes(session).assert_outcomes(passed=1)
    if ini:
        session.makeini("[pytest]\ndurably_watch = true\n")
    result = outcomes(session, *([] if ini else ["--durably-watch"]))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*NotDurable: job 'late'*", "*the job calls time.time() outside of a step*"])


def test_an_engine_that_is_left_open_fails_its_test(session: pytest.Pytester) -> None:
    session.makepyfile(
        "from jobs import remind\n"
        "def test_it(durably_engine, durably_run):\n    durably_run(durably_engine(jobs=[remind]).init())\n"
    )
    result = outcomes(session)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*an engine is still open at the end of the test*"])


def test_who_does_not_use_it_pays_nothing(session: pytest.Pytester) -> None:
    session.makepyfile(
        """
        import sys

        def test_nothing_is_loaded(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("durably_web")
            ours = {name for name in sys.modules if name.partition(".")[0] == "durably_web"}
            assert ours == {"durably_web", "durably_web.testing", "durably_web.testing.plugin"}
            assert sys.getprofile() is None
        """
    )
    outcomes(session).assert_outcomes(passed=1)


def test_the_plugin_is_told_to_pytest(root: Path) -> None:
    declared = (root / "pyproject.toml").read_text("utf-8")
    assert '[project.entry-points.pytest11]\ndurably_web = "durably_web.testing.plugin"\n' in declared
