"""Health and metrics of several worker processes, asked for by the one that keeps them alive.

Each worker has an end of a pair of sockets that nobody else can reach. A question is a line of JSON, and so is its
answer, with the same number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from durably_web.health import ANSWER_SECONDS, GOOD, Changes, Probes, Verdict

if TYPE_CHECKING:
    from prometheus_client import Metric

VARIABLE = "DURABLY_WEB_PROBES"

# A worker waits for its database no longer than ANSWER_SECONDS; one that says nothing for longer hangs.
PATIENCE = ANSWER_SECONDS + 2
_LONGEST = 2**24

# Of the database they tell the same in each worker, and are told once.
_OF_THE_DATABASE = ("durably_queue_", "durably_database_")


class Worker:
    """The supervisor's end of the way to one worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self._asked = 0
        self.has_answered = False
        """Before it has, it is still starting."""
        self._greeting = asyncio.create_task(self.ask("live", None), name="waits for a worker's first answer")

    async def ask(self, question: str, patience: float | None = PATIENCE) -> dict[str, Any] | None:
        """Its answer; `None` when none comes in time."""
        try:
            async with asyncio.timeout(patience), self._turn:
                self._asked += 1
                number = self._asked
                self._writer.write(json.dumps({"number": number, "ask": question}).encode() + b"\n")
                while line := await self._reader.readline():
                    answer: dict[str, Any] = json.loads(line)
                    # Those before it came too late for whoever had asked.
                    if answer["number"] == number:
                        self.has_answered = True
                        return answer
        except (TimeoutError, OSError, ValueError):
            pass
        return None

    def close(self) -> None:
        self._greeting.cancel()
        self._writer.close()


class Gathered:
    """Answers for all workers together."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: dict[int, Worker] = {}
        self._changes = Changes()
        self.restarts = 0
        self.stopping = False

    def ends(self) -> tuple[socket.socket, socket.socket]:
        """One for us, and one for a worker."""
        return socket.socketpair()

    async def join(self, number: int, ours: socket.socket) -> None:
        self._workers[number] = Worker(*await asyncio.open_connection(sock=ours, limit=_LONGEST))

    def leave(self, number: int) -> None:
        if (worker := self._workers.pop(number, None)) is not None:
            worker.close()

    async def live(self) -> Verdict:
        """Each worker answers, but for those that are still starting. The dead are replaced without anybody's help."""
        return self._changes.note("alive", await self._all(self._started(), "live"))

    async def ready(self) -> Verdict:
        """All workers are there, and ready."""
        return self._changes.note("ready", await self._ready())

    async def _ready(self) -> Verdict:
        if self.stopping:
            return Verdict(False, "it stops")
        there = self._started()
        if len(there) < self._count:
            return Verdict(False, f"{self._count - len(there)} of {self._count} workers have not started")
        return await self._all(there, "ready")

    def _started(self) -> list[tuple[int, Worker]]:
        return [(number, worker) for number, worker in sorted(self._workers.items()) if worker.has_answered]

    async def _all(self, workers: list[tuple[int, Worker]], question: str) -> Verdict:
        answers = await asyncio.gather(*(worker.ask(question) for _, worker in workers))
        for (number, _), answer in zip(workers, answers, strict=True):
            if answer is None:
                return Verdict(False, f"worker {number} does not answer")
            if not answer["ok"]:
                return Verdict(False, f"worker {number}: {answer['reason']}")
        return GOOD

    async def metrics(self) -> bytes | None:
        workers = self._started()
        answers = await asyncio.gather(*(worker.ask("metrics") for _, worker in workers))
        texts = {
            number: answer["text"]
            for (number, _), answer in zip(workers, answers, strict=True)
            if answer is not None and answer["text"] is not None
        }
        try:
            return merged(texts, len(self._workers), self.restarts)
        except ImportError:
            return None


def merged(texts: dict[int, str], processes: int, restarts: int) -> bytes:
    """The metrics of several workers as one text: each sample has the label `worker`, but for those of the database."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.parser import text_string_to_metric_families

    families: dict[str, Metric] = {}
    known: set[str] = set()
    for number, text in texts.items():
        for family in text_string_to_metric_families(text):
            into = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            if not family.name.startswith(_OF_THE_DATABASE):
                for sample in family.samples:
                    into.samples.append(sample._replace(labels={**sample.labels, "worker": str(number)}))
            elif family.name not in known:
                known.add(family.name)
                into.samples.extend(family.samples)
    own = [
        GaugeMetricFamily("durably_worker_processes", "Worker processes that are there.", processes),
        CounterMetricFamily("durably_worker_restarts", "Worker processes that died and were replaced.", restarts),
    ]

    class All:
        def collect(self) -> list[Metric]:
            return [*families.values(), *own]

        def describe(self) -> list[Metric]:
            return []

    registry = CollectorRegistry()
    registry.register(All())
    return generate_latest(registry)


@contextlib.asynccontextmanager
async def answering_the_supervisor(probes: Probes) -> AsyncIterator[None]:
    """In a process that a supervisor began: answer its questions while the context lasts."""
    descriptor = os.environ.pop(VARIABLE, None)
    if descriptor is None:
        yield
        return
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=int(descriptor)))
    answering = asyncio.create_task(_answer(reader, writer, probes), name="answers for the supervisor")
    try:
        yield
    finally:
        answering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
        writer.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, probes: Probes) -> None:
    with contextlib.suppress(OSError):
        while line := await reader.readline():
            asked = json.loads(line)
            answer: dict[str, Any] = {"number": asked["number"]}
            if asked["ask"] == "metrics":
                text = await probes.metrics()
                answer["text"] = None if text is None else text.decode()
            else:
                answer |= (await (probes.live() if asked["ask"] == "live" else probes.ready()))._asdict()
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
