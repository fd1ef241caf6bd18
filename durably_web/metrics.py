"""What an engine does, as Prometheus reads it: the extra `durably-web[prometheus]`.

    from durably_web.metrics import Metrics

    metrics = Metrics(durably)               # counts from now on
    text = await metrics.text()              # what GET /metrics answers

Counters and histograms are of this process, and begin at 0 with it; so scrape each process. The gauges of the queue are
of the database, and the same from whichever process they are read: take their maximum, not their sum.

An instance is a collector of `prometheus_client`, in a registry of its own. `REGISTRY.register(metrics)` adds it to
another one; since a collector cannot wait for a database, the queue is then as the last `await metrics.text()` or
`await metrics.read()` found it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

try:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector
    from prometheus_client import generate_latest as _generate
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    raise ImportError("metrics need prometheus-client: pip install 'durably-web[prometheus]'") from error

from durably_web import __version__
from durably_web.counts import BOUNDARIES, Counts, Durations
from durably_web.gauges import QueueGauges

if TYPE_CHECKING:
    from durably_web.engine import Durably

CONTENT_TYPE = CONTENT_TYPE_LATEST

_EDGES = [*map(floatToGoString, BOUNDARIES), "+Inf"]


class Metrics(Collector):
    """Counts what an engine does until `close`, and reads how its queue stands.

    With `process=True` there are also the usual figures of a process: its CPU time, memory and files.
    """

    def __init__(self, durably: Durably, *, process: bool = False) -> None:
        self._durably = durably
        self._counts = Counts(durably)
        self._queue = QueueGauges(durably)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        if process:
            ProcessCollector(registry=self._registry)

    async def text(self) -> bytes:
        """All metrics, in the text format of `CONTENT_TYPE`. The database is asked no more often than that costs
        little, and where it does not answer, the queue is missing and `durably_database_up` is 0."""
        await self.read()
        return _generate(self._registry)

    async def read(self) -> None:
        """Read how the queue stands, unless that was done some seconds ago. Raises nothing."""
        await self._queue.read()

    async def close(self) -> None:
        """Count and read nothing more."""
        self._counts.close()
        await self._queue.close()

    def describe(self) -> Iterable[Metric]:
        # Not by collecting: what there is differs with what has happened.
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._of_this_process()
        yield from self._of_the_database()

    # -- inside ------------------------------------------------------------------------------------------

    def _of_this_process(self) -> Iterator[Metric]:
        counts, jobs, known = self._counts, ("job",), [self._counts.label(job) for job in self._durably.jobs]
        yield _gauge(
            "durably_build_info", "1; the version that is running is its label.", ("version",), {__version__: 1}
        )
        triggered = _with_zeros(counts.triggered, known)
        yield _counter("durably_runs_triggered", "Runs that this process has asked for.", jobs, triggered)
        yield _counter(
            "durably_runs_coalesced", "Triggers here that gave a pending run a new input.", jobs, counts.coalesced
        )
        executions = _with_zeros(counts.executions, known)
        yield _counter("durably_executions", "How often runs were begun, or gone on with, here.", jobs, executions)
        ended = _with_zeros(counts.ended, [(job, status) for job in known for status in ("completed", "failed")])
        yield _counter("durably_runs_ended", "Runs that have ended here.", ("job", "status"), ended)
        steps = _with_zeros(counts.steps, [(job, one) for job in known for one in ("completed", "failed", "retried")])
        yield _histogram(
            "durably_run_duration_seconds",
            "From the first start of a run to its end, waits included.",
            ("job", "status"),
            counts.run_durations,
        )
        yield _counter(
            "durably_run_retries",
            "Runs that a policy tries again as a whole.",
            jobs,
            _with_zeros(counts.run_retries, known),
        )
        yield _counter("durably_steps", "Calls of functions of steps, by outcome.", ("job", "outcome"), steps)
        yield _histogram("durably_step_duration_seconds", "One call of a step's function.", jobs, counts.step_durations)
        yield _histogram(
            "durably_claim_latency_seconds",
            "From when a run could begin to its first start.",
            jobs,
            counts.claim_latency,
        )
        executing = Counter(counts.label(one.lease.job_name) for _, one in self._durably._worker.executions())
        yield _gauge("durably_executing_runs", "Runs that execute here now.", jobs, _with_zeros(executing, known))
        yield _counter(
            "durably_worker_errors", "What went wrong beside the runs: worker:error.", (), {(): counts.errors}
        )
        full = self._durably._environment.store.room.is_full
        yield _gauge("durably_storage_full", "1 while the disk is full, so that runs wait.", (), {(): int(full)})

    def _of_the_database(self) -> Iterator[Metric]:
        queue, label = self._queue.last, self._counts.label
        yield _gauge("durably_database_up", "1 if the database has answered.", (), {(): int(queue.asked)})
        if not queue.asked:
            return
        known = [label(job) for job in self._durably.jobs]
        runs: dict[tuple[str, str], float] = {}
        states = {"due": queue.due, "delayed": queue.delayed, "leased": queue.leased, "waiting": queue.waiting}
        for state, found in states.items():
            if found is None:
                # Not 0: nobody knows yet.
                continue
            runs |= _with_zeros(_by_label(found, label), known, state)
        yield _gauge("durably_queue_runs", "Runs in the database that have not ended.", ("job", "state"), runs)
        oldest: dict[str, float] = dict.fromkeys(known, 0.0)
        for job, age in queue.oldest.items():
            oldest[label(job)] = max(age, oldest.get(label(job), 0.0))
        yield _gauge(
            "durably_queue_oldest_due_seconds",
            "For how long the oldest run could have begun, and has not.",
            ("job",),
            oldest,
        )


Key = str | tuple[str, ...]


def _by_label(found: Mapping[str, int], label: Any) -> Counter[str]:
    counted: Counter[str] = Counter()
    for job, count in found.items():
        counted[label(job)] += count
    return counted


def _with_zeros(found: Mapping[Any, Any], known: Iterable[Any], *more: str) -> dict[Any, float]:
    """A series that has not begun looks like one that is missing: those that are known begin at 0."""
    counted = {**dict.fromkeys(known, 0), **found}
    return {(key, *more): value for key, value in counted.items()} if more else counted


def _values(key: Key) -> list[str]:
    return [key] if isinstance(key, str) else list(key)


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_values(key), value)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_values(key), value)
    return family


def _histogram(name: str, text: str, labels: tuple[str, ...], found: Mapping[Any, Durations]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, durations in found.items():
        buckets = list(zip(_EDGES, map(float, durations.cumulated), strict=True))
        family.add_metric(_values(key), buckets, durations.sum)
    return family
