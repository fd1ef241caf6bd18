"""Schedules: one run for each tick, however many engines there are, whatever dies, and whatever clocks do."""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter
from collections.abc import Callable
from typing import Any

from durably_web import cron, schedules, ticking
from durably_web.clock import ManualClock
from durably_web.encryption import AesGcmCodec
from durably_web.engine import Durably
from durably_web.errors import Conflict, InvalidInput, NotFound, RequirementFailed, StoreError
from durably_web.jobs import job
from durably_web.records import Schedule
from durably_web.steps import Step
from durably_web.store.batch import Batch, Executor, Rows
from durably_web.store.operations.firing import CORRECT
from tests.contract import Backend, needs
from tests.support.executors import CountingExecutor, Fault, FaultyExecutor, RepeatingExecutor, Wrapper
from tests.support.world import Gate, Heard, World, bounded, raised, turns

MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0


@job
async def tick(step: Step, input: dict[str, Any]) -> Any:
    """What it was given, and its tick."""
    at = step.scheduled_at
    return {**input, "at": None if at is None else at.isoformat()}


@job(name="other")
async def other(step: Step, input: dict[str, int]) -> Any:
    return input


@job(max_concurrent_per_key=2)
async def overlapping(step: Step, input: dict[str, Any]) -> None: ...


@job
async def wait(step: Step, input: dict[str, Any]) -> Any:
    return await step.wait_for_signal("go")


def _at(clock: ManualClock) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(clock.now() / 1000, datetime.UTC)


def _utc(*parts: int) -> datetime.datetime:
    return datetime.datetime(*parts, tzinfo=datetime.UTC)  # type: ignore[misc,arg-type]


async def _set(world: World, moment: datetime.datetime) -> None:
    """Move the clock there, and back if need be; nobody hears a timer."""
    world.clock._now = round(moment.timestamp() * 1000)


async def _ticks(durably: Durably, name: str = "tick") -> list[datetime.datetime]:
    """The ticks that got a run, in the order in which the runs were made."""
    runs = await durably.get_runs(schedule=name)
    return [run.scheduled_at for run in reversed(runs) if run.scheduled_at is not None]


async def _only(durably: Durably, name: str = "tick") -> Schedule:
    found = await durably.get_schedule(name)
    assert found is not None
    return found


# -- what is stored --------------------------------------------------------------------------------------


