"""Whether an engine is alive, and whether it should be given work: for whoever watches over its process.

Alive is an engine whose event loop answers and whose worker, if it was started, has not died: if not, only a new
process helps. Ready is one that can do its work now: the database answers, has a schema that this code knows, and has
room; and nobody has asked it to stop. A database that is away is no reason to begin a new process.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from durably_web.engine import Durably
    from durably_web.metrics import Metrics

log = logging.getLogger("durably_web.health")

# A database that has not answered after so many seconds counts as away; whoever probes does not wait for ever either.
ANSWER_SECONDS = 3.0


class Verdict(NamedTuple):
    """`reason` says what is wrong, for a log: it may name paths, and is nothing for strangers."""

    ok: bool
    reason: str = ""


GOOD = Verdict(True)


def live(durably: Durably) -> Verdict:
    """Whether the worker of this engine does what it was started for. That the event loop answers is shown by asking.

    An engine that was not started, or has stopped, or only reads since the database is newer, is alive.
    """
    loop = durably._worker._loop
    if loop is not None and loop.done() and durably.read_only is None:
        return Verdict(False, "the worker has ended by itself")
    return GOOD


async def ready(durably: Durably, *, timeout: float = ANSWER_SECONDS) -> Verdict:
    """Whether this engine can do its work now. Asks the database, and waits for it no longer than `timeout` seconds.

    From the moment at which it is asked to stop, an engine is not ready.
    """
    environment = durably._environment
    if environment.shutdown.is_near() or environment.shutdown.leaving:
        return Verdict(False, "it stops")
    if not durably._running:
        return Verdict(False, "the database is not open")
    if durably.read_only is not None:
        return Verdict(False, durably.read_only)
    if environment.store.room.is_full:
        return Verdict(False, "there is no room left for the database")
    if not (verdict := live(durably)).ok:
        return verdict
    try:
        async with asyncio.timeout(timeout):
            await durably.check_health()
    except TimeoutError:
        return Verdict(False, f"the database has not answered within {timeout:g} s")
    except Exception as error:
        return Verdict(False, f"{type(error).__name__}: {error}")
    return GOOD


def leave(durably: Durably) -> None:
    """From now on this engine is not ready, though it goes on: the process is about to stop, and whoever sends it
    requests shall have the time to notice."""
    durably._environment.shutdown.leaving = True


class Probes(Protocol):
    """What is asked over HTTP."""

    async def live(self) -> Verdict: ...

    async def ready(self) -> Verdict: ...

    async def metrics(self) -> bytes | None:
        """Text for Prometheus; `None` where nobody counts."""
        ...


class Changes:
    """Writes to the log when a verdict changes, and not for each probe."""

    def __init__(self) -> None:
        self._last: dict[str, Verdict] = {}

    def note(self, what: str, verdict: Verdict) -> Verdict:
        before = self._last.get(what, GOOD)
        self._last[what] = verdict
        if before.ok and not verdict.ok:
            log.warning("not %s: %s", what, verdict.reason)
        elif verdict.ok and not before.ok:
            log.info("%s again", what)
        return verdict


class EngineProbes:
    """One engine of this process."""

    def __init__(self, durably: Durably, metrics: Metrics | None = None) -> None:
        self._durably = durably
        self._metrics = metrics
        self._changes = Changes()

    async def live(self) -> Verdict:
        return self._changes.note("alive", live(self._durably))

    async def ready(self) -> Verdict:
        return self._changes.note("ready", await ready(self._durably))

    async def metrics(self) -> bytes | None:
        return None if self._metrics is None else await self._metrics.text()
