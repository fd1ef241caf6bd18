"""Requests that come again, of another engine too and when things have moved on: they have the effect of one."""

from __future__ import annotations

from typing import Any

from durably_web.api import Request, Response, respond
from durably_web.engine import Durably, control
from durably_web.ids import IdMaker, counted_up
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store.batch import Executor, Row
from tests.contract import Backend
from tests.support.executors import FaultyExecutor
from tests.support.store_scene import dump
from tests.support.world import Gate, Heard, World, bounded


@job
async def quick(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("one", _value, input.get("n"))


@job
async def fails(step: Step, input: dict[str, Any]) -> None:
    await step.run("bad", _fail)


@job
async def listens(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("go")


def _value(value: Any) -> Any:
    return value


def _fail() -> None:
    raise ValueError("no")


class Story:
    """Two engines on one database. What `ask` sends, `again` sends again: to the other one, and then to the first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.make_id = IdMaker(world.clock)
        self.engines: list[Durably] = []
        self.sent: list[tuple[Request, Response]] = []

    @classmethod
    async def begin(cls, world: World) -> Story:
        story = cls(world)
        story.engines = [await world.engine(quick, fails, listens) for _ in range(2)]
        return story

    async def ask(self, line: str, body: Any = None, **query: Any) -> Any:
        """The body of the answer to a request with an id, which is not an error."""
        method, path = line.split()
        request = Request(method, path, query, body, self.make_id())
        response = await respond(self.engines[0], request)
        assert response.status == 200, response
        self.sent.append((request, response))
        return response.body

    async def again(self) -> None:
        """All that was asked with an id is asked again, twice; nothing happens, and the answers are the same."""
        before = await self.dump()
        for engine in reversed(self.engines):
            for request, response in self.sent:
                repeated = await respond(engine, request)
                assert repeated == response, f"{request}: {repeated}, not {response}"
                assert await self.dump() == before, f"the repeat of {request} changed something"
        self.sent.clear()

    async def refused(self, line: str, **query: str) -> int:
        """The status of the answer to a request that is another one."""
        method, path = line.split()
        return (await respond(self.engines[1], Request(method, path, query, None, self.make_id()))).status

    async def trigger(self, name: str = "quick", **fields: Any) -> str:
        """A run that somebody else has asked for."""
        return (await self.engines[1].trigger(name, {}, **fields)).id

    async def execute(self) -> None:
        await bounded(self.engines[1].process_until_idle())

    async def ended(self, name: str = "quick") -> str:
        run_id = await self.trigger(name)
        await self.execute()
        return run_id

    async def remove(self, run_id: str) -> None:
        run = await self.engines[1].get_run(run_id)
        if run is not None and not run.is_terminal:
            await self.engines[1].cancel(run_id)
        await self.engines[1].delete_run(run_id)

    async def dump(self) -> dict[str, list[Row]]:
        executor = self.world.executor()
        await executor.open()
        try:
            return await dump(executor)
        finally:
            await executor.close()


# -- triggers --------------------------------------------------------------------------------------------


async def a_trigger_gives_its_run_again_whatever_became_of_it(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        for more in (
            {},
            {"labels": {"a": "b"}, "idempotencyKey": "k"},
            {"concurrencyKey": "c"},
            {"concurrencyKey": "c", "coalesce": "queue", "idempotencyKey": "q"},
            {"concurrencyKey": "c", "coalesce": "skip"},
            {"concurrencyKey": "c", "coalesce": "replace", "labels": {"a": "b"}},
            {"concurrencyKey": "burst", "debounceMs": 0},
            {"delayMs": 0},
        ):
            made = await story.ask("POST /trigger", {"jobName": "quick", "input": {"n": 1}, **more})
            [(request, _)] = story.sent
            assert made == {"runId": request.id, "disposition": "created"}, "the request's id is the run's"
            kept = list(story.sent)
            await story.again()
            world.clock.advance(1)
            await story.execute()
            story.sent = list(kept)
            await story.again()
            await story.remove(made["runId"])
            story.sent = list(kept)
            await story.again()


async def a_trigger_that_found_another_run_finds_it_again(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        first = await story.trigger(idempotency_key="k", concurrency_key="c")
        for more, disposition in (
            ({"idempotencyKey": "k"}, "idempotent"),
            ({"concurrencyKey": "c", "coalesce": "skip"}, "coalesced"),
            ({"concurrencyKey": "c", "coalesce": "replace"}, "coalesced"),
        ):
            made = await story.ask("POST /trigger", {"jobName": "quick", "input": {"n": disposition}, **more})
            assert made == {"runId": first, "disposition": disposition}
        # Others came in between: their input stays.
        await story.trigger(concurrency_key="c", coalesce="replace")
        kept = list(story.sent)
        await story.again()
        await story.execute()
        story.sent = kept
        await story.again()


async def many_triggers_are_counted_up_and_given_again(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        used = await story.trigger(idempotency_key="used")
        items = [{}, {"idempotencyKey": "used"}, {"concurrencyKey": "c"}, {"concurrencyKey": "c", "coalesce": "skip"}]
        made = await story.ask("POST /trigger-many", {"jobName": "quick", "items": items})
        [(request, _)] = story.sent
        assert request.id is not None
        ids = [counted_up(request.id, number) for number in range(4)]
        assert [one["runId"] for one in made] == [ids[0], used, ids[2], ids[2]]
        assert [one["disposition"] for one in made] == ["created", "idempotent", "created", "coalesced"]
        kept = list(story.sent)
        await story.again()
        await story.execute()
        story.sent = kept
        await story.again()


async def a_copy_of_a_run_is_made_once_also_when_its_model_is_gone(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        for line, more in (("POST /retrigger", {}), ("POST /fork", {}), ("POST /fork", {"fromStep": "one"})):
            source = await story.ended()
            made = await story.ask(line, runId=source, **more)
            [(request, _)] = story.sent
            assert made == {"success": True, "runId": request.id}
            kept = list(story.sent)
            await story.again()
            await story.execute()
            await story.remove(source)
            story.sent = list(kept)
            await story.again()
            await story.remove(made["runId"])
            story.sent = list(kept)
            await story.again()
            assert await story.refused(line, runId=source) == 404


# -- one run ---------------------------------------------------------------------------------------------


async def a_signal_is_delivered_once_also_when_its_run_has_ended(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        run_id = await story.trigger("listens")
        await story.ask("POST /signal", {"n": 1}, runId=run_id, name="go")
        kept = list(story.sent)
        await story.again()
        await story.execute()
        assert await story.engines[0].output_of(run_id, timeout=60) == {"n": 1}
        story.sent = kept
        await story.again()
        assert await story.refused("POST /signal", runId=run_id, name="go") == 409


async def a_cancelled_run_that_was_retried_is_not_cancelled_again(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        run_id = await story.trigger()
        await story.ask("POST /cancel", runId=run_id)
        kept = list(story.sent)
        await story.again()
        assert await story.refused("POST /cancel", runId=run_id) == 409
        await story.engines[1].retry(run_id)
        story.sent = list(kept)
        await story.again()
        await story.execute()
        story.sent = kept
        await story.again()
        run = await story.engines[0].get_run(run_id)
        assert run is not None and run.status == "completed"


async def a_repeated_cancel_leaves_a_later_execution_alone(backend: Backend) -> None:
    gate = Gate()

    @job
    async def waits(step: Step, input: dict[str, Any]) -> str:
        return await step.run("wait", gate.wait, "done")

    async with World(backend) as world:
        durably = await world.started(waits)
        handle = await durably.trigger(waits)
        await gate.reached()
        request = Request("POST", "/cancel", {"runId": handle.id}, None, IdMaker(world.clock)())
        assert (await respond(durably, request)).status == 200
        await durably.retry(handle.id)
        await gate.reached(2)
        assert (await respond(durably, request)).status == 200
        gate.open()
        assert await bounded(handle.result()) == "done"


async def a_retry_that_led_to_another_end_is_not_repeated(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        failed = await story.ended("fails")
        cancelled = await story.trigger()
        await story.engines[1].cancel(cancelled)
        for run_id, then in ((failed, "failed"), (cancelled, "completed")):
            await story.ask("POST /retry", runId=run_id)
            kept = list(story.sent)
            await story.again()
            assert await story.refused("POST /retry", runId=run_id) == 409
            await story.execute()
            story.sent = kept
            await story.again()
            run = await story.engines[0].get_run(run_id)
            assert run is not None and run.status == then


async def a_run_is_deleted_once(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        run_id = await story.ended()
        await story.ask("DELETE /run", runId=run_id)
        await story.again()
        assert await story.refused("DELETE /run", runId=run_id) == 404


async def what_was_paused_or_resumed_since_stays_so(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        run_id = await story.trigger()
        other = story.engines[1]
        await story.ask("POST /pause", runId=run_id)
        pausing = list(story.sent)
        await story.again()
        await other.resume(run_id)
        story.sent = list(pausing)
        await story.again()
        await other.pause(run_id)
        await story.ask("POST /resume", runId=run_id)
        resuming = list(story.sent)
        await story.again()
        await other.pause(run_id)
        story.sent = list(resuming)
        await story.again()
        await other.resume(run_id)
        await story.execute()
        # Both were done before the run ended; what comes now comes too late.
        story.sent = pausing + resuming
        await story.again()
        for verb in ("pause", "resume"):
            assert await story.refused(f"POST /{verb}", runId=run_id) == 409
            assert await story.refused(f"POST /{verb}", runId="none") == 404


async def a_job_that_was_paused_or_resumed_since_stays_so(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        other = story.engines[1]
        await story.ask("POST /pause", jobName="quick")
        await other.resume_job("quick")
        await story.again()
        await other.pause_job("quick")
        await story.ask("POST /resume", jobName="quick")
        await other.pause_job("quick")
        await story.again()
        assert (await other.stats()).paused_jobs == ["quick"]


# -- many runs -------------------------------------------------------------------------------------------


async def a_request_about_many_runs_tells_the_same_count(backend: Backend) -> None:
    async with World(backend) as world:
        story = await Story.begin(world)
        for _ in range(2):
            await story.ended("fails")
        steps: list[tuple[str, dict[str, Any], int]] = [
            ("pause", {"jobName": "quick"}, 3),
            ("resume", {"status": "pending"}, 3),
            ("cancel", {"jobName": ["quick", "listens"]}, 3),
            ("retry", {"status": "failed,cancelled"}, 5),
        ]
        for _ in range(3):
            await story.trigger()
        for verb, query, count in steps:
            assert await story.ask(f"POST /runs/{verb}", **query) == {"count": count}
            # Some of a later time, which the repeat must not find.
            late = await story.trigger("listens")
            await story.again()
            await story.remove(late)
        await story.execute()
        assert await story.ask("POST /runs/delete", status="failed") == {"count": 2}
        kept = list(story.sent)
        await story.ended("fails")
        await story.again()
        assert await story.ask("POST /purge", {"olderThanMs": 0, "limit": 2}) == {"count": 2}
        story.sent += kept
        await story.again()


async def a_request_about_many_runs_that_was_broken_off_is_finished(backend: Backend) -> None:
    """Page by page; and what it has changed before, it does not change again, although others have undone it."""
    before, control.RUNS_AT_ONCE = control.RUNS_AT_ONCE, 2
    try:
        async with World(backend) as world:
            faulty: list[FaultyExecutor] = []

            def through(inner: Executor) -> Executor:
                faulty.append(FaultyExecutor(inner))
                return faulty[0]

            first, second = await world.engine(quick, fails, through=through), await world.engine(quick, fails)
            make_id, broken = IdMaker(world.clock), 0
            for verb in ("cancel", "retry", "delete", "pause"):
                for fault in ("before", "after"):
                    for at in range(1, 10):
                        request = Request("POST", f"/runs/{verb}", {"label.n": f"{verb} {fault} {at}"}, None, make_id())
                        labels = {"n": f"{verb} {fault} {at}"}
                        ids = [(await second.trigger(fails, labels=labels)).id for _ in range(5)]
                        if verb in ("retry", "delete"):
                            await bounded(second.process_until_idle())
                        faulty[0].fault, faulty[0].at, faulty[0].count = fault, at, 0
                        response = await respond(first, request)
                        faulty[0].at = 0
                        broken += response.status == 503
                        story = (verb, fault, at, response)
                        await _undo(second, verb, await _changed(world, request))
                        repeated = await respond(second, request)
                        assert repeated == Response(200, {"count": 5}), (story, repeated)
                        assert await _changed(world, request) == ids, story
                        await second.cancel_runs(status=("pending", "leased", "waiting"), labels=labels)
            assert broken > 4 * 2 * 5, "most of them were broken off"
    finally:
        control.RUNS_AT_ONCE = before


async def _changed(world: World, request: Request) -> list[Any]:
    """The runs that a request has changed so far, oldest first, each as often as it did."""
    parts = (f"{request.id}.", f"{request.id}/")
    journal = await world.rows("SELECT run_id FROM durably_journal WHERE request_id > ? AND request_id < ?", *parts)
    marked = await world.rows("SELECT subject FROM durably_requests WHERE request_id > ? AND request_id < ?", *parts)
    return sorted([row[0] for row in (*journal, *marked)])


async def _undo(durably: Durably, verb: str, changed: list[Any]) -> None:
    for run_id in changed:
        if verb == "cancel":
            await durably.retry(run_id)
        elif verb == "retry":
            await durably.cancel(run_id)


# -- events, ids -----------------------------------------------------------------------------------------


async def an_event_is_told_once_however_often_it_is_asked_for(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick, listens)
        heard = Heard(durably)
        make_id = IdMaker(world.clock)
        run_id = make_id()
        asked = {"jobName": "quick", "concurrencyKey": "c", "coalesce": "replace"}
        for request in (
            Request("POST", "/trigger", {}, asked, run_id),
            Request("POST", "/trigger", {}, asked, make_id()),
            Request("POST", "/pause", {"runId": run_id}, None, make_id()),
            Request("POST", "/resume", {"runId": run_id}, None, make_id()),
            Request("POST", "/cancel", {"runId": run_id}, None, make_id()),
            Request("POST", "/retrigger", {"runId": run_id}, None, make_id()),
            Request("POST", "/retry", {"runId": run_id}, None, make_id()),
            Request("POST", "/runs/cancel", {"jobName": "quick"}, None, make_id()),
            Request("POST", "/runs/delete", {"jobName": "quick"}, None, make_id()),
        ):
            for _ in range(2):
                response = await respond(durably, request)
                assert response.status == 200, (request, response)
        told = "trigger coalesced pause resume cancel trigger retry cancel cancel delete delete"
        assert heard.types == [f"run:{verb}" for verb in told.split()]


async def ids_that_are_none_are_refused(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(quick)
        for wrong in ("", "x", "0" * 25, "0" * 27, "8" + "0" * 25, "o" * 26, "I" + "0" * 25, "0" * 25 + "é", 7):
            request: Any = Request("POST", "/trigger", {}, {"jobName": "quick"}, wrong)  # type: ignore[arg-type]
            response = await respond(durably, request)
            assert (response.status, response.body["name"]) == (400, "BadRequest"), wrong
        last = "7" + "Z" * 25
        many = Request("POST", "/trigger-many", {}, {"jobName": "quick", "items": [{}, {}]}, last)
        response = await respond(durably, many)
        assert (response.status, response.body["name"]) == (400, "InvalidInput"), response
        assert await durably.get_runs() == []
