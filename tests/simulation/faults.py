"""The way between an engine and the database: slow, lossy, and sometimes worse.

Each engine has a `Link` of its own. A batch travels through the world outside of its process: when that is killed or
asleep, what it sent arrives all the same, and may arrive twice, or long after.
"""

from __future__ import annotations

import contextvars
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import walk_packages

import durably_web.store
from durably_web.backends.sqlite import SqliteExecutor
from durably_web.errors import StorageFull, StoreBusy, StoreError, StoreUnavailable
from durably_web.store.batch import Batch, Rows, Statement, Value
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.trace import Trace

_ERRORS: tuple[type[StoreError], ...] = (StoreUnavailable, StoreBusy, StorageFull, StoreError)

_CHANGES = Batch("read", (Statement("SELECT total_changes()"),))


@dataclass
class Weather:
    """How bad it is: shares of all batches, and seconds."""

    before: float = 0.0
    after: float = 0.0
    twice: float = 0.0
    late_copy: float = 0.0
    slow: float = 0.0
    latency: float = 0.0
    # Of the dead workers that are asked for, how many are known to be dead.
    honest: float = 1.0
    # Whether others' writes are seen at once, as with a file of SQLite.
    watched: bool = False

    def calm(self) -> None:
        self.before = self.after = self.twice = self.late_copy = self.slow = 0.0
        self.latency = min(self.latency, 0.001)


def weather(draw: random.Random) -> Weather:
    """Each seed has a climate; in some of them hardly anything happens, so that what happens goes far."""
    rate = draw.choice((0.0, 0.002, 0.01, 0.04))
    return Weather(
        before=rate * draw.random(),
        after=rate * draw.random(),
        twice=draw.choice((0.0, 0.02, 0.3, 1.0)),
        late_copy=draw.choice((0.0, 0.0, 0.02)),
        slow=draw.choice((0.0, 0.002, 0.01)),
        latency=draw.choice((0.0, 0.0, 0.002, 0.05)),
        honest=draw.choice((0.0, 0.5, 1.0)),
        watched=draw.random() < 0.3,
    )


class Network:
    """The database, and the only one who speaks with it. `on_commit` is called behind every write."""

    def __init__(self, loop: SimulatedLoop, draw: random.Random, climate: Weather, trace: Trace) -> None:
        self.loop = loop
        self.draw = draw
        self.weather = climate
        self.trace = trace
        self.commits = 0
        self._changes: Value = 0
        # When the last of the batches that are on their way comes in.
        self.last_arrival = 0.0
        self.workers: dict[str, Process] = {}
        # A copy that comes after its run was deleted would make it again: nobody promises otherwise.
        self.is_deleted: Callable[[object], bool] = lambda param: False
        self.on_commit: Callable[[Process], None] = lambda process: None
        self.database = SqliteExecutor(":memory:")
        self._context = contextvars.copy_context()

    def ask(self, batch: Batch) -> list[Rows]:
        """Execute at once. A database in memory never waits."""
        coroutine = self.database.run(batch)
        try:
            coroutine.send(None)
        except StopIteration as stop:
            results: list[Rows] = stop.value
            return results
        raise AssertionError("the database waited")

    def execute(self, process: Process, batch: Batch, note: str = "") -> list[Rows]:
        try:
            results = self.ask(batch)
        except StoreError as error:
            self.trace.say(process.name, f"{note}{describe(batch)} → {error!r}")
            raise
        self.trace.count("batches")
        if self.trace.wanted:
            self.trace.say(process.name, f"{note}{describe(batch)} → {[len(rows) for rows in results]}")
        if batch.mode == "write" and self._has_changed():
            self.commits += 1
            process.commits += 1
            self.on_commit(process)
        return results

    def _has_changed(self) -> bool:
        """Most claims find nothing, and write nothing."""
        [[(changes,)]] = self.ask(_CHANGES)
        before, self._changes = self._changes, changes
        return before != changes

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """In the world outside of all processes."""
        self.loop.call_later(seconds, callback, context=self._context)

    def send(self, seconds: float, arrive: Callable[[], None]) -> None:
        self.last_arrival = max(self.last_arrival, self.loop.time() + seconds)
        self.later(seconds, arrive)

    def delay(self) -> float:
        draw, now = self.draw, self.weather
        if draw.random() < now.slow:
            self.trace.count("slow batches")
            return draw.choice((0.5, 5.0, 45.0)) * draw.random()
        return draw.expovariate(1 / now.latency) if now.latency else 0.0


