"""`make demo ARGS=--check` as a test, and that it would notice a wrong report."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import demo_check
from scripts.demo_check import Report, differences

pytestmark = pytest.mark.browser

RIGHT = Report(rows=2, saved=2, left_out=0, times_saved=[1], states={"AK": [2, 60.0, -150.0]})


def test_the_demo_survives_the_death_of_its_tab(site: str, site_directory: Path, tmp_path: Path) -> None:
    assert demo_check.run(site, tmp_path / "profile", site_directory / "airports.csv") > 0


@pytest.mark.parametrize(
    "wrong",
    [
        RIGHT._replace(rows=3),
        RIGHT._replace(saved=1),
        RIGHT._replace(left_out=1),
        RIGHT._replace(times_saved=[2]),
        RIGHT._replace(times_saved=[1, 1]),
        RIGHT._replace(states={}),
        RIGHT._replace(states={"AK": [1, 60.0, -150.0]}),
        RIGHT._replace(states={"AK": [2, 60.1, -150.0]}),
        RIGHT._replace(states={**RIGHT.states, "AL": [1, 30.0, -80.0]}),
    ],
)
def test_a_wrong_figure_is_noticed(wrong: Report) -> None:
    assert differences(wrong, RIGHT)


def test_rounding_is_no_difference() -> None:
    assert differences(RIGHT._replace(states={"AK": [2, 60.0004, -150.0]}), RIGHT) == []
