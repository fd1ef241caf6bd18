"""Undo: when a run fails or is cancelled, its steps are undone in reverse order, each once, whatever crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from durably_web.context import idempotency_key
from durably_web.engine import Durably
from durably_web.errors import Conflict, InvalidInput, RunCancelled, RunFailed
from durably_web.jobs import Job, job
from durably_web.replay import replay
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Batch, Executor, Rows
from tests.contract import Backend, needs
from tests.contract.values import SealedWorld
from tests.support.executors import Fault, FaultyExecutor, SuspendingExecutor, Wrapper
from tests.support.scenes import LONG, becomes, move, run_of, settled, step_of, types_of
from tests.support.world import Gate, Heard, World, bounded, raised, turns, until


class Books:
    """What steps have done, and what of that was taken back, in this order."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.failing: dict[str, int] = {}
        self.keys: list[str] = []

    async def do(self, name: str) -> str:
        # Without a thread: its turns are counted.
        await asyncio.sleep(0)
        self.entries.append(name)
        return name

    async def undo(self, result: str) -> None:
        self.keys.append(idempotency_key())
        await asyncio.sleep(0)
        if self.failing.get(result, 0):
            self.failing[result] -= 1
            raise ValueError(f"{result} cannot be undone")
        self.entries.append(f"-{result}")

    @property
    def undone(self) -> list[str]:
        return [entry[1:] for entry in self.entries if entry.startswith("-")]


POLICY = Retry(max_attempts=2, initial_delay=3, jitter=False)


def _trip(books: Books, **options: Any) -> Job[dict[str, Any], Any]:
    """Books a hotel, seats and a car, then does what its input says."""

    @job(**options)
    async def trip(step: Step, input: dict[str, Any]) -> Any:
        policy = POLICY if input.get("retry") else None
        await step.run("hotel", books.do, "hotel", undo=books.undo, retry=policy)
        await step.run("note", books.do, "note")
        await step.map("seat", books.do, ["1", "2"], undo=books.undo, concurrency=1)
        await step.run("car", books.do, "car", undo=books.undo, retry=policy)
        match input.get("then"):
            case "fail":
                raise RuntimeError("no money")
            case "fail in a step":
                await step.run("pay", _fails, undo=books.undo)
            case "wait":
                await step.wait_for_signal("go", timeout=input.get("timeout"))
            case "sleep":
                await step.sleep("nap", 1000)
        return "home"

    return trip


def _fails() -> str:
    raise RuntimeError("no money")


REVERSED = ["car", "2", "1", "hotel"]


async def _rows(world: World) -> list[Any]:
    return [row[0] for row in await world.rows("SELECT step_name FROM durably_undos ORDER BY run_id, number")]


async def _driven(world: World, durably: Durably, run_id: str, seconds: int = 200) -> Any:
    """The run once it is terminal, the clock being moved."""
    for _ in range(seconds):
        if (run := await run_of(durably, run_id)).is_terminal:
            return run
        await world.advance(1)
    raise AssertionError(f"not done after {seconds} seconds: {await run_of(durably, run_id)}")


# -- a run that fails ------------------------------------------------------------------------------------


async def a_run_that_fails_is_undone_in_reverse_order(backend: Backend) -> None:
    for then in ("fail", "fail in a step"):
        async with World(backend) as world:
            books = Books()
            trip = _trip(books)
            durably = await world.started(trip, polling_interval=LONG)
            heard = Heard(durably)
            handle = await durably.trigger(trip, {"then": then})
            error = await raised(RunFailed, bounded(handle.result()))
            assert str(error).endswith("failed: RuntimeError: no money"), error
            assert books.undone == REVERSED, books.entries
            run = await run_of(durably, handle.id)
            assert (run.status, run.error, run.undoing) == ("failed", "RuntimeError: no money", None)
            [begun] = heard.of("run:undo")
            assert (begun.undoing, begun.error) == ("failed", run.error)
            assert begun.to_wire()["undoing"] == "failed"
            [failed] = heard.of("run:fail")
            assert failed.traceback is not None and "no money" in failed.traceback
            assert failed.step_name == begun.step_name == ("pay" if then == "fail in a step" else None)
            types = await types_of(durably, handle.id)
            assert types[-6:] == ["run:undo", *["step:complete"] * 4, "run:fail"], types
            assert await _rows(world) == []


async def a_run_that_completes_undoes_nothing(backend: Backend) -> None:
    """In one go, and in several."""
    async with World(backend) as world:
        books = Books()
        trip = _trip(books)
        durably = await world.started(trip, polling_interval=LONG)
        for input in ({}, {"then": "wait"}):
            handle = await durably.trigger(trip, input)
            if input:
                await becomes(durably, handle.id, "waiting")
                assert await _rows(world) == ["hotel", "seat[0]", "seat[1]", "car"]
                await durably.signal(handle.id, "go")
            assert await bounded(handle.result()) == "home"
            assert books.undone == [] and await _rows(world) == []


async def a_run_without_results_has_nothing_to_undo(backend: Backend) -> None:
    books = Books()

    @job
    async def pays(step: Step, input: dict[str, Any]) -> None:
        await step.run("pay", _fails, undo=books.undo)

    async with World(backend) as world:
        durably = await world.started(pays, polling_interval=LONG)
        handle = await durably.trigger(pays)
        await raised(RunFailed, bounded(handle.result()))
        assert books.undone == []
        assert "run:undo" not in await types_of(durably, handle.id)


async def a_caught_failure_undoes_nothing(backend: Backend) -> None:
    books = Books()

    @job
    async def catches(step: Step, input: dict[str, Any]) -> str:
        await step.run("hotel", books.do, "hotel", undo=books.undo)
        try:
            await step.run("pay", _fails, undo=books.undo)
        except RuntimeError:
            return "paid later"
        return "paid"

    async with World(backend) as world:
        durably = await world.started(catches, polling_interval=LONG)
        assert await bounded((await durably.trigger(catches)).result()) == "paid later"
        assert books.undone == []


