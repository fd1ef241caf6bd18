"""Steps beside each other: `step.map`, and `asyncio.gather` over whatever a step can be."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import InvalidInput, RunCancelled
from durably_web.jobs import Job, job
from durably_web.records import Run
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Batch, Executor, Rows
from tests.contract import Backend
from tests.support.executors import CountingExecutor, Wrapper
from tests.support.scenes import becomes, run_of
from tests.support.world import Gate, World, bounded, raised, turns, until


async def _square(n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n * n


async def _once(backend: Backend, one: Job[Any, Any], input: Any = None) -> tuple[Run, dict[str, Any]]:
    """The run of a job, and the outputs of its steps by name, in order."""
    async with World(backend) as world:
        durably = await world.engine(one)
        handle = await durably.trigger(one, input)
        await bounded(durably.process_until_idle())
        return await run_of(durably, handle.id), {step.name: step.output for step in await durably.get_steps(handle.id)}


# -- map -------------------------------------------------------------------------------------------------


async def map_gives_results_in_the_order_of_the_items(backend: Backend) -> None:
    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[int]:
        return await step.map("square", _square, [3, 1, 2])

    run, steps = await _once(backend, maps)
    assert (run.status, run.output, run.step_count) == ("completed", [9, 1, 4], 3)
    assert steps == {"square[0]": 9, "square[1]": 1, "square[2]": 4}


async def every_iterable_can_be_mapped(backend: Backend) -> None:
    def generated() -> Iterator[int]:
        yield from (1, 2, 3)

    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[Any]:
        return [
            await step.map("empty", _square, []),
            await step.map("generator", _square, generated()),
            await step.map("range", _square, range(2)),
            await step.map("keys", len, {"one": 1, "three": 3}),
            await step.map("text", str.upper, "ab"),
            await step.map("sync", abs, (-1, 2), concurrency=1),
            await step.map("lambda of a coroutine", lambda n: _square(n), [4]),
        ]

    run, steps = await _once(backend, maps)
    assert run.output == [[], [1, 4, 9], [0, 1], [3, 5], ["A", "B"], [1, 2], [16]], run
    assert len(steps) == 12 and "empty[0]" not in steps


async def a_name_that_is_mapped_again_is_counted(backend: Backend) -> None:
    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[list[int]]:
        results = [await step.map("square", _square, [n, n + 1]) for n in range(3)]
        return [*results, [await step.run("square[0]", _square, 9)]]

    run, steps = await _once(backend, maps)
    assert run.output == [[0, 1], [1, 4], [4, 9], [81]], run
    assert len(steps) == 7, steps


async def results_do_not_depend_on_the_order_in_which_items_end(backend: Backend) -> None:
    """Nor do their names, before and after a crash; and no item with a stored result runs again."""
    for seed in range(6):
        await _permute(backend, random.Random(seed), 7)


async def _permute(backend: Backend, draw: random.Random, count: int) -> None:
    order = draw.sample(range(count), count)
    gates = [Gate() for _ in range(count)]
    begun: list[int] = []

    async def work(n: int) -> int:
        begun.append(n)
        return await gates[n].wait(n * 10)

    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[int]:
        return await step.map("part", work, range(count))

    async with World(backend) as world:
        first = await world.started(maps)
        handle = await first.trigger(maps)
        for gate in gates:
            await gate.reached()
        for n in order[:3]:
            gates[n].open()
            await turns()
        stored = {one.name: one.output for one in await first.get_steps(handle.id)}
        assert stored == {f"part[{n}]": n * 10 for n in order[:3]}
        await world.crash(first)
        await world.expire()
        second = await world.started(maps)
        again = draw.sample(order[3:], count - 3)
        for n in again:
            await gates[n].reached(2)
        for n in again:
            gates[n].open()
            await turns()
        assert await world.drive(second.output_of(handle.id)) == [n * 10 for n in range(count)]
        assert sorted(begun) == sorted([*range(count), *order[3:]])
        stored = {one.name: one.output for one in await second.get_steps(handle.id)}
        assert stored == {f"part[{n}]": n * 10 for n in range(count)}


async def no_more_items_are_under_way_than_asked_for(backend: Backend) -> None:
    for options, expected in (({"concurrency": 1}, 1), ({"concurrency": 3}, 3), ({}, 8), ({"concurrency": 100}, 20)):
        assert await _most_under_way(backend, options) == expected, options


async def _most_under_way(backend: Backend, options: dict[str, Any]) -> int:
    executing: list[int] = []
    most: list[int] = []

    async def work(n: int) -> int:
        executing.append(n)
        most.append(len(executing))
        await turns(3 + n % 4)
        executing.remove(n)
        return n

    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[int]:
        return await step.map("work", work, range(20), **options)

    run, _ = await _once(backend, maps)
    assert run.output == list(range(20))
    return max(most)


async def the_next_item_begins_when_any_one_ends(backend: Backend) -> None:
    gates = [Gate() for _ in range(5)]

    async def work(n: int) -> int:
        return await gates[n].wait(n)

    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[int]:
        return await step.map("work", work, range(5), concurrency=2)

    async with World(backend) as world:
        durably = await world.started(maps)
        handle = await durably.trigger(maps)
        await gates[1].reached()
        # The first item stays under way all the time.
        for n in (1, 2, 3, 4):
            gates[n].open()
            await gates[min(n + 1, 4)].reached()
        gates[0].open()
        assert await bounded(handle.result()) == [0, 1, 2, 3, 4]


async def a_replay_begins_only_what_has_no_result(backend: Backend) -> None:
    """With one at a time the items that are left are the last; the stored ones take no place meanwhile."""
    gate = Gate()
    begun: list[int] = []

    async def work(n: int) -> int:
        begun.append(n)
        return n if n < 6 else await gate.wait(n)

    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[int]:
        return await step.map("work", work, range(8), concurrency=2)

    async with World(backend) as world:
        first = await world.started(maps)
        handle = await first.trigger(maps)
        await gate.reached(2)
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(maps)
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == list(range(8))
        assert sorted(begun) == [0, 1, 2, 3, 4, 5, 6, 6, 7, 7]


# -- failures --------------------------------------------------------------------------------------------


async def the_first_failure_in_the_items_order_is_raised(backend: Backend) -> None:
    """After the first to fail in time no further item begins; those that have begun end, and are stored."""
    gates = [Gate() for _ in range(4)]
    begun: list[int] = []
    seen: list[str] = []

    async def work(n: int) -> int:
        begun.append(n)
        if n < 4:
            await gates[n].wait(n)
        if n in (1, 2):
            raise KeyError(n)
        return n

    @job
    async def maps(step: Step, input: dict[str, Any]) -> str:
        try:
            await step.map("work", work, range(10), concurrency=4)
        except KeyError as error:
            seen.append(str(error))
        return await step.run("went on", lambda: "went on")

    async with World(backend) as world:
        durably = await world.started(maps)
        handle = await durably.trigger(maps)
        for gate in gates:
            await gate.reached()
        for n in (2, 0, 1, 3):
            gates[n].open()
            await turns()
        assert await bounded(handle.result()) == "went on"
        assert sorted(begun) == [0, 1, 2, 3] and seen == ["1"]
        steps = [(one.name, one.status) for one in await durably.get_steps(handle.id)]
        assert sorted(steps[:4]) == [
            ("work[0]", "completed"),
            ("work[1]", "failed"),
            ("work[2]", "failed"),
            ("work[3]", "completed"),
        ]


async def a_replayed_failure_is_the_same(backend: Backend) -> None:
    """Also when the crash came before the last of those that had begun was stored."""
    for crash_early in (False, True):
        await _replay_failure(backend, crash_early)


async def _replay_failure(backend: Backend, crash_early: bool) -> None:
    gate, early, late = Gate(), Gate(), Gate()
    seen: list[str] = []
    begun: list[int] = []

    async def work(n: int) -> int:
        begun.append(n)
        await (late if n == 1 else early).wait(n)
        if n in (0, 2):
            raise KeyError(n)
        return n

    @job
    async def maps(step: Step, input: dict[str, Any]) -> None:
        try:
            await step.map("work", work, range(6), concurrency=3)
        except KeyError as error:
            seen.append(str(error))
        await step.run("wait", gate.wait, None)

    async with World(backend) as world:
        first = await world.started(maps)
        handle = await first.trigger(maps)
        await early.reached(2)
        await late.reached()
        early.open()
        async with asyncio.timeout(60):
            while len(await first.get_steps(handle.id)) < 2:  # noqa: ASYNC110 — both failures are stored
                await asyncio.sleep(0)
        if not crash_early:
            late.open()
            await gate.reached()
        await world.crash(first)
        await world.expire()
        late.open()
        gate.open()
        second = await world.engine(maps)
        await bounded(second.process_until_idle())
        assert (await run_of(second, handle.id)).status == "completed"
        assert set(seen) == {"0"} and sorted(set(begun)) == [0, 1, 2], (seen, begun)
        assert begun.count(0) == begun.count(2) == 1


async def a_replay_that_takes_its_time_begins_nothing_after_a_failure(backend: Backend) -> None:
    """The failure is known from the store: items behind it must not begin while a replay lets others run."""
    gates = [Gate() for _ in range(3)]
    begun: list[int] = []
    done = Gate()

    async def work(n: int) -> int:
        begun.append(n)
        await gates[n].wait(n)
        return await _square(-n if n == 2 else n)

    @job
    async def maps(step: Step, input: dict[str, Any]) -> str:
        # More than a turn of the loop may take, so that the replay of the first results makes way.
        world.clock.advance(0.02)
        try:
            await step.map("work", work, range(6), concurrency=3)
        except ValueError:
            return await step.run("done", done.wait, "done")
        return "no failure"

    async with World(backend) as world:
        first = await world.started(maps)
        handle = await first.trigger(maps)
        for n in (2, 0, 1):
            await gates[n].reached()
        for n in (2, 0, 1):
            gates[n].open()
            await turns()
        await done.reached()
        await world.crash(first)
        await world.expire()
        done.open()
        second = await world.engine(maps)
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == "done"
        assert sorted(begun) == [0, 1, 2], begun


async def exceptions_can_be_results(backend: Backend) -> None:
    gate = Gate()
    seen: list[list[str]] = []
    begun: list[int] = []

    async def work(n: int) -> int:
        begun.append(n)
        return await _square(n)

    @job
    async def maps(step: Step, input: dict[str, Any]) -> None:
        results = await step.map("work", work, [1, -2, 3, -4], concurrency=2, return_exceptions=True)
        seen.append([repr(one) for one in results])
        await step.run("wait", gate.wait, None)

    async with World(backend) as world:
        first = await world.started(maps)
        await first.trigger(maps)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        await bounded((await world.engine(maps)).process_until_idle())
        assert seen == [["1", "ValueError('-2 is negative')", "9", "ValueError('-4 is negative')"]] * 2
        assert sorted(begun) == [-4, -2, 1, 3]


async def a_retried_run_keeps_the_items_that_have_results(backend: Backend) -> None:
    troubles = {2, 5}
    begun: list[int] = []

    async def work(n: int) -> int:
        begun.append(n)
        await turns(3)
        return await _square(-n if n in troubles else n)

    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[int]:
        return await step.map("work", work, range(7), concurrency=7)

    async with World(backend) as world:
        durably = await world.engine(maps)
        handle = await durably.trigger(maps)
        await bounded(durably.process_until_idle())
        run = await run_of(durably, handle.id)
        assert (run.status, run.error) == ("failed", "ValueError: -2 is negative")
        [failed] = [event async for event in durably.subscribe(handle.id) if event.type == "run:fail"]
        assert failed.step_name == "work[2]"
        troubles.clear()
        await durably.retry(handle.id)
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == [0, 1, 4, 9, 16, 25, 36]
        assert sorted(begun) == [0, 1, 2, 2, 3, 4, 5, 5, 6]


async def items_are_retried_and_timed_out_one_by_one(backend: Backend) -> None:
    tries: dict[int, int] = {}
    never = Gate()

    async def work(n: int) -> int:
        tries[n] = tries.get(n, 0) + 1
        if n == 1 and tries[n] < 3:
            raise ValueError("not yet")
        if n == 2:
            await never.wait(n)
        return n

    policy = Retry(max_attempts=3, initial_delay=5, backoff=1, jitter=False, retry_on=(ValueError,))

    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[str]:
        results = await step.map(
            "work", work, range(4), retry=policy, timeout=timedelta(seconds=60), return_exceptions=True
        )
        return [str(one) for one in results]

    async with World(backend) as world:
        durably = await world.started(maps)
        handle = await durably.trigger(maps)
        await world.advance(80)
        assert await bounded(handle.result()) == ["0", "1", "step 'work[2]' took longer than 60 s", "3"]
        assert tries == {0: 1, 1: 3, 2: 1, 3: 1}
        steps = {one.name: one for one in await durably.get_steps(handle.id)}
        assert steps["work[1]"].attempt == 3 and len(steps["work[1]"].attempts) == 2


async def what_map_is_given_is_checked(backend: Backend) -> None:
    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[str]:
        caught = []
        for name, items, options in (
            ("a", [1], {"concurrency": 0}),
            ("a", [1], {"concurrency": -1}),
            ("a", [1], {"concurrency": True}),
            ("a", [1], {"concurrency": 1.5}),
            ("a#2", [1], {}),
            ("", [], {}),
            ("a", 5, {}),
            ("a", [1], {"timeout": -1}),
        ):
            try:
                await step.map(name, _square, items, **options)  # type: ignore[arg-type]
            except (ValueError, TypeError) as error:
                caught.append(str(error))
        return caught

    run, steps = await _once(backend, maps)
    assert len(run.output) == 8 and all(run.output), run.output
    assert all("concurrency" in text for text in run.output[:4]), run.output
    assert steps == {}


# -- nested ----------------------------------------------------------------------------------------------


async def a_steps_function_cannot_call_steps(backend: Backend) -> None:
    """A replay does not call the function, so the names within would be counted in another way."""
    said: list[str] = []

    @job
    async def nests(step: Step, input: dict[str, Any]) -> str:
        async def outer() -> str:
            try:
                return await step.run("inner", lambda: "never")
            except InvalidInput as error:
                said.append(str(error))
                return "refused"

        return await step.run("outer", outer)

    async with World(backend) as world:
        durably = await world.engine(nests)
        handle = await durably.trigger(nests)
        await bounded(durably.process_until_idle())
        assert await durably.output_of(handle.id, timeout=60) == "refused"
        assert "'inner'" in said[0] and "'outer'" in said[0], said


async def maps_can_be_beside_maps(backend: Backend) -> None:
    """After a crash the items that were stored do not run again, in whatever branch they are."""
    gate = Gate()
    begun: list[str] = []

    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[list[int]]:
        async def branch(row: int) -> list[int]:
            async def inner(column: int) -> int:
                begun.append(f"{row}{column}")
                return row * 10 + column if (row, column) != (2, 1) else await gate.wait(21)

            return await step.map(f"row {row}", inner, range(2))

        return await asyncio.gather(*[branch(row) for row in range(3)])

    async with World(backend) as world:
        first = await world.started(maps)
        handle = await first.trigger(maps)
        await gate.reached()
        await turns()
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(maps)
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == [[0, 1], [10, 11], [20, 21]]
        assert sorted(begun) == ["00", "01", "10", "11", "20", "21", "21"]
        names = {one.name for one in await second.get_steps(handle.id)}
        assert names == {f"row {n}[{m}]" for n in range(3) for m in range(2)}


async def a_thousand_items_share_their_writes(backend: Backend) -> None:
    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    async def work(n: int) -> int:
        await turns(1)
        return n * n

    @job
    async def maps(step: Step, input: dict[str, Any]) -> int:
        return sum(await step.map("square", work, range(1000), concurrency=20))

    async with World(backend) as world:
        durably = await world.engine(maps, through=through)
        handle = await durably.trigger(maps)
        counting[0].batches.clear()
        await bounded(durably.process_until_idle())
        assert await handle.result(timeout=60) == sum(n * n for n in range(1000))
        writes = [batch for batch in counting[0].batches if batch.mode == "write"]
        assert len(writes) < 200, f"{len(writes)} transactions for 1,000 items, 20 at a time"


# -- interrupted -----------------------------------------------------------------------------------------


async def a_cancelled_map_begins_nothing_more(backend: Backend) -> None:
    gate = Gate()
    ended: list[int] = []

    async def work(n: int) -> None:
        try:
            await gate.wait(n)
        finally:
            ended.append(n)

    @job
    async def maps(step: Step, input: dict[str, Any]) -> None:
        await step.map("work", work, range(10), concurrency=3, return_exceptions=True)

    async with World(backend) as world:
        durably = await world.started(maps)
        handle = await durably.trigger(maps)
        await gate.reached(3)
        await durably.cancel(handle.id)
        await raised(RunCancelled, bounded(handle.result()))
        await until(lambda: len(ended) == 3)
        await turns()
        assert gate.arrived == 3 and await durably.get_steps(handle.id) == []


async def a_stopped_worker_lets_begun_items_end(backend: Backend) -> None:
    gate = Gate()
    begun: list[int] = []

    async def work(n: int) -> int:
        begun.append(n)
        return await gate.wait(n)

    @job
    async def maps(step: Step, input: dict[str, Any]) -> list[int]:
        return await step.map("work", work, range(6), concurrency=2)

    async with World(backend) as world:
        first = await world.started(maps)
        handle = await first.trigger(maps)
        await gate.reached(2)
        stopping = asyncio.ensure_future(first.stop())
        await turns()
        assert not stopping.done()
        gate.open()
        await bounded(stopping)
        second = await world.engine(maps)
        assert [one.output for one in await second.get_steps(handle.id)] == [0, 1]
        await bounded(second.process_until_idle())
        assert await second.output_of(handle.id, timeout=60) == list(range(6))
        assert begun == list(range(6))


# -- gather ----------------------------------------------------------------------------------------------


async def a_sleep_does_not_hold_up_what_is_beside_it(backend: Backend) -> None:
    gate = Gate()
    done: list[str] = []

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[str]:
        async def sleeper(name: str, seconds: float) -> str:
            await step.sleep(f"sleep {name}", seconds)
            return await step.run(f"after {name}", _said, done, name)

        async def worker() -> str:
            await step.run("wait", gate.wait, None)
            return await step.run("after work", _said, done, "work")

        return list(await asyncio.gather(sleeper("long", 500), worker(), sleeper("short", 50)))

    async with World(backend) as world:
        durably = await world.started(gathers)
        handle = await durably.trigger(gathers)
        await gate.reached()
        await world.advance(60)
        assert done == ["short"], "a sleep ends while a step beside it executes"
        gate.open()
        await until(lambda: done == ["short", "work"])
        await world.advance(2)
        run = await run_of(durably, handle.id)
        assert run.status == "waiting" and run.wake_at is not None
        await world.advance(450)
        assert await bounded(handle.result()) == ["long", "work", "short"]
        # Beside each other: they took 500 s together.
        run = await run_of(durably, handle.id)
        assert run.completed_at is not None
        assert timedelta(seconds=500) <= run.completed_at - run.created_at < timedelta(seconds=510)


async def _said(done: list[str], name: str) -> str:
    done.append(name)
    return name


async def a_run_wakes_for_whichever_of_its_branches_is_first(backend: Backend) -> None:
    """A sleep, a signal and a child beside each other, in every order, and a new engine after each."""
    for order in itertools.permutations(("sleep", "signal", "child")):
        await _wake(backend, order)


async def _wake(backend: Backend, order: Sequence[str]) -> None:
    gate = Gate()
    done: list[str] = []

    @job
    async def child(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "child")

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> list[Any]:
        async def branch(name: str, waiting: Awaitable[Any]) -> Any:
            result = await waiting
            await step.run(f"after {name}", _said, done, name)
            return result

        return list(
            await asyncio.gather(
                branch("sleep", step.sleep("sleep", 200)),
                branch("signal", step.wait_for_signal("signal")),
                branch("child", step.call(child)),
            )
        )

    async with World(backend) as world:
        durably = await world.started(child, gathers)
        handle = await durably.trigger(gathers)
        await gate.reached()
        for number, event in enumerate(order, 1):
            if event == "sleep":
                world.clock.advance(200)
                await world.advance(1)
            elif event == "signal":
                await durably.signal(handle.id, "signal", {"x": 1})
            else:
                gate.open()
            await bounded(_stored(durably, handle.id, f"after {event}"))
            assert done == list(order[:number])
            await world.crash(durably)
            await world.expire()
            durably = await world.started(child, gathers)
        assert await world.drive(durably.output_of(handle.id)) == [None, {"x": 1}, "child"]
        assert done == list(order)


async def a_run_does_not_wait_while_the_end_of_a_wait_is_being_stored(backend: Backend) -> None:
    """On a slow database: the branch behind it goes on, however long the others wait."""

    class Slow(Wrapper):
        async def run(self, batch: Batch) -> list[Rows]:
            await turns(50)
            return await self.inner.run(batch)

    @job
    async def child(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("long", 10_000)

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> None:
        async def branch(name: str, waiting: Awaitable[Any]) -> None:
            await waiting
            await step.run(f"after {name}", _said, [], name)

        await asyncio.gather(
            branch("sleep", step.sleep("sleep", 5)),
            branch("signal", step.wait_for_signal("signal")),
            branch("child", step.call(quick_child)),
            step.wait_for_signal("never"),
            step.call(child),
        )

    async with World(backend) as world:
        durably = await world.started(child, gathers, quick_child, through=Slow)
        handle = await durably.trigger(gathers)
        await bounded(_stored(durably, handle.id, "after child"))
        await becomes(durably, handle.id, "waiting")
        await durably.signal(handle.id, "signal")
        await bounded(_stored(durably, handle.id, "after signal"))
        await becomes(durably, handle.id, "waiting")
        world.clock.advance(5)
        await bounded(_stored(durably, handle.id, "after sleep"))


@job
async def quick_child(step: Step, input: dict[str, Any]) -> None: ...


async def _stored(durably: Durably, run_id: str, name: str) -> None:
    """Wait until a step has a stored result."""
    while name not in {one.name for one in await durably.get_steps(run_id)}:  # noqa: ASYNC110 — whoever stores it
        await asyncio.sleep(0)
