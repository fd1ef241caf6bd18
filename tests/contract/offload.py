"""Steps whose functions run in another process: what they give and raise, and that ending them really ends them.

In a browser it is another worker, and tests/e2e looks at the same from the page.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from durably_web import cancelled, idempotency_key
from durably_web.errors import InvalidInput, OffloadFailed
from durably_web.jobs import Job, job
from durably_web.records import Run
from durably_web.retry import Retry
from durably_web.steps import Step
from tests.contract import Backend, needs
from tests.support.scenes import LONG, move, run_of, settled, step_of, taken_over
from tests.support.world import World, bounded, until

# -- what runs elsewhere ---------------------------------------------------------------------------------


def _place(value: Any = None) -> list[Any]:
    return [os.getpid(), cancelled(), value]


async def _place_later(value: Any = None) -> list[Any]:
    await asyncio.sleep(0)
    return _place(value)


def _nonce() -> str:
    return os.urandom(16).hex()


class Strange(Exception):
    """Its constructor takes something else than it passes on."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Unreadable(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("unreadable")
        self.line = (n for n in "ab")


def _raises(kind: str) -> None:
    match kind:
        case "strange":
            raise Strange(1, 2)
        case "unreadable":
            raise Unreadable
        case "exit":
            sys.exit(3)
        case "os exit":
            os._exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "segfault":
            import ctypes

            ctypes.string_at(0)
    raise ValueError(kind)


async def _raises_later(kind: str) -> None:
    _raises(kind)


def _reaches_nobody_at_first(folder: str) -> list[Any]:
    """Twice there is no network."""
    tried = len(os.listdir(folder))
    _says(folder, f"try {tried}")
    if tried < 2:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")
    return [idempotency_key(), os.getpid()]


def _generates() -> Iterator[str]:
    return (n for n in "ab")


def _says(folder: str, name: str) -> None:
    """Leave the own process's number in a file, all at once."""
    written = Path(folder, f"{name}.part")
    written.write_text(str(os.getpid()))
    written.rename(Path(folder, name))


def _spins(folder: str, name: str = "here") -> None:
    _says(folder, name)
    while True:
        pass


def _starts_another_and_spins(folder: str) -> None:
    """The other one's end is this one's, too."""
    import subprocess

    program = f"from tests.contract.offload import _spins; _spins({folder!r}, 'other')"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False)


def _meets(folder: str, own: str, other: str) -> str:
    """Ends when the other one is there, too."""
    _says(folder, own)
    while not Path(folder, other).exists():
        time.sleep(0.001)
    return f"{own} met {other}"


def _waits(folder: str, name: str) -> str:
    _says(folder, "here")
    return _meets(folder, "waits", name)


# -- scenes ----------------------------------------------------------------------------------------------


def _job(fn: Callable[..., Any], *args: Any, **options: Any) -> Job[dict[str, Any], Any]:
    """A job with one step."""

    @job
    async def offloads(step: Step, input: dict[str, Any]) -> Any:
        return await step.run("away", fn, *args, offload=True, **options)

    return offloads


@contextmanager
def _folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield folder


async def _said(folder: str, name: str = "here") -> int:
    """The number of the process that left it."""
    await until(Path(folder, name).exists)
    return _number(folder, name)


def _number(folder: str, name: str) -> int:
    return int(Path(folder, name).read_text())


def _forget(folder: str) -> None:
    Path(folder, "here").unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _gone(pid: int) -> None:
    await until(lambda: not _is_alive(pid))


async def _ended(world: World, job: Job[Any, Any], **options: Any) -> Run:
    """A run of the job, by an engine of its own, when it has ended."""
    durably = await world.engine(job, **options)
    handle = await durably.trigger(job)
    await bounded(durably.process_one())
    run = await run_of(durably, handle.id)
    await bounded(durably.stop())
    return run


# -- what it gives ---------------------------------------------------------------------------------------


@needs("processes")
async def a_function_runs_in_another_process_which_is_used_again(backend: Backend) -> None:
    @job
    async def offloads(step: Step, input: dict[str, Any]) -> list[Any]:
        places = [await step.run("away", fn, n, offload=True) for n in range(2) for fn in (_place, _place_later)]
        return [*places, await step.run("here", _place)]

    async with World(backend) as world:
        run = await _ended(world, offloads)
        assert run.status == "completed", run.error
        *away, here = run.output
        assert here[0] == os.getpid() and [one[1:] for one in away] == [[False, 0], [False, 0], [False, 1], [False, 1]]
        pids = {one[0] for one in away}
        assert len(pids) == 1 and os.getpid() not in pids
        assert not _is_alive(pids.pop()), "it ended with the engine"