async def an_undo_is_given_what_the_job_was_given(backend: Backend) -> None:
    """Sync or async, in a lambda too; and what it gives is of no use, even what cannot be stored."""
    given: list[Any] = []

    def keeps(value: Any) -> object:
        given.append(value)
        return object()

    async def later(value: Any) -> object:
        return keeps(value)

    @job
    async def gives(step: Step, input: dict[str, Any]) -> None:
        await step.run("a", lambda: {"n": [1, None]}, undo=given.append)
        await step.run("b", lambda: None, undo=lambda value: later(value))
        await step.run("c", lambda: {1, 2}, undo=later)
        await step.run("d", lambda: 4, undo=keeps)
        raise ValueError

    async with World(backend) as world:
        durably = await world.started(gives, polling_interval=LONG)
        handle = await durably.trigger(gives)
        await raised(RunFailed, bounded(handle.result()))
        assert given == [4, {1, 2}, None, {"n": [1, None]}], given
        assert (await run_of(durably, handle.id)).error == "ValueError"


async def what_cannot_be_an_undo_is_refused(backend: Backend) -> None:
    wrong: Any = "undo"

    @job
    async def refused(step: Step, input: dict[str, Any]) -> None:
        try:
            await step.run("a", lambda: 1, undo=wrong)
        except InvalidInput as error:
            assert "'a'" in str(error) and "undo" in str(error)
            await step.map("b", lambda item: item, [1], undo=wrong)

    async with World(backend) as world:
        durably = await world.started(refused, polling_interval=LONG)
        handle = await durably.trigger(refused)
        error = await raised(RunFailed, bounded(handle.result()))
        assert "undo of step 'b[0]' is a function" in str(error)
        assert await durably.get_steps(handle.id) == []


async def parallel_steps_are_undone_in_the_order_of_their_results(backend: Backend) -> None:
    gates = {name: Gate() for name in "abc"}
    books = Books()

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> None:
        async def work(name: str) -> str:
            await gates[name].wait(name)
            return await books.do(name)

        await asyncio.gather(*[step.run(name, work, name, undo=books.undo) for name in "abc"])
        raise RuntimeError

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        for name in "cab":
            await gates[name].reached()
            gates[name].open()
            await settled()
        await raised(RunFailed, bounded(handle.result()))
        assert books.entries == ["c", "a", "b", "-b", "-a", "-c"]


async def a_branch_beside_a_failure_is_undone_too_and_does_not_go_on(backend: Backend) -> None:
    """It finishes its step; what it would do then is never done, not while the run is undone either."""
    gate, undoing = Gate(), Gate()
    books = Books()

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> None:
        async def slow() -> None:
            await step.run("slow", gate.wait, "slow", undo=undoing.wait)
            for _ in range(50):
                await asyncio.sleep(0)
            await step.run("never", books.do, "never")

        async def fails() -> None:
            await step.run("first", books.do, "first", undo=books.undo)
            raise RuntimeError

        await asyncio.gather(slow(), fails())

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        await gate.reached()
        await settled()
        gate.open()
        await undoing.reached()
        await settled()
        assert (await run_of(durably, handle.id)).undoing == "failed"
        undoing.open()
        await raised(RunFailed, bounded(handle.result()))
        assert books.entries == ["first", "-first"]


async def a_branch_that_waits_for_its_turn_stores_nothing_while_the_run_is_undone(backend: Backend) -> None:
    """Outcomes are stored one after another; when one of them makes the run fail, those behind it come too late, and
    so do the runs that they would start."""
    books, undoing = Books(), Gate()

    @job
    async def child(step: Step, input: dict[str, Any]) -> None: ...

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> None:
        async def naps(n: int) -> None:
            await step.sleep(f"nap {n}", 10)
            await step.trigger(child, name=f"child {n}")

        async def pays() -> None:
            await step.wait_for_signal("money", timeout=10)

        first, *others = [naps(n) for n in range(20)]
        await asyncio.gather(first, pays(), *others, step.run("hotel", books.do, "hotel", undo=undoing.wait))

    async with World(backend) as world:
        durably = await world.started(gathers, child)
        handle = await durably.trigger(gathers)
        await becomes(durably, handle.id, "waiting")
        world.clock.advance(10)
        await undoing.reached()
        await settled()
        undoing.open()
        await raised(RunFailed, bounded(handle.result()))
        types = await types_of(durably, handle.id)
        assert types[types.index("run:undo") :] == ["run:undo", "step:complete", "run:fail"], types


async def nothing_is_undone_while_the_job_is_tried_again(backend: Backend) -> None:
    async with World(backend) as world:
        books = Books()
        trip = _trip(books, retry=Retry(max_attempts=3, initial_delay=10, backoff=1, jitter=False))
        durably = await world.started(trip)
        handle = await durably.trigger(trip, {"then": "fail"})
        for _ in range(2):
            await becomes(durably, handle.id, "waiting")
            assert books.undone == []
            await move(world, 10)
        await raised(RunFailed, bounded(handle.result()))
        assert books.undone == REVERSED
        types = await types_of(durably, handle.id)
        assert types.index("run:undo") > max(n for n, one in enumerate(types) if one == "run:retry")


async def a_step_of_a_path_that_was_left_is_undone_too(backend: Backend) -> None:
    """The job's second try takes another way, and does not come by what the first one did."""
    books = Books()
    times: list[int] = []

    @job(retry=Retry(max_attempts=2, initial_delay=1, jitter=False))
    async def turns_away(step: Step, input: dict[str, Any]) -> None:
        def once() -> None:
            times.append(1)
            if len(times) == 1:
                raise ValueError

        try:
            await step.run("choose", once)
        except ValueError:
            await step.run("left", books.do, "left", undo=books.undo)
        await step.run("both", books.do, "both", undo=books.undo)
        raise RuntimeError

    async with World(backend) as world:
        durably = await world.started(turns_away)
        handle = await durably.trigger(turns_away)
        await becomes(durably, handle.id, "waiting")
        await move(world, 1)
        await raised(RunFailed, bounded(handle.result()))
        assert books.entries == ["left", "both", "-both", "-left"]


