"""Code that changes while runs are under way: what is told of it, what the job's policy does, what is never ignored."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import InvalidInput, ReplayMismatch, RunFailed
from durably_web.events import Event
from durably_web.jobs import Job, OnChange, job
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend
from tests.support.executors import Fault, FaultyExecutor
from tests.support.scenes import LONG, becomes, move, run_of, settled
from tests.support.world import World, bounded, raised, turns

Code = Callable[[Step, Any], Coroutine[Any, Any, Any]]


class Ran:
    """Steps' functions, counted."""

    def __init__(self) -> None:
        self.counts: Counter[Any] = Counter()

    def give(self, value: Any) -> Any:
        self.counts[value] += 1
        return value


def _job(code: Code, version: str | None = "1", on_change: OnChange = "continue", **options: Any) -> Job[Any, Any]:
    """A job called `work`, of some version."""

    @job(name="work", version=version, on_change=on_change, **options)
    async def work(step: Step, input: dict[str, Any]) -> Any:
        return await code(step, input)

    return work


def _waiting(ran: Ran) -> Code:
    async def code(step: Step, input: Any) -> Any:
        step.log.info("begun")
        first = await step.run("first", ran.give, "first")
        asked = await step.wait_for_signal("before")
        await step.wait_for_signal("go")
        return [first, asked, await step.run("last", ran.give, "last")]

    return code


async def _events(durably: Durably, run_id: str, *types: str) -> list[Event]:
    page = await durably.get_events(run_id)
    assert [event.number for event in page.events] == list(range(1, len(page.events) + 1))
    return [event for event in page.events if event.type in types]


async def _begun(world: World, code: Code, **options: Any) -> str:
    """A run of version 1 that waits for `go`, and nobody works any more."""
    durably = await world.started(_job(code, **options), polling_interval=LONG)
    handle = await durably.trigger("work")
    await durably.signal(handle.id, "before", "early")
    await becomes(durably, handle.id, "waiting")
    await durably.stop()
    return handle.id


async def _code(world: World, run_id: str) -> Any:
    [[code]] = await world.rows("SELECT code FROM durably_runs WHERE id = ?", run_id)
    return code


# -- what is told ----------------------------------------------------------------------------------------


async def changed_code_is_told_of_once(backend: Backend) -> None:
    async with World(backend) as world:
        ran = Ran()
        run_id = await _begun(world, _waiting(ran))
        assert await _code(world, run_id) == "version 1"
        durably = await world.started(_job(_waiting(ran), "2"), polling_interval=LONG)
        heard: list[Event] = []
        durably.on("run:code-changed", heard.append)
        await durably.signal(run_id, "go")
        assert await bounded(durably.output_of(run_id)) == ["first", "early", "last"]
        [told] = await _events(durably, run_id, "run:code-changed")
        assert heard == [told]
        assert told.data == {"from": "version 1", "to": "version 2", "policy": "continue"}
        assert told.to_wire()["data"] == told.data
        assert await _code(world, run_id) == "version 2" and ran.counts == {"first": 1, "last": 1}


async def the_same_code_is_not_told_of(backend: Backend) -> None:
    async with World(backend) as world:
        ran = Ran()
        run_id = await _begun(world, _waiting(ran))
        durably = await world.started(_job(_waiting(ran)), polling_interval=LONG)
        await durably.signal(run_id, "go")
        await bounded(durably.output_of(run_id))
        assert await _events(durably, run_id, "run:code-changed", "step:unasked") == []


async def each_change_is_told_of(backend: Backend) -> None:
    async def code(step: Step, input: Any) -> Any:
        for _ in range(4):
            await step.wait_for_signal("go")

    async with World(backend) as world:
        run_id = ""
        for version in ("1", "2", "2", "1"):
            durably = await world.started(_job(code, version), polling_interval=LONG)
            if not run_id:
                run_id = (await durably.trigger("work")).id
            await durably.signal(run_id, "go")
            await settled()
            await durably.stop()
        durably = await world.engine()
        told = [event.data for event in await _events(durably, run_id, "run:code-changed")]
        assert [(data["from"], data["to"]) for data in told if data] == [
            ("version 1", "version 2"),
            ("version 2", "version 1"),
        ]


