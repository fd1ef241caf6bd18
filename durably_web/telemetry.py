"""Spans and metrics by OpenTelemetry: the extra `durably-web[otel]`.

    from durably_web.telemetry import instrument

    durably = Durably("app.db", jobs=[import_csv])
    uninstrument = instrument(durably)  # the global providers; or tracer_provider=…, meter_provider=…

Spans. Each execution of a run is a span `durably.run <job>` of kind CONSUMER, with `durably.run_id`, `durably.job`,
`durably.attempt` (how many times the run has been taken up), the labels as `durably.label.<key>`, and at its end
`durably.status`: `completed`, `failed`, `cancelled`; `waiting` (asleep, or for a signal, a child or its next try) and
`pending` (given back by a worker that stops) when the run goes on later; `lost` when it is another worker's by now.
Only an execution that an exception ended is an error. Each call of a step's function is a span `durably.step <key>` in
it, with `durably.step`, `durably.attempt` and `durably.status`. It is current while the function runs, in threads too,
so the spans of other libraries nest below.

A run belongs to the trace of whoever triggered it: its spans are children of the span that was current at `trigger`,
those of a child run are below its parent's. That is stored with the run, and holds for every worker that is
instrumented. A run that waits has a span for each time it is taken up, and each links to the one before that was in
the same process.

Metrics. Counters `durably.runs` (`durably.job`, `durably.status`: how runs ended) and `durably.steps` (`durably.job`,
`durably.outcome`: `completed`, `failed`, `retried`; sleeps, waits and children are steps too); histograms, in seconds,
`durably.run.duration` (from a run's first start to its end, waits included), `durably.run.wait` (from when a run was
due to its first start) and `durably.step.duration` (one call of a step's function; with `error.type` when it raised);
and `durably.runs.active`, the runs that this process executes right now. Further counters `durably.runs.triggered`,
`durably.run.retries` (by a policy) and `durably.worker.errors`. Gauges of the database are `durably.queue.runs`
(`durably.job`, `durably.state`: `due`, `delayed`, `leased`, `waiting`), `durably.queue.oldest_due` in seconds, and
`durably.storage.full`, 1 or 0: each export has what was read after the one before it, since it cannot wait for a
database. They are the same from each process: take their maximum.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, LiteralString, TypeVar, cast

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ImportError("telemetry needs OpenTelemetry: pip install 'durably-web[otel]'") from error

from durably_web import __version__, failures
from durably_web.errors import Conflict, RunSuspended, StoreError
from durably_web.gauges import QueueGauges
from durably_web.redaction import redacted_trace
from durably_web.store.batch import Operation, Rows
from durably_web.store.operations.building import operation

if TYPE_CHECKING:
    from durably_web.engine import Durably
    from durably_web.events import Event
    from durably_web.execution import Execution
    from durably_web.store.rows import Lease

T = TypeVar("T")

# What the hook `at_trigger` gave is the data of a run's first entry.
SELECT_ORIGIN: LiteralString = """
SELECT r.created_at, r.run_at, j.data FROM durably_runs r JOIN durably_journal j ON j.run_id = r.id AND j.number = 1
WHERE r.id = ?
"""

# Seconds. From a step that only reckons to a run that waited for a day.
_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400)

# Of so many runs it is remembered where their spans belong.
_REMEMBERED = 10_000

_PROPAGATOR = TraceContextTextMapPropagator()

_OUTCOMES = {"step:complete": "completed", "step:fail": "failed", "step:retry": "retried"}
_ENDS = {"run:complete": "completed", "run:fail": "failed", "run:cancel": "cancelled"}


def instrument(
    durably: Durably,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Callable[[], None]:
    """Make spans and metrics of what this engine executes, until the result is called.

    Raises `Conflict` for an engine that is instrumented already.
    """
    hooks = durably._environment.hooks
    if hooks.around_run is not None or hooks.around_step is not None:
        raise Conflict("this engine is instrumented already: call first what instrument() gave then")
    telemetry = _Telemetry(
        durably,
        trace.get_tracer("durably_web", __version__, tracer_provider),
        metrics.get_meter("durably_web", __version__, meter_provider),
    )
    hooks.around_run, hooks.around_step = telemetry.around_run, telemetry.around_step
    hooks.at_trigger = telemetry.at_trigger
    leaving = [
        *[durably.on(type_, telemetry.ended) for type_ in _ENDS],
        *[durably.on(type_, telemetry.interrupted) for type_ in ("run:waiting", "run:retry")],
        *[durably.on(type_, telemetry.step_stored) for type_ in _OUTCOMES],
        durably.on("run:trigger", telemetry.triggered),
        durably.on("run:retry", telemetry.retried),
        durably.on("worker:error", telemetry.went_wrong),
        telemetry.close,
    ]

    def uninstrument() -> None:
        # Once: somebody may have instrumented it anew.
        if leaving:
            hooks.around_run = hooks.around_step = hooks.at_trigger = None
        while leaving:
            leaving.pop()()

    return uninstrument


class _Recent(OrderedDict[str, T]):
    """A dict that forgets its oldest."""

    def __setitem__(self, key: str, value: T) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > _REMEMBERED:
            self.popitem(last=False)


class _Telemetry:
    def __init__(self, durably: Durably, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._store = durably._environment.store
        self._clock = durably._environment.clock
        self._tracer = tracer
        # By run: where its spans belong, and the span of its last execution.
        self._parents: _Recent[Context] = _Recent()
        self._previous: _Recent[trace.SpanContext] = _Recent()
        self._executing: dict[str, trace.Span] = {}
        self._statuses: dict[str, str] = {}
        self._runs = meter.create_counter("durably.runs", "{run}", "Runs that have ended.")
        self._steps = meter.create_counter("durably.steps", "{step}", "Outcomes of steps that were stored.")
        self._active = meter.create_up_down_counter("durably.runs.active", "{run}", "Runs that are being executed.")
        self._run_duration = _seconds(meter, "durably.run.duration", "From a run's first start to its end.")
        self._run_wait = _seconds(meter, "durably.run.wait", "From when a run was due to its first start.")
        self._step_duration = _seconds(meter, "durably.step.duration", "Duration of one call of a step's function.")
        self._triggered = meter.create_counter("durably.runs.triggered", "{run}", "Runs that were asked for here.")
        self._retries = meter.create_counter("durably.run.retries", "{run}", "Runs that a policy tries again.")
        self._errors = meter.create_counter("durably.worker.errors", "{error}", "What went wrong beside the runs.")
        # Of instruments that are asked, nobody can take leave: they say nothing any more.
        self._closed = False
        self._queue = QueueGauges(durably)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading: asyncio.Task[object] | None = None
        self._know_the_loop()
        gauges: tuple[tuple[str, str, str, Callable[[], Iterator[metrics.Observation]]], ...] = (
            ("durably.queue.runs", "{run}", "Runs in the database that have not ended.", self._runs_in_queue),
            ("durably.queue.oldest_due", "s", "For how long the oldest run could have begun.", self._oldest_due),
            ("durably.storage.full", "1", "1 while the disk is full, so that runs wait.", self._storage_full),
        )
        for name, unit, description, observe in gauges:
            meter.create_observable_gauge(name, [self._asked(observe)], unit, description)

    # -- hooks -------------------------------------------------------------------------------------------

    async def around_run(self, execution: Execution) -> None:
        self._know_the_loop()
        lease = execution.lease
        if lease.run_id not in self._parents:
            try:
                await self._read_origin(lease)
            except asyncio.CancelledError:
                # Nobody else would give the lease back.
                execution.end(RunSuspended())
                await execution.run()
                raise
        job = {"durably.job": lease.job_name}
        span = self._start_run(lease, job)
        self._previous[lease.run_id] = span.get_span_context()
        self._executing[lease.run_id] = span
        self._active.add(1, job)
        try:
            with _current(span):
                ending = await execution.run()
            status = self._statuses.get(lease.run_id, "pending") if ending == "suspended" else ending
            span.set_attribute("durably.status", status)
            if ending == "completed":
                # No other execution will ask for them.
                self._parents.pop(lease.run_id, None)
                self._previous.pop(lease.run_id, None)
        except Exception as error:
            _fail(span, error)
            raise
        finally:
            self._active.add(-1, job)
            self._statuses.pop(lease.run_id, None)
            del self._executing[lease.run_id]
            span.end()

    @contextmanager
    def around_step(self, lease: Lease, key: str, attempt: int) -> Iterator[None]:
        job: dict[str, str] = {"durably.job": lease.job_name}
        span = self._tracer.start_span(
            f"durably.step {key}",
            attributes={**job, "durably.run_id": lease.run_id, "durably.step": key, "durably.attempt": attempt},
        )
        status, begun = "cancelled", self._clock.monotonic()
        try:
            with _current(span):
                yield
            status = "completed"
        except Exception as error:
            status = "failed"
            _fail(span, error)
            job["error.type"] = _type_of(error)
            raise
        finally:
            if status != "cancelled":
                self._step_duration.record(self._clock.monotonic() - begun, job)
            span.set_attribute("durably.status", status)
            span.end()

    def at_trigger(self) -> str | None:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return json.dumps(carrier) if carrier else None

    # -- listeners ---------------------------------------------------------------------------------------

    def ended(self, event: Event) -> None:
        attributes = {"durably.job": event.job_name or "", "durably.status": _ENDS[event.type]}
        self._runs.add(1, attributes)
        if event.duration is not None:
            self._run_duration.record(event.duration, attributes)
        self._tell_of_error(event)

    def interrupted(self, event: Event) -> None:
        if event.run_id in self._executing:
            self._statuses[event.run_id] = "waiting"
        self._tell_of_error(event)

    def step_stored(self, event: Event) -> None:
        self._steps.add(1, {"durably.job": event.job_name or "", "durably.outcome": _OUTCOMES[event.type]})

    def triggered(self, event: Event) -> None:
        self._know_the_loop()
        self._triggered.add(1, {"durably.job": event.job_name or ""})

    def retried(self, event: Event) -> None:
        if event.error is not None:
            self._retries.add(1, {"durably.job": event.job_name or ""})

    def went_wrong(self, event: Event) -> None:
        self._errors.add(1)

    # -- gauges: asked by exporters, in threads of their own -------------------------------------------------

    def close(self) -> None:
        self._closed = True
        if self._reading is not None:
            self._reading.cancel()

    def _asked(
        self, observe: Callable[[], Iterator[metrics.Observation]]
    ) -> Callable[[metrics.CallbackOptions], list[metrics.Observation]]:
        def answer(_: metrics.CallbackOptions) -> list[metrics.Observation]:
            if self._closed:
                return []
            if self._loop is not None:
                # The loop may have ended.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._read_queue)
            return list(observe())

        return answer

    def _read_queue(self) -> None:
        if not self._closed and (self._reading is None or self._reading.done()):
            self._reading = asyncio.ensure_future(self._queue.read())

    def _runs_in_queue(self) -> Iterator[metrics.Observation]:
        queue = self._queue.last
        states = {"due": queue.due, "delayed": queue.delayed, "leased": queue.leased, "waiting": queue.waiting}
        for state, found in states.items():
            for job, count in (found or {}).items():
                yield metrics.Observation(count, {"durably.job": job, "durably.state": state})

    def _oldest_due(self) -> Iterator[metrics.Observation]:
        for job, age in self._queue.last.oldest.items():
            yield metrics.Observation(age, {"durably.job": job})

    def _storage_full(self) -> Iterator[metrics.Observation]:
        yield metrics.Observation(int(self._store.room.is_full))

    def _know_the_loop(self) -> None:
        if self._loop is None:
            with suppress(RuntimeError):
                self._loop = asyncio.get_running_loop()

    # -- inside ------------------------------------------------------------------------------------------

    def _start_run(self, lease: Lease, job: dict[str, str]) -> trace.Span:
        previous = self._previous.get(lease.run_id)
        return self._tracer.start_span(
            f"durably.run {lease.job_name}",
            # Never below whatever was current when the worker was started.
            context=self._parents.get(lease.run_id, Context()),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                **{f"durably.label.{key}": value for key, value in lease.labels.items()},
                **job,
                "durably.run_id": lease.run_id,
                "durably.attempt": lease.attempt,
            },
            links=[] if previous is None else [trace.Link(previous)],
        )

    def _tell_of_error(self, event: Event) -> None:
        """Of a run that is executed here: the execution itself tells only how it ended."""
        span = self._executing.get(event.run_id or "")
        if span is not None and event.error is not None:
            kind, _, message = event.error.partition(": ")
            attributes = {"exception.type": kind, "exception.message": message}
            if event.traceback is not None:
                attributes["exception.stacktrace"] = event.traceback
            span.add_event("exception", attributes)
            span.set_attribute("error.type", kind)
            span.set_status(trace.StatusCode.ERROR, event.error)

    async def _read_origin(self, lease: Lease) -> None:
        try:
            found = await self._store.read(_origin(lease.run_id))
        except StoreError:
            # A figure less, and a trace of its own; the run itself will find out whether it can be executed.
            return
        if found is None:
            return
        due, carrier = found
        self._parents[lease.run_id] = _PROPAGATOR.extract(carrier, Context())
        if lease.attempt == 1:
            self._run_wait.record(max(0, lease.started_at - due) / 1000, {"durably.job": lease.job_name})


def _origin(run_id: str) -> Operation[tuple[int, dict[str, str]] | None]:
    """When a run could begin, in milliseconds, and what `at_trigger` gave; `None` when it is gone."""

    def decode(results: list[Rows]) -> tuple[int, dict[str, str]] | None:
        for created_at, run_at, data in cast("list[tuple[int, int, str | None]]", results[0]):
            return max(created_at, run_at), json.loads(data) if data is not None else {}
        return None

    return operation("origin", "read", decode, (SELECT_ORIGIN, (run_id,)))


@contextmanager
def _current(span: trace.Span) -> Iterator[None]:
    # What is an error, and when it ends, is decided here and not by its leaving the context.
    with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        yield


def _fail(span: trace.Span, error: Exception) -> None:
    # As it is stored: what traces are sent to is nobody's place for secrets either.
    span.record_exception(
        error,
        attributes={
            "exception.message": failures.message_of(error),
            "exception.stacktrace": redacted_trace(traceback.format_exception(error)),
        },
    )
    span.set_attribute("error.type", _type_of(error))
    span.set_status(trace.StatusCode.ERROR, failures.describe(error))


def _type_of(error: Exception) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _seconds(meter: metrics.Meter, name: str, description: str) -> metrics.Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_BOUNDARIES)