async def a_run_that_takes_too_long_is_undone_without_a_limit(backend: Backend) -> None:
    """While it waits, and while a step executes. The undo may take longer than the run could."""
    gate, slow = Gate(), Gate()
    books = Books()

    async def undo(value: str) -> None:
        await slow.wait(value)
        await books.undo(value)

    @job(timeout=60)
    async def late(step: Step, input: dict[str, Any]) -> None:
        await step.run("hotel", books.do, "hotel", undo=undo)
        if input["waits"]:
            await step.wait_for_signal("never")
        await asyncio.gather(step.run("stuck", gate.wait, 1, undo=books.undo), step.sleep("nap", 1000))

    async with World(backend) as world:
        durably = await world.started(late)
        for n, waits in enumerate((True, False)):
            handle = await durably.trigger(late, {"waits": waits})
            await settled()
            await world.advance(61)
            await slow.reached(n + 1)
            await world.advance(200)
            assert (await run_of(durably, handle.id)).undoing == "failed"
            slow.open()
            await raised(RunFailed, bounded(handle.result()))
            slow._open.clear()
            assert books.undone == ["hotel"] * (n + 1)
            assert str((await run_of(durably, handle.id)).error).startswith("TimeoutError: the run took longer")


class _Overtaken(Wrapper):
    """Lets reads overtake the write of a result that can be undone; it comes with the next one, or when told to."""

    def __init__(self, inner: Executor) -> None:
        super().__init__(inner)
        self.late: asyncio.Task[list[Rows]] | None = None
        self._next = asyncio.Event()

    def arrive(self) -> None:
        self._next.set()

    async def run(self, batch: Batch) -> list[Rows]:
        if self.late is None and any("INTO durably_undos" in statement.sql for statement in batch.statements):
            self.late = asyncio.get_running_loop().create_task(self._run_late(batch))
            # Whoever sent it may be gone: it arrives.
            return await asyncio.shield(self.late)
        if self.late is not None and batch.mode == "write":
            self._next.set()
            await asyncio.wait([self.late])
        return await self.inner.run(batch)

    async def _run_late(self, batch: Batch) -> list[Rows]:
        await self._next.wait()
        return await self.inner.run(batch)


async def a_result_that_is_on_its_way_when_the_time_is_over_is_undone(backend: Backend) -> None:
    made: list[_Overtaken] = []
    books = Books()

    def through(inner: Executor) -> Executor:
        made.append(_Overtaken(inner))
        return made[-1]

    @job(timeout=60)
    async def late(step: Step, input: dict[str, Any]) -> None:
        await step.run("a", books.do, "a", undo=books.undo)

    async with World(backend) as world:
        durably = await world.started(late, polling_interval=LONG, stale_threshold=LONG, through=through)
        handle = await durably.trigger(late)
        await until(lambda: made[-1].late is not None)
        await move(world, 61)
        # Where writes share transactions the next one stands behind it.
        made[-1].arrive()
        await raised(RunFailed, bounded(handle.result()))
        assert books.entries == ["a", "-a"]
        assert await _rows(world) == []


async def an_undo_may_take_longer_than_the_run(backend: Backend) -> None:
    undoing = Gate()

    @job(timeout=60)
    async def fails(step: Step, input: dict[str, Any]) -> None:
        await step.run("a", lambda: "a", undo=undoing.wait)
        raise RuntimeError("no")

    async with World(backend) as world:
        durably = await world.started(fails)
        handle = await durably.trigger(fails)
        await undoing.reached()
        await world.advance(100)
        assert (await run_of(durably, handle.id)).undoing == "failed"
        undoing.open()
        await raised(RunFailed, bounded(handle.result()))
        run = await run_of(durably, handle.id)
        assert (run.error, undoing.arrived) == ("RuntimeError: no", 1)


async def a_poisoned_run_is_undone(backend: Backend) -> None:
    """The deaths that have led to it are not counted against its undo."""
    async with World(backend) as world:
        books = Books()
        gate, undoing = Gate(), Gate()

        async def undo(value: str) -> None:
            await books.undo(await undoing.wait(value))

        @job(max_attempts=2)
        async def kills(step: Step, input: dict[str, Any]) -> None:
            await step.run("hotel", books.do, "hotel", undo=undo)
            await step.run("kills", gate.wait, 1)

        asking = await world.engine(kills)
        handle = await asking.trigger(kills)
        for n in range(1, 5):
            durably = await world.started(kills)
            await (gate.reached(n) if n < 4 else undoing.reached())
            await world.crash(durably)
            await world.expire()
        await world.started(kills)
        undoing.open()
        run = await _driven(world, asking, handle.id)
        assert str(run.error).startswith("PoisonRun: 3 workers") and "not undone" not in run.error
        assert books.entries == ["hotel", "-hotel"]


async def what_is_undone_stays_sealed(backend: Backend) -> None:
    given: list[str] = []

    def undo(value: str) -> None:
        given.append(value)
        raise ValueError("SECRET undo")

    @job
    async def secret(step: Step, input: dict[str, Any]) -> None:
        await step.run("a", lambda: "SECRET result", undo=undo)
        if input["waits"]:
            await step.wait_for_signal("never")
        raise ValueError("SECRET error")

    async with SealedWorld(backend) as world:
        durably = await world.started(secret, polling_interval=LONG, codec=SealedWorld.codec)
        for waits in (False, True):
            handle = await durably.trigger(secret, {"waits": waits})
            if waits:
                await becomes(durably, handle.id, "waiting")
                await durably.cancel(handle.id)
            run = await bounded(durably.wait_for_run(handle.id))
            assert str(run.error).endswith("not undone: a (ValueError: SECRET undo)"), run
        assert given == ["SECRET result"] * 2
        for table in ("durably_runs", "durably_journal", "durably_undos"):
            assert "SECRET" not in repr(await world.rows(f"SELECT * FROM {table}")), table


# -- a run that is cancelled -----------------------------------------------------------------------------