async def a_run_that_has_stored_nothing_has_the_code_that_executes_it(backend: Backend) -> None:
    never = asyncio.Event()

    async def hangs(step: Step, input: Any) -> Any:
        step.log.info("begun")
        await never.wait()

    async with World(backend) as world:
        ran = Ran()
        first = await world.started(_job(hangs))
        handle = await first.trigger("work")
        await becomes(first, handle.id, "leased")
        # In a browser with what it writes first.
        assert await _code(world, handle.id) in (None, "version 1")
        await world.crash(first)
        await world.expire()
        durably = await world.started(_job(_waiting(ran), "2", "fail"), polling_interval=LONG)
        for name in ("before", "go"):
            await durably.signal(handle.id, name)
        await bounded(durably.output_of(handle.id))
        assert await _events(durably, handle.id, "run:code-changed") == []
        assert await _code(world, handle.id) == "version 2"


async def code_without_a_name_is_not_compared(backend: Backend) -> None:
    """Typed in, and without a version: nobody can say whether it is the same."""
    source = """
async def work(step, input):
    await step.wait_for_signal("before")
    return await step.wait_for_signal("go")
"""
    space: dict[str, Any] = {}
    exec(source, space)
    typed: Job[Any, Any] = job(name="work", on_change="fail")(space["work"])

    async with World(backend) as world:
        ran = Ran()
        run_id = await _begun(world, _waiting(ran))
        durably = await world.started(typed, polling_interval=LONG)
        assert typed.code is None
        await durably.signal(run_id, "go", 5)
        assert await bounded(durably.output_of(run_id)) == 5
        told = await _events(durably, run_id, "run:code-changed", "step:unasked")
        assert [(event.type, event.step_name) for event in told] == [("step:unasked", "first")]
        assert await _code(world, run_id) == "version 1"
        handle = await durably.trigger("work")
        await durably.signal(handle.id, "before")
        await becomes(durably, handle.id, "waiting")
        assert await _code(world, handle.id) is None


async def code_that_becomes_known_late_is_stored(backend: Backend) -> None:
    """As in a browser, where nobody asks for a fingerprint before it is needed."""

    async def code(step: Step, input: Any) -> Any:
        await step.run("first", lambda: 1)
        await step.wait_for_signal("go")

    async with World(backend) as world:
        late = _job(code)
        durably = await world.started(polling_interval=LONG)
        durably.register(late)
        assert late.known_code is None
        handle = await durably.trigger("work")
        await becomes(durably, handle.id, "waiting")
        assert late.known_code == "version 1" and await _code(world, handle.id) == "version 1"
        assert await _events(durably, handle.id, "run:code-changed") == []


async def a_fingerprint_is_the_same_everywhere(backend: Backend) -> None:
    """In every version of Python, and in a browser: runs are handed over."""

    @job
    async def work(step: Step, input: dict[str, Any]) -> Any:
        """Not a part of it."""
        text: str = f"{input['text']!r:>{len('width')}}"
        async with asyncio.timeout(None):
            match await step.run("first", lambda: text):
                case {"a": [1, *rest]} if input:
                    return list(rest)
                case str() as found:
                    return found + "xy"
        return await _waiting(Ran())(step, input)

    async with World(backend) as world:
        await world.engine(work)
        assert work.code == "e724e78363e419af6d0f15a7d2bd4ed5", "as everywhere else"


# -- what the policy does --------------------------------------------------------------------------------


async def a_job_may_refuse_other_code(backend: Backend) -> None:
    async with World(backend) as world:
        ran = Ran()
        run_id = await _begun(world, _waiting(ran))
        policy = {"on_change": "fail", "retry": Retry(max_attempts=5)}
        durably = await world.started(_job(_waiting(ran), "2", **policy), polling_interval=LONG)  # type: ignore[arg-type]
        await durably.signal(run_id, "go")
        error = str(await bounded(raised(RunFailed, durably.output_of(run_id))))
        assert "CodeChanged" in error and "version 1" in error and "version 2" in error and "retry the run" in error
        assert [event.type for event in await _events(durably, run_id, "run:code-changed", "run:fail")] == [
            "run:code-changed",
            "run:fail",
        ]
        await durably.retry(run_id)
        assert await bounded(durably.output_of(run_id)) == ["first", "early", "last"]
        assert ran.counts == {"first": 1, "last": 1} and await _code(world, run_id) == "version 2"
        assert len(await _events(durably, run_id, "run:code-changed")) == 1


