"""The job of examples/images here: the same file as in a browser, with processes instead of workers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from durably_web import Durably
from tests.support.examples import imported
from tests.support.png import bands, png, waves


@pytest.fixture
def jobs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("IMAGES", str(tmp_path))
    with imported(root / "examples" / "images") as jobs:
        yield jobs


async def test_pictures_are_looked_at_and_a_broken_one_harms_nobody(jobs: ModuleType, tmp_path: Path) -> None:
    large = png(320, 240, bands)
    files = {"large": large, "small": png(96, 72, bands), "other": png(100, 100, waves), "broken": large[:60]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    batch = {"pictures": [{"file": name, "name": f"{name}.png"} for name in [*files, "absent"]]}
    async with Durably(":memory:", jobs=[jobs.sort_pictures]) as durably:
        run = await durably.trigger(jobs.sort_pictures, batch)
        output: dict[str, Any] = await run.result(timeout=60)
        steps = {step.name: step for step in await durably.get_steps(run.id)}
        ended = await run.run()
        assert ended is not None and ended.progress is not None
        assert ended.progress.current == ended.progress.total == 5
        warnings = [line.message for line in await durably.get_logs(run.id)]

    first, second, third, broken, absent = output["pictures"]
    assert broken == {"name": "broken.png", "error": "this is no picture"}
    assert absent == {"name": "absent.png", "error": "there is no such file"}
    assert sorted(warnings) == ["absent.png: there is no such file", "broken.png: this is no picture"]
    assert output["failed"] == 2
    assert (first["width"], first["height"]) == (320, 240)
    assert first["colours"][:3] == ["#c81e1e", "#f0f0f0", "#1428b4"]
    assert first["hash"] != third["hash"] and output["alike"] == [[0, 1]]
    assert second["name"] == "small.png" and "small" not in second

    kind, _, data = steps["picture 1"].output["small"].partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert small.size == (160, 120)


async def test_an_empty_batch_has_no_pictures(jobs: ModuleType) -> None:
    async with Durably(":memory:", jobs=[jobs.sort_pictures]) as durably:
        output = await durably.trigger_and_wait(jobs.sort_pictures, {"pictures": []}, timeout=30)
    assert output == {"pictures": [], "alike": [], "failed": 0}


def test_what_is_alike_to_one_of_a_group_is_in_it(jobs: ModuleType) -> None:
    groups = jobs.groups
    near = f"{0b11111111:016x}"  # eight bits from the first, and the third eight from it
    assert groups(["0" * 16, near, None, f"{0b1111111111111111:016x}", "f" * 16]) == [[0, 1, 3]]
    assert groups([f"{0b111111111:016x}", "0" * 16]) == []
    assert groups([]) == []
