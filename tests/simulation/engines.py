"""The engines of a simulation: begun, stopped, put to sleep and killed at any moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from durably_web.engine import Durably
from durably_web.errors import DurablyError
from durably_web.jobs import Job
from durably_web.network import Network as Line
from tests.simulation.faults import Link, Network
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.trace import Trace


class Engine:
    """A `Durably` in a process of its own."""

    def __init__(self, process: Process, link: Link, durably: Durably, line: Line) -> None:
        self.process = process
        self.line = line
        self.link = link
        self.durably = durably
        self.stopping = False
        self.beginning: Request | None = None

    @property
    def alive(self) -> bool:
        return not self.process.dead and not self.stopping


class Request:
    """What somebody asked of an engine, and is waiting for."""

    def __init__(self, engine: Engine, what: str, task: Any) -> None:
        self.engine = engine
        self.what = what
        self.task = task
        self.error: Exception | None = None

    @property
    def answered(self) -> bool:
        return self.engine.process.dead or bool(self.task.done())


class Engines:
    """All engines that there ever were, and what is asked of them."""

    def __init__(
        self, loop: SimulatedLoop, draw: random.Random, network: Network, trace: Trace, jobs: list[Job[Any, Any]]
    ) -> None:
        self.all: list[Engine] = []
        self.requests: list[Request] = []
        self._loop = loop
        self._draw = draw
        self._network = network
        self._trace = trace
        self._jobs = jobs

    @property
    def alive(self) -> list[Engine]:
        return [engine for engine in self.all if engine.alive]

    def add(self, **options: Any) -> Engine:
        """An engine that is neither migrated nor started."""
        draw, name = self._draw, f"w{len(self.all) + 1}"
        process = self._loop.process(name)
        link = Link(self._network, process, direct=draw.random() < 0.4)
        line = Line()
        beat = draw.choice((1.0, 5.0))
        settings: dict[str, Any] = {
            "jobs": self._jobs,
            "clock": process,
            "worker_id": name,
            "max_concurrent_runs": draw.randrange(1, 6),
            "polling_interval": draw.choice((1.0, 5.0, 20.0)),
            "heartbeat_interval": beat,
            "stale_threshold": beat * draw.choice((2.0, 6.0)),
            "random_bytes": draw.randbytes,
            "network": line,
            **options,
        }
        durably = Durably(link, **settings)
        durably.on("worker:error", lambda event: self._heard(process, event))
        engine = Engine(process, link, durably, line)
        self.all.append(engine)
        return engine

    def _heard(self, process: Process, event: Any) -> None:
        self._trace.count("worker errors")
        self._trace.say(process.name, f"worker:error while {event.context}: {event.error}")

    def ask(self, engine: Engine, what: str, ask: Callable[[], Coroutine[Any, Any, object]]) -> Request:
        """Let an engine's process do something whose failure is no surprise."""

        async def forgiving() -> None:
            try:
                await ask()
            except (DurablyError, TimeoutError) as error:
                request.error = error
                self._trace.count("requests refused")
                self._trace.say(engine.process.name, f"{what}: {error!r}")

        self._trace.say(engine.process.name, what)
        request = Request(engine, what, engine.process.spawn(forgiving()))
        self.requests.append(request)
        return request

    # -- life --------------------------------------------------------------------------------------------

    def begin(self) -> Engine:
        engine = self.add()
        self._trace.count("engines started")
        engine.beginning = self.ask(engine, "init", engine.durably.init)
        return engine

    def stop(self, engine: Engine) -> Request:
        engine.stopping = True
        self._trace.count("engines stopped")

        async def stop() -> None:
            # Nobody leaves a context that he has not entered.
            if engine.beginning is not None:
                await asyncio.wait([engine.beginning.task])
            await engine.durably.stop()

        return self.ask(engine, "stop", stop)

    def kill(self, engine: Engine) -> None:
        """What it has sent is lost, or arrives after its death."""
        engine.process.kill()
        engine.link.cut = self._draw.random() < 0.5
        self._trace.count("engines killed")
        self._trace.say(engine.process.name, "is killed")

    def sleep(self, engine: Engine, seconds: float) -> None:
        engine.process.asleep = True
        self._trace.count("processes stopped for a while")
        self._trace.say(engine.process.name, f"sleeps for {seconds:.2f} s")

        def wake() -> None:
            engine.process.asleep = False
            self._trace.say(engine.process.name, "wakes")

        self._network.later(seconds, wake)

    def cut_off(self, engine: Engine, seconds: float) -> None:
        """The database cannot be reached from there for a while."""
        engine.link.cut = True
        self._trace.count("links cut")
        self._trace.say(engine.process.name, f"is cut off for {seconds:.2f} s")
        self._network.later(seconds, lambda: setattr(engine.link, "cut", engine.process.dead and engine.link.cut))

    def go_offline(self, engine: Engine, seconds: float) -> None:
        """Its steps reach nobody for a while; the database is something else."""
        self._trace.count("networks gone")
        self._tell(engine, False)
        self._network.later(seconds, lambda: self.go_online(engine))

    def go_online(self, engine: Engine) -> None:
        self._tell(engine, True)

    def _tell(self, engine: Engine, online: bool) -> None:
        async def tell() -> None:
            engine.line.tell(online)

        if engine.alive:
            self.ask(engine, f"network: {online}", tell)

    def jump(self, engine: Engine, seconds: float) -> None:
        engine.process.offset += round(seconds * 1000)
        self._trace.count("clock jumps")
        self._trace.say(engine.process.name, f"its clock jumps by {seconds:.1f} s")
