"""Exported runs: all that is stored of them, and what they tell of code that has changed since."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from durably_web import replay as replays
from durably_web.codec import JsonCodec
from durably_web.errors import InvalidInput, NotFound
from durably_web.jobs import Job, job
from durably_web.replay import Replay, replay
from durably_web.retry import Retry
from durably_web.steps import Step
from tests.contract import Backend
from tests.support.scenes import LONG, becomes, move
from tests.support.world import World, bounded, raised, turns


class Calls:
    """Steps' functions; a replay must not call them."""

    def __init__(self) -> None:
        self.allowed = True

    def give(self, value: Any) -> Any:
        assert self.allowed, "a replay executes nothing"
        return value


calls = Calls()


def _job(code: Callable[[Step, Any], Any]) -> Job[Any, Any]:
    """A job called `work`, with some code."""

    async def work(step: Step, input: dict[str, Any]) -> Any:
        return await code(step, input)

    return job(work)


async def _completed(world: World, code: Callable[[Step, Any], Any], **input: Any) -> dict[str, Any]:
    durably = await world.engine(_job(code))
    handle = await durably.trigger("work", input)
    await bounded(durably.process_until_idle())
    return await durably.export_run(handle.id)


async def _replayed(export: Any, code: Callable[[Step, Any], Any], **options: Any) -> Replay:
    calls.allowed = False
    try:
        return await bounded(replay(json.loads(json.dumps(export)), _job(code), **options))
    finally:
        calls.allowed = True


def _found(replayed: Replay) -> list[tuple[str, str | None]]:
    return [(one.what, one.step) for one in replayed.differences]


async def _straight(step: Step, input: Any) -> Any:
    first = await step.run("first", calls.give, 1)
    second = await step.run("second", calls.give, 2)
    return first + second


# -- the format ------------------------------------------------------------------------------------------


async def an_export_has_all_that_is_stored(backend: Backend) -> None:
    async def code(step: Step, input: Any) -> Any:
        step.log.info("begun", at=datetime.date(2026, 1, 31))
        step.progress(1, 2)
        await step.run("tuple", calls.give, (1, Decimal("2.5"), None))
        await step.sleep("nap", 0.0)
        return await step.wait_for_signal("go")

    async with World(backend) as world:
        durably = await world.engine(_job(code))
        handle = await durably.trigger("work", {"$type": "x"}, labels={"a": "ü"}, priority=2)
        await durably.signal(handle.id, "go", {"yes": True})
        await durably.signal(handle.id, "other", None)
        await bounded(durably.process_until_idle())
        export = await durably.export_run(handle.id)
        assert json.loads(json.dumps(export)) == export
        assert (export["format"], export["version"], export["values"]) == ("durably-web run", 1, "json")
        run = export["run"]
        assert (run["id"], run["jobName"], run["status"]) == (handle.id, "work", "completed")
        assert (run["labels"], run["priority"], run["progress"]) == ({"a": "ü"}, 2, {"current": 1, "total": 2})
        assert run["input"] == {"$type": "dict", "value": [["$type", "x"]]} and run["output"] == {"yes": True}
        assert "error" not in run and "wakeAt" not in run and run["createdAt"].endswith("Z")
        journal = export["journal"]
        assert [entry["number"] for entry in journal] == list(range(1, len(journal) + 1))
        stored = [(entry["stepName"], entry["kind"]) for entry in journal if entry["type"] == "step:complete"]
        assert stored == [("tuple", "run"), ("nap", "sleep"), ("go", "signal")]
        [result, nothing, _] = [entry["data"] for entry in journal if entry["type"] == "step:complete"]
        assert result == {"$type": "tuple", "value": [1, {"$type": "Decimal", "value": "2.5"}, None]}
        assert nothing is None, "which is there, and is null"
        [taken, left] = export["signals"]
        assert (taken["stepName"], taken["payload"]) == ("go", {"yes": True})
        assert "stepName" not in left and left["payload"] is None


