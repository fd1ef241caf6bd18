"""What keeps two workers from doing the same, and what happens to the runs of one that is gone."""

from __future__ import annotations

import asyncio
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import StoreUnavailable
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store.batch import Executor
from durably_web.store.operations import claiming, executing
from tests.contract import Backend, needs
from tests.support.executors import CountingExecutor, FaultyExecutor, HeldExecutor
from tests.support.world import Gate, Heard, World, bounded, raised, turns, until


@job
async def quick(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("one", lambda: input.get("n"))


async def leases_are_renewed_while_a_step_takes_its_time(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        durably = await world.started(waits)
        heard = Heard(durably)
        handle = await durably.trigger(waits)
        await gate.reached()
        await world.advance(120)
        [[expires]] = await world.rows("SELECT lease_expires_at FROM durably_runs")
        assert isinstance(expires, int) and world.clock.now() + 20_000 < expires <= world.clock.now() + 30_000
        renewed = heard.of("run:lease-renewed")
        assert 20 <= len(renewed) <= 24 and renewed[0].run_id == handle.id and renewed[0].seq is None
        gate.open()
        assert await bounded(handle.result()) == "done"
        run = await handle.run()
        assert run is not None and run.attempt == 1


async def leases_are_renewed_by_process_one_too(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        durably = await world.engine(waits)
        await durably.trigger(waits)
        processing = asyncio.ensure_future(durably.process_one())
        await gate.reached()
        await world.advance(60)
        [[expires]] = await world.rows("SELECT lease_expires_at FROM durably_runs")
        assert isinstance(expires, int) and expires > world.clock.now()
        gate.open()
        assert await bounded(processing)


async def a_run_of_a_dead_worker_is_taken_over_when_its_lease_ends(backend: Backend) -> None:
    gate = Gate()
    ran: list[str] = []

    @job
    async def waits(step: Step, input: dict[str, Any]) -> list[str]:
        await step.run("one", ran.append, "one")
        await step.run("two", gate.wait, "two")
        return ran

    async with World(backend) as world:
        first = await world.started(waits)
        handle = await first.trigger(waits)
        await gate.reached()
        await world.crash(first)
        gate.open()
        await world.expire()
        second = await world.started(waits)
        await world.drive(second.wait_for_run(handle.id))
        run = await second.get_run(handle.id)
        assert run is not None and (run.status, run.attempt, ran) == ("completed", 2, ["one"])


@needs("workers")
async def a_living_workers_run_is_left_to_it(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        first = await world.started(waits)
        handle = await first.trigger(waits)
        await gate.reached()
        second = await world.started(waits)
        await world.advance(60)
        assert await second.process_until_idle() == 0
        gate.open()
        assert await bounded(handle.result()) == "done"
        assert gate.arrived == 1


@needs("workers")
async def a_stale_owner_changes_nothing_and_ends(backend: Backend) -> None:
    """It slept beyond its lease, another took over, and it wakes in the middle of a step."""
    gates = [Gate(), Gate()]
    reached: list[int] = []
    later: list[str] = []

    @job
    async def waits(step: Step, input: dict[str, Any]) -> int:
        execution = len(reached)
        reached.append(execution)
        result = await step.run("wait", gates[execution].wait, execution)
        step.log.info("said by", execution=execution)
        await step.run("later", later.append, f"later {execution}")
        return int(result)

    asleep: list[HeldExecutor] = []

    def through(inner: Executor) -> Executor:
        asleep.append(HeldExecutor(inner))
        return asleep[0]

    async with World(backend) as world:
        first = await world.started(waits, through=through)
        heard = Heard(first)
        handle = await first.trigger(waits)
        await gates[0].reached()
        asleep[0].hold()
        await world.expire()
        second = await world.started(waits)
        await world.drive(gates[1].reached())
        # The sleeper wakes: its step ends, and so do the writes that waited for it.
        gates[0].open()
        await turns()
        asleep[0].release()
        await world.advance(1)
        assert later == [] and not heard.of("step:complete", "run:complete", "run:fail")
        gates[1].open()
        assert await world.drive(second.output_of(handle.id)) == 1
        assert later == ["later 1"] and await second.process_until_idle() == 0
        run = await second.get_run(handle.id)
        assert run is not None and (run.status, run.attempt, run.step_count) == ("completed", 2, 2)
        assert [one.data for one in await second.get_logs(handle.id)] == [{"execution": 1}]
        other = await first.trigger(waits, {}, idempotency_key="still alive")
        await first.cancel(other.id)


async def a_worker_that_slept_begins_no_step_that_another_has_stored(backend: Backend) -> None:
    gates = (Gate(), Gate())
    executed: list[int] = []

    @job
    async def waits(step: Step, input: dict[str, Any]) -> int:
        # Between its steps, where nothing of the run is written.
        await gates[step.attempt - 1].wait(None)

        async def work() -> int:
            executed.append(step.attempt)
            return step.attempt

        return await step.run("work", work)

    asleep: list[HeldExecutor] = []

    def through(inner: Executor) -> Executor:
        asleep.append(HeldExecutor(inner))
        return asleep[0]

    async with World(backend) as world:
        first = await world.started(waits, through=through)
        handle = await first.trigger(waits)
        await gates[0].reached()
        asleep[0].hold()
        await world.expire()
        second = await world.started(waits)
        await world.drive(gates[1].reached())
        gates[1].open()
        assert await world.drive(second.output_of(handle.id)) == 2
        # The sleeper wakes, and comes to the step before it hears that the run is not its own any more.
        gates[0].open()
        await turns()
        asleep[0].release()
        await world.advance(1)
        assert executed == [2]


async def a_worker_that_slept_keeps_what_nobody_took(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        durably = await world.started(waits)
        handle = await durably.trigger(waits)
        await gate.reached()
        # As after a suspended laptop: every timer is late at once.
        world.clock.advance(3600)
        await turns()
        gate.open()
        assert await bounded(handle.result()) == "done"
        run = await handle.run()
        assert run is not None and run.attempt == 1 and gate.arrived == 1


async def a_worker_does_not_take_its_own_run_twice(backend: Backend) -> None:
    """Another engine, that does not know the job, frees the lease; the worker meets a run that it still executes."""
    gate = Gate()
    most: list[int] = []
    executing: list[int] = []

    async def work() -> str:
        executing.append(1)
        most.append(len(executing))
        try:
            return await gate.wait("done")
        finally:
            executing.pop()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", work)

    async with World(backend) as world:
        durably = await world.started(waits, heartbeat_interval=25.0)
        heard = Heard(durably, "worker:error")
        handle = await durably.trigger(waits)
        await gate.reached()
        await world.write(claiming.FREE_EXPIRED, world.clock.now() + 31_000, "[]")
        await durably.trigger(waits)
        await world.advance(3)
        assert max(most) == 2, "the other run beside it, and nothing else"
        await world.advance(30)
        gate.open()
        assert await world.drive(handle.result()) == "done"
        assert heard.events == []
        run = await handle.run()
        assert run is not None and run.attempt == 2
        await bounded(durably.process_until_idle())


@needs("workers")
async def two_workers_share_the_runs(backend: Backend) -> None:
    ran: list[int] = []

    @job
    async def counts(step: Step, input: dict[str, Any]) -> int:
        await step.run("count", ran.append, input["n"])
        return int(input["n"])

    async with World(backend) as world:
        asking = await world.engine(counts)
        handles = [await asking.trigger(counts, {"n": n}) for n in range(40)]
        workers = [await world.engine(counts, max_concurrent_runs=3) for _ in range(3)]
        heard = [Heard(worker, "run:leased") for worker in workers]
        for worker in workers:
            await worker.start()
        for n, handle in enumerate(handles):
            assert await world.drive(handle.result()) == n
        assert sorted(ran) == list(range(40))
        assert sum(len(one.events) for one in heard) == 40


@needs("workers")
async def a_worker_that_left_is_not_waited_for(backend: Backend) -> None:
    """Its process is gone and with it its lock, so its leases are free at once."""
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        first = await world.started(waits)
        handle = await first.trigger(waits)
        await gate.reached()
        gone: list[str] = []

        class Told(CountingExecutor):
            def gone(self, worker_ids: Any) -> list[str]:
                # What the operating system would say after a SIGKILL; see the tests that really do it.
                gone.extend(worker_ids)
                return list(worker_ids)

        await world.crash(first)
        gate.open()
        second = await world.engine(waits, through=Told)
        assert await second.process_one()
        run = await second.get_run(handle.id)
        assert run is not None and (run.status, run.output) == ("completed", "done") and len(gone) == 1


# -- writes ----------------------------------------------------------------------------------------------


async def writes_of_concurrent_runs_share_transactions(backend: Backend) -> None:
    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    gates = [Gate() for _ in range(3)]

    @job
    async def steps(step: Step, input: dict[str, Any]) -> None:
        for gate in gates:
            await step.run("wait", gate.wait, 1)

    async with World(backend) as world:
        durably = await world.started(steps, through=through)
        handles = [await durably.trigger(steps) for _ in range(10)]
        for gate in gates:
            await gate.reached(10)
            await turns()
            counting[0].batches.clear()
            gate.open()
            await until(lambda: sum(counting[0].writes_of(executing.INSERT_ENTRY)) >= 10)
            assert len(counting[0].writes_of(executing.INSERT_ENTRY)) == 1, "ten results, one transaction"
        for handle in handles:
            await bounded(handle.result())


async def one_run_alone_pays_one_write_per_step(backend: Backend) -> None:
    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    async def nothing() -> None: ...

    @job
    async def steps(step: Step, input: dict[str, Any]) -> None:
        for _ in range(10):
            await step.run("step", nothing)
            step.log.info("line")
            step.progress(1)

    async with World(backend) as world:
        durably = await world.engine(steps, through=through)
        await durably.trigger(steps)
        counting[0].batches.clear()
        await durably.process_one()
        writes = [batch for batch in counting[0].batches if batch.mode == "write"]
        # Claim, ten steps, the end, and a claim that finds nothing more is not needed by process_one.
        assert len(writes) == 12, [statement.sql for batch in writes for statement in batch.statements]


async def a_run_that_never_waits_leaves_room_for_others(backend: Backend) -> None:
    """Its steps finish at once, many of them; a request in the same process is answered meanwhile."""
    answered: list[int] = []

    async def nothing(n: int) -> None:
        world.clock.advance(0.002)

    @job
    async def busy(step: Step, input: dict[str, Any]) -> int:
        for n in range(500):
            await step.run("step", nothing, n)
            if answered:
                return n
        return 500

    async with World(backend) as world:
        durably = await world.started(busy)
        for _ in range(2):
            answered.clear()
            handle = await durably.trigger(busy)

            async def ask() -> None:
                await durably.get_runs()
                answered.append(1)

            asking = asyncio.ensure_future(_later(ask))
            assert await bounded(handle.result()) < 100
            await asking


async def _later(ask: Any) -> None:
    await turns(5)
    await ask()


async def a_request_that_is_cancelled_in_the_queue_harms_no_other(backend: Backend) -> None:
    held: list[HeldExecutor] = []

    def through(inner: Executor) -> Executor:
        held.append(HeldExecutor(inner))
        return held[0]

    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        durably = await world.started(waits, through=through)
        handles = [await durably.trigger(waits) for _ in range(3)]
        await gate.reached(3)
        await turns()
        held[0].hold()
        requests = [asyncio.ensure_future(durably.trigger(waits, {}, idempotency_key=f"k{n}")) for n in range(6)]
        gate.open()
        await turns()
        for n in (0, 2, 4):
            requests[n].cancel()
        await turns()
        held[0].release()
        for n in (1, 3, 5):
            assert await bounded((await bounded(requests[n])).result()) == "done"
        for handle in handles:
            assert await bounded(handle.result()) == "done"


async def a_background_write_and_the_runs_end_may_share_a_transaction(backend: Backend) -> None:
    held: list[HeldExecutor] = []

    def through(inner: Executor) -> Executor:
        held.append(HeldExecutor(inner))
        return held[0]

    gate = Gate()

    @job
    async def talks(step: Step, input: dict[str, Any]) -> str:
        step.log.info("one")
        step.progress(1)
        await gate.wait(1)
        step.log.info("two")
        return "done"

    async with World(backend) as world:
        durably = await world.started(talks, through=through)
        handles = [await durably.trigger(talks) for _ in range(3)]
        await gate.reached(3)
        held[0].hold()
        arrived = held[0].arrived
        # One write holds the door, so that those behind it come to wait together.
        asking = asyncio.ensure_future(durably.trigger(talks))
        await until(lambda: held[0].arrived > arrived)
        world.clock.advance(0.2)
        await turns()
        gate.open()
        await turns()
        held[0].release()
        for handle in [*handles, await bounded(asking)]:
            assert await bounded(handle.result()) == "done"
            assert [one.message for one in await durably.get_logs(handle.id)] == ["one", "two"]


async def a_write_that_fails_fails_alone(backend: Backend) -> None:
    """What the database refuses for one run does not reach those who share its transaction."""
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "x" * int(input["size"]))

    class Picky(CountingExecutor):
        async def run(self, batch: Any) -> Any:
            for statement in batch.statements:
                if any(isinstance(value, str) and len(value) > 1000 for value in statement.params):
                    from durably_web.errors import StoreError

                    raise StoreError("too big", code="SQLITE_TOOBIG")
            return await super().run(batch)

    async with World(backend) as world:
        durably = await world.started(waits, through=Picky)
        heard = Heard(durably, "worker:error")
        fine = [await durably.trigger(waits, {"size": n}) for n in (1, 2)]
        big = await durably.trigger(waits, {"size": 2000})
        await gate.reached(3)
        gate.open()
        for handle in fine:
            assert len(await bounded(handle.result())) < 3
        await turns()
        assert len(heard.events) == 1 and heard.events[0].run_id == big.id
        # It is not begun again at once, and again; when its lease has run out it is.
        await world.advance(20)
        run = await big.run()
        assert run is not None and (run.status, run.attempt) == ("leased", 1)
        await world.advance(20)
        run = await big.run()
        assert run is not None and run.attempt == 2
        await durably.cancel(big.id)


async def a_mistake_in_the_database_leaves_nobody_waiting(backend: Backend) -> None:
    """An executor that raises what it should not: every write gets an answer, and the worker goes on."""
    broken: list[bool] = []

    class Broken(CountingExecutor):
        async def run(self, batch: Any) -> Any:
            if broken:
                raise RuntimeError("not a StoreError")
            return await super().run(batch)

    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        durably = await world.started(waits, quick, through=Broken)
        heard = Heard(durably, "worker:error")
        for _ in range(3):
            await durably.trigger(waits)
        await gate.reached(3)
        broken.append(True)
        for _ in range(2):
            await raised(RuntimeError, bounded(durably.trigger(quick)))
        gate.open()
        await world.advance(8)
        broken.clear()
        await world.advance(2)
        assert heard.events
        handle = await durably.trigger(quick, {"n": 5})
        assert await world.drive(handle.result()) == 5
        await world.advance(70)
        await bounded(durably.process_until_idle())


async def a_worker_gets_over_a_database_that_was_away(backend: Backend) -> None:
    faulty: list[FaultyExecutor] = []

    def through(inner: Executor) -> Executor:
        faulty.append(FaultyExecutor(inner, "dead"))
        return faulty[0]

    async with World(backend) as world:
        durably = await world.started(quick, through=through)
        heard = Heard(durably, "worker:error")
        await turns()
        faulty[0].at = 1
        await raised(StoreUnavailable, durably.trigger(quick))
        await world.advance(20)
        assert {event.context for event in heard.events} == {"claiming runs", "renewing leases"}
        assert len(heard.events) < 40, "it is asked now and then, not all the time"
        faulty[0].at = 0
        handle = await durably.trigger(quick, {"n": 3})
        assert await world.drive(handle.result()) == 3
        await _stops_at_once(durably, faulty[0])


async def _stops_at_once(durably: Durably, faulty: FaultyExecutor) -> None:
    """Also while it waits for the database to recover."""
    faulty.count, faulty.at = 0, 1
    await raised(StoreUnavailable, durably.trigger(quick))
    await turns()
    await bounded(durably.stop())