class Link:
    """One engine's executor. `direct` is a database in the engine's own process: it answers before it is awaited."""

    def __init__(self, network: Network, process: Process, direct: bool) -> None:
        self.network = network
        self.process = process
        self.direct = direct
        self.cut = False
        self._open = False

    async def open(self) -> None:
        self._open = True

    async def close(self) -> None:
        self._open = False

    async def run(self, batch: Batch) -> list[Rows]:
        if not self._open or self.cut:
            raise StoreUnavailable("the database cannot be reached", code="CUT")
        fate = self._fate()
        if self.direct:
            return self._arrive(batch, fate)
        future = self.network.loop.create_future()

        def answer(results: list[Rows] | StoreError) -> None:
            if future.done():
                return
            if isinstance(results, StoreError):
                future.set_exception(results)
            else:
                future.set_result(results)

        def arrive() -> None:
            results: list[Rows] | StoreError
            try:
                results = self._arrive(batch, fate)
            except StoreError as error:
                results = error
            self.network.later(self.network.delay(), lambda: self.process.call_soon(answer, results))

        self.network.send(self.network.delay(), arrive)
        result: list[Rows] = await future
        return result

    def _fate(self) -> str:
        roll, now = self.network.draw.random(), self.network.weather
        for fate, share in (
            ("before", now.before),
            ("after", now.after),
            ("late", now.late_copy),
            ("twice", now.twice),
        ):
            if roll < share:
                return fate
            roll -= share
        return "good"

    def _arrive(self, batch: Batch, fate: str) -> list[Rows]:
        network, process = self.network, self.process
        if self.cut:
            network.trace.say(process.name, f"lost: {describe(batch)}")
            raise StoreUnavailable("lost on the way", code="CUT")
        if fate == "before":
            network.trace.count("batches refused")
            network.trace.say(process.name, f"refused: {describe(batch)}")
            raise network.draw.choice(_ERRORS)("refused", code="REFUSED")
        results = network.execute(process, batch)
        if fate == "twice":
            network.trace.count("batches repeated")
            results = network.execute(process, batch, "again: ")
        elif fate == "late" and batch.mode == "write":
            network.trace.count("late copies")
            network.send(network.draw.random() * 3.0, lambda: self._copy(batch))
        elif fate == "after":
            network.trace.count("replies lost")
            network.trace.say(process.name, "its reply is lost")
            raise StoreUnavailable("the reply was lost", code="LOST")
        return results

    def _copy(self, batch: Batch) -> None:
        if any(self.network.is_deleted(param) for _, params in batch.statements for param in params):
            return
        try:
            self.network.execute(self.process, batch, "late copy: ")
        except StoreError:
            pass

    def version(self) -> int | None:
        if not self._open or not self.network.weather.watched:
            return None
        return self.network.commits - self.process.commits

    def announce(self, worker_id: str) -> None:
        self.network.workers[worker_id] = self.process

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        network = self.network
        dead = [worker_id for worker_id in sorted(worker_ids) if network.workers[worker_id].dead]
        return [worker_id for worker_id in dead if network.draw.random() < network.weather.honest]


@cache
def _names() -> dict[str, str]:
    names: dict[str, str] = {}
    for info in walk_packages(durably_web.store.__path__, "durably_web.store."):
        for name, value in vars(import_module(info.name)).items():
            if name.isupper() and isinstance(value, str):
                names.setdefault(value, name.strip("_").lower())
    return names


@cache
def _name(sql: str) -> str:
    return _names().get(sql) or " ".join(sql.split()[:4])


def describe(batch: Batch) -> str:
    """A batch in a few words: its statements' names, and the texts among their parameters that are short."""
    parts = []
    for sql, params in batch.statements:
        told = [str(value)[-12:] for value in params if value is not None and len(str(value)) < 40]
        parts.append(f"{_name(sql)}({', '.join(told[:6])})")
    return "; ".join(parts)
