"""What an engine does, counted as it happens: what metrics are made of."""

from __future__ import annotations

import bisect
from collections import Counter, OrderedDict
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING

from durably_web.errors import StoreError
from durably_web.events import Event, EventType
from durably_web.store import operations

if TYPE_CHECKING:
    from durably_web.engine import Durably

# Seconds. From a step that only reckons to a run that waited for a day.
BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 86400.0)

# Names of jobs are labels, and a label of too many values harms whoever stores it. Those beyond are one.
MOST_JOBS = 200
OTHERS = "(others)"

# Of so many steps that execute it is known that they have begun, and so many runs may wait to be asked about.
_REMEMBERED = 10_000
_MOST_ASKED = 1_000

ENDS: dict[EventType, str] = {"run:complete": "completed", "run:fail": "failed", "run:cancel": "cancelled"}
OUTCOMES: dict[EventType, str] = {
    "step:complete": "completed",
    "step:fail": "failed",
    "step:retry": "retried",
    "step:cancel": "cancelled",
}


class Durations:
    """How many lasted how long, in seconds."""

    __slots__ = ("_buckets", "sum")

    def __init__(self) -> None:
        self._buckets = [0] * (len(BOUNDARIES) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        seconds = max(0.0, seconds)
        self._buckets[bisect.bisect_left(BOUNDARIES, seconds)] += 1
        self.sum += seconds

    @property
    def cumulated(self) -> list[int]:
        """How many lasted no longer than each boundary, and how many there are."""
        return list(accumulate(self._buckets))


class Counts:
    """Counts what an engine tells, from now on until `close`.

    Of a function of a step each call counts; sleeps, waits and children are no calls. What another process does is
    counted there.
    """

    def __init__(self, durably: Durably) -> None:
        self._durably = durably
        self._store = durably._environment.store
        self.triggered: Counter[str] = Counter()
        self.coalesced: Counter[str] = Counter()
        self.executions: Counter[str] = Counter()
        self.ended: Counter[tuple[str, str]] = Counter()
        self.run_durations: dict[tuple[str, str], Durations] = {}
        self.run_retries: Counter[str] = Counter()
        self.steps: Counter[tuple[str, str]] = Counter()
        self.step_durations: dict[str, Durations] = {}
        self.claim_latency: dict[str, Durations] = {}
        self.errors = 0
        self._jobs: set[str] = set()
        self._executing: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._begun: dict[str, float] = {}
        self._asking = False
        listeners: dict[EventType, Callable[[Event], object]] = {
            "run:trigger": self._count(self.triggered),
            "run:coalesced": self._count(self.coalesced),
            "run:retry": self._retried,
            "run:leased": self._leased,
            "step:start": self._step_begins,
            "worker:error": self._failed,
            **dict.fromkeys(ENDS, self._ended),
            **dict.fromkeys(OUTCOMES, self._step_ends),
        }
        self._leaving = [durably.on(type_, listener) for type_, listener in listeners.items()]  # type: ignore[arg-type]

    def close(self) -> None:
        while self._leaving:
            self._leaving.pop()()

    def label(self, job: str | None) -> str:
        """The name of a job, or of all others where there are too many."""
        if job is None:
            return OTHERS
        if job not in self._jobs:
            if len(self._jobs) >= MOST_JOBS:
                return OTHERS
            self._jobs.add(job)
        return job

    # -- listeners ---------------------------------------------------------------------------------------

    def _count(self, counter: Counter[str]) -> Callable[[Event], None]:
        def hear(event: Event) -> None:
            counter[self.label(event.job_name)] += 1

        return hear

    def _retried(self, event: Event) -> None:
        # Without an error somebody has asked for it: a new try by hand is no try of a policy.
        if event.error is not None:
            self.run_retries[self.label(event.job_name)] += 1

    def _ended(self, event: Event) -> None:
        key = self.label(event.job_name), ENDS[event.type]
        self.ended[key] += 1
        if event.duration is not None:
            self.run_durations.setdefault(key, Durations()).add(event.duration)

    def _step_begins(self, event: Event) -> None:
        self._executing[event.run_id or "", event.step_name or ""] = None
        if len(self._executing) > _REMEMBERED:
            self._executing.popitem(last=False)

    def _step_ends(self, event: Event) -> None:
        begun = event.run_id or "", event.step_name or ""
        if begun not in self._executing:
            # It waited, and called nothing.
            return
        del self._executing[begun]
        job = self.label(event.job_name)
        self.steps[job, OUTCOMES[event.type]] += 1
        if event.duration is not None:
            self.step_durations.setdefault(job, Durations()).add(event.duration)

    def _failed(self, event: Event) -> None:
        self.errors += 1

    def _leased(self, event: Event) -> object:
        self.executions[self.label(event.job_name)] += 1
        if event.attempt != 1 or event.run_id is None or len(self._begun) >= _MOST_ASKED:
            return None
        # Since when it was due, the store knows: it is asked once for all that began meanwhile.
        self._begun[event.run_id] = event.timestamp.timestamp()
        return None if self._asking else self._ask_since_when()

    async def _ask_since_when(self) -> None:
        self._asking = True
        try:
            while self._begun:
                begun, self._begun = self._begun, {}
                try:
                    found = await self._store.read(operations.due_since(begun))
                except StoreError:
                    # Figures less; whoever executes the run will meet the same.
                    continue
                for run_id, (job, due) in found.items():
                    latency = begun[run_id] - due / 1000
                    self.claim_latency.setdefault(self.label(job), Durations()).add(latency)
        finally:
            self._asking = False
