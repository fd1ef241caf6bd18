"""What steps promise: run once, replay what is stored, and say what cannot be."""

from __future__ import annotations

import asyncio
import random
import urllib.error
from collections.abc import Callable
from typing import Any

from durably_web.errors import NotSerializable, StepFailed
from durably_web.jobs import Job, job
from durably_web.steps import Step
from tests.contract import Backend, needs
from tests.support.invariants import results_of
from tests.support.world import Gate, World, bounded, raised, turns


class OutOfPaper(Exception):
    """What a step may raise; its constructor asks for more than a message."""

    def __init__(self, tray: int, *, size: str) -> None:
        super().__init__(f"tray {tray} has no {size}")
        self.tray = tray

    def __str__(self) -> str:
        return f"tray {self.tray} is empty"


async def a_repeated_name_gets_an_occurrence_number(backend: Backend) -> None:
    @job
    async def loops(step: Step, input: dict[str, Any]) -> list[int]:
        values = [await step.run("save", lambda n: n * n, n) for n in range(4)]
        return [*values, await step.run("other", lambda: 99)]

    async with World(backend) as world:
        durably = await world.engine(loops)
        handle = await durably.trigger(loops)
        await durably.process_one()
        assert await handle.result(timeout=60) == [0, 1, 4, 9, 99]
        steps = await durably.get_steps(handle.id)
        assert [(one.name, one.output) for one in steps] == [
            ("save", 0),
            ("save#2", 1),
            ("save#3", 4),
            ("save#4", 9),
            ("other", 99),
        ]
        assert all(one.status == "completed" and one.attempt == 1 and one.error is None for one in steps)


async def every_kind_of_function_can_be_a_step(backend: Backend) -> None:
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    class Machine:
        def __call__(self, n: int) -> int:
            return n + 1

        async def later(self, n: int) -> int:
            return n + 2

    @job
    async def calls(step: Step, input: dict[str, Any]) -> list[Any]:
        return [
            await step.run("sync", abs, -3),
            await step.run("async", double, 4),
            await step.run("lambda of a coroutine", lambda: double(5)),
            await step.run("callable", Machine(), 1),
            await step.run("method", Machine().later, 1),
            await step.run("nothing", lambda: None),
        ]

    async with World(backend) as world:
        durably = await world.engine(calls)
        handle = await durably.trigger(calls)
        await durably.process_one()
        assert await handle.result(timeout=60) == [3, 8, 10, 2, 3, None]


