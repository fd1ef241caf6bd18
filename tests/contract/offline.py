"""`Retry(when_offline="wait")`: a step waits for the network, and attempts without one do not count."""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import replace
from typing import Any

from durably_web.context import idempotency_key
from durably_web.errors import CrossOriginRefused, InvalidInput, MixedContent, Offline, RunFailed, Unreachable
from durably_web.jobs import Job, job
from durably_web.network import Network
from durably_web.offline import LOOK_MILLISECONDS
from durably_web.retry import Retry
from durably_web.steps import Step
from tests.contract import Backend, needs
from tests.support.scenes import LONG, Flaky, becomes, later, move, run_of, settled, step_of, types_of
from tests.support.world import Gate, Heard, World, bounded, raised, turns

PATIENT = Retry(max_attempts=2, initial_delay=10.0, backoff=2.0, jitter=False, when_offline="wait")
LOOK = LOOK_MILLISECONDS / 1000


def _sending(work: Flaky, retry: Retry = PATIENT, **options: Any) -> Job[dict[str, Any], Any]:
    @job(**options)
    async def sends(step: Step, input: dict[str, Any]) -> Any:
        return await step.run("send", work.work, retry=retry)

    return sends


async def nothing_is_tried_while_there_is_known_to_be_no_network(backend: Backend) -> None:
    async with World(backend) as world:
        work, network = Flaky(world), Network(online=False)
        sends = _sending(work)
        durably = await world.started(sends, polling_interval=LONG, network=network)
        heard = Heard(durably)
        handle = await durably.trigger(sends)
        run = await becomes(durably, handle.id, "waiting")
        assert not work.calls and run.wake_at == later(world, LOOK)
        one = await step_of(durably, handle.id, "send")
        assert (one.status, one.attempt, one.attempts, one.waits_for) == ("waiting", 1, (), "network")
        assert [event.waits_for for event in heard.of("step:wait", "run:waiting")] == ["network", "network"]
        await move(world, 60)
        assert not work.calls and (await run_of(durably, handle.id)).status == "waiting"

        network.tell(True)
        assert await bounded(handle.result()) == "done"
        assert work.calls == [60], "at once, and not when it would have looked"
        one = await step_of(durably, handle.id, "send")
        assert (one.status, one.attempt, one.attempts) == ("completed", 1, ())
        assert heard.of("network:online") and not heard.of("network:offline", "step:retry")
        assert await types_of(durably, handle.id) == [
            "run:trigger",
            "run:leased",
            "step:wait",
            "run:waiting",
            "run:leased",
            "step:complete",
            "run:complete",
        ]


async def an_attempt_without_a_network_does_not_count(backend: Backend) -> None:
    """It goes away in the middle, more often than there are attempts; and may be back before the request has failed."""
    async with World(backend) as world:
        network = Network()
        calls: list[bool] = []

        async def send() -> str:
            calls.append(network.online)
            if len(calls) > 6:
                return "sent"
            network.tell(False)
            if len(calls) % 2:
                network.tell(True)
            raise ConnectionError("cut off")

        @job
        async def sends(step: Step, input: dict[str, Any]) -> Any:
            return await step.run("send", send, retry=PATIENT)

        durably = await world.started(sends, polling_interval=LONG, network=network)
        handle = await durably.trigger(sends)
        for count in (2, 4, 6):
            await becomes(durably, handle.id, "waiting")
            assert len(calls) == count
            network.tell(True)
        assert await bounded(handle.result()) == "sent" and calls == [True] * 7
        one = await step_of(durably, handle.id, "send")
        assert (one.status, one.attempt, one.attempts) == ("completed", 1, ())