async def a_schedule_is_stored_and_listed(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(tick, other)
        made = await durably.schedule(
            tick,
            name="each hour",
            every=HOUR,
            input={"n": 1, "ü": "🦆"},
            labels={"a": "b"},
            priority=3,
            missed="all",
            overlap="queue",
            catch_up_window=datetime.timedelta(days=1),
        )
        now = _at(world.clock)
        assert made == Schedule(
            name="each hour",
            job_name="tick",
            cron=None,
            every=HOUR,
            timezone=None,
            input={"n": 1, "ü": "🦆"},
            labels={"a": "b"},
            priority=3,
            missed="all",
            overlap="queue",
            catch_up_window=DAY,
            paused=False,
            next_at=now + datetime.timedelta(hours=1),
            last_at=None,
            created_at=now,
            updated_at=now,
        )
        second = await durably.schedule("other", cron=" 0  0 * * * ")
        assert (second.name, second.cron, second.timezone, second.missed, second.overlap) == (
            "other",
            "0 0 * * *",
            "UTC",
            "skip",
            "skip",
        )
        # From another engine, that does not know the jobs.
        reader = await world.engine()
        assert await reader.get_schedules() == [made, second]
        assert await reader.get_schedule("each hour") == made
        assert await reader.get_schedule("none") is None
        assert made.to_wire()["everyMs"] == 3_600_000 and made.to_wire()["catchUpWindowMs"] == 86_400_000
        assert made.to_wire()["nextAt"] == "2023-11-14T23:13:20.000Z"


async def the_same_again_changes_nothing(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(tick)
        options: dict[str, Any] = {"every": MINUTE, "input": {"n": 1}}
        made = await durably.schedule(tick, **options)
        await world.advance(30)
        assert await durably.schedule(tick, **options) == made
        await durably.pause_schedule("tick")
        paused = await durably.schedule(tick, **options)
        assert paused.paused and paused.next_at is None, "a schedule that somebody paused stays so"
        assert len(await durably.get_schedules()) == 1


async def another_time_counts_from_now_and_anything_else_leaves_the_next_tick(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(tick)
        made = await durably.schedule(tick, cron="0 * * * *", missed="one")
        await _set(world, _at(world.clock) + datetime.timedelta(hours=5, seconds=30))
        # The ticks of five hours have passed, and are still to be made up for.
        changed = await durably.schedule(tick, cron="0 * * * *", missed="one", input={"n": 2}, priority=1)
        assert changed.next_at == made.next_at and changed.updated_at > made.updated_at
        assert changed.created_at == made.created_at and changed.input == {"n": 2}
        moved = await durably.schedule(tick, cron="30 * * * *", missed="one", input={"n": 2}, priority=1)
        assert moved.next_at == _utc(2023, 11, 15, 3, 30)
        in_zone = await durably.schedule(tick, cron="30 6 * * *", timezone="Europe/Berlin")
        assert in_zone.next_at == _utc(2023, 11, 15, 5, 30)
        every = await durably.schedule(tick, every=HOUR)
        assert every.next_at == made.created_at + datetime.timedelta(hours=6), "counted from when it was first stored"
        assert await durably.process_until_idle() == 0 and not await _ticks(durably)


async def what_cannot_be_is_refused_and_nothing_stored(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(tick, other, overlapping)
        wrong: list[tuple[str, dict[str, Any]]] = [
            ("give one of cron", {}),
            ("give one of cron", {"cron": "* * * * *", "every": 5}),
            ("cannot be read (Bad minute)", {"cron": "60 * * * *"}),
            ("five fields", {"cron": "@daily"}),
            ("five fields", {"cron": "   "}),
            ("Bad day-of-month", {"cron": "0 0 30 2 *"}),
            ("cron must be a text", {"cron": 5}),
            ("no time zone 'Europe/Nowhere'", {"cron": "* * * * *", "timezone": "Europe/Nowhere"}),
            ("no time zone 'Europe'", {"cron": "* * * * *", "timezone": "Europe"}),
            ("no time zone '../../etc'", {"cron": "* * * * *", "timezone": "../../etc"}),
            ("timezone must be a text", {"cron": "* * * * *", "timezone": None}),
            ("belongs to cron", {"every": 5, "timezone": "Europe/Berlin"}),
            ("longer than 0 seconds", {"every": 0}),
            ("between 0 seconds", {"every": -1}),
            ("a number of seconds", {"every": "5"}),
            ("missed is", {"every": 5, "missed": "some"}),
            ("overlap is", {"every": 5, "overlap": "some"}),
            ("catch_up_window", {"every": 5, "catch_up_window": -1}),
            ("catch_up_window is longer than 0", {"every": 5, "catch_up_window": 0}),
            ("priority is", {"every": 5, "priority": 1.5}),
            ("labels are", {"every": 5, "labels": 7}),
            ("name must be", {"every": 5, "name": ""}),
        ]
        for message, options in wrong:
            error = await raised(InvalidInput, durably.schedule(tick, **options))
            assert message in str(error), (message, str(error))
        assert "does not fit" in str(await raised(InvalidInput, durably.schedule(other, every=5, input={"n": "x"})))
        queued = durably.schedule(overlapping, every=5, overlap="queue")
        assert "max_concurrent_per_key" in str(await raised(InvalidInput, queued))
        await raised(NotFound, durably.schedule("none", every=5))
        assert await durably.get_schedules() == []
        for verb in ("pause", "resume", "trigger", "remove"):
            error = await raised(NotFound, getattr(durably, f"{verb}_schedule")("none"))
            assert "'none'" in str(error)


async def a_schedule_is_paused_and_resumed(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(tick)
        await durably.schedule(tick, every=MINUTE, missed="all")
        await world.advance(MINUTE + 1)
        for _ in range(2):
            paused = await durably.pause_schedule("tick")
            assert paused.paused and paused.next_at is None
        await world.advance(10 * MINUTE)
        assert len(await _ticks(durably)) == 1
        resumed = await durably.resume_schedule("tick")
        assert await durably.resume_schedule("tick") == resumed and not resumed.paused
        assert resumed.next_at == resumed.created_at + datetime.timedelta(minutes=12), "the pause is not made up for"
        await world.advance(MINUTE)
        assert len(await _ticks(durably)) == 2


async def a_schedule_is_removed_and_its_runs_stay(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(tick, wait)
        await durably.schedule(wait, every=MINUTE)
        await world.advance(MINUTE + 1)
        await durably.remove_schedule("wait")
        await raised(NotFound, durably.remove_schedule("wait"))
        assert await durably.get_schedules() == []
        await world.advance(5 * MINUTE)
        [run] = await durably.get_runs(schedule="wait")
        assert run.status == "waiting"
        await durably.signal(run.id, "go", 7)
        assert (await world.drive(durably.wait_for_run(run.id))).output == 7
        # A new one of the same name begins anew.
        await durably.schedule(wait, every=MINUTE)
        await world.advance(MINUTE + 1)
        assert len(await _ticks(durably, "wait")) == 2


async def requests_about_schedules_that_come_again_change_nothing(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(tick)
        again = await world.engine(tick)
        ids = [durably._make_id() for _ in range(6)]
        await durably.schedule(tick, every=MINUTE, request_id=ids[0])
        await durably.schedule(tick, every=HOUR)
        repeated = await again.schedule(tick, every=MINUTE, request_id=ids[0])
        assert repeated.every == HOUR, "what others did since is not undone"
        await durably.pause_schedule("tick", request_id=ids[1])
        await durably.resume_schedule("tick", request_id=ids[2])
        assert not (await again.pause_schedule("tick", request_id=ids[1])).paused
        await durably.pause_schedule("tick")
        assert (await again.resume_schedule("tick", request_id=ids[2])).paused
        handles = [await one.trigger_schedule("tick", request_id=ids[3]) for one in (durably, again)]
        assert [handle.id for handle in handles] == [ids[3]] * 2
        assert len(await durably.get_runs()) == 1
        await durably.remove_schedule("tick", request_id=ids[4])
        await durably.schedule(tick, every=DAY)
        await again.remove_schedule("tick", request_id=ids[4])
        assert (await _only(durably)).every == DAY


async def one_who_changes_a_schedule_meets_others_who_do(backend: Backend) -> None:
    async with World(backend) as world:
        engines = [await world.engine(tick) for _ in range(4)]
        made = await bounded(
            asyncio.gather(*[one.schedule(tick, every=MINUTE, priority=n) for n, one in enumerate(engines)])
        )
        assert sorted(one.priority for one in made) == [0, 1, 2, 3]
        assert (await _only(engines[0])).priority in (0, 1, 2, 3)


async def the_input_of_a_schedule_is_sealed(backend: Backend) -> None:
    key = bytes(range(32))
    async with World(backend) as world:
        durably = await world.engine(tick, codec=AesGcmCodec(key))
        made = await durably.schedule(tick, every=MINUTE, input={"word": "canary"})
        assert await durably.schedule(tick, every=MINUTE, input={"word": "canary"}) == made, "sealed anew, and the same"
        world.clock.advance(MINUTE)
        assert await durably.process_until_idle() == 1
        tables = [await world.rows(f"SELECT * FROM {name}") for name in ("durably_schedules", "durably_runs")]
        assert "canary" not in repr(tables) and repr(tables).count("sealed:") >= 2
        second = await world.engine(tick, codec=AesGcmCodec(key))
        assert (await _only(second)).input == {"word": "canary"}
        [run] = await second.get_runs(schedule="tick")
        assert run.input == {"word": "canary"} and run.output["word"] == "canary"


# -- ticks -----------------------------------------------------------------------------------------------


async def a_tick_gets_a_run_like_any_other(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(tick)
        heard = Heard(durably)
        await durably.schedule(tick, every=MINUTE, input={"n": 1}, labels={"a": "b"}, priority=4)
        await world.advance(MINUTE, step=MINUTE)
        await bounded(_idle(durably))
        [run] = await durably.get_runs(schedule="tick", labels={"a": "b"})
        assert run.status == "completed" and run.priority == 4 and run.input == {"n": 1}
        tick_at = (await _only(durably)).created_at + datetime.timedelta(minutes=1)
        assert run.scheduled_at == tick_at and run.schedule == "tick"
        assert run.output == {"n": 1, "at": tick_at.isoformat()}
        assert run.created_at == tick_at, "nobody waited for a poll"
        assert heard.types[:2] == ["run:trigger", "run:leased"] and heard.types[-1] == "run:complete"
        stored = [event async for event in durably.subscribe(run.id)]
        assert [event.type for event in stored] == ["run:trigger", "run:leased", "run:complete"]
        assert stored[0].input == {"n": 1} and stored[0].labels == {"a": "b"}
        schedule = await _only(durably)
        assert schedule.last_at == tick_at and schedule.next_at == tick_at + datetime.timedelta(minutes=1)
        assert schedule.updated_at == schedule.created_at, "no user has changed it"
        assert not heard.of("schedule:skip", "worker:error")
        # Further runs are as if it was asked for by hand.
        copy = await durably.get_run((await durably.retrigger(run.id)).id)
        assert copy is not None and copy.schedule is None and copy.scheduled_at is None


async def ticks_do_not_drift(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(tick)
        schedule = await durably.schedule(tick, every=7.5)
        for _ in range(8):
            await world.advance(7.6)
        begin = schedule.created_at
        assert await _ticks(durably) == [begin + datetime.timedelta(seconds=7.5 * n) for n in range(1, 9)]


async def whoever_asks_for_what_is_due_gets_the_ticks_too(backend: Backend) -> None:
    """Without a worker in the background, as on a server that is only called now and then."""
    async with World(backend) as world:
        durably = await world.engine(tick)
        await durably.schedule(tick, cron="*/5 * * * *", missed="all", overlap="allow")
        assert await durably.process_until_idle() == 0
        await _set(world, _at(world.clock) + datetime.timedelta(minutes=30))
        assert await durably.process_one()
        assert await durably.process_until_idle() == 5
        assert not await durably.process_one()
        assert len(await _ticks(durably)) == 6


async def an_engine_without_the_job_gives_ticks_their_runs_for_others(backend: Backend) -> None:
    async with World(backend) as world:
        knows, does_not = await world.engine(tick), await world.started(other)
        await knows.schedule(tick, every=MINUTE)
        await world.advance(MINUTE + 1)
        [run] = await does_not.get_runs()
        assert run.status == "pending"
        assert await knows.process_until_idle() == 1


async def a_worker_that_is_full_lets_no_tick_pass(backend: Backend) -> None:
    gate = Gate()

    @job
    async def long(step: Step, input: dict[str, Any]) -> Any:
        return await step.run("wait", gate.wait, 1)

    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    async with World(backend) as world:
        full = await world.started(long, tick, max_concurrent_runs=1, through=through)
        elsewhere = await world.engine(tick)
        await full.trigger(long)
        await gate.reached()
        await full.schedule(tick, every=MINUTE, overlap="allow")
        counting[0].batches.clear()
        await world.advance(3 * MINUTE + 1)
        assert len(await _ticks(full)) == 3
        looks = [batch for batch in counting[0].batches if "durably_schedules" in batch.statements[0].sql]
        # Each tick, each heartbeat, and now and then whether a clock was wrong.
        assert len(looks) < 60, len(looks)
        # Also of a schedule that somebody else made.
        await elsewhere.schedule(tick, name="second", every=MINUTE, overlap="allow")
        await world.advance(3 * MINUTE + 1)
        assert len(await _ticks(full, "second")) == 3
        gate.open()
        await world.drive(_idle(full))


async def _idle(durably: Durably) -> None:
    while any(run.is_active for run in await durably.get_runs()):  # noqa: ASYNC110 — it moves the clock
        await asyncio.sleep(0)


@needs("workers", "wakes")
async def another_process_takes_the_run_of_a_tick_at_once(backend: Backend) -> None:
    async with World(backend) as world:
        fires = await world.started(other, polling_interval=HOUR)
        executes = await world.started(tick, polling_interval=HOUR)
        await executes.schedule(tick, every=10 * MINUTE)
        # The one that executes cannot see the tick itself: its loop is given the run by the other's write.
        executes._worker._tick_at = None
        await world.drive(_made(world, fires, "tick", 10 * MINUTE), seconds=30)


async def _made(world: World, durably: Durably, name: str, seconds: float) -> None:
    await world.advance(seconds, step=seconds)
    while not await durably.get_runs(schedule=name, status="completed"):  # noqa: ASYNC110 — it moves the clock
        await asyncio.sleep(0)


async def many_engines_give_each_tick_one_run(backend: Backend) -> None:
    async with World(backend) as world:
        engines = [await world.engine(tick) for _ in range(4)]
        for overlap in ("allow", "queue"):
            await engines[0].schedule(tick, name=overlap, every=MINUTE, missed="all", overlap=overlap)
        for _ in range(3):
            world.clock.advance(3 * MINUTE)
            await bounded(asyncio.gather(*[one.process_until_idle() for one in engines]))
        for name in ("allow", "queue"):
            found = Counter(await _ticks(engines[0], name))
            assert len(found) == 9 and set(found.values()) == {1}, found


# -- what was missed -------------------------------------------------------------------------------------


async def _after_a_break(world: World, durably: Durably, seconds: float, **options: Any) -> tuple[list[float], Heard]:
    """The ticks that get runs after nobody was there, in minutes from the beginning."""
    name = f"s{world.clock.now()}"
    schedule = await durably.schedule(tick, name=name, every=MINUTE, **{"overlap": "allow", **options})
    await _set(world, _at(world.clock) + datetime.timedelta(seconds=seconds))
    heard = Heard(durably, "schedule:skip")
    await durably.process_until_idle()
    await durably.pause_schedule(name)
    made = [(at - schedule.created_at).total_seconds() / MINUTE for at in await _ticks(durably, name)]
    return made, heard


def _told(heard: Heard, schedule_from: datetime.datetime) -> list[tuple[str | None, int | None, float, float]]:
    minutes = []
    for event in heard.events:
        assert event.first_at is not None and event.last_at is not None
        first, last = ((at - schedule_from).total_seconds() / MINUTE for at in (event.first_at, event.last_at))
        minutes.append((event.reason, event.ticks, first, last))
    return minutes


async def missed_ticks_are_skipped_made_up_for_once_or_all(backend: Backend) -> None:
    cases: list[tuple[float, dict[str, Any], list[float], list[Any]]] = [
        # Late by less than a minute is on time.
        (59, {}, [], []),
        (60, {}, [1], []),
        (119, {}, [1], []),
        (121, {}, [2], [("missed", 1, 1, 1)]),
        (10 * MINUTE + 30, {}, [10], [("missed", 9, 1, 9)]),
        (10 * MINUTE, {}, [9, 10], [("missed", 8, 1, 8)]),
        (10 * MINUTE + 30, {"catch_up_window": 10}, [], [("missed", 10, 1, 10)]),
        (10 * MINUTE + 30, {"catch_up_window": 0.001}, [], [("missed", 10, 1, 10)]),
        (10 * MINUTE, {"catch_up_window": 0.001}, [10], [("missed", 9, 1, 9)]),
        (10 * MINUTE, {"catch_up_window": 120}, [8, 9, 10], [("missed", 7, 1, 7)]),
        # One for all.
        (60, {"missed": "one"}, [1], []),
        (10 * MINUTE + 59, {"missed": "one"}, [10], [("missed", 9, 1, 9)]),
        (1000 * HOUR + 1, {"missed": "one"}, [60_000], [("missed", 1000, 1, 59_999)]),
        (10 * MINUTE + 30, {"missed": "one", "catch_up_window": 30}, [10], [("missed", 9, 1, 9)]),
        (10 * MINUTE + 31, {"missed": "one", "catch_up_window": 30}, [], [("missed", 10, 1, 10)]),
        # One for each.
        (4 * MINUTE, {"missed": "all"}, [1, 2, 3, 4], []),
        (4 * MINUTE, {"missed": "all", "catch_up_window": 60}, [3, 4], [("missed", 2, 1, 2)]),
        (HOUR, {"missed": "all", "catch_up_window": 1}, [60], [("missed", 59, 1, 59)]),
    ]
    async with World(backend) as world:
        durably = await world.engine(tick)
        for seconds, options, expected, told in cases:
            begin = _at(world.clock)
            made, heard = await _after_a_break(world, durably, seconds, **options)
            assert made == expected, (seconds, options, made)
            assert _told(heard, begin) == told, (seconds, options, heard.events)
            for event in heard.events:
                assert event.job_name == "tick" and event.run_id is None and event.seq is None
                assert event.to_wire()["schedule"] == event.schedule
                assert event.to_wire()["firstAt"].endswith("Z") and event.to_wire()["ticks"] == event.ticks
            # Then it goes on from now.
            world.clock.advance(7)


async def many_missed_ticks_are_made_up_for_little_by_little(backend: Backend) -> None:
    """No transaction grows with them, and runs begin before all have been made."""
    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    async with World(backend) as world:
        durably = await world.engine(tick, through=through)
        await durably.schedule(tick, every=MINUTE, missed="all", overlap="allow")
        await _set(world, _at(world.clock) + datetime.timedelta(minutes=350))
        counting[0].batches.clear()
        assert await durably.process_one()
        assert len(await durably.get_runs()) in (100, 200)
        # Oldest first: so does the run that was executed.
        assert [run.scheduled_at for run in await durably.get_runs(status="completed")] == (await _ticks(durably))[:1]
        assert await durably.process_until_idle() == 349
        found = await _ticks(durably)
        assert len(set(found)) == len(found) == 350 and found == sorted(found)
        assert max(len(batch.statements) for batch in counting[0].batches) < 200


async def a_long_break_is_counted_at_once(backend: Backend) -> None:
    """Years of seconds: nobody walks through them."""
    async with World(backend) as world:
        durably = await world.engine(tick)
        heard = Heard(durably, "schedule:skip")
        await durably.schedule(tick, every=1, missed="one")
        await durably.schedule(tick, name="cron", cron="* * * * *", missed="one")
        await _set(world, _at(world.clock) + datetime.timedelta(days=3 * 365, seconds=30))
        assert await durably.process_until_idle() == 2
        assert [event.ticks for event in heard.events] == [1000, 1000], "so far dropped ticks are counted"
        assert heard.events[0].last_at == _at(world.clock) - datetime.timedelta(seconds=1)


# -- overlap ---------------------------------------------------------------------------------------------


async def a_tick_is_skipped_while_a_run_is_active(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(wait)
        heard = Heard(durably, "schedule:skip")
        await durably.schedule(wait, every=MINUTE)
        await world.advance(3 * MINUTE + 1)
        [run] = await durably.get_runs()
        assert run.status == "waiting"
        assert [(event.reason, event.ticks, event.schedule) for event in heard.events] == [("overlap", 1, "wait")] * 2
        assert heard.events[0].first_at == heard.events[0].last_at
        # Neither by hand; it says which run is in the way.
        error = await raised(Conflict, durably.trigger_schedule("wait"))
        assert run.id in str(error) and "overlap" in str(error)
        await durably.signal(run.id, "go")
        await world.drive(durably.wait_for_run(run.id))
        await world.advance(MINUTE)
        assert len(await _ticks(durably, "wait")) == 2


async def all_ticks_of_a_break_and_no_two_at_once(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(tick)
        made, heard = await _after_a_break(world, durably, 5 * MINUTE, missed="all", overlap="skip")
        assert made == [1]
        assert [(event.reason, event.ticks) for event in heard.events] == [("overlap", 4)]


async def queued_runs_of_a_schedule_follow_each_other(backend: Backend) -> None:
    gate = Gate()
    order: list[str] = []
    running = 0

    @job
    async def slow(step: Step, input: dict[str, Any]) -> None:
        nonlocal running
        running += 1
        assert running == 1, "two at once"
        await step.run("wait", gate.wait, 1)
        running -= 1
        order.append(str(step.scheduled_at))

    async with World(backend) as world:
        durably = await world.started(slow)
        heard = Heard(durably, "schedule:skip")
        await durably.schedule(slow, every=MINUTE, overlap="queue")
        await world.advance(MINUTE + 1)
        await gate.reached()
        await world.advance(2 * MINUTE)
        by_hand = await durably.trigger_schedule("slow")
        await world.advance(MINUTE)
        runs = await durably.get_runs()
        assert Counter(run.status for run in runs) == {"leased": 1, "pending": 4}
        gate.open()
        await world.drive(_idle(durably))
        ticks = [str(at) for at in await _ticks(durably, "slow")]
        assert order == [*ticks[:3], "None", ticks[3]], "in order, and what was asked for by hand in its turn"
        run = await durably.get_run(by_hand.id)
        assert run is not None and run.schedule == "slow" and run.scheduled_at is None
        assert not heard.events


async def runs_that_may_overlap_do(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(wait)
        await durably.schedule(wait, every=MINUTE, overlap="allow")
        await world.advance(3 * MINUTE + 1)
        await durably.trigger_schedule("wait")
        await turns(200)
        assert [run.status for run in await durably.get_runs()] == ["waiting"] * 4


async def a_run_by_hand_leaves_the_ticks_alone(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(tick)
        heard = Heard(durably, "run:trigger")
        schedule = await durably.schedule(tick, every=MINUTE, input={"n": 1}, labels={"a": "b"})
        handle = await durably.trigger_schedule("tick")
        assert handle.disposition == "created"
        assert await world.drive(handle.result()) == {"n": 1, "at": None}
        run = await handle.run()
        assert run is not None and (run.schedule, run.scheduled_at, run.labels) == ("tick", None, {"a": "b"})
        assert [event.run_id for event in heard.events] == [handle.id]
        assert (await _only(durably)).next_at == schedule.next_at
        await durably.pause_schedule("tick")
        assert await world.drive((await durably.trigger_schedule("tick")).result()) == {"n": 1, "at": None}
        # Also where its job is not known; who knows it executes the run.
        stranger = await world.engine(other)
        assert await world.drive((await stranger.trigger_schedule("tick")).result()) == {"n": 1, "at": None}


# -- clocks ----------------------------------------------------------------------------------------------


async def clocks_that_are_changed_twice_a_year(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(tick)
        expected: dict[str, Any] = {
            "daily": ("30 2 * * *", [(28, 1, 30), (29, 1, 0), (30, 0, 30)], [(24, 0, 30), (25, 0, 30), (26, 1, 30)]),
            "hourly": (
                "0 1-4 * * *",
                [(29, 0, 0), (29, 1, 0), (29, 2, 0)],
                [(24, 23, 0), (25, 0, 0), (25, 2, 0), (25, 3, 0)],
            ),
            "through": (
                "*/30 * * * *",
                [(29, 0, 0), (29, 0, 30), (29, 1, 0), (29, 1, 30)],
                [(24, 23, 30), (25, 0, 0), (25, 0, 30), (25, 1, 0), (25, 1, 30), (25, 2, 0)],
            ),
        }
        for season, month in ((1, 3), (2, 10)):
            for name, case in expected.items():
                await _set(world, _utc(2026, month, case[season][0][0], case[season][0][1], case[season][0][2]) - _TINY)
                name = f"{name} {month}"
                await durably.schedule(
                    tick, name=name, cron=case[0], timezone="Europe/Berlin", missed="all", overlap="allow"
                )
                last = case[season][-1]
                await _set(world, _utc(2026, month, *last))
                await durably.process_until_idle()
                await durably.pause_schedule(name)
                assert await _ticks(durably, name) == [_utc(2026, month, *one) for one in case[season]], name


_TINY = datetime.timedelta(seconds=1)


async def a_clock_that_is_set_back_makes_nothing_run_twice(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(tick)
        heard = Heard(durably, "schedule:skip")
        begin = _at(world.clock)
        await durably.schedule(tick, every=HOUR, missed="all", overlap="allow")
        await _set(world, begin + datetime.timedelta(hours=5))
        assert await durably.process_until_idle() == 5
        await _set(world, begin + datetime.timedelta(hours=2))
        # It comes by each of these moments a second time.
        for minutes in range(120, 60 * 7 + 1, 10):
            await _set(world, begin + datetime.timedelta(minutes=minutes))
            await durably.process_until_idle()
        found = await _ticks(durably)
        assert found == [begin + datetime.timedelta(hours=n) for n in range(1, 8)]
        assert not heard.events, "a tick that has a run was not skipped"


async def a_clock_that_was_far_ahead_leaves_no_schedule_dead(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(tick)
        begin = _at(world.clock)
        await durably.schedule(tick, cron="0 * * * *", missed="one")
        await durably.schedule(tick, name="other", every=HOUR, missed="one")
        await _set(world, begin + datetime.timedelta(days=400))
        assert await durably.process_until_idle() == 2
        next_at = (await _only(durably)).next_at
        assert next_at is not None and next_at > begin + datetime.timedelta(days=400)
        # Put right again; this engine goes on, or another one begins.
        await _set(world, begin + datetime.timedelta(hours=2))
        for one in (durably, await world.engine(tick)):
            await one.process_until_idle()
            for name in ("tick", "other"):
                next_at = (await _only(durably, name)).next_at
                assert next_at is not None and next_at <= _at(world.clock) + datetime.timedelta(hours=1), name
        await _set(world, begin + datetime.timedelta(hours=3))
        assert await durably.process_until_idle() == 2


async def a_clock_that_is_a_little_ahead_elsewhere_disturbs_nobody(backend: Backend) -> None:
    """Two machines whose clocks differ by seconds: each tick has one run, and none is told as skipped."""
    async with World(backend) as world:
        ahead, behind = await world.engine(tick), await world.engine(tick)
        heard = [Heard(ahead, "schedule:skip"), Heard(behind, "schedule:skip")]
        begin = _at(world.clock)
        await ahead.schedule(tick, every=10 * MINUTE)
        for minutes in range(10, 100, 10):
            for one, seconds in ((ahead, 5), (behind, -5), (behind, 5)):
                await _set(world, begin + datetime.timedelta(minutes=minutes, seconds=seconds))
                await one.process_until_idle()
        assert await _ticks(ahead) == [begin + datetime.timedelta(minutes=n) for n in range(10, 100, 10)]
        assert not [*heard[0].events, *heard[1].events]


async def a_worker_that_slept_for_weeks_goes_on(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(tick)
        heard = Heard(durably, "schedule:skip")
        await durably.schedule(tick, cron="* * * * *", timezone="America/New_York", missed="one")
        await world.advance(3 * MINUTE)
        assert len(await _ticks(durably)) == 3
        # As after a laptop's lid was closed.
        await _set(world, _at(world.clock) + datetime.timedelta(days=30))
        await world.advance(2)
        found = await _ticks(durably)
        assert len(found) == 4 and [event.ticks for event in heard.events] == [1000]
        assert _at(world.clock) - found[-1] < datetime.timedelta(minutes=1)
        await world.advance(2 * MINUTE)
        assert len(await _ticks(durably)) == 6


# -- trouble ---------------------------------------------------------------------------------------------


async def a_crash_at_any_batch_loses_no_tick_and_doubles_none(backend: Backend) -> None:
    faults: tuple[Fault, ...] = ("before", "after", "dead")
    for fault in faults:
        for at in range(1, 40):
            if not await _crash(backend, fault, at):
                break
        else:
            raise AssertionError("there is no end of batches")


async def _crash(backend: Backend, fault: Fault, at: int) -> bool:
    """Whether there were so many batches."""
    faulty: list[FaultyExecutor] = []

    def through(inner: Executor) -> Executor:
        faulty.append(FaultyExecutor(inner, fault))
        return faulty[0]

    name = f"{fault} {at}"
    async with World(backend) as world:
        durably = await world.engine(tick, through=through)
        begin = _at(world.clock)
        await durably.schedule(tick, name=name, every=MINUTE, missed="all", overlap="allow", labels={"a": "b"})
        await _set(world, begin + datetime.timedelta(minutes=5))
        faulty[0].at = at
        try:
            await durably.process_until_idle()
        except StoreError:
            assert faulty[0].fell
        if fault == "dead":
            await world.crash(durably)
        faulty[0].at = 0
        await world.expire()
        heir = await world.engine(tick)
        await heir.process_until_idle()
        runs = await heir.get_runs(schedule=name, labels={"a": "b"})
        assert Counter(run.status for run in runs) == {"completed": 5}, (fault, at)
        expected = [begin + datetime.timedelta(minutes=n) for n in range(1, 6)]
        assert sorted(run.scheduled_at for run in runs if run.scheduled_at is not None) == expected, (fault, at)
        await heir.remove_schedule(name)
    return faulty[0].fell


async def lost_replies_are_harmless(backend: Backend) -> None:
    """Each batch is sent twice, and the second reply is told; also what is skipped."""
    async with World(backend) as world:
        durably = await world.engine(tick, through=RepeatingExecutor)
        made, heard = await _after_a_break(
            world, durably, 5 * MINUTE, missed="all", overlap="skip", catch_up_window=120
        )
        assert made == [3]
        assert [(event.reason, event.ticks) for event in heard.events] == [("missed", 2), ("overlap", 2)]


async def a_schedule_that_cannot_be_reckoned_holds_up_nobody(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(tick, other)
        errors = Heard(durably, "worker:error")
        await durably.schedule(tick, every=MINUTE)
        await durably.schedule(other, cron="* * * * *", timezone="Europe/Berlin", input={}, missed="one")
        load, cron.load_cron = cron.load_cron, _no_library
        schedules.load_cron = _no_library  # type: ignore[attr-defined]
        try:
            await world.advance(10 * MINUTE)
            assert len(await _ticks(durably)) == 10
            assert not await _ticks(durably, "other")
            assert 3 < len(errors.events) < 20, "told, and less and less often"
            assert "no library" in str(errors.events[0].error) and "'other'" in str(errors.events[0].context)
            error = await raised(RequirementFailed, durably.schedule(other, name="x", cron="* * * * *"))
            assert "no library" in str(error)
        finally:
            cron.load_cron = schedules.load_cron = load  # type: ignore[attr-defined]
        await world.advance(2 * MINUTE)
        assert len(await _ticks(durably, "other")) >= 2
        handle = await durably.trigger(tick)
        await world.drive(handle.result())


async def _no_library(expression: str, timezone: str = "UTC") -> Any:
    raise RequirementFailed("no library here")


async def many_schedules_that_cannot_be_reckoned_keep_no_worker_busy(backend: Backend) -> None:
    """More than fit into one look, and a worker that has no room."""
    gate = Gate()

    @job
    async def long(step: Step, input: dict[str, Any]) -> Any:
        return await step.run("wait", gate.wait, 1)

    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    async with World(backend) as world:
        full = await world.started(long, tick, max_concurrent_runs=1, through=through)
        await full.trigger(long)
        await gate.reached()
        for number in range(ticking._SCHEDULES_AT_ONCE + 20):
            await full.schedule(tick, name=f"s{number:04}", every=MINUTE + number / 1000)
        # It can be reckoned, and comes last.
        await full.schedule(tick, every=2 * MINUTE)
        reckon = schedules.ticks_of

        async def fails(cron: str | None, timezone: str | None, every: int | None, created_at: int) -> Any:
            if every == 120_000:
                return await reckon(cron, timezone, every, created_at)
            raise RequirementFailed("no library here")

        schedules.ticks_of = fails
        try:
            await world.advance(2 * MINUTE + 1, step=10)
            assert len(await _ticks(full)) == 1
            counting[0].batches.clear()
            await world.advance(0.5, step=0.01)
            looks = [batch for batch in counting[0].batches if "durably_schedules" in batch.statements[0].sql]
            # A look is two pages.
            assert len(looks) < 10, len(looks)
        finally:
            schedules.ticks_of = reckon
            gate.open()


async def a_schedule_that_cannot_be_corrected_holds_up_nobody(backend: Backend) -> None:
    class Wrong:
        def next_after(self, moment: int) -> int | None:
            raise OverflowError("no such year")

    class Refusing(Wrapper):
        async def run(self, batch: Batch) -> list[Rows]:
            if any(statement.sql == CORRECT for statement in batch.statements):
                raise StoreError("refused")
            return await self.inner.run(batch)

    reckon = schedules.ticks_of

    async def wrong(cron: str | None, timezone: str | None, every: int | None, created_at: int) -> Any:
        return Wrong() if every == 86_400_000 else await reckon(cron, timezone, every, created_at)

    async with World(backend) as world:
        durably = await world.engine(tick, other, through=Refusing)
        errors = Heard(durably, "worker:error")
        await durably.schedule(tick, every=MINUTE)
        await durably.schedule(other, name="day", every=DAY, input={})
        begin = _at(world.clock)
        schedules.ticks_of = wrong
        try:
            await _set(world, begin + datetime.timedelta(minutes=1))
            assert await durably.process_until_idle() == 1
            assert not errors.events
            schedules.ticks_of = reckon
            # Now it waits for a moment that it should not, and that cannot be put right.
            await _set(world, begin - datetime.timedelta(days=2))
            await durably.schedule(tick, name="second", every=MINUTE)
            await _set(world, begin - datetime.timedelta(days=2) + datetime.timedelta(minutes=1))
            assert await durably.process_until_idle() == 1
            assert {event.context for event in errors.events} == {
                "correcting schedule 'day'",
                "correcting schedule 'tick'",
            }
        finally:
            schedules.ticks_of = reckon


async def ticks_are_made_up_for_no_longer_than_asked(backend: Backend) -> None:
    looks: list[int] = []

    class Slow(Wrapper):
        """Each transaction that gives ticks their runs takes a second."""

        async def run(self, batch: Batch) -> list[Rows]:
            if any("fired_by = ?" in statement.sql for statement in batch.statements):
                looks.append(1)
                world.clock.advance(1)
            return await self.inner.run(batch)

    async with World(backend) as world:
        durably = await world.engine(other, through=Slow)
        maker = await world.engine(tick)
        await maker.schedule(tick, every=1, missed="all", overlap="allow")
        world.clock.advance(1000)
        # Those runs are for another engine; there is nothing to begin.
        assert await durably.process_until_idle(max_seconds=3) == 0
        assert len(looks) == 3, looks
        assert len(await _ticks(durably)) < 1000, "the others are left for the next time"


async def what_reads_cron_may_take_its_time(backend: Backend) -> None:
    """It is fetched, and nobody knows how long that takes: runs go on meanwhile, and an engine can be stopped."""
    gate = Gate()
    load = schedules.load_cron  # type: ignore[attr-defined]

    async def slow(expression: str, timezone: str = "UTC") -> Any:
        await gate.wait(None)
        return await load(expression, timezone)

    async with World(backend) as world:
        durably = await world.started(tick)
        await durably.schedule(tick, cron="* * * * *")
        schedules.load_cron = slow  # type: ignore[attr-defined]
        try:
            await world.advance(MINUTE)
            await gate.reached()
            await world.drive((await durably.trigger(tick)).result())
            leaving = await world.started(other)
            await world.advance(2)
            await bounded(leaving.stop())
            gate.open()
            await world.advance(2)
            assert len(await _ticks(durably)) == 1
        finally:
            schedules.load_cron = load  # type: ignore[attr-defined]


async def an_engine_without_schedules_pays_nothing(backend: Backend) -> None:
    counting: list[CountingExecutor] = []

    def through(inner: Executor) -> Executor:
        counting.append(CountingExecutor(inner))
        return counting[0]

    async with World(backend) as world:
        durably = await world.engine(tick, through=through)
        await durably.trigger(tick)
        counting[0].batches.clear()
        assert await durably.process_until_idle() == 1
        assert not any("durably_schedules " in sql for batch in counting[0].batches for sql, _ in batch.statements[:-2])
        assert durably._worker._ticking is None
        without = len(counting[0].batches)
        # With one that is not due, there is one look at it.
        await durably.schedule(tick, every=HOUR)
        await durably.trigger(tick)
        await durably.process_until_idle()
        counting[0].batches.clear()
        await durably.trigger(tick)
        counting[0].batches.clear()
        assert await durably.process_until_idle() == 1
        assert len(counting[0].batches) == without


async def a_paused_worker_lets_others_tick(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.started(tick)
        await durably.schedule(tick, every=MINUTE, missed="one")
        durably.pause_worker()
        await world.advance(5 * MINUTE)
        assert not await _ticks(durably)
        durably.resume_worker()
        await world.advance(1)
        assert len(await _ticks(durably)) == 1


async def a_new_owner_of_a_schedule_uses_what_it_is_now(backend: Backend) -> None:
    """Changed, paused or removed between the look and the write: nothing of what it was."""
    changes: list[Callable[[Durably], Any]] = [
        lambda one: one.schedule(tick, every=MINUTE, input={"n": 2}),
        lambda one: one.pause_schedule("tick"),
        lambda one: one.remove_schedule("tick"),
    ]
    for change in changes:
        slow: list[_Between] = []

        def through(inner: Executor, slow: list[_Between] = slow) -> Executor:
            slow.append(_Between(inner))
            return slow[0]

        async with World(backend) as world:
            durably = await world.engine(tick, through=through)
            another = await world.engine(tick)
            await durably.schedule(tick, every=MINUTE, input={"n": 1})
            world.clock.advance(MINUTE + 1)
            slow[0].between = lambda change=change, another=another: change(another)
            await durably.process_until_idle()
            assert slow[0].between is None
            runs = await durably.get_runs(schedule="tick")
            assert all(run.input == {"n": 2} for run in runs), runs
            for run in runs:
                await durably.delete_run(run.id)
            if await durably.get_schedule("tick") is not None:
                await durably.remove_schedule("tick")


class _Between(Wrapper):
    """Lets something happen before the batch that gives ticks their runs."""

    between: Callable[[], Any] | None = None

    async def run(self, batch: Batch) -> list[Rows]:
        if self.between is not None and any("fired_by" in statement.sql for statement in batch.statements):
            between, self.between = self.between, None
            await between()
        return await self.inner.run(batch)