async def a_refused_run_goes_on_with_the_code_it_began_with(backend: Backend) -> None:
    async with World(backend) as world:
        ran = Ran()
        run_id = await _begun(world, _waiting(ran), on_change="fail")
        other = await world.started(_job(_waiting(ran), "2", "fail"), polling_interval=LONG)
        await other.signal(run_id, "go")
        await _becomes_failed(other, run_id)
        await other.stop()
        durably = await world.started(_job(_waiting(ran), "1", "fail"), polling_interval=LONG)
        await durably.retry(run_id)
        assert await bounded(durably.output_of(run_id)) == ["first", "early", "last"]


async def a_job_may_begin_anew_with_other_code(backend: Backend) -> None:
    async with World(backend) as world:
        ran = Ran()
        run_id = await _begun(world, _waiting(ran))

        async def code(step: Step, input: Any) -> Any:
            new = await step.run("new", ran.give, "new")
            return [new, await _waiting(ran)(step, input)]

        durably = await world.started(_job(code, "2", "restart"), polling_interval=LONG)
        assert (await run_of(durably, run_id)).step_count == 2
        await durably.signal(run_id, "go")
        # The signal that it had before is there again, and the one for `go` too.
        assert await bounded(durably.output_of(run_id)) == ["new", ["first", "early", "last"]]
        assert ran.counts == {"first": 2, "new": 1, "last": 1}
        types = [event.type for event in await _events(durably, run_id, "run:code-changed", "run:restart")]
        assert types == ["run:code-changed", "run:restart"]
        assert [step.name for step in await durably.get_steps(run_id)] == ["new", "first", "before", "go", "last"]
        assert (await run_of(durably, run_id)).step_count == 5
        assert [entry.message for entry in await durably.get_logs(run_id)] == ["begun", "begun"]
        export = await durably.export_run(run_id)
        [restart] = [entry["number"] for entry in export["journal"] if entry["type"] == "run:restart"]
        assert export["run"]["restarted"] == restart
        forked = await durably.fork(run_id, from_step="last")
        assert await bounded(forked.result()) == ["new", ["first", "early", "last"]]
        assert ran.counts == {"first": 2, "new": 1, "last": 2}, "of a fork's results, those that count"


async def what_was_stored_before_a_restart_is_not_replayed_later(backend: Backend) -> None:
    """Not by the executions behind the one that began anew, nor is it told of as not asked for."""
    async with World(backend) as world:
        ran = Ran()
        run_id = await _begun(world, _waiting(ran))

        async def code(step: Step, input: Any) -> Any:
            await step.wait_for_signal("go")
            await step.sleep("nap", 10)
            return [await step.wait_for_signal("before"), await step.run("first", ran.give, "first")]

        durably = await world.started(_job(code, "2", "restart"), polling_interval=LONG)
        await durably.signal(run_id, "go")
        await becomes(durably, run_id, "waiting")
        durably = await _moved(world, durably, _job(code, "2", "restart"))
        await move(world, 10)
        assert await bounded(durably.output_of(run_id)) == ["early", "first"]
        assert ran.counts == {"first": 2}
        assert len(await _events(durably, run_id, "run:restart")) == 1
        assert await _events(durably, run_id, "step:unasked") == []


async def what_was_done_before_a_restart_is_not_undone(backend: Backend) -> None:
    """The same step is done again, and is undone once."""
    undone: list[Any] = []

    async def undo(result: Any) -> None:
        undone.append(result)

    def code(*names: str) -> Code:
        async def code(step: Step, input: Any) -> Any:
            for name in names:
                await step.run(name, ran.give, name, undo=undo)
            await step.wait_for_signal("before")
            await step.wait_for_signal("go")
            raise ValueError("so it is")

        return code

    async with World(backend) as world:
        ran = Ran()
        run_id = await _begun(world, code("gone", "kept"))
        durably = await world.started(_job(code("kept", "new"), "2", "restart"), polling_interval=LONG)
        await durably.signal(run_id, "go")
        await _becomes_failed(durably, run_id)
        [told] = await _events(durably, run_id, "run:restart")
        assert told.data == {"notUndone": ["gone", "kept"]}
        assert undone == ["new", "kept"] and ran.counts == {"gone": 1, "kept": 2, "new": 1}
        assert await world.rows("SELECT * FROM durably_undos") == []


async def a_refused_run_is_undone(backend: Backend) -> None:
    undone: list[Any] = []

    async def undo(result: Any) -> None:
        undone.append(result)

    async def code(step: Step, input: Any) -> Any:
        await step.run("first", ran.give, "first", undo=undo)
        await step.wait_for_signal("before")
        return await step.wait_for_signal("go")

    async with World(backend) as world:
        ran = Ran()
        run_id = await _begun(world, code)
        durably = await world.started(_job(code, "2", "fail"), polling_interval=LONG)
        await durably.signal(run_id, "go", 5)
        await _becomes_failed(durably, run_id)
        assert undone == ["first"]
        assert len(await _events(durably, run_id, "run:code-changed")) == 1
        await durably.retry(run_id)
        assert await bounded(durably.output_of(run_id)) == 5
        assert ran.counts == {"first": 2} and await _code(world, run_id) == "version 2"


