"""The question before many runs are changed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import typer

from durably_web import Durably, Step, job
from durably_web.cli.choosing import Choice, choice, confirm
from durably_web.cli.mistakes import Mistake

ACTIVE = ("pending", "leased", "waiting")


@job
async def nothing(step: Step, input: dict[str, Any]) -> None: ...


@pytest.fixture
async def durably() -> AsyncIterator[Durably]:
    durably = Durably(":memory:", jobs=[nothing])
    await durably.migrate()
    await durably.trigger_many(nothing, [{"input": {}, "labels": {"odd": str(n % 2)}} for n in range(250)])
    yield durably
    await durably.stop()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions; each is answered with yes, until a test says otherwise."""
    questions: list[str] = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def confirmed(text: str, err: bool) -> bool:
        questions.append(text)
        return True

    monkeypatch.setattr(typer, "confirm", confirmed)
    return questions


async def test_it_tells_how_many_and_which(durably: Durably, asked: list[str]) -> None:
    assert await confirm(durably, "cancel", choice(None, "nothing", ["odd=1"], None), ACTIVE)
    assert asked == ["Cancel 125 runs (job nothing, label odd=1)?"]


async def test_nobody_is_asked_about_nothing(durably: Durably, asked: list[str]) -> None:
    assert not await confirm(durably, "cancel", choice(["completed"], None, None, None), ACTIVE)
    assert not await confirm(durably, "cancel", choice(None, None, None, "7d"), ACTIVE)
    assert asked == []


async def test_no_changes_nothing(durably: Durably, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typer, "confirm", lambda text, err: False)
    with pytest.raises(Mistake, match="nothing was changed"):
        await confirm(durably, "delete", Choice(["pending"], None, {}, None), ("pending",))


async def test_it_stops_counting_where_there_are_many(
    durably: Durably, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durably_web.cli.choosing._MOST_COUNTED", 150)
    assert await confirm(durably, "pause", choice(["pending"], None, None, None), ACTIVE)
    assert asked == ["Pause more than 150 runs (status pending)?"]
