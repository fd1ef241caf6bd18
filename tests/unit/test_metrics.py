"""Metrics, as Prometheus' own parser reads them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from durably_web import counts, gauges
from durably_web.counts import MOST_JOBS, OTHERS
from durably_web.engine import Durably
from durably_web.errors import StorageFull, StoreUnavailable
from durably_web.jobs import Job, job
from durably_web.metrics import Metrics
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store.batch import Batch, Rows
from tests.support.backends import SqliteMemory
from tests.support.executors import CountingExecutor, Wrapper
from tests.support.scenes import LONG, Flaky, becomes, move
from tests.support.world import Gate, World, bounded, turns, until

Samples = dict[tuple[str, ...], float]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    backend = SqliteMemory()
    async with World(backend) as world:
        yield world
    await backend.close()


class Counted:
    """An engine, and what is read of its metrics."""

    def __init__(self, durably: Durably) -> None:
        self.durably = durably
        self.metrics = Metrics(durably)

    async def samples(self, name: str) -> Samples:
        """The samples of this name, by the values of their labels in the order of the labels' names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families((await self.metrics.text()).decode())
            for sample in family.samples
            if sample.name == name
        }

    async def value(self, name: str, *labels: str) -> float:
        return (await self.samples(name))[labels]


async def counted(world: World, *jobs: Job[Any, Any], start: bool = True) -> Counted:
    durably = await world.engine(*jobs, polling_interval=LONG)
    counted = Counted(durably)
    if start:
        await durably.start()
    return counted


@job
async def plain(step: Step, input: dict[str, Any]) -> None:
    await step.run("one", lambda: None)


@job
async def waiting(step: Step, input: dict[str, Any]) -> None:
    await step.wait_for_signal("go")


@job
async def sleeping(step: Step, input: dict[str, Any]) -> None:
    await step.sleep("nap", 60)


async def test_a_run_from_its_trigger_to_its_end(world: World) -> None:
    counted_ = await counted(world, plain, waiting)
    for _ in range(3):
        await bounded(counted_.durably.trigger_and_wait(plain))
    assert await counted_.samples("durably_runs_triggered_total") == {("plain",): 3, ("waiting",): 0}
    assert await counted_.samples("durably_executions_total") == {("plain",): 3, ("waiting",): 0}
    ended = await counted_.samples("durably_runs_ended_total")
    assert ended["plain", "completed"] == 3 and sum(ended.values()) == 3
    assert await counted_.value("durably_run_duration_seconds_count", "plain", "completed") == 3
    assert await counted_.value("durably_step_duration_seconds_count", "plain") == 3
    assert await counted_.value("durably_steps_total", "plain", "completed") == 3
    await until(lambda: not counted_.metrics._counts._asking)
    assert await counted_.value("durably_claim_latency_seconds_count", "plain") == 3
    assert await counted_.value("durably_worker_errors_total") == 0


async def test_what_fails_and_what_is_tried_again(world: World) -> None:
    step_error, run_error = Flaky(world, ValueError("one"), ValueError("two")), Flaky(world, ValueError("one"))

    @job(retry=Retry(max_attempts=2, initial_delay=0, jitter=False))
    async def trying(step: Step, input: dict[str, Any]) -> None:
        await step.run("try", step_error.work, retry=Retry(max_attempts=3, initial_delay=0, jitter=False))
        await step.run("fail", run_error.work)

    @job
    async def failing(step: Step, input: dict[str, Any]) -> None:
        raise ValueError("no")

    both = await counted(world, trying, failing)
    await world.drive(both.durably.trigger_and_wait(trying))
    failed = await both.durably.trigger(failing)
    await becomes(both.durably, failed.id, "failed")
    steps = await both.samples("durably_steps_total")
    assert {key[1]: value for key, value in steps.items() if key[0] == "trying"} == {
        "retried": 2,
        "failed": 1,
        "completed": 2,
    }
    assert await both.value("durably_run_retries_total", "trying") == 1
    # One who asks for a new try by hand is no policy.
    await both.durably.retry(failed.id)
    await until(lambda: both.metrics._counts.ended["failing", "failed"] == 2)
    assert await both.value("durably_run_retries_total", "failing") == 0
    assert await both.value("durably_runs_ended_total", "failing", "failed") == 2