async def a_run_that_waits_is_undone_when_it_is_cancelled(backend: Backend) -> None:
    for then in ("wait", "sleep"):
        async with World(backend) as world:
            books = Books()
            trip = _trip(books)
            durably = await world.started(trip, polling_interval=LONG)
            heard = Heard(durably, "run:undo")
            handle = await durably.trigger(trip, {"then": then})
            await becomes(durably, handle.id, "waiting")
            await durably.cancel(handle.id)
            assert [one.undoing for one in heard.events] == ["cancelled"]
            run = await run_of(durably, handle.id)
            assert run.is_active and run.undoing == "cancelled", run
            await raised(RunCancelled, bounded(handle.result()))
            assert books.undone == REVERSED, books.entries
            run = await run_of(durably, handle.id)
            assert (run.status, run.undoing, run.error) == ("cancelled", None, None)
            assert await _rows(world) == []


async def a_run_that_executes_is_undone_when_it_is_cancelled(backend: Backend) -> None:
    """The step that is executed is stopped, and not undone; its worker is told, and undoes the others."""
    gate = Gate()
    books = Books()

    @job
    async def works(step: Step, input: dict[str, Any]) -> None:
        await step.run("hotel", books.do, "hotel", undo=books.undo)
        await step.run("work", gate.wait, "work", undo=books.undo)

    async with World(backend) as world:
        durably = await world.started(works, polling_interval=LONG)
        handle = await durably.trigger(works)
        await gate.reached()
        await durably.cancel(handle.id)
        await raised(RunCancelled, bounded(handle.result()))
        assert books.entries == ["hotel", "-hotel"]
        assert gate.arrived == 1, "the replay executes nothing"


@needs("workers", "wakes")
async def another_engine_may_cancel_it(backend: Backend) -> None:
    gate = Gate()
    books = Books()

    @job
    async def works(step: Step, input: dict[str, Any]) -> None:
        await step.run("hotel", books.do, "hotel", undo=books.undo)
        await step.run("work", gate.wait, "work")

    async with World(backend) as world:
        working = await world.started(works)
        asking = await world.engine(works)
        handle = await working.trigger(works)
        await gate.reached()
        await asking.cancel(handle.id)
        run = await _driven(world, asking, handle.id, 30)
        assert run.status == "cancelled" and books.entries == ["hotel", "-hotel"]


async def a_run_with_nothing_to_undo_is_cancelled_at_once(backend: Backend) -> None:
    async with World(backend) as world:
        trip = _trip(Books())
        durably = await world.engine(trip)
        handle = await durably.trigger(trip)
        await durably.cancel(handle.id)
        assert (await run_of(durably, handle.id)).status == "cancelled"
        assert await types_of(durably, handle.id) == ["run:trigger", "run:cancel"]


async def a_run_that_is_undone_is_neither_cancelled_nor_deleted(backend: Backend) -> None:
    """It is on its way, and nobody can hurry it; and the same request again has the answer of the first."""
    async with World(backend) as world:
        trip = _trip(Books())
        durably = await world.started(trip, polling_interval=LONG)
        handle = await durably.trigger(trip, {"then": "wait"})
        await becomes(durably, handle.id, "waiting")
        await durably.stop()
        asking = await world.engine(trip)
        asked = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
        for _ in range(2):
            await asking.cancel(handle.id, request_id=asked)
        for request in (asking.cancel, asking.delete_run, asking.retry):
            error = await raised(Conflict, request(handle.id))
            assert "is being undone" in str(error), error
        assert await asking.cancel_runs(job=trip) == 0
        assert await asking.purge_runs(older_than=0) == 0
        assert (await run_of(asking, handle.id)).undoing == "cancelled"
        assert await bounded(asking.process_until_idle()) == 1
        assert (await run_of(asking, handle.id)).status == "cancelled"
        await raised(Conflict, asking.cancel(handle.id))
        await asking.delete_run(handle.id)


async def many_that_are_cancelled_are_undone(backend: Backend) -> None:
    async with World(backend) as world:
        books = Books()
        trip = _trip(books)
        durably = await world.started(trip, polling_interval=LONG)
        handles = [await durably.trigger(trip, {"then": "wait"}) for _ in range(3)]
        for handle in handles:
            await becomes(durably, handle.id, "waiting")
        await durably.trigger(trip, {}, delay=1000)
        assert await durably.cancel_runs(job=trip) == 4
        for handle in handles:
            await raised(RunCancelled, bounded(handle.result()))
        assert sorted(books.undone) == sorted(REVERSED * 3)
        assert await _rows(world) == []


async def children_are_undone_with_their_parent(backend: Backend) -> None:
    """Those that can be; the parent is not woken by one that is still undone."""
    books = Books()
    trip = _trip(books)

    @job
    async def parent(step: Step, input: dict[str, Any]) -> None:
        await step.run("own", books.do, "own", undo=books.undo)
        await step.call(trip, {"then": "wait"})

    async with World(backend) as world:
        durably = await world.started(trip, parent, polling_interval=LONG)
        handle = await durably.trigger(parent)
        await becomes(durably, handle.id, "waiting")
        [child] = await durably.get_runs(job=trip)
        await becomes(durably, child.id, "waiting")
        await durably.cancel(handle.id)
        await raised(RunCancelled, bounded(handle.result()))
        await becomes(durably, child.id, "cancelled")
        assert sorted(books.undone) == sorted([*REVERSED, "own"])
        assert [one for one in books.undone if one != "own"] == REVERSED


async def a_parent_goes_on_when_its_child_is_undone(backend: Backend) -> None:
    undoing = Gate()

    @job
    async def child(step: Step, input: dict[str, Any]) -> None:
        await step.run("a", lambda: 1, undo=undoing.wait)
        await step.wait_for_signal("never")

    @job
    async def parent(step: Step, input: dict[str, Any]) -> str:
        try:
            await step.call(child)
        except RunCancelled:
            return "seen"
        return "not seen"

    async with World(backend) as world:
        durably = await world.started(child, parent, polling_interval=LONG)
        handle = await durably.trigger(parent)
        await becomes(durably, handle.id, "waiting")
        [one] = await durably.get_runs(job=child)
        await becomes(durably, one.id, "waiting")
        await durably.cancel(one.id)
        await undoing.reached()
        await settled()
        assert (await run_of(durably, handle.id)).status == "waiting"
        undoing.open()
        assert await bounded(handle.result()) == "seen"


