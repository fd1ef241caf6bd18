"""Spans and metrics, as OpenTelemetry's own SDK collects them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from durably_web import telemetry
from durably_web.engine import Durably
from durably_web.errors import Conflict, LeaseLost, RunFailed, StoreUnavailable
from durably_web.jobs import Job, job
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Batch, Rows
from durably_web.telemetry import SELECT_ORIGIN, instrument
from tests.support.backends import SqliteMemory
from tests.support.executors import Wrapper
from tests.support.scenes import LONG, Flaky, becomes, move
from tests.support.world import Gate, World, bounded, turns, until


class Collected:
    """The providers that an engine is instrumented with, and what they got."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("test")

    def spans(self, name: str) -> list[ReadableSpan]:
        """The ended spans of this name, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> ReadableSpan:
        found = self.spans(name)
        assert len(found) == 1, (
            f"{len(found)} spans {name!r} of {[s.name for s in self._exporter.get_finished_spans()]}"
        )
        return found[0]

    @property
    def names(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]

    def points(self, metric: str) -> dict[tuple[str, ...], Any]:
        """The data points of a metric by the values of their attributes, sorted by the attributes' names."""
        data = self._reader.get_metrics_data()
        return {
            tuple(str(value) for _, value in sorted((point.attributes or {}).items())): point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for one in scope.metrics
            if one.name == metric
            for point in one.data.data_points
        }

    def counts(self, metric: str) -> dict[tuple[str, ...], Any]:
        return {key: point.value for key, point in self.points(metric).items()}

    def close(self) -> None:
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()


@pytest.fixture
def collected() -> Iterator[Collected]:
    collected = Collected()
    yield collected
    collected.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    backend = SqliteMemory()
    async with World(backend) as world:
        yield world
    await backend.close()


async def instrumented(world: World, collected: Collected, *jobs: Job[Any, Any], **options: Any) -> Durably:
    durably = await world.engine(*jobs, polling_interval=LONG, **options)
    instrument(durably, collected.tracer_provider, collected.meter_provider)
    await durably.start()
    return durably


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def context_of(span: ReadableSpan) -> SpanContext:
    context: SpanContext | None = span.context
    assert context is not None
    return context


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def is_below(span: ReadableSpan, parent: ReadableSpan) -> bool:
    above = context_of(parent)
    return parent_of(span) == above.span_id and context_of(span).trace_id == above.trace_id


def current_id() -> int:
    return trace.get_current_span().get_span_context().span_id


async def test_a_run_and_its_steps(world: World, collected: Collected) -> None:
    seen: list[int] = []

    async def look() -> None:
        seen.append(current_id())

    @job
    async def plain(step: Step, input: dict[str, Any]) -> None:
        seen.append(current_id())
        await step.run("first", look)
        await step.run("second", look)
        seen.append(current_id())

    durably = await instrumented(world, collected, plain)
    handle = await durably.trigger(plain, labels={"tenant": "a"})
    await bounded(handle.result())
    run = collected.span("durably.run plain")
    first, second = collected.span("durably.step first"), collected.span("durably.step second")
    assert run.kind is SpanKind.CONSUMER and first.kind is SpanKind.INTERNAL
    assert attributes(run) == {
        "durably.run_id": handle.id,
        "durably.job": "plain",
        "durably.attempt": 1,
        "durably.label.tenant": "a",
        "durably.status": "completed",
    }
    assert attributes(first) == {
        "durably.run_id": handle.id,
        "durably.job": "plain",
        "durably.step": "first",
        "durably.attempt": 1,
        "durably.status": "completed",
    }
    assert run.parent is None and is_below(first, run) and is_below(second, run)
    assert seen == [context_of(span).span_id for span in (run, first, second, run)]
    assert run.status.status_code is StatusCode.UNSET is first.status.status_code


