"""The simulation finds what it is there to find: an engine that is broken is caught, and the whole one is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.broken import BROKEN
from tests.simulation.test_simulation import play

FIRST, SEEDS = 1000, 60


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_engine_is_found(root: Path, name: str) -> None:
    result = play(root, "--broken", name, "--first", str(FIRST), "--seeds", str(SEEDS))
    assert (result.returncode, name in result.stdout) == (1, True), result.stdout + result.stderr


def test_the_whole_engine_passes_the_same_seeds(root: Path) -> None:
    result = play(root, "--first", str(FIRST), "--seeds", str(SEEDS))
    assert result.returncode == 0, result.stdout + result.stderr