async def a_key_is_held_until_the_undo_is_done(backend: Backend) -> None:
    undoing = Gate()
    order: list[int] = []

    def note(n: int) -> int:
        order.append(n)
        return n

    @job
    async def keyed(step: Step, input: dict[str, Any]) -> None:
        await step.run("a", note, input["n"], undo=undoing.wait)
        if not input["n"]:
            await step.wait_for_signal("never")

    async with World(backend) as world:
        durably = await world.started(keyed, polling_interval=LONG)
        first = await durably.trigger(keyed, {"n": 0}, concurrency_key="k", coalesce="queue")
        await becomes(durably, first.id, "waiting")
        second = await durably.trigger(keyed, {"n": 1}, concurrency_key="k", coalesce="queue")
        await durably.cancel(first.id)
        await undoing.reached()
        await settled()
        assert order == [0]
        undoing.open()
        await bounded(second.result())
        assert order == [0, 1]


async def a_pause_holds_the_undo_back(backend: Backend) -> None:
    """One that is cancelled while it is paused is undone at once: its pause ends as it does without an undo."""
    async with World(backend) as world:
        books = Books()
        trip = _trip(books)
        durably = await world.started(trip, polling_interval=LONG)
        handle = await durably.trigger(trip, {"then": "wait"})
        await becomes(durably, handle.id, "waiting")
        await durably.pause(handle.id)
        await durably.cancel(handle.id)
        await raised(RunCancelled, bounded(handle.result()))
        handle = await durably.trigger(trip, {"then": "wait"})
        await becomes(durably, handle.id, "waiting")
        durably.pause_worker()
        await durably.cancel(handle.id)
        await durably.pause(handle.id)
        durably.resume_worker()
        await settled()
        assert len(books.undone) == 4
        await durably.resume(handle.id)
        await raised(RunCancelled, bounded(handle.result()))
        assert len(books.undone) == 8


# -- the code --------------------------------------------------------------------------------------------


async def a_job_cannot_disturb_its_undo(backend: Backend) -> None:
    """Neither with what it catches and does at last, nor with what it says, nor by doing nothing for ever."""
    books = Books()
    hangs = asyncio.Event()

    @job
    async def clings(step: Step, input: dict[str, Any]) -> None:
        step.log.info("begins")
        step.progress(1)
        await step.run("hotel", books.do, "hotel", undo=books.undo)
        try:
            try:
                if input.get("hangs"):
                    await hangs.wait()
                await step.wait_for_signal("never")
            finally:
                await step.run("at last", books.do, "at last", undo=books.undo)
        except BaseException:
            step.log.info("caught")
            await step.run("caught", books.do, "caught")
            raise

    async with World(backend) as world:
        durably = await world.started(clings)
        for input in ({}, {"hangs": True}):
            handle = await durably.trigger(clings, input)
            await world.advance(1)
            said = await durably.get_logs(handle.id)
            await durably.cancel(handle.id)
            assert (await _driven(world, durably, handle.id)).status == "cancelled"
            assert await durably.get_logs(handle.id) == said and len(said) >= 1
        assert books.entries == ["hotel", "-hotel"] * 2


async def an_undo_may_say_something(backend: Backend) -> None:
    """Whoever executes it: it has the `step` of its job."""

    @job
    async def says(step: Step, input: dict[str, Any]) -> None:
        async def undo(value: str) -> None:
            step.log.info("undone", value=value, run=step.run_id)
            step.progress(0)

        step.log.info("begins")
        await step.run("a", lambda: "a", undo=undo)
        if input["waits"]:
            await step.wait_for_signal("never")
        raise RuntimeError

    async with World(backend) as world:
        durably = await world.started(says, polling_interval=LONG)
        for waits in (False, True):
            handle = await durably.trigger(says, {"waits": waits})
            if waits:
                await becomes(durably, handle.id, "waiting")
                await durably.cancel(handle.id)
            await bounded(durably.wait_for_run(handle.id))
            logs = [(one.message, one.step_name) for one in await durably.get_logs(handle.id)]
            assert logs == [("begins", None), ("undone", "a#undo")], logs
            progress = (await run_of(durably, handle.id)).progress
            assert progress is not None and progress.current == 0


async def branches_are_replayed_to_find_their_undos(backend: Backend) -> None:
    """Also those beside one that waits, or has not begun."""
    books = Books()

    @job
    async def gathers(step: Step, input: dict[str, Any]) -> None:
        async def branch(name: str) -> None:
            for part in ("1", "2"):
                await step.run(f"{name}{part}", books.do, f"{name}{part}", undo=books.undo)
            await step.sleep(f"nap {name}", 1000)

        await asyncio.gather(step.wait_for_signal("never"), *[branch(name) for name in "abc"], step.sleep("long", 5000))

    async with World(backend) as world:
        durably = await world.started(gathers, polling_interval=LONG)
        handle = await durably.trigger(gathers)
        await becomes(durably, handle.id, "waiting")
        done = list(books.entries)
        assert len(done) == 6
        await durably.cancel(handle.id)
        await raised(RunCancelled, bounded(handle.result()))
        assert books.undone == done[::-1]


async def an_undo_that_the_code_has_no_more_is_told(backend: Backend) -> None:
    books = Books()

    @job(name="trip")
    async def changed(step: Step, input: dict[str, Any]) -> None:
        await step.run("note", books.do, "note")
        await step.run("hotel", books.do, "hotel")
        await step.map("seat", books.do, ["1", "2"], undo=books.undo, concurrency=1)
        await step.wait_for_signal("go")

    async with World(backend) as world:
        trip = _trip(books)
        first = await world.started(trip, polling_interval=LONG)
        handle = await first.trigger(trip, {"then": "wait"})
        await becomes(first, handle.id, "waiting")
        await first.stop()
        durably = await world.started(changed, polling_interval=LONG)
        await durably.cancel(handle.id)
        await raised(RunCancelled, bounded(durably.output_of(handle.id)))
        assert books.undone == ["2", "1"]
        run = await run_of(durably, handle.id)
        for name in ("car", "hotel"):
            failed = await step_of(durably, handle.id, f"{name}#undo")
            assert failed.status == "failed" and "has no undo for step" in str(failed.error), failed
            assert f"{name} (NotFound: the code has no undo for step '{name}' any more)" in str(run.error)
        assert await _rows(world) == ["hotel", "car"], "what is still to be undone"