@needs("processes")
async def a_map_uses_several_processes(backend: Backend) -> None:
    @job
    async def offloads(step: Step, input: dict[str, Any]) -> list[Any]:
        return await step.map("abs", abs, [-1, 2, -3, 4], offload=True, concurrency=3)

    async with World(backend) as world:
        run = await _ended(world, offloads)
        assert run.output == [1, 2, 3, 4], run.error


@needs("processes")
async def two_steps_run_at_the_same_time(backend: Backend) -> None:
    with _folder() as folder:

        @job
        async def offloads(step: Step, input: dict[str, Any]) -> list[str]:
            pairs = [("one", "two"), ("two", "one")]
            return list(
                await asyncio.gather(*[step.run("meet", _meets, folder, *pair, offload=True) for pair in pairs])
            )

        async with World(backend) as world:
            run = await _ended(world, offloads)
            assert run.output == ["one met two", "two met one"], run.error


@needs("processes")
async def what_was_stored_is_not_called_again(backend: Backend) -> None:
    with _folder() as folder:

        @job
        async def offloads(step: Step, input: dict[str, Any]) -> list[str]:
            before = await step.run("before", _nonce, offload=True)
            return [before, await step.run("wait", _waits, folder, "go", offload=True)]

        async with World(backend) as world:
            first = await world.started(offloads)
            handle = await first.trigger(offloads)
            pid = await _said(folder)
            before = (await step_of(first, handle.id, "before")).output
            _forget(folder)
            second = await taken_over(world, first, offloads)
            await _gone(pid)
            # The step that was cut off is called again.
            assert await _said(folder) != pid
            _says(folder, "go")
            assert await bounded(second.output_of(handle.id)) == [before, "waits met go"]


# -- what it raises --------------------------------------------------------------------------------------


@needs("processes")
async def an_exception_arrives_as_it_was(backend: Backend) -> None:
    expected = {
        "strange": "Strange: 1 and 2",
        "unreadable": "Unreadable: unreadable",
        "plain": "ValueError: plain",
    }
    caught: list[Exception] = []

    @job
    async def offloads(step: Step, input: dict[str, Any]) -> None:
        for kind in expected:
            for fn in (_raises, _raises_later):
                try:
                    await step.run("away", fn, kind, offload=True)
                except (Strange, Unreadable, ValueError) as error:
                    caught.append(error)
        await step.run("away", _raises, "last", offload=True)

    async with World(backend) as world:
        durably = await world.engine(offloads)
        handle = await durably.trigger(offloads)
        await bounded(durably.process_one())
        assert (await run_of(durably, handle.id)).error == "ValueError: last"
        texts = [f"{type(error).__name__}: {error}" for error in caught]
        assert texts == [text for text in expected.values() for _ in range(2)], texts
        # Where it was raised, which is not where it was caught.
        assert all("in _raises" in error.__notes__[0] for error in caught)
        assert (await step_of(durably, handle.id, "away#7")).error == "ValueError: last"


@needs("processes")
async def a_process_that_dies_is_a_failure_and_the_next_step_gets_another(backend: Backend) -> None:
    expected = {
        "exit": "it raised SystemExit: 3, which ends its worker",
        "interrupt": "it raised KeyboardInterrupt, which ends its worker",
        "os exit": "its process ended with exit code 3",
        "segfault": "its process was killed by SIGSEGV",
    }
    seen: dict[str, str] = {}

    @job
    async def offloads(step: Step, input: dict[str, Any]) -> int:
        for kind in expected:
            try:
                await step.run(kind, _raises, kind, offload=True)
            except OffloadFailed as error:
                seen[kind] = str(error)
        return len(await step.run("away", _nonce, offload=True))

    async with World(backend) as world:
        run = await _ended(world, offloads)
        assert run.output == 32, run.error
        assert seen == {kind: f"step {kind!r} failed: {text}" for kind, text in expected.items()}, seen


@needs("processes")
async def a_policy_covers_the_death_of_a_process(backend: Backend) -> None:
    async with World(backend) as world:
        offloads = _job(_raises, "os exit", retry=Retry(initial_delay=0, retry_on=(OffloadFailed,)))
        durably = await world.engine(offloads)
        handle = await durably.trigger(offloads)
        await bounded(durably.process_one())
        one = await step_of(durably, handle.id, "away")
        assert one.attempt == 3 and one.error == "OffloadFailed: step 'away' failed: its process ended with exit code 3"


