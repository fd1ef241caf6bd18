"""Several worker processes, kept alive by one that does nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from durably_web.cli.gathering import VARIABLE, Gathered
from durably_web.cli.mistakes import MISTAKE
from durably_web.cli.times import readable

# Between the death of a process and the begin of the next; doubled while they die young.
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# One that has lived so long did not die of how it was begun.
HEALTHY = 60.0

_LIFELINE = "DURABLY_WEB_LIFELINE"


async def supervise(
    command: Sequence[str], count: int, say: Callable[[str], None], gathered: Gathered | None = None
) -> int:
    """Keep `count` processes alive until a SIGTERM or SIGINT, which is passed on to each; gives the exit code.

    A second signal is passed on too. One that ends with a mistake of the user's ends them all: the next would make the
    same. With `gathered`, they can be asked for their health and their metrics.
    """
    return await _Supervisor(command, say, gathered).run(count)


class _Supervisor:
    def __init__(self, command: Sequence[str], say: Callable[[str], None], gathered: Gathered | None) -> None:
        self._command = command
        self._say = say
        self._gathered = gathered
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._signal = signal.SIGTERM
        self._signals = 0
        self._mistake = False
        # The children hear of our death, however we die: the system closes our end of this.
        self._reading, self._writing = os.pipe()

    async def run(self, count: int) -> int:
        try:
            with self._hearing_signals():
                await asyncio.gather(*(self._keep(number) for number in range(1, count + 1)))
        finally:
            os.close(self._reading)
            os.close(self._writing)
        if self._mistake:
            return MISTAKE
        return 128 + self._signal if self._signals > 1 else 0

    @contextlib.contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self, number: signal.Signals) -> None:
        self._signal = number
        self._signals += 1
        self._stopping.set()
        if self._gathered is not None:
            self._gathered.stopping = True
        for process in self._processes.values():
            # By its process id, and only while it is ours to wait for.
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, number: int) -> None:
        delay = FIRST_DELAY
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            try:
                code = await self._live(number)
            except OSError as error:
                # No memory or no process to be had, for now: the others go on.
                code, ending = 1, f"could not be begun: {error}"
            else:
                ending = _ending(code)
            if self._stopping.is_set():
                return
            if code == MISTAKE:
                self._mistake = True
                self._stop(signal.SIGTERM)
                return
            if loop.time() - began >= HEALTHY:
                delay = FIRST_DELAY
            if self._gathered is not None:
                self._gathered.restarts += 1
            self._say(f"worker {number} {ending}; another one begins in {readable(delay)}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def _live(self, number: int) -> int:
        environment, descriptors = {**os.environ, _LIFELINE: str(self._reading)}, [self._reading]
        ours, theirs = (None, None) if self._gathered is None else self._gathered.ends()
        if theirs is not None:
            environment[VARIABLE] = str(theirs.fileno())
            descriptors.append(theirs.fileno())
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=environment,
                pass_fds=descriptors,
                # Or a Ctrl-C at a terminal would come twice: once from there, and once passed on.
                start_new_session=True,
            )
        except BaseException:
            if ours is not None:
                ours.close()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        self._processes[number] = process
        self._say(f"worker {number} is process {process.pid}")
        if self._stopping.is_set():
            self._stop_late(process)
        if self._gathered is not None and ours is not None:
            await self._gathered.join(number, ours)
        code = await process.wait()
        if self._gathered is not None:
            self._gathered.leave(number)
        del self._processes[number]
        return code

    def _stop_late(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self._signal)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def end_with_the_supervisor() -> None:
    """In a process that a supervisor began: be told to stop when the supervisor is gone."""
    descriptor = os.environ.pop(_LIFELINE, None)
    if descriptor is None:
        return

    def wait() -> None:
        # Nothing is ever written: this returns when the other end is closed.
        os.read(int(descriptor), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="durably-lifeline", daemon=True).start()


def own_command(*arguments: str) -> list[str]:
    """The command line that begins this program again with other arguments."""
    return [sys.executable, "-m", "durably_web", *arguments]
