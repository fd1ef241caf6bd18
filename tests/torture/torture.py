"""Worker and client processes on one database, killed, stopped and cut off; then all that they did is checked."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from durably_web import Durably
from durably_web.backends import open_executor
from tests.support.invariants import check_invariants
from tests.torture.checker import check
from tests.torture.databases import Database, through
from tests.torture.evidence import Evidence, read_lines, read_rows
from tests.torture.figures import Figures, figures
from tests.torture.jobs import JOBS, input_of
from tests.torture.plan import Fault, Plan, cuts
from tests.torture.processes import PASSING, Log, pause
from tests.torture.proxy import Proxy
from tests.torture.reader import last_seq

ROOT = Path(__file__).resolve().parent.parent.parent
WATCH_SECONDS = 0.05
# For what ends by itself once nothing goes wrong any more.
END_SECONDS = 60


class Outcome(NamedTuple):
    figures: Figures
    wrong: list[str]


async def torture(folder: Path, plan: Plan, database: Database) -> Outcome:
    """Play the plan to its end. Raises `AssertionError` where somebody does not come to an end in time, or dies of
    something that is not in the plan; what is wrong with what they did is in the outcome."""
    async with contextlib.AsyncExitStack() as stack:
        url, proxy = database.url, None
        if database.address is not None:
            proxy = await stack.enter_async_context(
                Proxy(*database.address, lambda number: cuts(plan.seed, number, plan.between))
            )
            url = through(url, proxy.port)
        torment = Torment(folder, plan, database, url)
        await stack.enter_async_context(contextlib.aclosing(torment))
        async with asyncio.timeout(plan.seconds):
            await torment.play(proxy)
    evidence = await gather(folder, plan, database)
    network = collections.Counter() if proxy is None else proxy.done
    return Outcome(figures(evidence, network), check(evidence))


async def gather(folder: Path, plan: Plan, database: Database) -> Evidence:
    """All that is known, once nobody is at it any more."""
    executor = open_executor(database.url, plan.durability)
    await executor.open()
    try:
        damages = await database.damages(executor)
        runs, entries = await read_rows(executor)
        try:
            await check_invariants(executor)
        except AssertionError as error:
            damages.append(f"invariants: {error}")
    finally:
        await executor.close()
    return Evidence(plan, database.name, runs, entries, read_lines(folder), damages)


class Torment:
    """The processes, and what is done to them."""

    def __init__(self, folder: Path, plan: Plan, database: Database, url: str) -> None:
        self._folder = folder
        self._plan = plan
        self._database = database
        self._url = url
        self._log = Log(str(folder / "torment.log"))
        self._workers: list[Process] = []
        self._clients: list[Process] = []
        self._reader: Process | None = None
        self._started: list[Process] = []
        self._count = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._server = asyncio.Lock()

    async def play(self, proxy: Proxy | None) -> None:
        plan = self._plan
        if plan.calm:
            await self._ask_first()
        self._workers = [await self._begin_worker(slot) for slot in range(plan.workers)]
        if plan.calm:
            await self._let_go()
        self._clients = [await self._begin_client(number) for number in range(plan.clients)]
        self._reader = await self._begin_reader()
        faults = [fault for fault in plan.faults() if self._can(fault)]
        async for ended in self._ended():
            while faults and ended >= faults[0].ended:
                await self._do(faults.pop(0))
            self._check_alive()
            if ended >= plan.runs * 97 // 100:
                break
        await self._all_done()
        if proxy is not None:
            proxy.calm()
        for client in self._clients:
            assert await client.process.wait() == 0, f"{client.name} ended with {client.process.returncode}"
        last = await self._until_completed()
        for worker in self._workers:
            assert await worker.end() == 0, f"{worker.name} ended with {worker.process.returncode}"
        assert self._reader is not None
        async with asyncio.timeout(END_SECONDS):
            while last_seq(self._reader.log) < last:
                await pause()
        assert await self._reader.end() == 0, f"the reader ended with {self._reader.process.returncode}"

    async def aclose(self) -> None:
        """Nobody that was begun is left; the server is up, for whoever stops it."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for process in self._started:
            await process.kill()

    # -- processes ---------------------------------------------------------------------------------------

    async def _begin_worker(self, slot: int) -> Process:
        name = f"w{slot}.{self._count}"
        self._count += 1
        return await self._begin("worker", name, str(slot), name)

    async def _begin_client(self, number: int) -> Process:
        return await self._begin("client", f"client{number}", str(number))

    async def _begin_reader(self) -> Process:
        return await self._begin("reader", "reader")

    async def _begin(self, module: str, name: str, *arguments: str) -> Process:
        log = self._folder / f"{name}.log"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tests.torture.{module}", self._url, str(log)),
            *(json.dumps(self._plan._asdict()), *arguments),
            cwd=ROOT,
            # It dies when this is closed.
            stdin=asyncio.subprocess.PIPE,
            # A Ctrl-C at the terminal is for this program, which ends them all.
            start_new_session=True,
        )
        begun = Process(process, name, log)
        self._started.append(begun)
        return begun

    def _check_alive(self) -> None:
        for task in list(self._under_way):
            if task.done():
                task.result()
                self._under_way.discard(task)
        for each in (*self._workers, *self._clients, self._reader):
            assert each is not None
            code = each.process.returncode
            assert code is None or (code == 0 and each in self._clients), f"{each.name} ended by itself with {code}"

    # -- a calm day --------------------------------------------------------------------------------------

    async def _ask_first(self) -> None:
        """Ask for everything, as one client, and let nobody begin yet."""
        async with self._engine() as durably:
            await durably.pause_job(JOBS["plain"])
            for first in range(0, self._plan.runs, 500):
                numbers = range(first, min(first + 500, self._plan.runs))
                items = [{"input": input_of(self._plan.asked(each)), "idempotency_key": str(each)} for each in numbers]
                for number, handle in zip(numbers, await durably.trigger_many(JOBS["plain"], items), strict=True):
                    self._log.write("acknowledged", number, handle.id, handle.disposition)

    async def _let_go(self) -> None:
        """They begin when all are there."""
        async with self._engine() as durably:
            while not all(worker.has_written(" ready\n") for worker in self._workers):
                await pause()
            await durably.resume_job(JOBS["plain"])

    @contextlib.asynccontextmanager
    async def _engine(self) -> AsyncIterator[Durably]:
        """One that executes nothing, and goes straight to the database."""
        durably = Durably(self._database.url, jobs=JOBS.values(), durability=self._plan.durability)
        try:
            await durably.migrate()
            yield durably
        finally:
            await durably.stop()

    # -- how far it is -----------------------------------------------------------------------------------

    async def _ended(self) -> AsyncIterator[int]:
        """How many runs have come to the end of their jobs, again and again."""
        counters: dict[Path, Callable[[], int]] = {}
        while True:
            for process in self._started:
                if process.log not in counters and process.name.startswith("w"):
                    counters[process.log] = _counter(process.log)
            yield sum(count() for count in counters.values())
            await asyncio.sleep(WATCH_SECONDS)

    async def _until_completed(self) -> int:
        """Wait until all runs are completed; gives the last seq."""
        while True:
            with contextlib.suppress(*PASSING):
                async with self._engine() as durably:
                    while (await durably.stats()).by_status != {"completed": self._plan.runs}:
                        await pause()
                    return await durably.last_seq()
            await pause()

    # -- faults ------------------------------------------------------------------------------------------

    def _can(self, fault: Fault) -> bool:
        return self._database.server is not None or not fault.kind.endswith("server")

    async def _do(self, fault: Fault) -> None:
        match fault.kind:
            case "kill worker":
                await self._kill(self._workers[fault.target])
                self._workers[fault.target] = await self._begin_worker(fault.target)
            case "kill client":
                if self._clients[fault.target].process.returncode is None:
                    await self._kill(self._clients[fault.target])
                    self._clients[fault.target] = await self._begin_client(fault.target)
            case "kill reader":
                assert self._reader is not None
                await self._kill(self._reader)
                self._reader = await self._begin_reader()
            case "stop worker":
                # The next one, where this one is stopped already, or has not begun: until then it would outlive us.
                line = self._workers[fault.target :] + self._workers[: fault.target]
                process = next((each for each in line if not each.stopped and each.hears()), line[0])
                self._in_background(self._stop(process, fault.seconds))
            case "restart server" | "kill server":
                self._in_background(self._take_away(fault))

    async def _all_done(self) -> None:
        """Return when all that was to go wrong has. Raises what its tasks raise."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        self._check_alive()

    def _in_background(self, work: collections.abc.Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)

    async def _kill(self, process: Process) -> None:
        # Told before: what is written later is not of it.
        self._log.write("kill", process.name)
        await process.kill()

    async def _stop(self, process: Process, seconds: float) -> None:
        if process.stopped or process.process.returncode is not None or not process.hears():
            return
        process.stopped = True
        self._log.write("stop", process.name)
        process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process.stopped = False
            # Told before: what it does at once comes later.
            self._log.write("continue", process.name)
            process.send(signal.SIGCONT)

    async def _take_away(self, fault: Fault) -> None:
        """One after the other: it must be there to be taken away."""
        async with self._server:
            self._log.write(fault.kind.split(" ")[0], "server")
            server = self._database.server
            assert server is not None, "there is one to take away"
            down = server.kill if fault.kind == "kill server" else server.stop
            try:
                await asyncio.to_thread(down)
                await asyncio.sleep(fault.seconds)
            finally:
                await asyncio.shield(asyncio.to_thread(server.start))
            self._log.write("started", "server")


class Process:
    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self.process = process
        self.name = name
        self.log = log
        self.stopped = False

    def send(self, number: signal.Signals) -> None:
        # By its process id, and only while it is ours to wait for.
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.send(signal.SIGKILL)
            await self.process.wait()

    async def end(self) -> int:
        """Its exit code. It is asked when it can hear."""
        async with asyncio.timeout(END_SECONDS):
            while self.process.returncode is None and not self.hears():
                await pause()
            self.send(signal.SIGTERM)
            return await self.process.wait()

    def hears(self) -> bool:
        """It has come so far that it ends when it is told to, and when this process ends."""
        return self.has_written(f" hears {self.process.pid}\n")

    def has_written(self, text: str) -> bool:
        return self.log.exists() and text in self.log.read_text()


def _counter(path: Path) -> Callable[[], int]:
    """Counts the runs that a worker's file says are done, reading on where it was."""
    position, count, rest = 0, 0, b""

    def counted() -> int:
        nonlocal position, count, rest
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                text = rest + file.read()
                position = file.tell()
            *lines, rest = text.split(b"\n")
            count += sum(b" done " in line for line in lines)
        return count

    return counted
