"""Events as they happen, for many who listen, in one pass over the journal.

A hub follows the journal while somebody listens, and hands each event to the streams. A stream first reads what is
stored behind the event that its client knows, and then takes what the hub hands it. It keeps little: when its client is
slower than the events, it forgets what waits and reads the journal again, so that nobody waits for it and nothing is
missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, cast

from durably_web.events import Event
from durably_web.server.answers import log

if TYPE_CHECKING:
    from durably_web.engine import Durably

# So many events wait for a slow client before it reads the journal instead.
MOST_WAITING = 256
EVENTS_AT_ONCE = 500
# While much happens, it is read in one go so often: a read at each commit would cost the worker beside it.
GATHER_SECONDS = 0.01

RETRY_MS = 1_000
# A run that has ended tells nothing more: a browser that asks again and again would only cost.
RETRY_ENDED_MS = 3_600_000

_ENDS = ("run:complete", "run:fail", "run:cancel", "run:delete")
# It is about the server, and carries texts of its errors.
_PRIVATE = ("worker:error", "worker:shutdown")


class Told:
    """An event, and its message, which is made once for all streams."""

    __slots__ = ("_message", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self._message: bytes | None = None

    @property
    def message(self) -> bytes:
        if self._message is None:
            position = "" if self.event.seq is None else f"id: {self.event.seq}\n"
            text = json.dumps(self.event.to_wire(), allow_nan=False, separators=(",", ":"))
            self._message = f"{position}data: {text}\n\n".encode()
        return self._message


class Listener:
    """What waits for one stream."""

    def __init__(self, fits: Callable[[Event], bool]) -> None:
        self.fits = fits
        self.is_late = False
        """Something was left out, and is in the journal."""
        self.is_over = False
        self._waiting: list[Told] = []
        self._news = asyncio.Event()

    def offer(self, told: Told) -> None:
        if self.is_late or not self.fits(told.event):
            return
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.clear()
            self.is_late = True
        else:
            self._waiting.append(told)
        self._news.set()

    def end(self) -> None:
        self.is_over = True
        self._news.set()

    def begin_again(self) -> None:
        """From here on, everything is offered again: before the journal is read."""
        self.is_late = False

    async def next(self, seconds: float | None) -> list[Told]:
        """All that has come; nothing when nothing did for so long, or the listener is late or over."""
        if not self._waiting and not self.is_late and not self.is_over:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except TimeoutError:
                return []
        come = [] if self.is_over else self._waiting
        self._waiting = []
        return come


class Hub:
    """Hands the events of an engine to listeners, and follows the journal only while there are any."""

    def __init__(self, durably: Durably) -> None:
        self._durably = durably
        self._listeners: set[Listener] = set()
        self._tail: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    @property
    def streams(self) -> int:
        return len(self._listeners)

    async def join(self, listener: Listener) -> None:
        """Whatever is stored from now on is offered to the listener. Raises `StoreError`."""
        self._listeners.add(listener)
        try:
            async with self._starting:
                if self._tail is None or self._tail.done():
                    position = await self._durably.last_seq()
                    self._tail = asyncio.create_task(self._follow(position))
        except BaseException:
            self.leave(listener)
            raise

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._tail is not None:
            self._tail.cancel()
            self._tail = None

    def set(self) -> None:
        """The server stops: all streams end."""
        self._end()

    async def _follow(self, position: int) -> None:
        unsubscribe = self._durably.on("*", self._hear)
        try:
            while True:
                page = (await self._durably.get_events(after=position, limit=EVENTS_AT_ONCE)).events
                for event in page:
                    self._offer(Told(event))
                    position = event.seq or position
                if not page:
                    position = await self._wait(position)
                elif len(page) < EVENTS_AT_ONCE:
                    await asyncio.sleep(GATHER_SECONDS)
        except asyncio.CancelledError:
            # The last listener has left; or the event loop ends, and with it all streams.
            raise
        except Exception as error:
            log.error("the journal cannot be followed, so streams of events end", exc_info=error)
        finally:
            unsubscribe()
        self._end()

    async def _wait(self, position: int) -> int:
        """Wait for the next event, and offer it; gives its seq."""
        following = cast("AsyncGenerator[Event, None]", self._durably.subscribe(after=position))
        async with contextlib.aclosing(following) as events:
            event = await anext(events)
        self._offer(Told(event))
        return event.seq or position

    def _hear(self, event: Event) -> None:
        """What happens in this process and is not stored, such as `step:start`."""
        if event.type == "worker:shutdown":
            self._end()
        elif event.seq is None and event.type not in _PRIVATE:
            self._offer(Told(event))

    def _offer(self, told: Told) -> None:
        for listener in self._listeners:
            listener.offer(told)

    def _end(self) -> None:
        for listener in self._listeners:
            listener.end()


class Throttle:
    """Lets progress of a run through once in so many seconds: the first at once, and always the last.

    What is let through stays in order, so a client that goes on behind what it has got misses nothing but progress that
    was overtaken. Moments are seconds of any clock.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sent: dict[str | None, float] = {}
        self._held: dict[str | None, Told] = {}

    def take(self, told: Told, now: float) -> list[Told]:
        """What is to be sent now that this has come."""
        event = told.event
        if event.seq is None or self._seconds <= 0:
            return [told]
        run_id = event.run_id
        if event.type != "run:progress":
            ready = [*self.flush(now), told]
            if event.type in _ENDS:
                self._sent.pop(run_id, None)
            return ready
        self._held.pop(run_id, None)
        if now < self._sent.get(run_id, -math.inf) + self._seconds:
            # Behind the others, which are older.
            self._held[run_id] = told
            return []
        ready = [*self.flush(now), told]
        self._sent[run_id] = now
        return ready

    def flush(self, now: float) -> list[Told]:
        """All that is held back."""
        held = list(self._held.values())
        self._held.clear()
        self._sent.update((one.event.run_id, now) for one in held)
        return held

    def due(self, now: float) -> float | None:
        """Seconds until something that is held back is to be sent; `None` when nothing is."""
        if not self._held:
            return None
        return max(0.0, min(self._sent[run_id] for run_id in self._held) + self._seconds - now)