async def _moved(world: World, durably: Durably, *jobs: Job[Any, Any]) -> Durably:
    """The same runs, executed by another engine."""
    await durably.stop()
    return await world.started(*jobs, polling_interval=LONG)


async def _becomes_failed(durably: Durably, run_id: str) -> None:
    await bounded(durably.wait_for_run(run_id))
    assert (await run_of(durably, run_id)).status == "failed"


# -- patched ---------------------------------------------------------------------------------------------


def _patching(ran: Ran, *names: str) -> Code:
    """With a new step in front of the last one for each name."""

    async def code(step: Step, input: Any) -> Any:
        answers = [await step.run("first", ran.give, "first"), await step.wait_for_signal("before")]
        answers += [await step.run(name, ran.give, name) for name in names if step.patched(name)]
        await step.wait_for_signal("go")
        return [*answers, await step.run("last", ran.give, "last")]

    return code


async def a_new_run_has_the_patch_and_an_old_one_has_not(backend: Backend) -> None:
    async with World(backend) as world:
        ran = Ran()
        old = await _begun(world, _patching(ran))
        durably = await world.started(_job(_patching(ran, "check"), "2"), polling_interval=LONG)
        new = (await durably.trigger("work")).id
        await durably.signal(new, "before", "early")
        await becomes(durably, new, "waiting")
        for run_id, expected in ((old, ["first", "early", "last"]), (new, ["first", "early", "check", "last"])):
            await durably.signal(run_id, "go")
            assert await bounded(durably.output_of(run_id)) == expected
            [told] = await _events(durably, run_id, "run:patched")
            assert told.data == {"name": "check", "patched": run_id == new} and told.step_name is None
            assert await _events(durably, run_id, "step:unasked") == []
        assert ran.counts == {"first": 2, "check": 1, "last": 2}
        assert [step.name for step in await durably.get_steps(old)] == ["first", "before", "go", "last"]


async def the_answer_of_a_patch_stays(backend: Backend) -> None:
    """Asked again in the same execution or a later one, whatever is stored by then."""
    answers: list[bool] = []

    async def code(step: Step, input: Any) -> Any:
        answers.append(step.patched("p"))
        await step.run("first", lambda: 1)
        answers.append(step.patched("p"))
        await step.wait_for_signal("go")
        answers.append(step.patched("p"))

    async def old(step: Step, input: Any) -> Any:
        await step.run("first", lambda: 1)
        await step.wait_for_signal("go")

    async with World(backend) as world:
        for begins, expected in ((code, True), (old, False)):
            answers.clear()
            durably = await world.started(_job(begins), polling_interval=LONG)
            handle = await durably.trigger("work")
            await becomes(durably, handle.id, "waiting")
            durably = await _moved(world, durably, _job(code))
            await durably.signal(handle.id, "go")
            await bounded(durably.output_of(handle.id))
            assert answers == [expected] * (5 if expected else 3), answers
            assert len(await _events(durably, handle.id, "run:patched")) == 1
            await durably.stop()


async def a_run_that_stands_at_the_patch_has_it(backend: Backend) -> None:
    """The step behind it failed, or its worker died before it had stored anything of it."""

    def code(new: bool) -> Code:
        async def code(step: Step, input: Any) -> Any:
            await step.run("first", lambda: 1)
            if new and step.patched("mended"):
                return "mended"
            await step.run("second", _fail)

        return code

    async with World(backend) as world:
        durably = await world.started(_job(code(False)), polling_interval=LONG)
        handle = await durably.trigger("work")
        await _becomes_failed(durably, handle.id)
        durably = await _moved(world, durably, _job(code(True)))
        await durably.retry(handle.id)
        assert await bounded(durably.output_of(handle.id)) == "mended"


def _fail() -> None:
    raise ValueError("so it is")