async def test_a_cancelled_run_counts_once(world: World) -> None:
    gate = Gate()

    @job
    async def blocked(step: Step, input: dict[str, Any]) -> None:
        await step.run("wait", gate.wait, None)

    one = await counted(world, blocked, waiting)
    handle = await one.durably.trigger(blocked)
    await gate.reached()
    assert await one.samples("durably_executing_runs") == {("blocked",): 1, ("waiting",): 0}
    await handle.cancel()
    await until(lambda: not one.durably._worker.executions())
    sleeper = await one.durably.trigger(waiting)
    await becomes(one.durably, sleeper.id, "waiting")
    await sleeper.cancel()
    ended = await one.samples("durably_runs_ended_total")
    assert (ended["blocked", "cancelled"], ended["waiting", "cancelled"]) == (1, 1)
    assert await one.value("durably_steps_total", "blocked", "cancelled") == 1
    assert await one.samples("durably_executing_runs") == {("blocked",): 0, ("waiting",): 0}


async def test_the_latency_of_a_claim_is_from_when_a_run_was_due(world: World) -> None:
    one = await counted(world, plain, sleeping, start=False)
    await one.durably.trigger(plain)
    await one.durably.trigger(plain, delay=50)
    await move(world, 60)
    await one.durably.start()
    await until(lambda: one.metrics._counts.ended["plain", "completed"] == 2)
    await until(lambda: not one.metrics._counts._asking)
    assert await one.value("durably_claim_latency_seconds_sum", "plain") == pytest.approx(60 + 10)
    # A run that goes on is not begun a second time.
    handle = await one.durably.trigger(sleeping)
    await becomes(one.durably, handle.id, "waiting")
    await move(world, 61)
    await bounded(handle.result())
    assert await one.value("durably_claim_latency_seconds_count", "sleeping") == 1
    assert await one.value("durably_executions_total", "sleeping") == 2
    # Sleeping is no call of a function.
    assert await one.samples("durably_step_duration_seconds_count") == {("plain",): 2}


async def test_the_queue_as_it_stands(world: World) -> None:
    worker = await counted(world, plain, waiting, sleeping)
    for asleep, kind in ((waiting, "waiting"), (sleeping, "waiting")):
        await becomes(worker.durably, (await worker.durably.trigger(asleep)).id, kind)
    await worker.durably.stop()
    one = await counted(world, plain, waiting, start=False)
    for _ in range(3):
        await one.durably.trigger(plain)
    await one.durably.trigger(plain, delay=600)
    await move(world, 40)
    queue = await one.samples("durably_queue_runs")
    assert {key: value for key, value in queue.items() if value} == {
        ("plain", "due"): 3,
        ("plain", "delayed"): 1,
        ("waiting", "waiting"): 1,
        # Of a job that is not known here, too: nobody else may tell of it.
        ("sleeping", "waiting"): 1,
    }
    assert queue["waiting", "due"] == 0, "what is known begins at 0"
    assert await one.samples("durably_queue_oldest_due_seconds") == {("plain",): 40, ("waiting",): 0}


async def test_what_has_begun_before_is_due_and_nobody_knows_since_when(world: World) -> None:
    one = await counted(world, waiting)
    handle = await one.durably.trigger(waiting)
    await becomes(one.durably, handle.id, "waiting")
    one.durably._worker.pause()
    await move(world, 500)
    await one.durably.signal(handle.id, "go")
    assert await one.value("durably_queue_runs", "waiting", "due") == 1
    assert await one.value("durably_queue_oldest_due_seconds", "waiting") == 0
    one.durably._worker.resume()
    await bounded(handle.result())


async def test_the_queue_is_read_no_more_often_than_it_costs_little(world: World) -> None:
    counting = CountingExecutor(world.backend.connect())
    durably = Durably(counting, jobs=[plain], clock=world.clock, polling_interval=LONG)
    await durably.migrate()
    metrics = Metrics(durably)
    counting.batches.clear()
    await asyncio.gather(*(metrics.text() for _ in range(5)))
    once = len(counting.batches)
    assert once == 2, "those who ask together are answered together"
    await metrics.text()
    assert len(counting.batches) == once
    world.clock.advance(gauges.FRESH_SECONDS)
    await metrics.text()
    assert len(counting.batches) == 2 * once

    class Slow(Wrapper):
        async def run(self, batch: Batch) -> list[Rows]:
            world.clock.advance(1)
            return await super().run(batch)

    durably._store._executor = Slow(counting)
    world.clock.advance(gauges.FRESH_SECONDS)
    await metrics.text()
    world.clock.advance(2 / gauges.SHARE - 1)
    await metrics.text()
    assert len(counting.batches) == 3 * once, "what took two seconds is not repeated for 200"
    world.clock.advance(2)
    await metrics.text()
    assert len(counting.batches) == 4 * once
    await durably.stop()


async def test_a_long_table_is_walked_through_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "PAGE", 3)
    monkeypatch.setattr(gauges, "PAGES", 2)
    one = await counted(world, waiting)
    for _ in range(10):
        await becomes(one.durably, (await one.durably.trigger(waiting)).id, "waiting")
    found = []
    for _ in range(4):
        found.append((await one.samples("durably_queue_runs")).get(("waiting", "waiting")))
        await move(world, gauges.FRESH_SECONDS)
    assert found == [None, 10, 10, 10], "what the last whole walk found, until the next one is over; before, no figure"


