"""Triggers that were acknowledged before there was an engine: each becomes a run, or one that has failed."""

from __future__ import annotations

from typing import Any

from durably_web.api import Request, respond
from durably_web.api.inbox import admit
from durably_web.engine import Durably
from durably_web.ids import IdMaker, counted_up
from durably_web.jobs import job
from durably_web.records import Run, instant
from durably_web.steps import Step
from durably_web.store.batch import Executor
from tests.contract import Backend
from tests.support.executors import FaultyExecutor
from tests.support.scenes import run_of
from tests.support.store_scene import dump
from tests.support.world import Heard, World, bounded


@job
async def quick(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("one", _value, input.get("n"))


@job
async def picky(step: Step, input: dict[str, int]) -> None: ...


def _value(value: Any) -> Any:
    return value


def _trigger(world: World, **body: Any) -> Request:
    return Request("POST", "/trigger", {}, {"jobName": "quick", **body}, IdMaker(world.clock)())


def _many(world: World, *items: Any, **body: Any) -> Request:
    return Request(
        "POST", "/trigger-many", {}, {"jobName": "quick", **body, "items": list(items)}, IdMaker(world.clock)()
    )


async def _admitted(durably: Durably, request: Request, received_at: int) -> Any:
    response = await admit(durably, request, received_at)
    assert response.status == 200, response
    return response.body


async def _refused(world: World, durably: Durably, request: Request, error: str) -> Run:
    """The run that became of a request that is impossible; it is the same when the request comes again."""
    received_at = world.clock.now() - 5000
    answer = await _admitted(durably, request, received_at)
    assert answer == {"runId": request.id, "disposition": "created"}
    before = await _dump(world)
    assert await _admitted(durably, request, received_at - 1) == answer
    assert await _dump(world) == before
    run = await run_of(durably, str(request.id))
    assert run.status == "failed" and run.error is not None and run.error.startswith(error), run
    assert run.created_at == instant(received_at) and run.completed_at == instant(world.clock.now())
    assert (run.started_at, run.attempt, run.output) == (None, 0, None)
    events = (await durably.get_events(run.id)).events
    assert [event.type for event in events] == ["run:trigger", "run:fail"] and events[1].error == run.error
    return run


async def _dump(world: World) -> Any:
    executor = world.executor()
    await executor.open()
    try:
        return await dump(executor)
    finally:
        await executor.close()


async def a_trigger_is_carried_out_as_if_at_its_moment(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        heard = Heard(durably)
        received_at = world.clock.now() - 60_000
        due = _trigger(world, input={"n": 1}, labels={"a": "b"}, priority=3, delayMs=50_000, idempotencyKey="k")
        late = _trigger(world, input={"n": 2}, delayMs=70_000, concurrencyKey="c", coalesce="queue")
        for request in (due, late):
            for _ in range(2):
                answer = await _admitted(durably, request, received_at)
                assert answer == {"runId": request.id, "disposition": "created"}
        run = await run_of(durably, str(due.id))
        assert (run.input, run.labels, run.priority, run.idempotency_key) == ({"n": 1}, {"a": "b"}, 3, "k")
        assert run.created_at == instant(received_at) and run.run_at == instant(received_at + 50_000)
        assert heard.types == ["run:trigger", "run:trigger"]
        assert heard.events[0].timestamp == instant(received_at)
        assert await bounded(durably.process_until_idle()) == 1, "the one that has been due for 10 s"
        world.clock.advance(10)
        assert await bounded(durably.process_until_idle()) == 1
        assert [await durably.output_of(str(one.id), timeout=60) for one in (due, late)] == [1, 2]
        again = _trigger(world, idempotencyKey="k")
        assert await _admitted(durably, again, received_at) == {"runId": due.id, "disposition": "idempotent"}


async def many_are_carried_out_together(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        received_at = world.clock.now() - 60_000
        request = _many(world, {"input": {"n": 1}}, {"input": {"n": 2}, "delayMs": 1}, {})
        ids = [counted_up(str(request.id), number) for number in range(3)]
        answer = [{"runId": run_id, "disposition": "created"} for run_id in ids]
        for _ in range(2):
            assert await _admitted(durably, request, received_at) == answer
        runs = [await run_of(durably, run_id) for run_id in ids]
        assert [run.input for run in runs] == [{"n": 1}, {"n": 2}, {}]
        assert {run.created_at for run in runs} == {instant(received_at)}
        await bounded(durably.process_until_idle())
        assert await _admitted(durably, request, received_at) == answer


async def what_is_impossible_is_a_failed_run(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick, picky)
        await durably.trigger(quick, concurrency_key="c")
        for body, error in (
            ({"jobName": "none"}, "NotFound: there is no job 'none'"),
            ({"jobName": "picky", "input": {"n": "x"}}, "InvalidInput: "),
            ({"input": 5}, "InvalidInput: "),
            ({"priority": "high"}, "BadRequest: priority"),
            ({"wrong": 1}, "BadRequest: a trigger has no wrong"),
            ({"delayMs": 1, "runAt": "2030-01-31T12:00:00Z"}, "InvalidInput: delay and run_at"),
            ({"concurrencyKey": "c"}, "Conflict: run "),
            ({"coalesce": "skip"}, "InvalidInput: coalesce needs"),
        ):
            request = _trigger(world, **{"input": {"n": 1}, "labels": {"a": "b"}, **body})
            run = await _refused(world, durably, request, error)
            assert run.job_name == body.get("jobName", "quick")
            assert run.input == body.get("input", {"n": 1}) and run.labels == {"a": "b"}
            assert (run.idempotency_key, run.concurrency_key) == (None, None)
        assert {run.status for run in await durably.get_runs(labels={"a": "b"})} == {"failed"}


async def what_makes_no_sense_is_kept_as_far_as_it_does(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        run = await _refused(world, durably, _trigger(world, labels={"a": 1}), "BadRequest: the values of labels")
        assert run.labels == {}
        run = await _refused(world, durably, _trigger(world, jobName=None), "BadRequest: jobName")
        assert (run.job_name, run.input) == ("?", {})
        run = await _refused(world, durably, _trigger(world, jobName="\ud800"), "NotFound: ")
        assert run.job_name == "?"
        run = await _refused(world, durably, _trigger(world, input={"n": float("nan")}), "InvalidInput: ")
        assert run.input == '{"n": NaN}'
        nothing = Request("POST", "/trigger", {}, [1], IdMaker(world.clock)())
        await _refused(world, durably, nothing, "BadRequest: a trigger must be a JSON object")


async def of_many_that_are_impossible_each_is_a_failed_run(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick, picky)
        heard = Heard(durably)
        received_at = world.clock.now() - 1000
        for items, body, error in (
            ([{"input": {"n": 1}, "labels": {"a": "b"}}, {}], {"jobName": "none"}, "NotFound: "),
            ([{"input": {"n": 1}}, {"input": {"n": "x"}}], {"jobName": "picky"}, "InvalidInput: "),
            ([{"concurrencyKey": "c"}, {"concurrencyKey": "c"}], {}, "Conflict: items[1]"),
            ([{}, 5, {"priority": "x"}], {}, "BadRequest: items[1]"),
        ):
            request = _many(world, *items, **body)
            world.clock.advance(1)
            heard.events.clear()
            ids = [counted_up(str(request.id), number) for number in range(len(items))]
            for _ in range(2):
                answer = await _admitted(durably, request, received_at)
                assert answer == [{"runId": run_id, "disposition": "created"} for run_id in ids]
            assert heard.types == ["run:trigger", "run:fail"] * len(items)
            for run_id, item in zip(ids, items, strict=True):
                run = await run_of(durably, run_id)
                assert run.status == "failed" and str(run.error).startswith(error), run
                given = item.get("input", {}) if isinstance(item, dict) else item
                assert run.input == given
        assert await bounded(durably.process_until_idle()) == 0


async def a_failed_run_of_an_unknown_job_works_once_there_is_the_job(backend: Backend) -> None:
    async with World(backend) as world:
        before = await world.engine()
        request = _trigger(world, input={"n": 7})
        await _refused(world, before, request, "NotFound: there is no job 'quick'; registered: none")
        after = await world.engine(quick)
        await after.retry(str(request.id))
        # It comes once more, as after a crash before the inbox forgot it.
        assert (await _admitted(before, request, 0))["runId"] == request.id
        assert (await _admitted(after, request, 0))["runId"] == request.id
        await bounded(after.process_until_idle())
        assert await after.output_of(str(request.id), timeout=60) == 7
        await after.delete_run(str(request.id))
        for engine in (before, after):
            assert (await _admitted(engine, request, 0))["runId"] == request.id
        assert await after.get_runs() == []


async def a_run_that_was_made_is_not_failed_by_an_engine_without_its_job(backend: Backend) -> None:
    async with World(backend) as world:
        with_job, without = await world.engine(quick), await world.engine()
        request = _trigger(world, input={"n": 7})
        for engine in (with_job, without, with_job):
            assert await _admitted(engine, request, 1000) == {"runId": request.id, "disposition": "created"}
            assert (await run_of(engine, str(request.id))).status == "pending"
        await bounded(with_job.process_until_idle())
        assert await _admitted(without, request, 1000) == {"runId": request.id, "disposition": "created"}
        assert await with_job.output_of(str(request.id), timeout=60) == 7


async def when_the_store_fails_nothing_is_left(backend: Backend) -> None:
    async with World(backend) as world:
        faulty: list[FaultyExecutor] = []

        def through(inner: Executor) -> Executor:
            faulty.append(FaultyExecutor(inner))
            return faulty[0]

        durably = await world.engine(quick, through=through)
        for request in (_trigger(world), _trigger(world, jobName="none"), _many(world, {}, {}, jobName="none")):
            world.clock.advance(1)
            before = await _dump(world)
            faulty[0].at, faulty[0].count = 1, 0
            response = await admit(durably, request, world.clock.now())
            assert (response.status, response.body["name"]) == (503, "StoreUnavailable")
            assert await _dump(world) == before
            faulty[0].at = 0
            assert (await admit(durably, request, world.clock.now())).status == 200


async def only_triggers_with_an_id_are_taken(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        run_id = IdMaker(world.clock)()
        for request in (
            Request("POST", "/trigger", {}, {"jobName": "quick"}),
            Request("POST", "/trigger", {}, {"jobName": "quick"}, "x"),
            Request("POST", "/cancel", {"runId": run_id}, None, run_id),
            Request("GET", "/runs", {}, None, run_id),
        ):
            response = await admit(durably, request, 1000)
            assert (response.status, response.body["name"]) == (400, "BadRequest"), request
        assert await durably.get_runs() == []


async def a_failed_run_is_listed_and_read_like_any_other(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        request = _trigger(world, jobName="none", labels={"a": "b"})
        await _refused(world, durably, request, "NotFound: ")
        for query in ({"status": "failed"}, {"label.a": "b"}, {"jobName": ["quick", "none"]}):
            response = await respond(durably, Request("GET", "/runs", query))
            assert [run["id"] for run in response.body] == [request.id], query
        assert (await durably.wait_for_run(str(request.id), timeout=60)).status == "failed"
        assert (await durably.retrigger(str(request.id))).disposition == "created"
        assert await durably.delete_runs(status="failed") == 1