async def a_step_that_has_begun_is_behind_the_patch(backend: Backend) -> None:
    """It waits, or is to be tried again: the run has passed the place."""

    def code(new: bool, waits: bool) -> Code:
        async def code(step: Step, input: Any) -> Any:
            patched = new and step.patched("p")
            if waits:
                await step.wait_for_signal("go")
            else:
                await step.run("flaky", fails.pop, retry=Retry(initial_delay=10, jitter=False))
            return patched

        return code

    async with World(backend) as world:
        for waits in (False, True):
            fails: list[Any] = []
            durably = await world.started(_job(code(False, waits)), polling_interval=LONG)
            handle = await durably.trigger("work")
            await becomes(durably, handle.id, "waiting")
            fails.append(1)
            durably = await _moved(world, durably, _job(code(True, waits)))
            await durably.signal(handle.id, "go")
            await move(world, 10)
            assert await bounded(durably.output_of(handle.id)) is False
            await durably.stop()


async def a_fork_keeps_the_answers_of_its_patches(backend: Backend) -> None:
    async with World(backend) as world:
        ran = Ran()
        durably = await world.started(_job(_patching(ran, "check")), polling_interval=LONG)
        handle = await durably.trigger("work")
        for name in ("before", "go"):
            await durably.signal(handle.id, name, name)
        expected = ["first", "before", "check", "last"]
        assert await bounded(handle.result()) == expected
        forked = await durably.fork(handle.id, from_step="last")
        assert await bounded(forked.result()) == expected
        assert ran.counts == {"first": 1, "check": 1, "last": 2}
        assert await _events(durably, forked.id, "step:unasked", "run:code-changed") == []


async def a_patch_is_asked_by_the_job(backend: Backend) -> None:
    async def code(step: Step, input: Any) -> Any:
        for name in ("", "a#b", 5):
            await raised(InvalidInput, _asked(step, name))
        return str(await raised(InvalidInput, step.run("inside", lambda: step.patched("p"))))

    async with World(backend) as world:
        durably = await world.started(_job(code))
        handle = await durably.trigger("work")
        assert "inside" in await bounded(handle.result())


async def _asked(step: Step, name: Any) -> bool:
    return step.patched(name)


# -- what nobody asks for --------------------------------------------------------------------------------


async def a_stored_step_that_is_not_asked_for_is_told_of(backend: Backend) -> None:
    async def old(step: Step, input: Any) -> Any:
        for n in range(3):
            await step.run("loop", ran.give, n)
        await step.map("many", ran.give, range(3))
        await step.run("gone", ran.give, "gone")
        await asyncio.gather(step.sleep("nap", 1000), step.wait_for_signal("go"))

    async def new(step: Step, input: Any) -> Any:
        step.patched("p")
        await step.run("loop", ran.give, 0)
        await step.map("many", ran.give, range(2))
        await step.wait_for_signal("go")
        return "done"

    async with World(backend) as world:
        ran = Ran()
        durably = await world.started(_job(old), polling_interval=LONG)
        handle = await durably.trigger("work")
        await becomes(durably, handle.id, "waiting")
        durably = await _moved(world, durably, _job(new))
        await durably.signal(handle.id, "go")
        assert await bounded(durably.output_of(handle.id)) == "done"
        told = await _events(durably, handle.id, "step:unasked", "run:complete")
        assert [event.step_name for event in told] == ["loop#2", "loop#3", "many[2]", "gone", "nap", None]
        assert told[-1].type == "run:complete" and told[0].to_wire()["stepName"] == "loop#2"
        assert ran.counts.total() == 7


async def it_is_told_of_once(backend: Backend) -> None:
    async def old(step: Step, input: Any) -> Any:
        await step.run("gone", lambda: 1)
        await step.run("kept", lambda: 1)
        await step.run("behind", lambda: 1)
        await step.wait_for_signal("go")

    async def fails(step: Step, input: Any) -> Any:
        await step.run("kept", lambda: 1)
        raise ValueError("so it is")

    async def new(step: Step, input: Any) -> Any:
        await step.run("kept", lambda: 1)

    async with World(backend) as world:
        durably = await world.started(_job(old), polling_interval=LONG)
        handle = await durably.trigger("work")
        await becomes(durably, handle.id, "waiting")
        durably = await _moved(world, durably, _job(fails))
        await durably.signal(handle.id, "go")
        await _becomes_failed(durably, handle.id)
        told = await _events(durably, handle.id, "step:unasked")
        # What is behind the failure may still be asked for.
        assert [event.step_name for event in told] == ["gone"]
        durably = await _moved(world, durably, _job(new))
        await durably.retry(handle.id)
        await bounded(durably.output_of(handle.id))
        told = await _events(durably, handle.id, "step:unasked")
        assert [event.step_name for event in told] == ["gone", "behind"]