async def steps_in_parallel_finish_in_any_order(backend: Backend) -> None:
    """Names follow the order of the calls, whatever order the results come in, before and after a crash."""
    count = 6
    for seed in range(5):
        order = list(range(count))
        random.Random(seed).shuffle(order)
        gates = [Gate() for _ in range(count)]
        begun: list[int] = []

        async def work(n: int, gates: list[Gate] = gates, begun: list[int] = begun) -> int:
            begun.append(n)
            return await gates[n].wait(n)

        gathers = _gathering(work, count)
        async with World(backend) as world:
            first = await world.started(gathers)
            handle = await first.trigger(gathers)
            for gate in gates:
                await gate.reached()
            for n in order[: count // 2]:
                gates[n].open()
                await turns()
            stored = await first.get_steps(handle.id)
            assert [one.output for one in stored] == order[: count // 2]
            assert all(one.name == ("part" if not one.output else f"part#{one.output + 1}") for one in stored)
            await world.crash(first)
            await world.expire()
            for n in order:
                gates[n].open()
            second = await world.engine(gathers)
            assert await second.process_one()
            assert await _output(second, handle.id) == list(range(count))
            assert sorted(begun) == sorted([*range(count), *order[count // 2 :]]), "only the others ran again"


def _gathering(work: Callable[[int], Any], count: int) -> Job[dict[str, Any], list[int]]:
    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[int]:
        results: list[int] = await asyncio.gather(*[step.run("part", work, n) for n in range(count)])
        return results

    return gathers


async def _output(durably: Any, run_id: str) -> Any:
    run = await durably.get_run(run_id)
    assert run is not None and run.status == "completed", run
    return run.output


async def a_failing_step_fails_the_run_and_is_named(backend: Backend) -> None:
    @job
    async def fails(step: Step, input: dict[str, Any]) -> None:
        await step.run("fine", lambda: 1)
        await step.run("bad", _raise, OutOfPaper(3, size="A4"))

    async with World(backend) as world:
        durably = await world.engine(fails)
        handle = await durably.trigger(fails)
        await durably.process_one()
        run = await handle.run()
        assert run is not None and (run.status, run.error) == ("failed", "OutOfPaper: tray 3 is empty")
        fine, bad = await durably.get_steps(handle.id)
        assert (fine.status, fine.output) == ("completed", 1)
        assert (bad.name, bad.status, bad.output, bad.error) == ("bad", "failed", None, "OutOfPaper: tray 3 is empty")
        [event] = [event async for event in durably.subscribe(handle.id) if event.type == "run:fail"]
        assert event.step_name == "bad" and event.traceback is not None and "OutOfPaper" in event.traceback


async def a_caught_failure_is_raised_again_by_a_replay(backend: Backend) -> None:
    """The same class, the same message, and without calling the function."""
    gate = Gate()
    calls: list[str] = []
    failures: list[Exception] = [
        ValueError("no", 3),
        KeyError("k"),
        OutOfPaper(3, size="A4"),
        urllib.error.HTTPError("http://127.0.0.1", 404, "Not Found", None, None),  # type: ignore[arg-type]
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        FileNotFoundError(2, "nothing", "a.csv"),
        ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
        AssertionError(),
    ]

    @job
    async def catches(step: Step, input: dict[str, Any]) -> list[Any]:
        caught = []
        for failure in failures:
            try:
                await step.run("try", _raise_and_tell, failure, calls)
            except Exception as error:
                caught.append([type(error).__name__, str(error), isinstance(error, type(failure))])
        seen.append(caught)
        await step.run("wait", gate.wait, None)
        return caught

    seen: list[Any] = []
    async with World(backend) as world:
        first = await world.started(catches)
        handle = await first.trigger(catches)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(catches)
        await second.process_one()
        assert (await _output(second, handle.id)) == seen[0] == seen[1]
        assert len(calls) == len(failures)
        assert all(is_same for _, _, is_same in seen[1])


async def a_class_that_cannot_be_found_becomes_step_failed(backend: Backend) -> None:
    class Local(Exception):
        pass

    gate = Gate()
    seen: list[Exception] = []

    @job
    async def catches(step: Step, input: dict[str, Any]) -> None:
        try:
            await step.run("try", _raise, Local("gone"))
        except Exception as error:
            seen.append(error)
        await step.run("wait", gate.wait, None)

    async with World(backend) as world:
        first = await world.started(catches)
        await first.trigger(catches)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        await (await world.engine(catches)).process_one()
        assert [type(error) for error in seen] == [Local, StepFailed]
        assert str(seen[1]) == "Local: gone"


async def what_cannot_be_stored_is_named_with_its_step(backend: Backend) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    cases: list[tuple[Any, str]] = [
        ({object()}, "object"),
        ({"a": [1, object()]}, "value['a'][1]"),
        ({"a": float("nan")}, "nan"),
        (float("inf"), "inf"),
        ({1: object()}, "object"),
        ([({2: {object()}},)], "object"),
        (bytearray(b"bytes"), "bytearray"),
        (cycle, "nested"),
        (10**5000, "cannot be stored"),
    ]

    @job
    async def returns(step: Step, input: dict[str, Any]) -> str:
        errors = []
        for number, (value, _) in enumerate(cases):
            try:
                await step.run(f"bad {number}", lambda value=value: value)
            except NotSerializable as error:
                errors.append(str(error))
        for text, (_, part) in zip(errors, cases, strict=True):
            assert part in text and "step 'bad " in text, (text, part)
        await step.run("last", lambda: {object()})
        return "not reached"

    async with World(backend) as world:
        durably = await world.engine(returns)
        handle = await durably.trigger(returns)
        await durably.process_one()
        run = await handle.run()
        assert run is not None and run.status == "failed" and run.error is not None
        assert run.error.startswith("NotSerializable: the result of step 'last' cannot be stored"), run.error


async def an_output_that_cannot_be_stored_fails_the_run(backend: Backend) -> None:
    @job
    async def returns(step: Step, input: dict[str, Any]) -> Any:
        return {"at": object()}

    async with World(backend) as world:
        durably = await world.engine(returns)
        handle = await durably.trigger(returns)
        await durably.process_one()
        run = await handle.run()
        assert run is not None and run.status == "failed"
        assert "the output of job 'returns' cannot be stored" in str(run.error) and "value['at']" in str(run.error)


async def a_result_is_from_the_start_what_a_replay_gives(backend: Backend) -> None:
    gate = Gate()
    seen: list[Any] = []
    value = {"pair": (1, 2.0), "deep": [(True, None), {"ü🦆": "\0 \ud800"}], "big": 2**70, "one": 1.0, "e": 1e300}

    @job
    async def keeps(step: Step, input: dict[str, Any]) -> None:
        seen.append(await step.run("value", lambda: value))
        await step.run("wait", gate.wait, None)

    async with World(backend) as world:
        first = await world.started(keeps)
        await first.trigger(keeps)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        await (await world.engine(keeps)).process_one()
        assert len(seen) == 2 and seen[0] == seen[1] and repr(seen[0]) == repr(seen[1])
        assert seen[0]["pair"] == (1, 2.0) and type(seen[0]["one"]) is float


async def names_of_steps_are_checked(backend: Backend) -> None:
    @job
    async def names(step: Step, input: dict[str, Any]) -> None:
        wrong: list[Any] = ["", "a#2", 3, "\ud800"]
        for name in wrong:
            try:
                await step.run(name, lambda: 1)
            except ValueError as error:
                assert "step's name" in str(error), error
            else:
                raise AssertionError(f"{name!r} was taken for a name")
        await step.run("ü 🦆 \0 'quoted'", lambda: 1)

    async with World(backend) as world:
        durably = await world.engine(names)
        handle = await durably.trigger(names)
        await durably.process_one()
        run = await handle.run()
        assert run is not None and run.status == "completed", run
        assert [one.name for one in await durably.get_steps(handle.id)] == ["ü 🦆 \0 'quoted'"]


async def any_text_can_be_an_error(backend: Backend) -> None:
    """Such as the name of a file that is not UTF-8."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    @job
    async def raises(step: Step, input: dict[str, Any]) -> None:
        failure = Mute() if input["mute"] else OSError("caf\udce9.csv \0 🦆")
        if input["step"]:
            await step.run("bad", _raise, failure)
        raise failure

    async with World(backend) as world:
        durably = await world.engine(raises)
        for mute in (False, True):
            for in_step in (False, True):
                handle = await durably.trigger(raises, {"mute": mute, "step": in_step})
                assert await durably.process_until_idle(max_runs=1) == 1
                run = await handle.run()
                assert run is not None and (run.status, run.attempt) == ("failed", 1), run
                assert str(run.error).startswith("Mute" if mute else "OSError: caf\\udce9.csv"), run.error


async def logs_are_stored_once_with_their_step(backend: Backend) -> None:
    gate = Gate()

    @job
    async def talks(step: Step, input: dict[str, Any]) -> None:
        step.log.info("begin")
        step.log.info("twice", n=1)
        step.log.info("twice", n=1)

        def inside() -> int:
            step.log.debug("inside", where=("a", 1))
            return 1

        await step.run("one", inside)
        step.log.error("odd", thing=object, at={1, 2})
        await step.run("wait", gate.wait, None)
        step.log.warning("end")

    async with World(backend) as world:
        first = await world.started(talks)
        handle = await first.trigger(talks)
        await gate.reached()
        await world.advance(1)
        assert len(await first.get_logs(handle.id)) == 5, "logs do not wait for the step's end"
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(talks)
        await second.process_one()
        logs = await second.get_logs(handle.id)
        assert [(one.level, one.message, one.step_name) for one in logs] == [
            ("info", "begin", None),
            ("info", "twice", None),
            ("info", "twice", None),
            ("debug", "inside", "one"),
            ("error", "odd", None),
            ("warning", "end", None),
        ]
        assert logs[1].data == {"n": 1} and logs[3].data == {"where": ("a", 1)}
        assert logs[4].data == {"thing": "<class 'object'>", "at": "{1, 2}"}


async def the_last_progress_lands_and_a_tight_loop_is_cheap(backend: Backend) -> None:
    @job
    async def counts(step: Step, input: dict[str, Any]) -> None:
        def inside() -> None:
            for n in range(5000):
                step.progress(n, 10000)

        await step.run("inside", inside)
        for n in range(5000, 10001):
            step.progress(n, 10000, "ü")
        if input.get("fail"):
            raise ValueError

    async with World(backend) as world:
        durably = await world.engine(counts)
        for given in ({}, {"fail": True}):
            handle = await durably.trigger(counts, given)
            await durably.process_one()
            run = await handle.run()
            assert run is not None and run.progress == (10000, 10000, "ü"), run
            types = [event.type async for event in durably.subscribe(handle.id)]
            assert types.count("run:progress") <= 4, types


async def a_progress_that_is_no_number_raises_where_it_is_said(backend: Backend) -> None:
    class Count:
        """A number of another library."""

        def __init__(self, value: float) -> None:
            self.value = value

        def __float__(self) -> float:
            return float(self.value)

    @job
    async def counts(step: Step, input: dict[str, Any]) -> int:
        refused = 0
        for current, total in ((float("nan"), 1), ("many", 1), (1, float("inf")), (object(), None)):
            try:
                step.progress(current, total)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                refused += 1
        await step.run("one", lambda: 1)
        step.progress(Count(3), Count(4))  # type: ignore[arg-type]
        return refused

    async with World(backend) as world:
        durably = await world.engine(counts)
        handle = await durably.trigger(counts)
        await durably.process_one()
        assert await _output(durably, handle.id) == 4
        run = await handle.run()
        assert run is not None and run.progress == (3, 4, None)


async def control_flow_cannot_be_swallowed(backend: Backend) -> None:
    """A job that catches everything cannot begin another step after it was cancelled."""
    gate = Gate()
    ran: list[str] = []

    @job
    async def stubborn(step: Step, input: dict[str, Any]) -> str:
        for number in range(5):
            try:
                await step.run("wait", gate.wait, number)
            except Exception:
                ran.append("caught")
            except BaseException:
                pass
        with_results = await asyncio.gather(step.run("more", ran.append, "more"), return_exceptions=True)
        return f"not reached: {with_results}"

    async with World(backend) as world:
        durably = await world.started(stubborn)
        handle = await durably.trigger(stubborn)
        await gate.reached()
        await durably.cancel(handle.id)
        await turns()
        run = await handle.run()
        assert run is not None and run.status == "cancelled" and run.step_count == 0
        assert gate.arrived == 1 and ran == []


async def what_a_job_raises_by_itself_fails_it(backend: Backend) -> None:
    class Odd(BaseException):
        pass

    @job
    async def raises(step: Step, input: dict[str, Any]) -> None:
        kind = input["kind"]
        if kind == "cancelled":
            raise asyncio.CancelledError
        if kind == "base":
            raise Odd("odd")
        if kind == "group":
            raise BaseExceptionGroup("several", [Odd("odd"), ValueError("no")])
        if kind == "task group":
            async with asyncio.TaskGroup() as group:
                group.create_task(step.run("fine", lambda: 1))
                group.create_task(step.run("bad", _raise, ValueError("no")))
        if kind == "inner task":
            task = asyncio.ensure_future(asyncio.sleep(60))
            task.cancel()
            await step.run("inner", _await, task)
        if kind == "stop":
            await step.run("stop", lambda: next(iter([])))
        if kind == "odd step":
            await step.run("odd", _raise, Odd("odd"))

    async with World(backend) as world:
        durably = await world.engine(raises)
        for kind in ("cancelled", "base", "group", "task group", "inner task", "stop", "odd step"):
            handle = await durably.trigger(raises, {"kind": kind})
            assert await bounded(durably.process_until_idle(max_runs=1)) == 1
            run = await handle.run()
            assert run is not None and (run.status, run.attempt) == ("failed", 1), (kind, run)


async def a_job_may_give_up_waiting_for_a_step(backend: Backend) -> None:
    """A time-out of its own is no cancellation of the run; the steps behind it are stored without a gap."""
    gate = Gate()

    @job
    async def impatient(step: Step, input: dict[str, Any]) -> list[str]:
        went = []
        for number in range(20):
            try:
                async with asyncio.timeout(0):
                    await step.run("slow", gate.wait, number)
            except TimeoutError:
                went.append(await step.run("instead", lambda number=number: f"instead {number}"))
        return went

    async with World(backend) as world:
        durably = await world.started(impatient)
        handles = [await durably.trigger(impatient) for _ in range(3)]
        for handle in handles:
            assert await bounded(handle.result()) == [f"instead {number}" for number in range(20)]
            assert [one.name for one in await durably.get_steps(handle.id)][:2] == ["instead", "instead#2"]


async def a_failing_job_waits_for_its_parallel_steps(backend: Backend) -> None:
    gate = Gate()
    later: list[int] = []

    @job
    async def fails(step: Step, input: dict[str, Any]) -> None:
        async def chain() -> None:
            await step.run("slow", gate.wait, 1)
            await step.run("never", later.append, 1)

        await asyncio.gather(chain(), step.run("bad", _raise, ValueError("no")))

    async with World(backend) as world:
        durably = await world.started(fails)
        handle = await durably.trigger(fails)
        await gate.reached()
        await turns()
        gate.open()
        await raised(Exception, bounded(handle.result()))
        run = await handle.run()
        assert run is not None and (run.status, run.error) == ("failed", "ValueError: no")
        steps = {one.name: one.status for one in await durably.get_steps(handle.id)}
        assert steps == {"bad": "failed", "slow": "completed"} and later == []


async def a_job_may_leave_a_step_to_itself(backend: Backend) -> None:
    gate = Gate()

    @job
    async def leaves(step: Step, input: dict[str, Any]) -> str:
        tasks.append(asyncio.ensure_future(step.run("left", gate.wait, 1)))
        await gate.reached()
        return "done"

    tasks: list[asyncio.Task[Any]] = []
    async with World(backend) as world:
        durably = await world.started(leaves)
        handle = await durably.trigger(leaves)
        await gate.reached()
        gate.open()
        assert await bounded(handle.result()) == "done"
        assert [one.name for one in await durably.get_steps(handle.id)] == ["left"]
        await asyncio.wait(tasks, timeout=5)
        tasks[0].exception()


@needs("threads")
async def a_thread_may_say_much(backend: Backend) -> None:
    """Lines and progress from several threads at once leave no gap in the journal."""

    @job
    async def talks(step: Step, input: dict[str, Any]) -> None:
        def chatter(who: int) -> None:
            for n in range(300):
                step.log.info("line", who=who, n=n)
                step.progress(n)

        await asyncio.gather(*[step.run("chatter", chatter, who) for who in range(4)])

    async with World(backend) as world:
        durably = await world.started(talks)
        handles = [await durably.trigger(talks) for _ in range(2)]
        for handle in handles:
            await world.drive(handle.result(timeout=15), seconds=1000)
            logs = [(one.data["who"], one.data["n"]) for one in await durably.get_logs(handle.id)]
            assert len(logs) == 1200 and sorted(logs) == [(who, n) for who in range(4) for n in range(300)]
            assert all([n for w, n in logs if w == who] == list(range(300)) for who in range(4))


async def facts_about_the_run_are_at_hand(backend: Backend) -> None:
    @job
    async def looks(step: Step, input: dict[str, Any]) -> list[Any]:
        return [step.run_id, step.attempt, dict(step.labels)]

    async with World(backend) as world:
        durably = await world.engine(looks)
        handle = await durably.trigger(looks, {}, labels={"a": "b"})
        await durably.process_one()
        assert await handle.result(timeout=60) == [handle.id, 1, {"a": "b"}]


async def a_job_that_is_killed_again_and_again_gets_on(backend: Backend) -> None:
    ran: list[int] = []

    @job
    async def long(step: Step, input: dict[str, Any]) -> int:
        for n in range(10):
            await step.run("part", ran.append, n)
            if n == len(gates) - 1 and not gates[n].arrived:
                await gates[n].wait(None)
        return len(ran)

    gates: list[Gate] = []
    async with World(backend) as world:
        run_id = ""
        for _ in range(5):
            gates.append(Gate())
            durably = await world.started(long)
            run_id = run_id or (await durably.trigger(long)).id
            await gates[-1].reached()
            await world.crash(durably)
            await world.expire()
        last = await world.engine(long)
        await last.process_one()
        assert await _output(last, run_id) == 10 and ran == list(range(10))
        executor = world.executor()
        await executor.open()
        assert set((await results_of(executor, str(run_id))).values()) == {1}
        await executor.close()
        run = await last.get_run(str(run_id))
        assert run is not None and run.attempt == 6


def _raise(error: BaseException) -> None:
    raise error


def _raise_and_tell(error: Exception, calls: list[str]) -> None:
    calls.append(type(error).__name__)
    raise error


async def _await(task: asyncio.Task[Any]) -> None:
    await task
