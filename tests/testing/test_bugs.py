"""The kit finds each planted bug and says what it is, and says nothing of the same job as it should be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from durably_web.testing import NotDurable, check
from tests.testing.bugs import Bug, effects, replays, variables

BUGS = {bug.wrong.fn.__name__: bug for module in (effects, replays, variables) for bug in module.BUGS}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Taken back when the test is over.
    monkeypatch.setenv("DURABLY_WEB_OF_A_BUG", "0")
    variables.SEEN.clear()
    variables.SENT.clear()
    variables.CACHE.clear()


def test_there_are_many() -> None:
    assert len(BUGS) == sum(len(module.BUGS) for module in (effects, replays, variables)) >= 20


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
async def test_a_bug_is_found(bug: Bug) -> None:
    with pytest.raises(NotDurable) as found:
        await check(bug.wrong, bug.input, **bug.options)
    assert bug.kind in {finding.kind for finding in found.value.findings}
    assert re.search(bug.says, str(found.value)), str(found.value)


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
async def test_the_same_job_without_it_is_left_alone(bug: Bug) -> None:
    points: list[Any] = await check(bug.right, bug.input, **bug.options)
    assert len(points) > 5 and {point.run.status for point in points} == {"completed"}