async def test_a_failing_step_and_its_run_are_errors(world: World, collected: Collected) -> None:
    @job
    async def failing(step: Step, input: dict[str, Any]) -> None:
        await step.run("bad", Flaky(world, ValueError("no")).work)

    durably = await instrumented(world, collected, failing)
    with pytest.raises(RunFailed):
        await bounded(durably.trigger_and_wait(failing))
    for span in (collected.span("durably.step bad"), collected.span("durably.run failing")):
        assert span.status.status_code is StatusCode.ERROR and span.status.description == "ValueError: no"
        assert attributes(span)["durably.status"] == "failed" and attributes(span)["error.type"] == "ValueError"
        [event] = span.events
        details = dict(event.attributes or {})
        assert event.name == "exception"
        assert (details["exception.type"], details["exception.message"]) == ("ValueError", "no")
        assert "ValueError: no" in str(details["exception.stacktrace"])


async def test_a_failure_that_the_job_catches_is_the_steps_alone(world: World, collected: Collected) -> None:
    @job
    async def catching(step: Step, input: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="no"):
            await step.run("bad", Flaky(world, ValueError("no")).work)

    durably = await instrumented(world, collected, catching)
    await bounded(durably.trigger_and_wait(catching))
    assert collected.span("durably.step bad").status.status_code is StatusCode.ERROR
    run = collected.span("durably.run catching")
    assert run.status.status_code is StatusCode.UNSET and not run.events
    assert attributes(run)["durably.status"] == "completed"


async def test_each_try_of_a_step_has_a_span(world: World, collected: Collected) -> None:
    flaky = Flaky(world, ValueError("one"), ValueError("two"))

    @job
    async def trying(step: Step, input: dict[str, Any]) -> None:
        await step.run("try", flaky.work, retry=Retry(max_attempts=3, initial_delay=0, jitter=False))

    durably = await instrumented(world, collected, trying)
    await world.drive(durably.trigger_and_wait(trying))
    found = [
        (attributes(one)["durably.attempt"], one.status.description) for one in collected.spans("durably.step try")
    ]
    assert found == [(1, "ValueError: one"), (2, "ValueError: two"), (3, None)]
    assert collected.counts("durably.steps") == {("trying", "retried"): 2, ("trying", "completed"): 1}


async def test_a_run_that_sleeps_has_two_spans_and_the_second_links_to_the_first(
    world: World, collected: Collected
) -> None:
    @job
    async def sleeping(step: Step, input: dict[str, Any]) -> None:
        await step.run("before", lambda: None)
        await step.sleep("nap", 60)
        await step.run("after", lambda: None)

    durably = await instrumented(world, collected, sleeping)
    with collected.tracer.start_as_current_span("request"):
        handle = await durably.trigger(sleeping)
    await becomes(durably, handle.id, "waiting")
    await until(lambda: collected.spans("durably.run sleeping"))
    assert collected.counts("durably.runs.active") == {("sleeping",): 0}
    await move(world, 60)
    await bounded(handle.result())
    first, second = collected.spans("durably.run sleeping")
    request = collected.span("request")
    assert attributes(first)["durably.status"] == "waiting" and attributes(second)["durably.status"] == "completed"
    assert [attributes(span)["durably.attempt"] for span in (first, second)] == [1, 2]
    assert [span.status.status_code for span in (first, second)] == [StatusCode.UNSET] * 2 and not first.events
    assert not first.links and [link.context for link in second.links] == [context_of(first)]
    assert is_below(first, request) and is_below(second, request)
    # What is stored is not executed again, and has no span again.
    assert is_below(collected.span("durably.step before"), first)
    assert is_below(collected.span("durably.step after"), second)