async def an_attempt_with_a_network_counts(backend: Backend) -> None:
    """Other errors, answers, refusals of the browser, and everything by a policy that does not wait."""
    cases: list[tuple[Retry, Exception]] = [
        (PATIENT, ValueError("no")),
        (PATIENT, ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
        (PATIENT, Unreachable()),
        (PATIENT, CrossOriginRefused()),
        (PATIENT, MixedContent()),
        (replace(PATIENT, when_offline="count"), Offline()),
        (replace(PATIENT, give_up_on=(Offline,)), Offline()),
    ]
    for policy, error in cases:
        async with World(backend) as world:
            work = Flaky(world, *[error] * 9)
            sends = _sending(work, policy)
            durably = await world.started(sends, polling_interval=LONG)
            handle = await durably.trigger(sends)
            await settled()
            await move(world, 10)
            await raised(RunFailed, bounded(handle.result()))
            one = await step_of(durably, handle.id, "send")
            assert one.attempt == len(work.calls) <= 2, (error, work.calls)
            assert not one.waits_for, error


async def what_the_system_says_is_believed(backend: Backend) -> None:
    """Nobody has told of the network: after delays that grow, attempts look whether it is back."""
    errors = [
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        Offline("no"),
    ]
    async with World(backend) as world:
        work = Flaky(world, *errors, ValueError("counts"))
        sends = _sending(work)
        durably = await world.started(sends, polling_interval=LONG)
        handle = await durably.trigger(sends)
        for delay in (10, 20, 40):
            run = await becomes(durably, handle.id, "waiting")
            assert run.wake_at == later(world, delay), (delay, run)
            one = await step_of(durably, handle.id, "send")
            assert (one.status, one.waits_for, one.attempts) == ("waiting", "network", ()) and one.error
            await move(world, delay)
        one = await step_of(durably, handle.id, "send")
        assert (one.status, [failed.error for failed in one.attempts]) == ("retrying", ["ValueError: counts"])
        await move(world, 10)
        assert await bounded(handle.result()) == "done" and work.calls == [0, 10, 30, 70, 80]


async def a_policy_without_delays_makes_no_storm(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world, *[Offline()] * 3)
        sends = _sending(work, Retry(initial_delay=0, when_offline="wait"))
        durably = await world.started(sends, polling_interval=LONG)
        handle = await durably.trigger(sends)
        for _ in range(3):
            await settled()
            await move(world, 1)
        assert await bounded(handle.result()) == "done" and work.calls == [0, 1, 2, 3]


async def a_crash_while_it_waits_changes_nothing(backend: Backend) -> None:
    """The next engine knows nothing of the network, so it tries; and with a network that is gone, it waits."""
    async with World(backend) as world:
        work = Flaky(world, Offline())
        sends = _sending(work)
        offline = Network(online=False)
        first = await world.started(sends, polling_interval=LONG, network=offline)
        handle = await first.trigger(sends)
        await becomes(first, handle.id, "waiting")
        await world.crash(first)
        second = await world.started(sends, polling_interval=LONG, network=offline)
        await settled()
        assert (await run_of(second, handle.id)).status == "waiting" and not work.calls
        await world.crash(second)
        third = await world.started(sends, polling_interval=LONG, network=Network())
        await settled()
        assert work.calls == [0], "it is tried at once"
        await becomes(third, handle.id, "waiting")
        await world.crash(third)
        fourth = await world.started(sends, polling_interval=LONG)
        run = await bounded(fourth.wait_for_run(handle.id))
        assert run.output == "done"
        one = await step_of(fourth, handle.id, "send")
        assert (one.attempt, one.attempts) == (1, ())


async def nobody_tells_that_it_is_back(backend: Backend) -> None:
    """The flag has changed, and no event came: it is looked at now and then."""

    class Silent(Network):
        silent_online = False

        @property
        def online(self) -> bool:
            return self.silent_online

    async with World(backend) as world:
        work, network = Flaky(world), Silent()
        sends = _sending(work)
        durably = await world.started(sends, polling_interval=LONG, network=network)
        handle = await durably.trigger(sends)
        await becomes(durably, handle.id, "waiting")
        await move(world, LOOK)
        run = await becomes(durably, handle.id, "waiting")
        assert run.wake_at == later(world, LOOK) and not work.calls
        network.silent_online = True
        await move(world, LOOK)
        assert await bounded(handle.result()) == "done"
        assert len([name for name in await types_of(durably, handle.id) if name == "step:wait"]) == 1


async def it_comes_back_while_the_run_is_put_aside(backend: Backend) -> None:
    """Between the last look and the write that suspends the run, at every moment of that time."""
    for moment in range(0, 60, 3):
        async with World(backend) as world:
            work, network = Flaky(world), Network(online=False)
            sends = _sending(work)
            durably = await world.started(sends, polling_interval=LONG, network=network)
            handle = await durably.trigger(sends)
            await turns(moment)
            network.tell(True)
            assert await bounded(handle.result()) == "done", moment
            await bounded(durably.delete_run(handle.id))


async def a_waiting_step_can_be_cancelled(backend: Backend) -> None:
    async with World(backend) as world:
        work, network = Flaky(world), Network(online=False)
        sends = _sending(work)
        durably = await world.started(sends, polling_interval=LONG, network=network)
        handle = await durably.trigger(sends)
        await becomes(durably, handle.id, "waiting")
        await durably.cancel(handle.id)
        network.tell(True)
        await settled()
        assert (await run_of(durably, handle.id)).status == "cancelled" and not work.calls
        await durably.retry(handle.id)
        run = await bounded(durably.wait_for_run(handle.id))
        assert (run.status, len(work.calls)) == ("completed", 1)


async def the_time_of_a_run_goes_on(backend: Backend) -> None:
    async with World(backend) as world:
        work, network = Flaky(world), Network(online=False)
        sends = _sending(work, timeout=90)
        durably = await world.started(sends, polling_interval=LONG, network=network)
        handle = await durably.trigger(sends)
        run = await becomes(durably, handle.id, "waiting")
        assert run.wake_at == later(world, 90)
        await move(world, 90)
        error = await raised(RunFailed, bounded(handle.result()))
        assert "longer than 90 s" in str(error) and not work.calls


async def all_items_wait_beside_what_needs_no_network(backend: Backend) -> None:
    async with World(backend) as world:
        network, gate = Network(online=False), Gate()
        sent: list[int] = []

        async def send(item: int) -> int:
            sent.append(item)
            return item

        @job
        async def sends(step: Step, input: dict[str, Any]) -> Any:
            return await asyncio.gather(
                step.map("send", send, [1, 2, 3], retry=PATIENT), step.run("beside", gate.wait, "home")
            )

        durably = await world.started(sends, polling_interval=LONG, network=network)
        handle = await durably.trigger(sends)
        await bounded(gate.reached())
        await settled()
        assert (await run_of(durably, handle.id)).status == "leased", "another branch executes"
        network.tell(True)
        await settled()
        assert sorted(sent) == [1, 2, 3], "heard here, without a suspension"
        gate.open()
        assert await bounded(handle.result()) == [[1, 2, 3], "home"]


async def a_child_waits_and_its_parent_with_it(backend: Backend) -> None:
    async with World(backend) as world:
        work, network = Flaky(world), Network(online=False)
        sends = _sending(work)

        @job
        async def parent(step: Step, input: dict[str, Any]) -> Any:
            return await step.call(sends, {})

        durably = await world.started(parent, sends, polling_interval=LONG, network=network)
        handle = await durably.trigger(parent)
        await becomes(durably, handle.id, "waiting")
        await settled()
        assert not work.calls
        network.tell(True)
        assert await bounded(handle.result()) == "done" and len(work.calls) == 1


@needs("workers")
async def one_engine_that_hears_wakes_the_runs_of_all(backend: Backend) -> None:
    async with World(backend) as world:
        work = Flaky(world)
        sends = _sending(work)
        here, there = Network(online=False), Network(online=False)
        durably = await world.started(sends, polling_interval=LONG, network=here)
        handles = [await durably.trigger(sends) for _ in range(3)]
        for handle in handles:
            await becomes(durably, handle.id, "waiting")
        await durably.stop()
        other = await world.started(sends, polling_interval=LONG, network=there)
        there.tell(True)
        for handle in handles:
            assert (await bounded(other.wait_for_run(handle.id))).output == "done"
        assert len(work.calls) == 3


# -- the key for a server --------------------------------------------------------------------------------


async def a_step_has_a_key_that_stays(backend: Backend) -> None:
    async with World(backend) as world:
        keys: list[str] = []

        async def send(item: Any = None) -> None:
            keys.append(idempotency_key())
            if len(keys) == 1:
                raise ConnectionError("lost")

        def beside(item: Any = None) -> str:
            return idempotency_key()

        @job
        async def sends(step: Step, input: dict[str, Any]) -> Any:
            await raised(InvalidInput, _ask())
            await step.run("send", send, retry=Retry(initial_delay=1, jitter=False))
            await step.run("send", send)
            others = await step.map("größe", beside, [1, 2])
            others.append(await step.run("x" * 300, beside))
            return [await step.run("sync", beside), *others]

        async def _ask() -> str:
            return idempotency_key()

        durably = await world.started(sends)
        found = []
        for _ in range(2):
            handle = await durably.trigger(sends)
            others = await world.drive(handle.result())
            first, again, second = keys
            assert first == again == f"{handle.id}/send" and second == f"{handle.id}/send%232"
            found += [first, second, *others]
            assert all(key.isascii() and len(key) <= 255 and " " not in key for key in found), found
            keys.clear()
        assert len(set(found)) == 12, "no two steps, and no two runs, have the same"
