"""Writes that wait for room: a full disk delays what runs have done, and fails nothing of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from durably_web.clock import Clock, Timer
from durably_web.errors import StorageFull

# How often it is tried whether there is room again. What makes room in this process tries at once.
PROBE_SECONDS = 5.0

Attempt = Callable[[], Awaitable[None]]
"""Sends a write, and gives whoever waits for it the answer. Raises `StorageFull`, and nothing else."""


class Room:
    """The writes that met a full disk, in their order, until there is room or somebody gives up.

    `on_change` is called with the error when the first has to wait, and with `None` when none waits any more.
    """

    def __init__(self, clock: Clock) -> None:
        self.on_change: Callable[[StorageFull | None], None] = lambda error: None
        self.is_full = False
        """Whether something waits: then nothing new may be begun, and what is to be stored gets in line."""
        self.patient = True
        """Whether anything may wait at all: not while the engine stops."""
        self._clock = clock
        self._line: deque[tuple[Attempt, Callable[[StorageFull], None]]] = deque()
        self._timer: Timer | None = None
        self._trying: asyncio.Task[None] | None = None
        self._error = StorageFull()

    def lack(self, error: StorageFull, attempt: Attempt, fail: Callable[[StorageFull], None]) -> None:
        """There was no room for this write: it waits behind the others. `fail` is called when it is given up."""
        self._line.append((attempt, fail))
        if not self.is_full:
            self.is_full = True
            self._error = error
            self.on_change(error)
        self._try_later()

    def queue(self, attempt: Attempt, fail: Callable[[StorageFull], None]) -> None:
        """Let a write wait behind those that met a full disk."""
        self.lack(self._error, attempt, fail)

    def try_now(self) -> None:
        """Something may have made room."""
        if self._line and self._trying is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._trying = asyncio.get_running_loop().create_task(self._try())

    async def give_up(self) -> None:
        """Try once more, and let nothing wait any longer: those who do are told `StorageFull`."""
        self.patient = False
        self.try_now()
        while self._trying is not None:
            await asyncio.wait([self._trying])
        while self._line:
            self._line.popleft()[1](self._error)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Of a disk that is still full nobody hears that it is not.
        self.is_full = False

    def _try_later(self) -> None:
        if self._timer is None and self._trying is None:
            self._timer = self._clock.call_later(PROBE_SECONDS, self._probe)

    def _probe(self) -> None:
        self._timer = None
        self.try_now()

    async def _try(self) -> None:
        try:
            while self._line:
                # Stays in line meanwhile: who comes now is behind it.
                await self._line[0][0]()
                self._line.popleft()
        except StorageFull as error:
            self._error = error
        finally:
            self._trying = None
        if self._line:
            if self.patient:
                self._try_later()
        elif self.is_full:
            self.is_full = False
            self.on_change(None)