async def a_patch_that_a_run_has_not_and_nobody_asks_for_is_told_of(backend: Backend) -> None:
    """Its code went the old way. That of a run that has the patch is what is left."""

    def code(asks: bool) -> Code:
        async def code(step: Step, input: Any) -> Any:
            await step.run("first", ran.give, "first")
            if asks:
                step.patched("check")
            await step.wait_for_signal("before")
            if not asks:
                return
            await step.wait_for_signal("go")
            await step.run("last", _fail)

        return code

    async with World(backend) as world:
        ran = Ran()
        old = await _begun(world, _waiting(ran))
        durably = await world.started(_job(code(True)), polling_interval=LONG)
        new = (await durably.trigger("work")).id
        await becomes(durably, new, "waiting")
        for run_id, expected in ((old, [{"patch": "check"}]), (new, [])):
            for name in ("before", "go"):
                await durably.signal(run_id, name)
            await _becomes_failed(durably, run_id)
            other = await world.started(_job(code(False)), polling_interval=LONG)
            await durably.stop()
            await other.retry(run_id)
            await bounded(other.output_of(run_id))
            told = [event.data for event in await _events(other, run_id, "step:unasked") if event.step_name is None]
            assert told == expected
            durably = await _moved(world, other, _job(code(True)))


async def branches_that_nobody_awaits_are_no_change(backend: Backend) -> None:
    async def code(step: Step, input: Any) -> Any:
        async def beside() -> None:
            # As it ends with the run, and nobody hears of it.
            with contextlib.suppress(BaseException):
                for n in range(5):
                    await step.run(f"beside {n}", _later, n)

        task = asyncio.ensure_future(beside())
        await step.run("main", _later, 1)
        if input.get("fails") and not allowed:
            raise ValueError("so it is")
        return task.done()

    async def _later(n: int) -> int:
        await turns(n)
        return n

    async with World(backend) as world:
        allowed: list[int] = []
        durably = await world.started(_job(code), polling_interval=LONG)
        for fails in (False, True):
            handle = await durably.trigger("work", {"fails": fails})
            if fails:
                await _becomes_failed(durably, handle.id)
                allowed.append(1)
                await durably.retry(handle.id)
            await bounded(durably.output_of(handle.id))
            assert await _events(durably, handle.id, "step:unasked") == []


# -- what is asked for as something else -----------------------------------------------------------------

KINDS: dict[str, Code] = {
    "run": lambda step, input: step.run("name", lambda: None),
    "sleep": lambda step, input: step.sleep("name", 0 if input["quick"] else 1000),
    "signal": lambda step, input: step.wait_for_signal("name"),
    "call": lambda step, input: step.call("child", {"quick": input["quick"]}, name="name"),
    "trigger": lambda step, input: step.trigger("child", {"quick": True}, name="name"),
    "item": lambda step, input: step.map("name", lambda item: item, [1]),
}


async def a_step_that_is_stored_as_another_kind_fails_the_run(backend: Backend) -> None:
    """Also where it has only begun; and also where the job catches everything."""

    @job
    async def child(step: Step, input: dict[str, Any]) -> None:
        if not input["quick"]:
            await step.wait_for_signal("never")

    def both(kind: str, catches: bool = False) -> Code:
        async def code(step: Step, input: Any) -> Any:
            try:
                await KINDS[kind](step, input)
            except Exception:
                if not catches:
                    raise
            await step.wait_for_signal("go")

        return code

    async with World(backend) as world:
        for stored in KINDS:
            for asked in KINDS:
                for quick in (True, False):
                    if "item" in (stored, asked) or (not quick and stored in ("run", "trigger")):
                        # The name of an item is none that one can give.
                        continue
                    durably = await world.started(_job(both(stored)), child, polling_interval=LONG)
                    handle = await durably.trigger("work", {"quick": quick})
                    if quick:
                        await durably.signal(handle.id, "name")
                    await becomes(durably, handle.id, "waiting")
                    new = _job(both(asked, catches=quick), retry=Retry(max_attempts=3))
                    durably = await _moved(world, durably, new, child)
                    for name in ("name", "go"):
                        await durably.signal(handle.id, name)
                    await settled()
                    if stored == asked:
                        await durably.stop()
                        continue
                    if (await run_of(durably, handle.id)).status == "waiting":
                        # It sleeps on, and has not been executed again.
                        await durably.cancel(handle.id)
                        await durably.retry(handle.id)
                    await _becomes_failed(durably, handle.id)
                    run = await run_of(durably, handle.id)
                    assert (run.error or "").startswith("ReplayMismatch: step 'name' was stored by step."), run
                    assert f"step.{asked}" in (run.error or "").replace("wait_for_signal", "signal"), run
                    assert await _events(durably, handle.id, "step:unasked") == []
                    await durably.stop()