async def test_a_database_that_is_away_is_told_and_harms_nobody(world: World) -> None:
    class Away(Wrapper):
        away = False

        async def run(self, batch: Batch) -> list[Rows]:
            if self.away:
                raise StoreUnavailable("gone")
            return await super().run(batch)

    executor = Away(world.backend.connect())
    durably = Durably(executor, jobs=[plain], clock=world.clock, polling_interval=LONG)
    await durably.migrate()
    one = Counted(durably)
    assert await one.value("durably_database_up") == 1
    executor.away = True
    world.clock.advance(gauges.FRESH_SECONDS)
    assert await one.value("durably_database_up") == 0
    assert await one.samples("durably_queue_runs") == {}, "no figure is better than an old one"
    assert await one.value("durably_runs_triggered_total", "plain") == 0
    executor.away = False
    world.clock.advance(gauges.FRESH_SECONDS)
    assert await one.value("durably_database_up") == 1
    await durably.stop()


async def test_a_full_disk_and_errors_of_the_worker(world: World) -> None:
    one = await counted(world, plain)

    async def full() -> None:
        raise StorageFull("no room")

    one.durably._environment.store.room.lack(StorageFull("no room"), full, lambda error: None)
    assert await one.value("durably_storage_full") == 1
    one.durably._emitter.error(ValueError("secret"), "claiming runs")
    assert await one.value("durably_worker_errors_total") == 1
    await one.durably.stop()
    assert await one.value("durably_storage_full") == 0


async def test_the_labels_are_bounded(world: World) -> None:
    one = await counted(world, plain)
    many = one.metrics._counts
    for number in range(MOST_JOBS + 50):
        many.label(f"job {number}")
    assert many.label("job 0") == "job 0" and many.label("one more") == OTHERS
    await bounded(one.durably.trigger_and_wait(plain, labels={"tenant": "a", "user": "b"}))
    text = (await one.metrics.text()).decode()
    assert "tenant" not in text
    labels = {name for line in text.splitlines() for name in re.findall(r'[{,](\w+)="', line)}
    assert labels <= {"job", "status", "outcome", "state", "le", "version"}


async def test_names_and_types_are_what_prometheus_expects(world: World) -> None:
    one = await counted(world, plain)
    await bounded(one.durably.trigger_and_wait(plain))
    await until(lambda: not one.metrics._counts._asking)
    families = list(text_string_to_metric_families((await one.metrics.text()).decode()))
    assert len({family.name for family in families}) == len(families) > 12
    for family in families:
        assert family.name.startswith("durably_") and family.documentation.endswith("."), family
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        elif family.type == "histogram":
            assert family.name.endswith("_seconds")
            buckets = [sample for sample in family.samples if sample.name.endswith("_bucket")]
            assert buckets[-1].labels["le"] == "+Inf"
        else:
            assert family.type == "gauge" and not family.name.endswith("_total")


async def test_it_is_a_collector_and_leaves_other_registries_alone(world: World) -> None:
    before = generate_latest(REGISTRY)
    one = await counted(world, plain)
    assert b"durably" not in generate_latest(REGISTRY) and b"durably" not in before
    own = CollectorRegistry()
    own.register(one.metrics)
    await bounded(one.durably.trigger_and_wait(plain))
    text = generate_latest(own).decode()
    assert 'durably_runs_ended_total{job="plain",status="completed"} 1.0' in text
    assert "durably_database_up 0.0" in text
    await one.metrics.read()
    assert "durably_database_up 1.0" in generate_latest(own).decode()


async def test_after_its_close_nothing_is_counted(world: World) -> None:
    one = await counted(world, plain)
    await one.metrics.close()
    await bounded(one.durably.trigger_and_wait(plain))
    assert await one.value("durably_runs_triggered_total", "plain") == 0
    assert not any(one.durably._emitter.hears(type_) for type_ in (*counts.ENDS, *counts.OUTCOMES, "step:start"))


async def test_steps_of_runs_that_were_lost_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_REMEMBERED", 2)
    one = await counted(world, plain)
    for number in range(5):
        one.durably._emitter.tell("step:start", f"lost {number}", "plain", step_name="one")
    await turns()
    assert len(one.metrics._counts._executing) == 2


def test_without_the_package_the_error_says_what_to_install(root: Path) -> None:
    code = """
import sys
sys.modules["prometheus_client"] = None
import durably_web, durably_web.counts, durably_web.gauges, durably_web.health
try:
    import durably_web.metrics
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "metrics need prometheus-client: pip install 'durably-web[prometheus]'\n"
