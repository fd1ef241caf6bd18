"""The branches of one execution that wait for something other than their own code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from durably_web.environment import Environment
from durably_web.journal import Awaited

# Shorter than this, a wait is not worth giving the lease back, claiming the run again and replaying it.
HOLD_MILLISECONDS = 100

# How many turns of the event loop nothing must be executed before a run is said to wait: another branch may be about
# to begin its next step.
QUIET_TURNS = 16

_LONGEST_TIMER = 86_400.0

WAITS = "waits"
"""Topic: something came that a run may wait for: a signal, the end of another run, or the network."""


class Wait:
    """One branch: until an instant in milliseconds, for a signal, for the end of a child, or for the network: the
    number is how often that had come back."""

    __slots__ = ("child", "future", "network", "signal", "until")

    def __init__(
        self, until: int | None, signal: str | None = None, child: str | None = None, network: int | None = None
    ) -> None:
        self.until = until
        self.signal = signal
        self.child = child
        self.network = network
        self.future: asyncio.Future[None] | None = None

    @property
    def comes(self) -> bool:
        """Whether something is awaited that does not come by time alone."""
        return self.signal is not None or self.child is not None or self.network is not None

    def wake(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Waits:
    """Keeps the waiting branches, wakes them while the run is executed, and tells when nothing else is left of it.

    `is_executing` says whether a step of the run is under way; `suspend` is called with all that is awaited once there
    has been none for a while. Whoever waits looks for himself after each wake, which may be for nothing.
    """

    def __init__(
        self, environment: Environment, is_executing: Callable[[], bool], suspend: Callable[[Awaited], None]
    ) -> None:
        self._clock = environment.clock
        self._changes = environment.store.changes
        self._polling_interval = environment.polling_interval
        self._is_executing = is_executing
        self._suspend = suspend
        # In order: what is woken first is no matter of chance.
        self._waiting: dict[Wait, None] = {}
        self._watching: asyncio.Task[None] | None = None
        # Branches with a wait that are awake: storing, reading, about to go on.
        self._awake = 0
        self._considering = False
        self._turns = 0
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @contextmanager
    def branch(self) -> Iterator[None]:
        """Around everything that a step with a wait does; while it is awake, the run does not wait."""
        self._awake += 1
        try:
            yield
        finally:
            self._awake -= 1
            if self._waiting:
                self.consider()

    async def park(self, wait: Wait) -> None:
        """In a `branch`: wait, and perhaps not to the end of it. Or the run is suspended meanwhile."""
        loop = asyncio.get_running_loop()
        wait.future = loop.create_future()
        timer = None
        if wait.until is not None:
            # Browsers count a timer's milliseconds in 31 bits; whoever waits looks for himself.
            seconds = min(max(0, wait.until - self._clock.now()) / 1000, _LONGEST_TIMER)
            timer = self._clock.call_later(seconds, wait.wake)
        self._waiting[wait] = None
        self._awake -= 1
        self.consider()
        try:
            await wait.future
        finally:
            del self._waiting[wait]
            self._awake += 1
            if timer is not None:
                timer.cancel()

    def consider(self) -> None:
        """Nothing is executed at this moment: if it stays so, the run waits."""
        self._turns = QUIET_TURNS
        if not self._considering and not self._closed:
            self._considering = True
            asyncio.get_running_loop().call_soon(self._look)

    def wake(self) -> None:
        """Let all branches look for themselves."""
        for wait in self._waiting:
            wait.wake()

    def close(self) -> None:
        """The execution is over."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        for wait in self._waiting:
            # A branch that nobody awaits.
            if wait.future is not None:
                wait.future.cancel()

    def _look(self) -> None:
        executing = self._is_executing()
        if self._closed or self._awake or executing or not self._waiting:
            self._considering = False
            if executing:
                self._watch()
        elif self._turns:
            self._turns -= 1
            asyncio.get_running_loop().call_soon(self._look)
        else:
            self._considering = False
            awaited = self._awaited()
            if awaited.until is None or awaited.until > self._clock.now() + HOLD_MILLISECONDS:
                self._suspend(awaited)

    def _awaited(self) -> Awaited:
        return Awaited(
            min((wait.until for wait in self._waiting if wait.until is not None), default=None),
            tuple([(wait.signal, wait.until) for wait in self._waiting if wait.signal is not None]),
            tuple(sorted({wait.child for wait in self._waiting if wait.child is not None})),
            min((wait.network for wait in self._waiting if wait.network is not None), default=None),
        )

    def _watch(self) -> None:
        """While other branches execute, look out for what does not come by time."""
        if self._watching is None and any(wait.comes for wait in self._waiting):
            self._watching = asyncio.get_running_loop().create_task(self._keep_watch())

    async def _keep_watch(self) -> None:
        while any(wait.comes for wait in self._waiting):
            mark = self._changes.mark(WAITS)
            for wait in self._waiting:
                if wait.comes:
                    wait.wake()
            await self._changes.wait(WAITS, self._polling_interval, mark)
        self._watching = None