async def an_undo_is_found_behind_what_its_branch_awaits_beside_steps(backend: Backend) -> None:
    """Another branch is where it is left long before. Where nothing but such branches are, nothing is waited for."""
    books = Books()
    asked: list[asyncio.Event] = []

    @job
    async def trip(step: Step, input: dict[str, Any]) -> None:
        async def slow() -> None:
            asked.append(asyncio.Event())
            await asked[-1].wait()
            await step.run("hotel", books.do, "hotel", undo=books.undo)

        await asyncio.gather(step.sleep("nap", 100000), slow())

    async with World(backend) as world:
        first = await world.started(trip, polling_interval=LONG)
        handle = await first.trigger(trip)
        await until(lambda: len(asked) == 1)
        asked[0].set()
        await becomes(first, handle.id, "waiting")
        await first.stop()
        durably = await world.started(trip, polling_interval=LONG)
        await durably.cancel(handle.id)
        await until(lambda: len(asked) == 2)
        await turns(200)
        asked[1].set()
        await raised(RunCancelled, bounded(durably.output_of(handle.id)))
        assert books.entries == ["hotel", "-hotel"]
        assert (await run_of(durably, handle.id)).error is None


async def a_run_that_may_not_go_on_with_other_code_is_undone_by_it(backend: Backend) -> None:
    books = Books()

    @job(name="trip", on_change="fail")
    async def began(step: Step, input: dict[str, Any]) -> None:
        await step.run("hotel", books.do, "hotel", undo=books.undo)
        await step.sleep("nap", 10)

    @job(name="trip", on_change="fail")
    async def other(step: Step, input: dict[str, Any]) -> None:
        await step.run("hotel", books.do, "hotel", undo=books.undo)
        await step.run("car", books.do, "car", undo=books.undo)
        await step.sleep("rest", 1000)

    async with World(backend) as world:
        first = await world.started(began, polling_interval=LONG)
        handle = await first.trigger(began)
        await becomes(first, handle.id, "waiting")
        await first.stop()
        second = await world.started(other, polling_interval=LONG)
        await move(world, 10)
        run = await bounded(second.wait_for_run(handle.id))
        assert str(run.error).startswith("CodeChanged: ") and "not undone" not in str(run.error), run.error
        assert books.entries == ["hotel", "-hotel"]
        # It is undone all the same when the code changes meanwhile.
        await second.retry(handle.id)
        await becomes(second, handle.id, "waiting")
        await second.stop()
        third = await world.engine(began)
        await third.cancel(handle.id)
        await bounded(third.process_until_idle())
        run = await run_of(third, handle.id)
        assert run.status == "cancelled" and "car (NotFound: " in str(run.error), run
        assert books.entries == ["hotel", "-hotel", "hotel", "car", "-hotel"]


async def an_exported_run_is_replayed_as_it_was_before_its_undo(backend: Backend) -> None:
    """And when it was retried since, as it is now."""
    async with World(backend) as world:
        books = Books()
        trip = _trip(books)
        durably = await world.started(trip, polling_interval=LONG)
        handle = await durably.trigger(trip, {"then": "wait"})
        for n in range(2):
            await becomes(durably, handle.id, "waiting")
            await durably.cancel(handle.id)
            await raised(RunCancelled, bounded(durably.output_of(handle.id)))
            found = await replay(await durably.export_run(handle.id), trip)
            assert (found.differences, found.goes_on_with) == ([], ["go"]), (n, found)
            await durably.retry(handle.id)
        await becomes(durably, handle.id, "waiting")
        found = await replay(await durably.export_run(handle.id), trip)
        assert (found.differences, found.goes_on_with) == ([], ["go"]), found


# -- undos that fail -------------------------------------------------------------------------------------


async def an_undo_is_tried_again_as_its_step_is(backend: Backend) -> None:
    """Its tries are stored, and its delay outlives its worker."""
    async with World(backend) as world:
        books = Books()
        books.failing = {"car": 1, "hotel": 1}
        trip = _trip(books)
        durably = await world.started(trip)
        handle = await durably.trigger(trip, {"then": "fail", "retry": True})
        await becomes(durably, handle.id, "waiting")
        assert books.undone == [] and (await run_of(durably, handle.id)).undoing == "failed"
        await durably.stop()
        durably = await world.started(trip)
        await move(world, 2.9)
        assert books.undone == []
        await move(world, 0.1)
        await becomes(durably, handle.id, "waiting")
        assert books.undone == ["car", "2", "1"]
        await move(world, 3)
        assert (await _driven(world, durably, handle.id)).error == "RuntimeError: no money"
        assert books.undone == REVERSED
        assert (await step_of(durably, handle.id, "car#undo")).attempt == 2


async def an_undo_that_fails_is_told_and_the_others_are_done(backend: Backend) -> None:
    for then, how in (("fail", "failed"), ("wait", "cancelled")):
        async with World(backend) as world:
            books = Books()
            books.failing = {"car": 9, "1": 9}
            trip = _trip(books)
            durably = await world.started(trip, polling_interval=LONG)
            handle = await durably.trigger(trip, {"then": then})
            if then == "wait":
                await becomes(durably, handle.id, "waiting")
                await durably.cancel(handle.id)
            run = await bounded(durably.wait_for_run(handle.id))
            assert run.status == how and books.undone == ["2", "hotel"]
            told = "not undone: car (ValueError: car cannot be undone), seat[0] (ValueError: 1 cannot be undone)"
            assert run.error == (f"RuntimeError: no money; {told}" if how == "failed" else told)
            steps = {one.name: one.status for one in await durably.get_steps(handle.id)}
            assert (steps["car"], steps["car#undo"], steps["hotel"]) == ("completed", "failed", "undone")


