"""Waiting for something to change, without asking the database again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from durably_web.clock import Clock, Timer

# How often another process's writes are looked for while somebody waits: one call that reads no page.
WATCH_INTERVAL = 0.01

RUNNABLE = "runnable"
"""Topic: a run may have become due, or a worker may have room for one."""

JOURNAL = "journal"
"""Topic: entries were written."""


def end_of(run_id: str) -> str:
    """Topic: a run may have become terminal."""
    return f"end of {run_id}"


class Changes:
    """Wakes those who wait for a topic: at once for what this process wrote, and within `WATCH_INTERVAL` for
    what another connection wrote, where the executor's `version` can tell."""

    def __init__(self, clock: Clock, version: Callable[[], int | None]) -> None:
        self._clock = clock
        self._version = version
        self._seen: int | None = None
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}
        self._watch: Timer | None = None
        self._notices = {RUNNABLE: 0, JOURNAL: 0}
        self._other_notices = 0

    def mark(self, topic: str) -> int:
        """Taken before looking at the database, and given to `wait`: a notice in between is then not missed."""
        return self._notices.get(topic, self._other_notices)

    def notify(self, topic: str) -> None:
        """Wake everyone who waits for `topic`."""
        if topic in self._notices:
            self._notices[topic] += 1
        else:
            # One count for all of them: a wait may end for no reason, and runs are many.
            self._other_notices += 1
        for future in self._waiting.pop(topic, ()):
            if not future.done():
                future.set_result(None)

    def notify_all(self) -> None:
        # Also for those who have taken a mark, and do not wait yet.
        self._other_notices += 1
        for topic in (*self._notices, *self._waiting):
            self.notify(topic)

    async def wait(self, topic: str, seconds: float, mark: int | None = None) -> None:
        """Wait for a notice of `topic` after `mark`, for `seconds` at most. May also wake for no reason."""
        if mark is not None and self.mark(topic) != mark:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(topic, {})[future] = None
        timer = self._clock.call_later(seconds, lambda: None if future.done() else future.set_result(None))
        if self._watch is None:
            self._look()
        try:
            await future
        finally:
            timer.cancel()
            waiting = self._waiting.get(topic)
            if waiting is not None:
                waiting.pop(future, None)
                if not waiting:
                    del self._waiting[topic]

    def _look(self) -> None:
        self._watch = None
        if not self._waiting:
            return
        version = self._version()
        if version is None:
            return
        # Compared with what was seen before the wait began: what came in between is noticed too.
        changed, self._seen = version != self._seen, version
        if changed:
            self.notify_all()
        self._watch = self._clock.call_later(WATCH_INTERVAL, self._look)