Sees = Callable[[Event], Awaitable[bool]]


async def messages(
    durably: Durably,
    hub: Hub,
    fits: Callable[[Event], bool],
    sees: Sees,
    *,
    run_id: str | None,
    after: int | None,
    throttle: float,
) -> AsyncGenerator[bytes, None]:
    """The messages of one stream: the stored events behind `after`, or `None` for now, then those to come.

    Of one run, they end when it does. They also end when the engine stops, or cannot be read: a client connects again.
    """
    listener = Listener(fits)
    try:
        async for message in _messages(durably, hub, listener, sees, run_id, after, Throttle(throttle)):
            yield message
    except Exception as error:
        log.error("a stream of events ends", exc_info=error)
    finally:
        hub.leave(listener)


async def _messages(
    durably: Durably,
    hub: Hub,
    listener: Listener,
    sees: Sees,
    run_id: str | None,
    after: int | None,
    pace: Throttle,
) -> AsyncGenerator[bytes, None]:
    now = asyncio.get_running_loop().time
    await hub.join(listener)
    newest = await durably.last_seq()
    # What is beyond the newest event was in another database.
    position = newest if after is None else min(after, newest)
    yield f'retry: {RETRY_MS}\nevent: connected\nid: {position}\ndata: {{"seq":{newest}}}\n\n'.encode()
    while not listener.is_over:
        listener.begin_again()
        is_read = False
        while not is_read:
            page = await durably.get_events(run_id, after=position, limit=EVENTS_AT_ONCE)
            ready: list[Told] = []
            for event in page.events:
                position = event.seq or position
                if listener.fits(event) and await sees(event):
                    ready += pace.take(Told(event), now())
            if page.ended:
                yield _joined(ready + pace.flush(now())) + f"retry: {RETRY_ENDED_MS}\n\n".encode()
                return
            if ready:
                yield _joined(ready)
            is_read = len(page.events) < EVENTS_AT_ONCE
        while not listener.is_late and not listener.is_over:
            ready, has_ended = [], False
            for told in await listener.next(pace.due(now())):
                event = told.event
                if event.seq is not None and event.seq <= position:
                    continue
                position = event.seq or position
                if await sees(event):
                    ready += pace.take(told, now())
                has_ended = has_ended or (run_id is not None and event.type in _ENDS)
            if pace.due(now()) == 0:
                ready += pace.flush(now())
            if ready:
                yield _joined(ready)
            if has_ended:
                # Whether that was all, the journal knows.
                break


def _joined(ready: list[Told]) -> bytes:
    """As one piece, since each has its price on the way."""
    return b"".join([told.message for told in ready])