async def a_mismatch_names_the_step(backend: Backend) -> None:
    errors: list[ReplayMismatch] = []

    async def code(step: Step, input: Any) -> Any:
        try:
            await (step.sleep("name", 1) if errors is seen else step.run("name", lambda: 1))
        except ReplayMismatch as error:
            errors.append(error)
            raise
        await step.wait_for_signal("go")

    async with World(backend) as world:
        seen: list[ReplayMismatch] = []
        durably = await world.started(_job(code), polling_interval=LONG)
        handle = await durably.trigger("work")
        await becomes(durably, handle.id, "waiting")
        errors = seen
        await durably.signal(handle.id, "go")
        await _becomes_failed(durably, handle.id)
        assert [error.step for error in seen] == ["name"]


async def nothing_is_begun_behind_a_mismatch(backend: Backend) -> None:
    """Whatever the job makes of it; and the policy of the job does not try it again."""

    async def old(step: Step, input: Any) -> Any:
        await step.run("name", lambda: 1)
        await step.wait_for_signal("go")

    async def asks(step: Step) -> None:
        await step.sleep("name", 1)

    async def suppresses(step: Step) -> None:
        with contextlib.suppress(ReplayMismatch):
            await asks(step)

    @job
    async def child(step: Step, input: dict[str, Any]) -> None:
        ran.give("child")

    async def wraps(step: Step, ran: Ran) -> None:
        try:
            await asks(step)
        except ReplayMismatch as error:
            raise ValueError("wrapped") from error

    async def goes_on(step: Step, ran: Ran) -> None:
        await suppresses(step)
        await step.run("new", ran.give, "new")

    async def goes_on_with_policies(step: Step, ran: Ran) -> None:
        await suppresses(step)
        await step.run("new", ran.give, "new", retry=Retry(max_attempts=3))

    async def goes_on_with_many(step: Step, ran: Ran) -> None:
        await suppresses(step)
        await step.map("new", ran.give, ["new"])

    async def goes_on_with_an_undo(step: Step, ran: Ran) -> None:
        await suppresses(step)
        await step.run("new", ran.give, "new", undo=ran.give)

    async def calls(step: Step, ran: Ran) -> None:
        await suppresses(step)
        await step.call("child")

    async def triggers(step: Step, ran: Ran) -> None:
        await suppresses(step)
        await step.trigger("child")

    async def sleeps(step: Step, ran: Ran) -> None:
        await suppresses(step)
        await step.sleep("new", 1000)

    async def waits(step: Step, ran: Ran) -> None:
        await suppresses(step)
        await step.wait_for_signal("never")

    async def waits_beside(step: Step, ran: Ran) -> None:
        await asyncio.gather(
            step.wait_for_signal("beside"), step.sleep("beside too", 1000), asks(step), return_exceptions=True
        )

    async def insists(step: Step, ran: Ran) -> None:
        await suppresses(step)
        for n in range(100):
            with contextlib.suppress(Exception):
                await step.run(f"new {n}", ran.give, n)

    async def asks_for_a_patch(step: Step, ran: Ran) -> None:
        await suppresses(step)
        step.patched("p")

    async with World(backend) as world:
        for go_on in (
            wraps,
            goes_on,
            goes_on_with_policies,
            goes_on_with_many,
            goes_on_with_an_undo,
            calls,
            triggers,
            sleeps,
            waits,
            waits_beside,
            insists,
            asks_for_a_patch,
        ):
            ran = Ran()

            async def new(
                step: Step, input: Any, go_on: Callable[[Step, Ran], Coroutine[Any, Any, None]] = go_on, ran: Ran = ran
            ) -> Any:
                await go_on(step, ran)

            durably = await world.started(_job(old), child, polling_interval=LONG)
            handle = await durably.trigger("work")
            await becomes(durably, handle.id, "waiting")
            durably = await _moved(world, durably, _job(new, retry=Retry(max_attempts=3)), child)
            await durably.signal(handle.id, "go")
            await _becomes_failed(durably, handle.id)
            run = await run_of(durably, handle.id)
            assert (run.error or "").startswith("ReplayMismatch: step 'name'"), (go_on.__name__, run)
            assert ran.counts == {}, go_on.__name__
            names = {one.name for one in await durably.get_steps(handle.id)}
            assert names - {"beside", "beside too"} == {"name", "go"}, go_on.__name__
            assert await _events(durably, handle.id, "run:retry", "run:patched") == [], go_on.__name__
            await durably.stop()


