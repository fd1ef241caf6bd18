"""Modules that a browser fetches when they are needed: with a bridge, and a wheel, of the test's own."""

from __future__ import annotations

import asyncio
import io
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from durably_web import RequirementFailed, wheels

NAME = "durably_test_zones"


class JsException(Exception):
    """As Pyodide raises it: what JavaScript says is in `message`, and the text has the name in front."""

    def __init__(self, message: str) -> None:
        super().__init__(f"RequirementFailed: {message}")
        self.message = message


class Site:
    """Has one wheel; `asked` for each time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{NAME}.whl"
        self.asked: list[str] = []
        self.problem: str | None = None

    async def wheel(self, name: str) -> str:
        self.asked.append(name)
        await asyncio.sleep(0)
        if self.problem is not None:
            raise JsException(self.problem)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(f"{NAME}.py", "WORD = 'there'\n")
        self.path.write_bytes(packed.getvalue())
        return str(self.path)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(tmp_path)
    bridge = types.ModuleType("durably_bridge")
    bridge.wheel = site.wheel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "durably_bridge", bridge)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield site
    sys.modules.pop(NAME, None)


async def test_what_is_there_is_not_fetched(site: Site) -> None:
    await wheels.load("json", "asyncio")
    assert site.asked == []


async def test_what_is_missing_is_fetched_and_imported_from_its_archive(site: Site) -> None:
    await asyncio.gather(wheels.load(NAME), wheels.load("json", NAME))
    assert sys.modules[NAME].WORD == "there"
    assert sys.path.count(str(site.path)) == 1 and sys.path[-1] == str(site.path)
    asked = len(site.asked)
    await wheels.load(NAME)
    assert len(site.asked) == asked


async def test_a_failure_says_what_to_do_and_the_next_one_tries_again(site: Site) -> None:
    site.problem = f"{NAME} could not be loaded: the browser is offline"
    with pytest.raises(RequirementFailed, match=r"^\S+ could not be loaded: the browser is offline; .*tried again"):
        await wheels.load(NAME)
    assert str(site.path) not in sys.path
    site.problem = None
    await wheels.load(NAME)
    assert NAME in sys.modules


async def test_where_nobody_serves_wheels_it_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "durably_bridge", None)
    with pytest.raises(RequirementFailed, match=f"{NAME} is not installed: install it"):
        await wheels.load(NAME)