async def no_run_cannot_be_exported(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine()
        assert "none" in str(await raised(NotFound, durably.export_run("none")))


class Backwards(JsonCodec):
    def encode(self, value: Any, /) -> str:
        return super().encode(value)[::-1]

    def decode(self, text: str, /) -> Any:
        return super().decode(text[::-1])


async def values_of_a_codec_of_ones_own_are_its_texts(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(_job(_straight), codec=Backwards())
        handle = await durably.trigger("work", {"n": 12})
        await bounded(durably.process_until_idle())
        export = await durably.export_run(handle.id)
        assert (export["values"], export["run"]["input"]) == ("text", '{"n":12}'[::-1])
        assert (await replay(export, _job(_straight), codec=Backwards())).differences == []
        assert "codec" in str(await raised(InvalidInput, replay(export, _job(_straight))))


async def what_is_no_export_is_refused(backend: Backend) -> None:
    async with World(backend) as world:
        export = await _completed(world, _straight)
        for wrong, told in (
            ({}, "no exported run"),
            ([], "no exported run"),
            ({**export, "version": 2}, "version 2"),
            ({**export, "run": {}}, "damaged"),
            ({**export, "journal": [{"type": "step:complete"}]}, "damaged"),
        ):
            assert told in str(await raised(InvalidInput, replay(wrong, _job(_straight)))), wrong


async def emptied_results_cannot_be_replayed(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(_job(_straight), preserve_steps=False)
        handle = await durably.trigger("work")
        await bounded(durably.process_until_idle())
        export = await durably.export_run(handle.id)
        assert "preserve_steps" in str(await raised(InvalidInput, replay(export, _job(_straight))))


# -- the same code ---------------------------------------------------------------------------------------


async def the_same_code_differs_in_nothing(backend: Backend) -> None:
    async def code(step: Step, input: Any) -> Any:
        async def branch(name: str) -> Any:
            for n in range(3):
                await step.run(name, calls.give, n)
            return await step.run("shared", calls.give, name)

        step.log.info("begun")
        both = await asyncio.gather(branch("a"), branch("b"), step.sleep("nap", 0.01))
        many = await step.map("many", calls.give, range(20), concurrency=3)
        _, pending = await asyncio.wait(
            [asyncio.ensure_future(step.run("one", calls.give, 1)), asyncio.ensure_future(step.sleep("long", 99))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in pending:
            task.cancel()
        try:
            await step.run("fails", _fail)
        except ValueError as error:
            return [both, many, str(error), await step.trigger("child"), await step.call("child", name="called")]

    @job
    async def child(step: Step, input: dict[str, Any]) -> int:
        return 5

    async with World(backend) as world:
        durably = await world.started(_job(code), child, polling_interval=LONG)
        handle = await durably.trigger("work")
        output = await world.drive(handle.result())
        export = await durably.export_run(handle.id)
        calls.allowed = False
        replayed = await bounded(replay(export, [_job(code), child]))
        calls.allowed = True
        assert (replayed.differences, replayed.goes_on_with) == ([], []), (replayed, output)
        assert replayed.to_wire()["runId"] == handle.id


def _fail() -> None:
    raise ValueError("so it is")


async def the_answers_of_patches_are_replayed(backend: Backend) -> None:
    def code(patched: bool) -> Callable[[Step, Any], Any]:
        async def code(step: Step, input: Any) -> Any:
            first = await step.run("first", calls.give, 1)
            if patched and step.patched("p"):
                await step.run("new", calls.give, 2)
            return [first, await step.run("last", calls.give, 3)]

        return code

    async with World(backend) as world:
        for has in (True, False):
            export = await _completed(world, code(has))
            assert (await _replayed(export, code(True))).differences == [], has


async def a_run_under_way_goes_on_with_its_next_steps(backend: Backend) -> None:
    async def code(step: Step, input: Any) -> Any:
        await step.run("first", calls.give, 1)
        await asyncio.gather(step.wait_for_signal("go"), step.sleep("nap", 1000))
        return await step.run("last", calls.give, 2)

    async with World(backend) as world:
        durably = await world.started(_job(code), polling_interval=LONG)
        handle = await durably.trigger("work")
        before = await durably.export_run(handle.id)
        await becomes(durably, handle.id, "waiting")
        export = await durably.export_run(handle.id)
        assert (await _replayed(before, code)).goes_on_with == ["first"]
        replayed = await _replayed(export, code)
        assert (replayed.differences, replayed.goes_on_with) == ([], ["go", "nap"])
        await durably.signal(handle.id, "go", 1)
        await move(world, 1000)
        await bounded(handle.result())
        assert (await _replayed(await durably.export_run(handle.id), code)).differences == []


async def a_failed_run_may_go_on_with_mended_code(backend: Backend) -> None:
    async def broken(step: Step, input: Any) -> Any:
        await step.run("first", calls.give, 1)
        raise ValueError("so it is")

    async with World(backend) as world:
        export = await _completed(world, broken)
        assert export["run"]["status"] == "failed" and export["run"]["error"] == "ValueError: so it is"
        assert (await _replayed(export, broken)).differences == []
        replayed = await _replayed(export, _straight)
        assert (replayed.differences, replayed.goes_on_with) == ([], ["second"])


async def the_tick_of_a_schedule_is_replayed(backend: Backend) -> None:
    async def code(step: Step, input: Any) -> Any:
        return [str(step.scheduled_at), await step.run(f"report of {step.scheduled_at}", calls.give, 1)]

    async with World(backend) as world:
        durably = await world.started(_job(code), polling_interval=LONG)
        await durably.schedule("work", every=60.0)
        await move(world, 60)
        [run] = await durably.get_runs(schedule="work")
        output: Any = await bounded(durably.output_of(run.id))
        assert output == [str(run.scheduled_at), 1] and run.scheduled_at is not None
        assert (await _replayed(await durably.export_run(run.id), code)).differences == []


async def a_new_step_with_an_undo_is_not_executed(backend: Backend) -> None:
    async def old(step: Step, input: Any) -> Any:
        await step.run("hotel", calls.give, 1)
        await step.wait_for_signal("go")

    async def new(step: Step, input: Any) -> Any:
        await step.run("hotel", calls.give, 1, undo=calls.give)
        await asyncio.gather(
            step.run("car", calls.give, 2, undo=calls.give),
            step.map("many", calls.give, [3, 4], undo=calls.give),
            step.run("train", calls.give, 5, retry=Retry(max_attempts=3)),
        )
        await step.wait_for_signal("go")

    async with World(backend) as world:
        durably = await world.started(_job(old), polling_interval=LONG)
        handle = await durably.trigger("work")
        await becomes(durably, handle.id, "waiting")
        replayed = await _replayed(await durably.export_run(handle.id), new, timeout=0.01)
        assert sorted(replayed.goes_on_with) == ["car", "many[0]", "many[1]", "train"]
        assert {one.what for one in replayed.differences} == {"new"}


# -- changed code ----------------------------------------------------------------------------------------


async def what_differs_is_found(backend: Backend) -> None:
    async def removed(step: Step, input: Any) -> Any:
        await step.run("second", calls.give, 2)
        return 3

    async def removed_at_the_end(step: Step, input: Any) -> Any:
        return 2 + await step.run("first", calls.give, 1)

    async def inserted(step: Step, input: Any) -> Any:
        await step.run("new", calls.give, 2)
        return await _straight(step, input)

    async def beside(step: Step, input: Any) -> Any:
        new = asyncio.ensure_future(step.run("new", calls.give, 2))
        output = await _straight(step, input)
        new.cancel()
        return output

    async def appended(step: Step, input: Any) -> Any:
        output = await _straight(step, input)
        await step.run("new", calls.give, 2)
        return output

    async def another_kind(step: Step, input: Any) -> Any:
        await step.run("first", calls.give, 2)
        await step.sleep("second", 1)
        return 3

    async def swallowed(step: Step, input: Any) -> Any:
        try:
            return await another_kind(step, input)
        except Exception:
            return 3

    async def another_output(step: Step, input: Any) -> Any:
        return str(await _straight(step, input))

    async def nearly(step: Step, input: Any) -> Any:
        return float(await _straight(step, input))

    async def raises(step: Step, input: Any) -> Any:
        raise ValueError(await _straight(step, input))

    async def renamed(step: Step, input: Any) -> Any:
        return 1 + await step.run("zweiter", calls.give, 2)

    async with World(backend) as world:
        export = await _completed(world, _straight)
        assert _found(await _replayed(export, _straight)) == []
        for code, expected in (
            (removed, [("unasked", "first")]),
            (removed_at_the_end, [("unasked", "second")]),
            (inserted, [("new", "new")]),
            (beside, [("new", "new")]),
            (appended, [("new", "new")]),
            (another_kind, [("kind", "second")]),
            (swallowed, [("kind", "second")]),
            (another_output, [("output", None)]),
            (nearly, [("output", None)]),
            (raises, [("error", None)]),
            (renamed, [("new", "zweiter")]),
        ):
            replayed = await _replayed(export, code)
            assert _found(replayed) == expected, (code.__name__, replayed)


async def a_job_that_is_gone_is_a_difference(backend: Backend) -> None:
    @job
    async def other(step: Step, input: dict[str, Any]) -> int:
        return 5

    async with World(backend) as world:
        export = await _completed(world, _straight)
        replayed = await replay(export, [other])
        assert _found(replayed) == [("job", None)] and "other" in replayed.differences[0].message


async def what_a_slow_branch_asks_for_is_waited_for(backend: Backend) -> None:
    """Also while another is where the run would go on."""

    def code(slow: int) -> Callable[[Step, Any], Any]:
        async def code(step: Step, input: Any) -> Any:
            async def beside() -> None:
                await turns(slow)
                if not begun:
                    await step.run("hotel", calls.give, 1)
                await step.wait_for_signal("other")

            await asyncio.gather(step.wait_for_signal("go"), beside())

        return code

    async with World(backend) as world:
        for begun in (False, True):
            durably = await world.started(_job(code(0)), polling_interval=LONG)
            handle = await durably.trigger("work")
            await becomes(durably, handle.id, "waiting")
            export = await durably.export_run(handle.id)
            patience, replays._QUIET_SECONDS = replays._QUIET_SECONDS, 0.0
            try:
                replayed = await _replayed(export, code(1000))
            finally:
                replays._QUIET_SECONDS = patience
            assert (replayed.differences, replayed.goes_on_with) == ([], ["go", "other"]), begun
            await durably.stop()


async def a_job_that_is_too_slow_is_told_of_as_that(backend: Backend) -> None:
    def code(*, slow: bool, new: bool = False, waits: bool = True) -> Callable[[Step, Any], Any]:
        async def code(step: Step, input: Any) -> Any:
            async def beside() -> None:
                if slow:
                    await asyncio.Event().wait()
                await step.run("hotel", calls.give, 1)

            first = step.run("new", calls.give, 1) if new else step.wait_for_signal("go")
            await asyncio.gather(beside(), first)
            if waits:
                await step.wait_for_signal("end")

        return code

    async with World(backend) as world:
        durably = await world.started(_job(code(slow=False)), polling_interval=LONG)
        handle = await durably.trigger("work")
        await becomes(durably, handle.id, "waiting")
        export = await durably.export_run(handle.id)
        for new, what in ((False, "unasked"), (True, "new")):
            replayed = await bounded(replay(export, _job(code(slow=True, new=new)), timeout=0.01))
            [found] = [one for one in replayed.differences if one.step in ("hotel", "new")]
            assert found.what == what and "has not got to" in found.message and "within 0.01 s" in found.message, found


async def a_job_that_waits_for_something_else_is_stuck(backend: Backend) -> None:
    async def code(step: Step, input: Any) -> Any:
        await asyncio.Event().wait()

    async with World(backend) as world:
        export = await _completed(world, _straight)
        assert _found(await bounded(replay(export, _job(code), timeout=0.01))) == [("stuck", None)]
