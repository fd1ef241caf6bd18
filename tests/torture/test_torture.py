"""Eight worker processes on one file are killed at random: nothing is lost, and nothing is done twice.

More of it: python -m tests.torture --runs 50000 --kills 200 --seed 1
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.torture.torture import Plan, torture

SEED = int(os.environ.get("SEED", "1"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="dead workers are noticed at once only where files can be locked")
async def test_nothing_is_lost_and_nothing_is_done_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(SEED)
    figures = await torture(tmp_path, plan)
    with capsys.disabled():
        print(f"\n{plan}: {figures}")  # noqa: T201 — whoever looks for the time it takes
    assert figures.killed >= plan.kills - 2 and figures.taken_over > 0