@needs("processes")
async def an_attempt_elsewhere_without_a_network_does_not_count(backend: Backend) -> None:
    policy = Retry(max_attempts=1, initial_delay=5, when_offline="wait", jitter=False)
    with _folder() as folder:
        async with World(backend) as world:
            offloads = _job(_reaches_nobody_at_first, folder, retry=policy)
            durably = await world.started(offloads, polling_interval=LONG)
            handle = await durably.trigger(offloads)
            for count in (1, 2):
                await until(Path(folder, f"try {count - 1}").exists)
                async with asyncio.timeout(60):
                    while (await run_of(durably, handle.id)).status != "waiting":
                        await settled()
                one = await step_of(durably, handle.id, "away")
                assert (one.waits_for, one.attempts, len(os.listdir(folder))) == ("network", (), count)
                await move(world, 5 * count**2)
            key, pid = await bounded(handle.result())
            assert key == f"{handle.id}/away" and pid != os.getpid()


@needs("processes")
async def what_cannot_be_found_elsewhere_is_refused_at_once(backend: Backend) -> None:
    def local() -> None: ...

    class Local:
        def method(self) -> None: ...

    refused: list[str] = []
    wrong: list[Any] = [lambda: 1, local, Local().method, "text".upper, Strange(1, 2).with_traceback, 7]

    @job
    async def offloads(step: Step, input: dict[str, Any]) -> None:
        for fn in wrong:
            try:
                await step.run("away", fn, offload=True)
            except InvalidInput as error:
                refused.append(str(error))
            try:
                await step.map("away", fn, [1], offload=True)
            except InvalidInput as error:
                refused.append(str(error))

    async with World(backend) as world:
        run = await _ended(world, offloads)
        assert run.status == "completed" and not run.step_count, run
        assert len(refused) == 2 * len(wrong) and all("at the top level of a module" in text for text in refused), (
            refused
        )


@needs("processes")
async def what_cannot_be_pickled_is_a_failure_of_the_step(backend: Backend) -> None:
    async with World(backend) as world:
        run = await _ended(world, _job(_place, _generates()))
        assert run.error is not None
        assert run.error.startswith("InvalidInput: the arguments of step 'away' cannot be pickled: TypeError:"), (
            run.error
        )
        run = await _ended(world, _job(_generates))
        assert run.error is not None
        assert run.error.startswith(
            "NotSerializable: the result of step 'away' cannot be stored: it cannot be pickled: TypeError:"
        ), run.error


# -- what ends it ----------------------------------------------------------------------------------------


@needs("processes")
async def a_function_that_takes_too_long_is_killed(backend: Backend) -> None:
    with _folder() as folder:

        @job
        async def offloads(step: Step, input: dict[str, Any]) -> list[Any]:
            try:
                await step.run("spin", _spins, folder, timeout=2, offload=True)
            except TimeoutError as error:
                return [str(error), *await step.run("after", _place, offload=True)]
            return []

        async with World(backend) as world:
            durably = await world.started(offloads, polling_interval=LONG)
            handle = await durably.trigger(offloads)
            pid = await _said(folder)
            await move(world, 1.999)
            assert _is_alive(pid)
            await move(world, 0.001)
            await _gone(pid)
            text, after, *_ = await bounded(handle.result())
            assert text == "step 'spin' took longer than 2 s" and after != pid


@needs("processes")
async def a_cancelled_run_kills_its_processes_and_what_they_started(backend: Backend) -> None:
    with _folder() as folder:

        @job
        async def offloads(step: Step, input: dict[str, Any]) -> None:
            await asyncio.gather(
                step.run("spin", _spins, folder, offload=True),
                step.run("start", _starts_another_and_spins, folder, offload=True),
            )

        async with World(backend) as world:
            durably = await world.started(offloads)
            handle = await durably.trigger(offloads)
            pids = [await _said(folder), await _said(folder, "other")]
            await durably.cancel(handle.id)
            for pid in pids:
                await _gone(pid)
            assert (await run_of(durably, handle.id)).status == "cancelled"


@needs("processes")
async def a_run_that_takes_too_long_kills_its_process(backend: Backend) -> None:
    with _folder() as folder:

        @job(timeout=60)
        async def offloads(step: Step, input: dict[str, Any]) -> None:
            await step.run("spin", _spins, folder, offload=True)

        async with World(backend) as world:
            durably = await world.started(offloads, polling_interval=LONG)
            handle = await durably.trigger(offloads)
            pid = await _said(folder)
            await move(world, 60)
            await _gone(pid)
            await settled()
            assert (await run_of(durably, handle.id)).error == "TimeoutError: the run took longer than 60 s"


@needs("processes")
async def a_stop_waits_for_the_step(backend: Backend) -> None:
    with _folder() as folder:
        async with World(backend) as world:
            offloads = _job(_waits, folder, "go")
            durably = await world.started(offloads)
            handle = await durably.trigger(offloads)
            pid = await _said(folder)
            stopping = asyncio.ensure_future(durably.stop())
            await settled()
            assert not stopping.done()
            _says(folder, "go")
            await bounded(stopping)
            assert not _is_alive(pid)
            last = await world.engine(offloads)
            assert (await step_of(last, handle.id, "away")).output == "waits met go"
