"""The engine as sync code calls it: the same names, from any thread, and none of its own to keep the process."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import durably_web
from durably_web import Conflict, Event, InvalidInput, NotFound, RunFailed, StoreUnavailable
from durably_web.blocking import Durably, RunHandle
from durably_web.store.changes import Changes
from tests.blocking.jobs import JOBS, double, fails, greets, sleeps, stuck, where

SECONDS = 30


@pytest.fixture
def durably(tmp_path: Path) -> Iterator[Durably]:
    made = Durably(str(tmp_path / "app.db"), jobs=JOBS, polling_interval=0.05)
    yield made
    made.stop(SECONDS)


# -- the same contract -------------------------------------------------------------------------------------

# What makes no sense here, and why.
LEFT_OUT = {
    "blame": "of pages, which know under which run their worker died",
    "watch_executions": "of pages, which watch their worker",
    "abandon": "what is left of a `stop` whose loop is held up",
    "wait_until": "of coroutines",
    "trigger_at": "of the inbox of a browser",
    "trigger_many_at": "of the inbox of a browser",
}


def _public(kind: type) -> dict[str, Any]:
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}


def test_it_has_what_the_engine_has() -> None:
    ours, engines = _public(Durably), _public(durably_web.Durably)
    assert set(ours) == set(engines) - set(LEFT_OUT)
    assert set(LEFT_OUT) <= set(engines)


@pytest.mark.parametrize("name", sorted(_public(Durably)))
def test_a_method_takes_what_the_engines_takes(name: str) -> None:
    ours, engines = _public(Durably)[name], _public(durably_web.Durably)[name]
    assert (ours.__doc__ or (ours.fget and ours.fget.__doc__) or "").strip()
    if isinstance(ours, property):
        assert isinstance(engines, property)
        return
    assert not inspect.iscoroutinefunction(ours)
    taken = dict(inspect.signature(ours).parameters)
    theirs = dict(inspect.signature(engines).parameters)
    if name == "output_of":
        del theirs["listeners"]
    assert {key: (one.kind, one.default) for key, one in taken.items()} == {
        key: (one.kind, one.default) for key, one in theirs.items()
    }


def test_it_is_made_with_the_same_options() -> None:
    ours = dict(inspect.signature(Durably).parameters)
    del ours["exit_timeout"]
    theirs = inspect.signature(durably_web.Durably).parameters
    assert {name: one.default for name, one in ours.items()} == {name: one.default for name, one in theirs.items()}


def test_a_handle_has_what_the_engines_has() -> None:
    assert set(_public(RunHandle)) == set(_public(durably_web.RunHandle))


# -- use ---------------------------------------------------------------------------------------------------


def test_ask_wait_and_read(durably: Durably) -> None:
    run = durably.trigger(double, {"n": 4}, labels={"org": "acme"})
    assert (run.disposition, durably.get_run(run.id).status) == ("created", "pending")  # type: ignore[union-attr]
    assert durably.process_until_idle() == 1
    assert run.result(timeout=SECONDS) == 8
    assert [step.name for step in durably.get_steps(run.id)] == ["double"]
    assert [line.message for line in durably.get_logs(run.id)] == ["doubling"]
    assert durably.stats().by_status == {"completed": 1}
    assert [one.id for one in durably.get_runs(labels={"org": "acme"}, job=double)] == [run.id]
    ended = run.run()
    assert ended is not None and ended.progress == (1, 1, None)
    types = [event.type for event in run.events()]
    assert types[0] == "run:trigger" and types[-1] == "run:complete" and len(set(types)) == len(types)
    assert [event.type for event in durably.subscribe(run.id, after=durably.get_events(run.id).events[-2].seq)] == [
        "run:complete"
    ]


def test_a_worker_in_a_thread_beside(durably: Durably) -> None:
    heard: list[str] = []
    durably.on("run:complete", lambda event: heard.append(threading.current_thread().name))
    durably.start()
    told = durably.trigger_and_wait(where, timeout=SECONDS)
    assert told["pid"] == os.getpid() and told["job"] != threading.current_thread().name
    assert told["thread"].startswith("durably-step")
    assert heard == [told["job"]]


def test_errors_are_those_of_the_engine(durably: Durably) -> None:
    with pytest.raises(NotFound, match="nonsense"):
        durably.trigger("nonsense")
    with pytest.raises(NotFound):
        durably.cancel("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    with pytest.raises(InvalidInput):
        Durably(object())  # type: ignore[arg-type]
    run = durably.trigger(fails)
    with pytest.raises(TimeoutError):
        run.result(timeout=0)
    durably.process_until_idle()
    with pytest.raises(RunFailed, match="on purpose"):
        run.result(timeout=SECONDS)
    with pytest.raises(Conflict):
        run.cancel()
    assert [one.id for one in durably.get_failed_runs()] == [run.id]


def test_signals_and_what_changes_runs(durably: Durably) -> None:
    durably.start()
    run = durably.trigger(greets)
    durably.signal(run.id, "name", "Ada")
    assert run.result(timeout=SECONDS) == "hello Ada"
    again = durably.retrigger(run.id)
    durably.pause(again.id)
    durably.resume(again.id)
    again.cancel()
    assert durably.wait_for_run(again.id, timeout=SECONDS).status == "cancelled"
    durably.retry(again.id)
    durably.signal(again.id, "name", "Grace")
    assert again.result(timeout=SECONDS) == "hello Grace"
    assert durably.delete_runs(status="completed") == 2


def test_schedules(durably: Durably) -> None:
    made = durably.schedule("double", every=3600, input={"n": 4}, name="often")
    assert durably.schedule("double", every=3600, input={"n": 4}, name="often") == made == durably.get_schedule("often")
    assert durably.pause_schedule("often").paused and not durably.resume_schedule("often").paused
    durably.start()
    handle = durably.trigger_schedule("often")
    assert handle.result(timeout=SECONDS) == 8
    assert [run.id for run in durably.get_runs(schedule="often")] == [handle.id]
    durably.remove_schedule("often")
    assert durably.get_schedules() == []


def test_many_threads_at_once(durably: Durably) -> None:
    durably.start()

    def ask(n: int) -> int:
        return durably.trigger(double, {"n": n}).result(timeout=SECONDS)

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(100))) == [2 * n for n in range(100)]
    assert durably.stats().by_status == {"completed": 100}


def test_the_first_call_opens_and_many_do_it_once(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    durably = Durably(str(path), jobs=[double])
    assert not path.exists() and durably.get_job("double") is double
    before = threading.active_count()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: durably.trigger(double, {"n": n}), range(8)))
    assert threading.active_count() == before + 1
    durably.stop(SECONDS)
    assert threading.active_count() == before
    assert os.listdir(tmp_path) == ["app.db"]


def test_it_opens_again_after_a_stop(durably: Durably) -> None:
    heard: list[str] = []
    unsubscribe = durably.on("run:trigger", lambda event: heard.append(event.type))
    with durably:
        assert durably.trigger(double, {"n": 1}).result(timeout=SECONDS) == 2
    durably.stop()
    durably.trigger(double, {"n": 2})
    assert heard == ["run:trigger"] * 2
    unsubscribe()
    durably.trigger(double, {"n": 3})
    assert len(heard) == 2
    assert durably.stats().by_status == {"completed": 1, "pending": 2}, "and nothing is executed unless it is started"


def test_what_cannot_be_opened_is_asked_again(tmp_path: Path) -> None:
    durably = Durably(str(tmp_path / "later" / "app.db"), jobs=[double])
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="later"):
            durably.stats()
    (tmp_path / "later").mkdir()
    assert durably.stats().total == 0
    durably.stop(SECONDS)


# -- where it must not wait --------------------------------------------------------------------------------


async def test_where_a_loop_runs_each_call_is_refused(durably: Durably, tmp_path: Path) -> None:
    for call in (durably.stats, durably.init, durably.stop, lambda: durably.trigger(double, {"n": 1})):
        with pytest.raises(RuntimeError, match=r"durably_web\.Durably, and await"):
            call()
    assert os.listdir(tmp_path) == []
    assert await asyncio.to_thread(lambda: durably.stats().total) == 0


def test_a_listener_that_calls_back_is_refused_and_harms_nobody(durably: Durably) -> None:
    errors: list[str] = []
    durably.on("worker:error", lambda event: errors.append(event.error or ""))

    def calls_back(event: Event) -> None:
        durably.stats()

    durably.on("run:complete", calls_back)
    durably.start()
    assert durably.trigger_and_wait(double, {"n": 1}, timeout=SECONDS) == 2
    [error] = errors
    assert "event loop" in error


def test_a_step_may_call_back(durably: Durably) -> None:
    """It runs in a thread of its own."""

    @durably_web.job(name="asks")
    async def asks(step: durably_web.Step, input: dict[str, Any]) -> int:
        return await step.run("ask", lambda: durably.trigger(double, {"n": 21}).result(timeout=SECONDS))

    durably.register(asks)
    durably.start()
    assert durably.trigger_and_wait(asks, timeout=SECONDS) == 42


# -- the end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", [stuck, sleeps], ids=["stuck", "sleeps"])
def test_a_stop_with_a_time_out_abandons_what_does_not_end(durably: Durably, job: Any) -> None:
    errors: list[str] = []
    durably.on("worker:error", lambda event: errors.append(event.error or ""))
    durably.start()
    run = durably.trigger(job)
    began = next(event for event in run.events() if event.type == "step:complete")
    durably.stop(0)
    assert len(errors) == 1 and job.name in errors[0] and "allows" in errors[0]
    # What was stored is not done again, and the run is still there.
    durably.cancel(run.id)
    assert [event.type for event in run.events()].count("step:complete") == 1 and began.step_name == "before"


def test_a_worker_of_that_id_begins_again_though_a_thread_of_the_one_before_still_runs(tmp_path: Path) -> None:
    durably = Durably(str(tmp_path / "app.db"), jobs=JOBS, polling_interval=0.05, worker_id="mine")
    durably.start()
    run = durably.trigger(stuck)
    next(event for event in run.events() if event.type == "step:complete")
    for _ in range(2):
        durably.stop(0)
        durably.start()
        assert durably.trigger(double, {"n": 1}).result(timeout=SECONDS) == 2
    assert [(one.status, one.attempt) for one in [run.run()] if one] == [("leased", 1)], (
        "nobody else has taken it for dead"
    )
    durably.stop(SECONDS)


def test_who_waits_is_told_of_a_stop(durably: Durably, monkeypatch: pytest.MonkeyPatch) -> None:
    run = durably.trigger(greets)
    waiting = threading.Event()
    wait = Changes.wait

    def waits(self: Changes, *arguments: Any) -> Any:
        waiting.set()
        return wait(self, *arguments)

    monkeypatch.setattr(Changes, "wait", waits)
    with ThreadPoolExecutor(1) as thread:
        told = thread.submit(run.result)
        assert waiting.wait(SECONDS)
        durably.stop(SECONDS)
        assert isinstance(told.exception(SECONDS), StoreUnavailable)