# -- a failure at every moment ---------------------------------------------------------------------------


async def a_change_survives_a_failure_at_any_batch(backend: Backend) -> None:
    """It is told once, a restart is one, signals are taken once, and the outcome is the same."""

    async def code(step: Step, input: Any) -> Any:
        patched = step.patched("p")
        values = [patched, await step.run("first", lambda: 1), await step.wait_for_signal("before")]
        await step.wait_for_signal("go")
        return [*values, await step.run("last", lambda: 2)]

    async def old(step: Step, input: Any) -> Any:
        await step.run("gone", lambda: 0)
        await step.run("first", lambda: 1)
        await step.wait_for_signal("before")
        await step.wait_for_signal("go")

    policies: tuple[tuple[OnChange, bool, int], ...] = (
        ("continue", False, 1),
        ("restart", True, 0),
        ("fail", False, 1),
    )
    faults: tuple[Fault, ...] = ("before", "after", "dead")
    for on_change, patched, unasked in policies:
        for fault in faults:
            for at in range(1, 30):
                async with World(backend) as world:
                    run_id = await _begun(world, old)
                    faulty: list[FaultyExecutor] = []

                    def through(
                        inner: Executor, faulty: list[FaultyExecutor] = faulty, fault: Fault = fault
                    ) -> Executor:
                        faulty.append(FaultyExecutor(inner, fault))
                        return faulty[-1]

                    new = _job(code, "2", on_change)
                    first = await world.engine(new, through=through, polling_interval=LONG)
                    await first.signal(run_id, "go")
                    faulty[0].at = at
                    try:
                        await first.start()
                    except Exception:
                        assert faulty[0].fell
                    await settled()
                    await world.crash(first)
                    fell = faulty[0].fell
                    await world.expire()
                    durably = await world.started(new, polling_interval=LONG)
                    if on_change == "fail":
                        await _becomes_failed(durably, run_id)
                        await durably.retry(run_id)
                    where = (on_change, fault, at)
                    assert await bounded(durably.output_of(run_id)) == [patched, 1, "early", 2], where
                    types = Counter(
                        event.type
                        for event in await _events(
                            durably, run_id, "run:code-changed", "run:restart", "run:patched", "step:unasked"
                        )
                    )
                    expected = {"run:code-changed": 1, "run:restart": int(on_change == "restart")}
                    assert types == Counter({**expected, "run:patched": 1, "step:unasked": unasked}), (where, types)
                    assert await _code(world, run_id) == "version 2"
                    await world.crash(durably)
                    await _deleted(world, run_id)
                if not fell:
                    break
            else:
                raise AssertionError(f"{on_change}, {fault}: it never came to an end")


def _faulty(made: list[FaultyExecutor], fault: Fault) -> Callable[[Executor], Executor]:
    def through(inner: Executor) -> Executor:
        made.append(FaultyExecutor(inner, fault))
        return made[-1]

    return through


async def _deleted(world: World, run_id: str) -> None:
    """The database is the same for the next world."""
    durably = await world.engine()
    await durably.delete_run(run_id)


async def what_is_done_again_does_not_hide_what_is_stored_behind_it(backend: Backend) -> None:
    """A step was undone and is done again: the change of the code stands before a step that the run has."""

    async def undo(result: Any) -> None: ...

    async def older(step: Step, input: Any) -> Any:
        await step.run("hotel", ran.give, "hotel", undo=undo)
        await step.run("old", ran.give, "old")
        raise ValueError("so it is")

    async def newer(step: Step, input: Any) -> Any:
        await step.run("hotel", ran.give, "hotel", undo=undo)
        patched = step.patched("change")
        await step.run("old", ran.give, "old")
        return patched

    async with World(backend) as world:
        ran = Ran()
        durably = await world.started(_job(older), polling_interval=LONG)
        run_id = (await durably.trigger("work")).id
        await _becomes_failed(durably, run_id)
        durably = await _moved(world, durably, _job(newer, "2"))
        await durably.retry(run_id)
        assert await bounded(durably.output_of(run_id)) is False
        assert ran.counts == {"hotel": 2, "old": 1}
