"""Those who read along: what they see has no gap, no doublet, and is what was written."""

from __future__ import annotations

import asyncio
import bisect
from typing import Any

from durably_web.errors import DurablyError
from tests.simulation.engines import Engine, Engines
from tests.simulation.model import Entry, Model
from tests.simulation.trace import Trace


class Tail:
    """Somebody who reads all events, and goes on where he was when his engine dies."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.engine: Engine | None = None
        # Counts the readings; an earlier one must not go on.
        self.reading = 0

    @property
    def position(self) -> int:
        return self.seen[-1] if self.seen else 0


class Readers:
    def __init__(self, engines: Engines, model: Model, trace: Trace) -> None:
        self.tails = [Tail(), Tail()]
        self._engines = engines
        self._model = model
        self._trace = trace

    def attend(self) -> None:
        """Let every tail read, on a live engine."""
        for number, tail in enumerate(self.tails):
            alive = self._engines.alive
            if alive and (tail.engine is None or not tail.engine.alive):
                tail.engine = alive[number % len(alive)]
                tail.reading += 1
                tail.engine.process.spawn(self._read(tail, tail.engine, tail.reading))

    async def _read(self, tail: Tail, engine: Engine, reading: int) -> None:
        while tail.reading == reading and not engine.stopping:
            try:
                async for event in engine.durably.subscribe(after=tail.position or None):
                    if tail.reading != reading:
                        return
                    self._check(event)
                    seq = event.seq or 0
                    self._trace.check(seq > tail.position, f"read {event} after {tail.position}")
                    tail.seen.append(seq)
            except DurablyError:
                self._trace.count("readings begun again")
                await asyncio.sleep(0.2)

    def _check(self, event: Any) -> Entry | None:
        self._trace.count("events read")
        entries = self._model.entries
        place = bisect.bisect_left(entries, event.seq, key=lambda entry: entry.seq)
        entry = entries[place] if place < len(entries) else None
        self._trace.check(
            entry is not None
            and (entry.seq, entry.run_id, entry.number, entry.type, entry.step_name)
            == (event.seq, event.run_id, event.number, event.type, event.step_name),
            f"read {event}, and {entry} was written",
        )
        return entry

    def follow(self, engine: Engine, run_id: str) -> None:
        """Read the events of one run until its end."""

        async def following() -> None:
            numbers: list[int] = []
            async for event in engine.durably.subscribe(run_id):
                self._check(event)
                numbers.append(event.number or 0)
            self._trace.count("runs followed to their end")
            run = self._model.runs[run_id]
            dense = numbers == list(range(1, len(numbers) + 1))
            self._trace.check(dense or run.deleted, f"followed {run_id} through {numbers}")
            ended = run.seen["run:complete"] + run.seen["run:fail"] + run.seen["run:cancel"]
            self._trace.check(ended or run.deleted, f"{run_id} was followed to its end, and has none")

        self._engines.ask(engine, f"follow {run_id[-6:]}", following)

    def caught_up(self) -> bool:
        last = self._model.entries[-1].seq if self._model.entries else 0
        return all(tail.position == last for tail in self.tails)

    def check(self) -> None:
        """Nothing was left out, but what was deleted before it was read."""
        for tail in self.tails:
            seen = set(tail.seen)
            missed = [
                entry
                for entry in self._model.entries
                if entry.seq not in seen and (entry.type == "run:delete" or not self._model.runs[entry.run_id].deleted)
            ]
            self._trace.check(not missed, f"a reader has not seen {missed[:3]}")