async def an_undo_may_raise_anything(backend: Backend) -> None:
    def cancels(_: object) -> None:
        raise asyncio.CancelledError("mine")

    @job
    async def raises(step: Step, input: dict[str, Any]) -> None:
        await step.run("a", lambda: 1, undo=cancels)
        raise RuntimeError

    async with World(backend) as world:
        durably = await world.started(raises, polling_interval=LONG)
        run = await bounded(durably.wait_for_run((await durably.trigger(raises)).id))
        assert "not undone: a (RuntimeError: CancelledError: mine)" in str(run.error)


async def an_undo_that_kills_its_workers_is_given_up(backend: Backend) -> None:
    """The run ends, and says what is not undone."""
    async with World(backend) as world:
        gate = Gate()
        books = Books()

        @job(max_attempts=2)
        async def kills(step: Step, input: dict[str, Any]) -> None:
            await step.run("hotel", books.do, "hotel", undo=books.undo)
            await step.run("kills", lambda: 1, undo=gate.wait)
            await step.run("car", books.do, "car", undo=books.undo)
            raise ValueError("no")

        asking = await world.engine(kills)
        handle = await asking.trigger(kills)
        for n in range(1, 4):
            durably = await world.started(kills)
            await gate.reached(n)
            await world.crash(durably)
            await world.expire()
        await world.started(kills)
        run = await _driven(world, asking, handle.id)
        assert books.entries == ["hotel", "car", "-car"]
        assert str(run.error).startswith("ValueError: no; PoisonRun: 3 workers"), run.error
        assert run.error.endswith("not undone: kills, hotel")
        assert await _rows(world) == ["hotel", "kills"]


# -- once more -------------------------------------------------------------------------------------------


async def a_run_that_was_undone_can_be_retried(backend: Backend) -> None:
    """What was undone is done again, what has no undo is not; and it is undone again."""
    async with World(backend) as world:
        books = Books()
        trip = _trip(books)
        durably = await world.started(trip, polling_interval=LONG)
        handle = await durably.trigger(trip, {"then": "wait"})
        for n in range(1, 4):
            await becomes(durably, handle.id, "waiting")
            assert books.entries.count("note") == 1 and books.entries.count("hotel") == n
            steps = await durably.get_steps(handle.id)
            statuses = {one.name: one.status for one in steps}
            assert statuses == {
                **dict.fromkeys(("hotel", "note", "seat[0]", "seat[1]", "car"), "completed"),
                "go": "waiting",
            }
            await durably.cancel(handle.id)
            await raised(RunCancelled, bounded(durably.output_of(handle.id)))
            assert books.undone == REVERSED * n
            statuses = {one.name: one.status for one in await durably.get_steps(handle.id)}
            assert (statuses["hotel"], statuses["note"], statuses["hotel#undo"]) == ("undone", "completed", "completed")
            await durably.retry(handle.id)
        await becomes(durably, handle.id, "waiting")
        await durably.signal(handle.id, "go")
        assert await bounded(durably.output_of(handle.id)) == "home"
        assert len(books.undone) == 12 and await _rows(world) == []


async def what_is_done_again_is_another_request_to_a_server(backend: Backend) -> None:
    """A server that knows the key of the request that was undone would do nothing."""
    books = Books()
    keys: list[str] = []

    def pay() -> str:
        keys.append(idempotency_key())
        return "paid"

    @job
    async def pays(step: Step, input: dict[str, Any]) -> None:
        await step.run("pay", pay, undo=books.undo)
        await step.map("part", lambda item: pay(), [1], undo=books.undo)
        raise RuntimeError

    async with World(backend) as world:
        durably = await world.started(pays, polling_interval=LONG)
        handle = await durably.trigger(pays)
        for n in range(3):
            if n:
                await durably.retry(handle.id)
            await raised(RunFailed, bounded(durably.output_of(handle.id)))
        assert keys[0] == f"{handle.id}/pay"
        assert len(set(keys)) == 6 and len(set(books.keys)) == 6, (keys, books.keys)
        assert not set(keys) & set(books.keys)


async def a_run_that_begins_anew_does_under_other_keys_what_was_undone(backend: Backend) -> None:
    """Also in the executions behind that in which it did."""
    books = Books()
    keys: list[str] = []

    def pay() -> str:
        keys.append(idempotency_key())
        return "paid"

    def pays(version: str) -> Job[dict[str, Any], None]:
        @job(name="pays", version=version, on_change="restart")
        async def pays(step: Step, input: dict[str, Any]) -> None:
            await step.run("note", lambda: 1)
            if version == "3":
                await step.sleep("nap", 5)
            await step.run("pay", pay, undo=books.undo)
            raise RuntimeError

        return pays

    async with World(backend) as world:
        durably = await world.started(pays("1"), polling_interval=LONG)
        run_id = (await durably.trigger("pays")).id
        await raised(RunFailed, bounded(durably.output_of(run_id)))
        for version in "23":
            await durably.stop()
            durably = await world.started(pays(version), polling_interval=LONG)
            await durably.retry(run_id)
            if version == "3":
                await becomes(durably, run_id, "waiting")
                await move(world, 5)
            await raised(RunFailed, bounded(durably.output_of(run_id)))
        assert len(set(keys)) == 3 and len(set(books.keys)) == 3, (keys, books.keys)


async def what_could_not_be_undone_is_tried_again_after_a_retry(backend: Backend) -> None:
    """It still has its result: it is not done again."""
    async with World(backend) as world:
        books = Books()
        books.failing = {"car": 1}
        trip = _trip(books)
        durably = await world.started(trip, polling_interval=LONG)
        handle = await durably.trigger(trip, {"then": "fail"})
        await raised(RunFailed, bounded(handle.result()))
        assert books.undone == ["2", "1", "hotel"] and await _rows(world) == ["car"]
        await durably.retry(handle.id)
        await raised(RunFailed, bounded(durably.output_of(handle.id)))
        assert books.entries.count("car") == 1 and sorted(books.undone[3:]) == sorted(REVERSED)
        assert (await run_of(durably, handle.id)).error == "RuntimeError: no money"
        assert await _rows(world) == []