async def test_without_a_span_around_the_trigger_each_execution_is_a_trace(world: World, collected: Collected) -> None:
    """Also when the worker was started within a span: that one has nothing to do with the run."""

    @job
    async def sleeping(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("nap", 60)

    with collected.tracer.start_as_current_span("startup"):
        durably = await instrumented(world, collected, sleeping)
    handle = await durably.trigger(sleeping)
    await becomes(durably, handle.id, "waiting")
    await move(world, 60)
    await bounded(handle.result())
    first, second = collected.spans("durably.run sleeping")
    assert first.parent is None is second.parent
    assert [link.context for link in second.links] == [context_of(first)]


async def test_the_trace_of_a_run_is_known_after_a_restart(world: World, collected: Collected) -> None:
    @job
    async def child(step: Step, input: dict[str, Any]) -> None: ...

    @job
    async def sleeping(step: Step, input: dict[str, Any]) -> None:
        await step.sleep("nap", 60)
        await step.call(child)

    first = await instrumented(world, collected, sleeping, child)
    with collected.tracer.start_as_current_span("request"):
        handle = await first.trigger(sleeping)
        later = await first.trigger(sleeping, delay=60)
    await becomes(first, handle.id, "waiting")
    await world.crash(first)
    second = await instrumented(world, collected, sleeping, child)
    await move(world, 60)
    await bounded(second.output_of(handle.id, sleeping))
    await move(world, 60)
    await bounded(second.output_of(later.id, sleeping))
    request = collected.span("request")
    found = collected.spans("durably.run sleeping")
    assert {attributes(span)["durably.run_id"] for span in found} == {handle.id, later.id}
    assert all(is_below(span, request) for span in found)
    assert all(any(is_below(span, parent) for parent in found) for span in collected.spans("durably.run child"))


async def test_a_run_like_another_belongs_to_who_asks_for_it(world: World, collected: Collected) -> None:
    @job
    async def plain(step: Step, input: dict[str, Any]) -> None: ...

    durably = await instrumented(world, collected, plain)
    handle = await durably.trigger(plain)
    await bounded(handle.result())
    for ask in (durably.retrigger, durably.fork):
        with collected.tracer.start_as_current_span(ask.__name__):
            other = await ask(handle.id)
        await bounded(other.result())
    first, second, third = collected.spans("durably.run plain")
    assert first.parent is None
    assert is_below(second, collected.span("retrigger")) and is_below(third, collected.span("fork"))


async def test_a_child_is_below_its_parent(world: World, collected: Collected) -> None:
    @job
    async def child(step: Step, input: dict[str, Any]) -> str:
        await step.run("work", lambda: None)
        return "done"

    @job
    async def parent(step: Step, input: dict[str, Any]) -> str:
        return await step.call(child)

    durably = await instrumented(world, collected, parent, child)
    with collected.tracer.start_as_current_span("request"):
        handle = await durably.trigger(parent)
    assert await world.drive(handle.result()) == "done"
    await until(lambda: attributes(collected.spans("durably.run parent")[-1])["durably.status"] == "completed")
    first, *_ = collected.spans("durably.run parent")
    below = collected.span("durably.run child")
    assert is_below(below, first) and is_below(first, collected.span("request"))
    assert is_below(collected.span("durably.step work"), below)


async def test_a_run_that_a_step_triggers_is_below_that_step(world: World, collected: Collected) -> None:
    @job
    async def other(step: Step, input: dict[str, Any]) -> None: ...

    @job
    async def triggering(step: Step, input: dict[str, Any]) -> None:
        async def ask() -> str:
            return (await durably.trigger(other)).id

        await step.run("ask", ask)

    durably = await instrumented(world, collected, triggering, other)
    await bounded(durably.trigger_and_wait(triggering))
    await until(lambda: collected.spans("durably.run other"))
    assert is_below(collected.span("durably.run other"), collected.span("durably.step ask"))


async def test_a_sync_step_sees_its_span_in_its_thread(world: World, collected: Collected) -> None:
    def work() -> None:
        with collected.tracer.start_as_current_span("library"):
            pass

    @job
    async def threaded(step: Step, input: dict[str, Any]) -> None:
        await step.run("work", work)
        await step.run("in time", work, timeout=60)

    durably = await instrumented(world, collected, threaded)
    await bounded(durably.trigger_and_wait(threaded))
    for library, name in zip(collected.spans("library"), ("work", "in time"), strict=True):
        assert is_below(library, collected.span(f"durably.step {name}"))


async def test_siblings_do_not_nest_into_each_other(world: World, collected: Collected) -> None:
    gate = Gate()

    async def work(name: str) -> str:
        await gate.wait(None)
        with collected.tracer.start_as_current_span(f"in {name}"):
            await asyncio.sleep(0)
        return name

    @job
    async def parallel(step: Step, input: dict[str, Any]) -> None:
        mapped: Coroutine[Any, Any, list[str]] = step.map("m", work, ["m[0]", "m[1]"])
        await asyncio.gather(step.run("a", work, "a"), step.run("b", work, "b"), mapped)

    durably = await instrumented(world, collected, parallel)
    handle = await durably.trigger(parallel)
    await gate.reached(4)
    gate.open()
    await bounded(handle.result())
    run = collected.span("durably.run parallel")
    for name in ("a", "b", "m[0]", "m[1]"):
        assert is_below(collected.span(f"durably.step {name}"), run)
        assert is_below(collected.span(f"in {name}"), collected.span(f"durably.step {name}"))


async def test_a_cancelled_run_ends_its_spans_without_an_error(world: World, collected: Collected) -> None:
    gate = Gate()

    @job
    async def held(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, None)

    durably = await instrumented(world, collected, held)
    handle = await durably.trigger(held)
    await gate.reached()
    assert collected.counts("durably.runs.active") == {("held",): 1}
    await durably.cancel(handle.id)
    await until(lambda: collected.spans("durably.run held"))
    run, step = collected.span("durably.run held"), collected.span("durably.step wait")
    for span in (run, step):
        assert span.status.status_code is StatusCode.UNSET and not span.events
        assert attributes(span)["durably.status"] == "cancelled"
    assert is_below(step, run)
    assert collected.counts("durably.runs") == {("held", "cancelled"): 1}
    assert collected.counts("durably.runs.active") == {("held",): 0}
    assert collected.points("durably.step.duration") == {}


async def test_a_worker_that_stops_gives_its_run_back_without_an_error(world: World, collected: Collected) -> None:
    gate = Gate()

    @job
    async def held(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, None)
        await step.run("more", gate.wait, None)

    durably = await instrumented(world, collected, held)
    await durably.trigger(held)
    await gate.reached()
    stopping = asyncio.ensure_future(durably.stop())
    await turns()
    gate.open()
    await bounded(stopping)
    run = collected.span("durably.run held")
    assert attributes(run)["durably.status"] == "pending" and run.status.status_code is StatusCode.UNSET
    assert collected.names == ["durably.step wait", "durably.run held"]


async def test_an_execution_whose_lease_is_lost_says_so(world: World, collected: Collected) -> None:
    gate = Gate()

    @job
    async def held(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, None)

    durably = await instrumented(world, collected, held)
    await durably.trigger(held)
    await gate.reached()
    [(execution, _)] = durably._worker._executing.values()
    execution.end(LeaseLost())
    await until(lambda: collected.spans("durably.run held"))
    run = collected.span("durably.run held")
    assert attributes(run)["durably.status"] == "lost" and run.status.status_code is StatusCode.UNSET


async def test_a_run_that_its_policy_tries_again_is_an_error_that_waits(world: World, collected: Collected) -> None:
    flaky = Flaky(world, ValueError("no"))

    @job(retry=Retry(max_attempts=2, initial_delay=60, jitter=False))
    async def again(step: Step, input: dict[str, Any]) -> None:
        await flaky.work()

    durably = await instrumented(world, collected, again)
    handle = await durably.trigger(again)
    await flaky.called()
    await becomes(durably, handle.id, "waiting")
    await move(world, 60)
    await bounded(handle.result())
    first, second = collected.spans("durably.run again")
    assert attributes(first)["durably.status"] == "waiting" and first.status.description == "ValueError: no"
    assert attributes(second)["durably.status"] == "completed" and second.status.status_code is StatusCode.UNSET
    assert [link.context for link in second.links] == [context_of(first)]
    assert collected.counts("durably.runs") == {("again", "completed"): 1}


async def test_durations_are_seconds(world: World, collected: Collected) -> None:
    gate = Gate()

    @job
    async def timed(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, None)

    durably = await instrumented(world, collected, timed)
    handle = await durably.trigger(timed, delay=100)
    # Two seconds late: nobody may claim it in between.
    durably.pause_worker()
    await move(world, 102)
    durably.resume_worker()
    await gate.reached()
    await move(world, 4)
    gate.open()
    await bounded(handle.result())
    found = {name: collected.points(f"durably.{name}") for name in ("run.wait", "run.duration", "step.duration")}
    assert {name: {key: point.sum for key, point in points.items()} for name, points in found.items()} == {
        "run.wait": {("timed",): 2.0},
        "run.duration": {("timed", "completed"): 4.0},
        "step.duration": {("timed",): 4.0},
    }
    assert max(found["run.duration"]["timed", "completed"].explicit_bounds) == 86400


async def test_the_duration_of_a_failed_step_names_the_error(world: World, collected: Collected) -> None:
    @job
    async def failing(step: Step, input: dict[str, Any]) -> None:
        await step.run("bad", Flaky(world, Conflict("no")).work)

    durably = await instrumented(world, collected, failing)
    with pytest.raises(RunFailed):
        await bounded(durably.trigger_and_wait(failing))
    assert list(collected.points("durably.step.duration")) == [("failing", "durably_web.errors.Conflict")]
    assert collected.counts("durably.runs") == {("failing", "failed"): 1}
    assert collected.counts("durably.steps") == {("failing", "failed"): 1}


async def test_a_database_in_trouble_costs_a_figure_and_no_run(world: World, collected: Collected) -> None:
    class Troubled(Wrapper):
        async def run(self, batch: Batch) -> list[Rows]:
            if any(statement.sql == SELECT_ORIGIN for statement in batch.statements):
                raise StoreUnavailable("not now")
            return await super().run(batch)

    @job
    async def plain(step: Step, input: dict[str, Any]) -> int:
        return 1

    durably = await instrumented(world, collected, plain, through=Troubled)
    assert await world.drive(durably.trigger_and_wait(plain), 60) == 1
    assert collected.points("durably.run.wait") == {}
    assert collected.counts("durably.runs") == {("plain", "completed"): 1}


async def test_a_task_that_is_cancelled_before_its_run_begins_gives_the_lease_back(
    world: World, collected: Collected
) -> None:
    """As the event loop does with all tasks when it is torn down."""

    class Slow(Wrapper):
        async def run(self, batch: Batch) -> list[Rows]:
            if any(statement.sql == SELECT_ORIGIN for statement in batch.statements):
                await gate.wait(None)
            return await super().run(batch)

    gate = Gate()
    called: list[int] = []

    @job
    async def plain(step: Step, input: dict[str, Any]) -> None:
        called.append(step.attempt)

    durably = await instrumented(world, collected, plain, through=Slow)
    handle = await durably.trigger(plain)
    await gate.reached()
    durably.pause_worker()
    [(_, task)] = durably._worker._executing.values()
    task.cancel()
    await becomes(durably, handle.id, "pending")
    assert not called
    gate.open()
    durably.resume_worker()
    await bounded(handle.result())
    assert called == [2]


async def test_uninstrument_leaves_nothing_behind(world: World, collected: Collected) -> None:
    @job
    async def plain(step: Step, input: dict[str, Any]) -> None:
        await step.run("one", lambda: None)

    durably = await world.started(plain)
    uninstrument = instrument(durably, collected.tracer_provider, collected.meter_provider)
    with pytest.raises(Conflict, match="instrumented already"):
        instrument(durably)
    await bounded(durably.trigger_and_wait(plain))
    count = len(collected.names)
    assert count == 2
    uninstrument()
    assert_bare(durably)
    await bounded(durably.trigger_and_wait(plain))
    assert len(collected.names) == count and collected.counts("durably.runs") == {("plain", "completed"): 1}
    # A second call does nothing to whoever came after.
    instrument(durably, collected.tracer_provider, collected.meter_provider)
    uninstrument()
    await bounded(durably.trigger_and_wait(plain))
    assert len(collected.names) == 2 * count


async def test_uninstrument_while_a_run_executes(world: World, collected: Collected) -> None:
    gate = Gate()

    @job
    async def held(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, None)

    durably = await world.started(held)
    uninstrument = instrument(durably, collected.tracer_provider, collected.meter_provider)
    handle = await durably.trigger(held)
    await gate.reached()
    uninstrument()
    gate.open()
    await bounded(handle.result())
    await until(lambda: len(collected.names) == 2)
    assert attributes(collected.span("durably.run held"))["durably.status"] == "completed"
    assert collected.counts("durably.runs.active") == {("held",): 0}


def test_what_is_remembered_of_runs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_REMEMBERED", 2)
    recent: telemetry._Recent[int] = telemetry._Recent()
    for number, key in enumerate(["a", "b", "a", "c"]):
        recent[key] = number
    assert dict(recent) == {"a": 2, "c": 3}


async def test_without_telemetry_nobody_listens(world: World) -> None:
    assert_bare(await world.engine())


def assert_bare(durably: Durably) -> None:
    environment = durably._environment
    hooks = environment.hooks
    assert {getattr(hooks, name) for name in type(hooks).__slots__} == {None}
    assert not any(environment.emitter._listeners.values())


# Every way into the package, on a machine without OpenTelemetry.
PROGRAM = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import asyncio
import durably_web, durably_web.api, durably_web.cli.runs, durably_web.engine
from durably_web import Durably, job

for name in durably_web.__all__:
    getattr(durably_web, name)

@job
async def plain(step, input: dict):
    return await step.run("one", lambda: 1)

async def main():
    async with Durably(":memory:", jobs=[plain]) as durably:
        assert await durably.trigger_and_wait(plain, timeout=60) == 1

asyncio.run(main())
try:
    import durably_web.telemetry
except ImportError as error:
    print(error)
"""


def test_the_rest_does_without_opentelemetry() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "pip install 'durably-web[otel]'" in result.stdout


def test_only_this_module_imports_opentelemetry(root: Path) -> None:
    importing = [path.name for path in (root / "durably_web").rglob("*.py") if "opentelemetry" in path.read_text()]
    assert importing == ["telemetry.py"]


async def test_the_queue_as_it_was_read_after_the_export_before(world: World, collected: Collected) -> None:
    @job
    async def waiting(step: Step, input: dict[str, Any]) -> None:
        await step.wait_for_signal("go")

    durably = await instrumented(world, collected, waiting)
    handle = await durably.trigger(waiting)
    await becomes(durably, handle.id, "waiting")
    durably._worker.pause()
    await durably.trigger(waiting)
    await durably.trigger(waiting, delay=60)
    assert collected.counts("durably.runs.triggered") == {("waiting",): 3}
    await turns(50)
    assert collected.counts("durably.queue.runs") == {
        ("waiting", "due"): 1,
        ("waiting", "delayed"): 1,
        ("waiting", "waiting"): 1,
    }
    assert collected.counts("durably.queue.oldest_due") == {("waiting",): 0}
    assert collected.counts("durably.storage.full") == {(): 0}
    await turns(50)


async def test_the_gauges_are_read_in_the_loop_whoever_asks(world: World, collected: Collected) -> None:
    """Exporters ask in a thread of their own."""

    @job
    async def plain(step: Step, input: dict[str, Any]) -> None: ...

    durably = await world.engine(plain, polling_interval=LONG)
    uninstrument = instrument(durably, collected.tracer_provider, collected.meter_provider)
    await durably.trigger(plain)
    await asyncio.to_thread(collected.counts, "durably.queue.runs")
    await turns(50)
    assert await asyncio.to_thread(collected.counts, "durably.queue.runs") == {("plain", "due"): 1}
    uninstrument()
    await turns(50)
    assert collected.counts("durably.queue.runs") == {} == collected.counts("durably.storage.full")


async def test_what_goes_wrong_and_what_a_policy_tries_again_is_counted(world: World, collected: Collected) -> None:
    @job(retry=Retry(max_attempts=2, initial_delay=0, jitter=False))
    async def failing(step: Step, input: dict[str, Any]) -> None:
        raise ValueError("no")

    durably = await instrumented(world, collected, failing)
    handle = await durably.trigger(failing)
    await world.drive(durably.wait_for_run(handle.id))
    durably._emitter.error(ValueError("no"), "claiming runs")
    assert collected.counts("durably.run.retries") == {("failing",): 1}
    assert collected.counts("durably.worker.errors") == {(): 1}
    await turns(50)


def test_an_engine_is_instrumented_before_there_is_a_loop(collected: Collected) -> None:
    @job
    async def plain(step: Step, input: dict[str, Any]) -> None: ...

    durably = Durably(":memory:", jobs=[plain])
    instrument(durably, collected.tracer_provider, collected.meter_provider)

    async def main() -> None:
        async with durably:
            await bounded(durably.trigger_and_wait(plain))
            assert collected.counts("durably.storage.full") == {(): 0}
            await turns(50)

    asyncio.run(main())
    # Nobody is there to read, and nobody is harmed.
    assert collected.counts("durably.runs.triggered") == {("plain",): 1}
