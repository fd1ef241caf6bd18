"""A crash at every point of jobs of all kinds, and runs that are replayed."""

from __future__ import annotations

import ast
import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from durably_web import Retry, Step, job, testing
from durably_web.testing import NotDurable, ReplayDiffers, Stuck, check, crash_points, engine, replay

done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


def do(what: str) -> str:
    done.append(what)
    return what


@job
async def child(step: Step, input: dict[str, Any]) -> str:
    await step.sleep("rest", 60)
    return await step.run("do", do, input["what"])


@job
async def everything(step: Step, input: dict[str, Any]) -> list[Any]:
    """Of each kind of step one."""
    step.log.info("begins")
    both = await asyncio.gather(step.run("a", do, "a"), step.call(child, {"what": "b"}, name="b"))
    await step.sleep("night", 8 * 3600)
    approval = await step.wait_for_signal("approval")
    step.progress(1, 2)
    started = await step.trigger(child, {"what": "c"}, delay=60)
    items = await step.map("item", do, ["d", "e"], concurrency=1)
    return [*both, approval, bool(started), *items]


async def test_every_kind_of_step() -> None:
    points = await check(everything, jobs=[child], signals={"approval": {"by": "ada"}}, reset=done.clear)
    assert all(point.output == ["a", "b", {"by": "ada"}, True, "d", "e"] for point in points)
    assert [point.number for point in points] == list(range(len(points)))
    places = [point.what for point in points]
    assert places[:3] == ["without a crash", "without a crash, again", "stopped after each step"]
    for kind in ("the claim", "the outcome of step 'item[1]'", "run:waiting", "run:complete"):
        assert [place for place in places if kind in place and place.startswith("a crash before")], kind
        assert [place for place in places if kind in place and place.startswith("a crash after")], kind


async def test_fakes_are_looked_at_in_the_loop() -> None:
    seen: list[list[str]] = []
    async for crash in crash_points(child, {"what": "x"}):
        assert set(done) == {"x"}
        seen.append([crash.what, *done])
        done.clear()
    # Only where the crash was between the end of the function and the commit.
    [place] = [what for what, *calls in seen if len(calls) == 2]
    assert place.startswith("a crash before write ") and place.endswith("the outcome of step 'do'")


async def test_a_run_that_fails_fails_everywhere() -> None:
    @job
    async def fails(step: Step, input: dict[str, Any]) -> None:
        await step.run("do", do, "first")
        await step.run("fail", int, "no number", retry=Retry(max_attempts=3, initial_delay=60))

    points = await check(fails)
    assert {point.run.status for point in points} == {"failed"}
    assert {point.run.error for point in points} == {"ValueError: invalid literal for int() with base 10: 'no number'"}


async def test_steps_are_undone_wherever_it_dies() -> None:
    @job
    async def trip(step: Step, input: dict[str, Any]) -> None:
        await step.run("hotel", do, "hotel", undo=lambda result: do(f"no {result}"))
        await step.run("flight", do, "flight", undo=lambda result: do(f"no {result}"))
        raise ValueError("it rains")

    async for crash in crash_points(trip):
        assert {"no flight", "no hotel"} <= set(done) and done[-1] == "no hotel", crash.what
        assert [step.name for step in crash.steps][-2:] == ["flight#undo", "hotel#undo"]
        done.clear()


async def test_what_differs_by_itself_is_let_pass() -> None:
    @job
    async def stamped(step: Step, input: dict[str, Any]) -> float:
        begun = await step.run("begun", time.time)
        return begun + await step.run("number", int, 1)

    assert len(await check(stamped)) > 5


async def test_a_toss_is_let_pass_where_it_is_said() -> None:
    tosses = iter([True] * 3 + [False, True] * 100)

    @job
    async def tossed(step: Step, input: dict[str, Any]) -> str:
        return await step.run("heads", do, "heads") if await step.run("toss", lambda: next(tosses)) else "tails"

    with pytest.raises(NotDurable, match=r"step 'toss' came to .*True.*and to .*False"):
        await check(tossed)
    assert {point.output for point in await check(tossed, varies={"toss"})} == {"heads", "tails"}


async def test_fewer_points() -> None:
    points = await check(child, {"what": "x"}, most=4)
    assert len(points) == 3 + 4
    places = [point.what for point in points[3:]]
    assert places[0].startswith("a crash before write 1") and places[-1].startswith("a crash after")


async def test_a_signal_that_nobody_sends_is_told() -> None:
    with pytest.raises(Stuck, match=r"waits for signal approval.*\n?.*signals="):
        await check(everything, jobs=[child])


async def test_a_finding_says_which_line_and_what_to_do() -> None:
    @job
    async def lottery(step: Step, input: dict[str, Any]) -> int:
        return await step.run("draw", int, random.random() * 49)

    with pytest.raises(NotDurable) as found:
        await check(lottery)
    [finding] = [finding for finding in found.value.findings if finding.kind == "chance"]
    assert finding.where is not None and finding.where.partition(":")[0].endswith("test_points.py")
    assert finding.what == "the job calls random.random() outside of a step"
    assert finding.advice is not None and "await step.run(" in finding.advice


# -- replay ----------------------------------------------------------------------------------------------


@job
async def greet(step: Step, input: dict[str, Any]) -> str:
    name = await step.run("name", do, "ada")
    return await step.run("greet", do, f"hello {name}")


@job(name="greet")
async def greet_otherwise(step: Step, input: dict[str, Any]) -> str:
    name = await step.run("ask for the name", do, "ada")
    return await step.run("greet", do, f"hello {name}")


async def test_a_run_is_replayed_from_a_file(tmp_path: Path) -> None:
    async with engine(jobs=[greet]) as durably:
        run = await durably.trigger(greet)
        assert await run.result() == "hello ada"
        exported = await durably.export_run(run.id)
    file = tmp_path / "run.json"
    file.write_text(json.dumps(exported))
    done.clear()
    for form in (exported, file, str(file)):
        assert (await replay(form, [greet])).goes_on_with == []
        with pytest.raises(ReplayDiffers, match="job 'greet' does not replay the run") as differs:
            await replay(form, greet_otherwise)
        assert any("ask for the name" in one for one in differs.value.differences)
    assert done == []


# -- names -----------------------------------------------------------------------------------------------


def test_the_lists_of_names_agree(root: Path) -> None:
    assert sorted(testing.__all__) == testing.__all__ == sorted(testing._EXPORTS)
    tree = ast.parse((root / "durably_web" / "testing" / "__init__.py").read_text("utf-8"))
    seen = {
        alias.name: (node.module or "").removeprefix("durably_web.testing.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("durably_web.testing.")
        for alias in node.names
    }
    assert seen == testing._EXPORTS
    for name in testing.__all__:
        assert (getattr(testing, name).__doc__ or "").strip(), name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = testing.nonsense