async def a_fork_undoes_what_it_has_done_itself(backend: Backend) -> None:
    """Results that it was given are another run's; and what that has undone is not among them."""
    async with World(backend) as world:
        books = Books()
        trip = _trip(books)
        durably = await world.started(trip, polling_interval=LONG)
        first = await durably.trigger(trip, {"then": "wait"})
        await becomes(durably, first.id, "waiting")
        fork = await durably.fork(first.id, from_step="car")
        await becomes(durably, fork.id, "waiting")
        assert books.entries.count("car") == 2
        await durably.cancel(fork.id)
        await raised(RunCancelled, bounded(fork.result()))
        assert books.undone == ["car"]
        again = await durably.fork(fork.id)
        await becomes(durably, again.id, "waiting")
        assert books.entries.count("car") == 3 and books.entries.count("hotel") == 1
        await durably.cancel(first.id)
        await raised(RunCancelled, bounded(first.result()))
        assert books.undone == ["car", *REVERSED]
        last = await durably.fork(first.id)
        await becomes(durably, last.id, "waiting")
        assert books.entries.count("hotel") == 2 and books.entries.count("note") == 1


async def what_is_deleted_can_not_be_undone_any_more(backend: Backend) -> None:
    async with World(backend) as world:
        books = Books()
        books.failing = {"car": 9}
        trip = _trip(books)
        durably = await world.started(trip, polling_interval=LONG)
        handle = await durably.trigger(trip, {"then": "fail"})
        await raised(RunFailed, bounded(handle.result()))
        assert await _rows(world) == ["car"]
        await durably.delete_run(handle.id)
        assert await _rows(world) == []


# -- crashes ---------------------------------------------------------------------------------------------


def _faulty(fault: Fault, made: list[FaultyExecutor], under: Callable[[Executor], Executor]) -> Any:
    def through(inner: Executor) -> Executor:
        made.append(FaultyExecutor(under(inner), fault))
        return made[-1]

    return through


async def _survives(world: World, fault: Fault, at: int, then: str, under: Callable[[Executor], Executor]) -> bool:
    books, faulty = Books(), list[FaultyExecutor]()
    trip = _trip(books)
    asking = await world.engine(trip)
    working = await world.started(trip, through=_faulty(fault, faulty, under))
    await settled()
    handle = await asking.trigger(trip, {"then": then})
    if then == "wait":
        for _ in range(60):
            if (await run_of(asking, handle.id)).status == "waiting":
                break
            await world.advance(1)
        faulty[0].at = at
        await asking.cancel(handle.id)
    else:
        faulty[0].at = at
    await world.advance(at % 5)
    if fault == "dead":
        await world.advance(20)
        await world.crash(working)
        working = await world.started(trip)
    run = await _driven(world, asking, handle.id)
    assert run.status == ("cancelled" if then == "wait" else "failed"), run
    assert run.error == (None if then == "wait" else "RuntimeError: no money"), run
    # Each at least once; once again only if its result was not stored: at most one of them, and at once.
    once = [name for n, name in enumerate(books.undone) if n == 0 or books.undone[n - 1] != name]
    assert once == REVERSED and len(books.undone) <= len(REVERSED) + 1, books.entries
    names = [
        one.step_name
        async for one in asking.subscribe(handle.id)
        if one.type == "step:complete" and (one.step_name or "").endswith("#undo")
    ]
    assert names == ["car#undo", "seat[1]#undo", "seat[0]#undo", "hotel#undo"], names
    assert await _rows(world) == []
    await world.check()
    for engine in (working, asking):
        await bounded(engine.stop())
    return faulty[0].fell


async def _at_every_batch(backend: Backend, fault: Fault, under: Any = lambda inner: inner) -> None:
    async with World(backend) as world:
        for then, most in (("fail", 18), ("wait", 12)):
            fell = 0
            for at in range(1, most):
                fell += await _survives(world, fault, at, then, under)
            assert fell > most - 6, f"only {fell} batches were met"


async def failing_before_any_batch_changes_nothing(backend: Backend) -> None:
    await _at_every_batch(backend, "before")


async def losing_any_reply_changes_nothing(backend: Backend) -> None:
    await _at_every_batch(backend, "after")


async def dying_at_any_batch_changes_nothing(backend: Backend) -> None:
    await _at_every_batch(backend, "dead")


async def the_same_holds_for_a_database_that_takes_its_time(backend: Backend) -> None:
    await _at_every_batch(backend, "dead", SuspendingExecutor)


async def a_stopped_worker_leaves_the_rest_of_the_undo_to_others(backend: Backend) -> None:
    """It finishes the undo that is under way."""
    undoing = Gate()
    books = Books()

    @job
    async def slow(step: Step, input: dict[str, Any]) -> None:
        await step.run("a", books.do, "a", undo=books.undo)
        await step.run("b", books.do, "b", undo=undoing.wait)
        raise RuntimeError

    async with World(backend) as world:
        first = await world.started(slow, polling_interval=LONG)
        handle = await first.trigger(slow)
        await undoing.reached()
        stopping = asyncio.ensure_future(first.stop())
        await turns()
        undoing.open()
        await bounded(stopping)
        assert books.undone == []
        second = await world.started(slow, polling_interval=LONG)
        await raised(RunFailed, bounded(second.output_of(handle.id)))
        assert books.undone == ["a"] and undoing.arrived == 1


async def a_worker_that_loses_its_lease_undoes_nothing_more(backend: Backend) -> None:
    undoing = Gate()
    books = Books()

    @job
    async def slow(step: Step, input: dict[str, Any]) -> None:
        await step.run("a", books.do, "a", undo=books.undo)
        await step.run("b", books.do, "b", undo=undoing.wait)
        raise RuntimeError

    async with World(backend) as world:
        first = await world.started(slow)
        handle = await first.trigger(slow)
        await undoing.reached()
        await world.crash(first)
        await world.expire()
        second = await world.started(slow)
        await undoing.reached(2)
        undoing.open()
        await raised(RunFailed, bounded(second.output_of(handle.id)))
        assert books.undone == ["a"]
