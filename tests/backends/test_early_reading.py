"""What the browser's worker reads of a database before Python is up is what the engine reads of it.

The engine makes a database with runs in all states; the worker's JavaScript, in Node, and the engine are then asked
the same.
"""

from __future__ import annotations

import base64
import itertools
import json
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from durably_web.api import Request, Response, respond
from durably_web.clock import ManualClock
from durably_web.codec import Codec
from durably_web.encryption import AesGcmCodec
from durably_web.engine import Durably
from durably_web.ids import counted_up
from durably_web.jobs import Job, job
from durably_web.records import STATUSES, instant
from durably_web.retry import Retry
from durably_web.steps import Step
from durably_web.store import migrations
from tests.support.backends import SqliteFile
from tests.support.scenes import settled
from tests.support.world import Gate, bounded

pytestmark = pytest.mark.pyodide

OLD, NEW = b"\1" * 32, b"\2" * 32
KEYS = {"plain": [], "sealed": [OLD], "sealed by two keys": [NEW, OLD]}

# Later than any id that is made meanwhile.
REQUEST = "01J0000000FBCB54955HDWHY7C"

VALUES: list[Any] = [
    [1, 1.0, -0.0, 1e300, 5e-324, 2**53 + 1, 10**400, True, False],
    None,
    'ü🦆\u0000\u2028\\"',
    "\ud800 alone",
    "sealed:1:no",
    {"10": 1, "9": 2, "": 3, "__proto__": {"constructor": None}},
    [[[[[]]]], {}, [{}]],
]
# The last of them only looks like one.
TAGGED: list[Any] = [(1, 2), {"a": {1: 2}}, b"bytes", Decimal("1.0"), {"$type": "tuple", "value": [1]}, "$type"]

gates: dict[str, Gate] = {}
"""Where a step waits, by its name."""


async def give(value: Any) -> Any:
    return value


async def refuse() -> None:
    raise ValueError("refused: ü🦆\n")


@job
async def complete(step: Step, input: dict[str, Any]) -> Any:
    for number in range(3):
        await step.run("part", give, number)
    step.progress(2, total=3, message="almost ü")
    step.log.info("told")
    return await step.run("value", give, input["value"])


@job
async def fail(step: Step, input: dict[str, Any]) -> None:
    step.progress(0.5)
    await step.run("refuse", refuse)


@job(retry=Retry(max_attempts=3, initial_delay=5000, jitter=False))
async def again(step: Step, input: dict[str, Any]) -> None:
    await step.run("part", give, 1)
    await refuse()


@job
async def sleep(step: Step, input: dict[str, Any]) -> None:
    await step.sleep("nap", 3600.5)


@job
async def wait(step: Step, input: dict[str, Any]) -> None:
    await step.run("part", give, None)
    await step.wait_for_signal("go", timeout=input.get("timeout"))


@job
async def parent(step: Step, input: dict[str, Any]) -> None:
    await step.trigger(complete, {"value": "of a child"})
    await step.call(wait, {}, labels={"of": "parent"})


@job
async def busy(step: Step, input: dict[str, Any]) -> None:
    step.progress(1, message="at work")
    await step.run("first", give, 1)
    await step.run("second", gates["second"].wait, 2)


@job
async def idle(step: Step, input: Any) -> None:
    pass


JOBS: tuple[Job[Any, Any], ...] = (complete, fail, again, sleep, wait, parent, busy, idle)


class Asked(NamedTuple):
    """A request, as both are given it."""

    method: str
    path: str
    query: Mapping[str, str | Sequence[str]] = {}
    body: Any = None
    id: str = REQUEST


class Scene:
    """A database, and the engine that made it."""

    def __init__(self, clock: ManualClock, path: Path, durably: Durably, keys: list[bytes]) -> None:
        self.clock = clock
        self.path = path
        self.durably = durably
        self.keys = keys
        self.ids: dict[str, str] = {}
        self.tagged: set[str] = set()

    async def made(self, name: str, what: Job[Any, Any], input: Any = None, **options: Any) -> str:
        handle = await self.durably.trigger(what, input, **options)
        self.ids[name] = handle.id
        return handle.id

    def copy(self, name: str = "copy") -> Path:
        """The database as it is now, in one file without a WAL."""
        copy = self.path.with_name(f"{name}.db")
        copy.unlink(missing_ok=True)
        connection = sqlite3.connect(self.path)
        connection.execute("VACUUM INTO ?", (str(copy),))
        connection.close()
        return copy

    def early(self, root: Path, asked: Iterable[Asked]) -> list[str | None]:
        """What JavaScript answers, one request after the other."""
        task = {
            "database": base64.b64encode(self.copy().read_bytes()).decode(),
            "keys": [base64.b64encode(key).decode() for key in self.keys],
            "schema": migrations.LATEST,
            "now": self.clock.now(),
            "requests": [json.dumps(one._asdict()) for one in asked],
        }
        program = str(root / "tests" / "js" / "early_in_node.mjs")
        result = subprocess.run(["node", program], input=json.dumps(task), capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        answers: list[str | None] = json.loads(result.stdout)
        return answers

    def left_to_python(self, response: Response) -> bool:
        """It is an error, or about a value that JSON does not have."""
        runs = response.body if isinstance(response.body, list) else [response.body]
        return response.status != 200 or any(run.get("id") in self.tagged for run in runs)


def codec_of(keys: list[bytes]) -> Codec | None:
    return AesGcmCodec(keys) if keys else None


@pytest.fixture(params=KEYS)
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    keys = KEYS[request.param]
    backend, clock = SqliteFile(tmp_path), ManualClock()

    async def started(keys: list[bytes]) -> Durably:
        durably = Durably(backend.connect(), jobs=JOBS, clock=clock, codec=codec_of(keys))
        await durably.init()
        return durably

    # From the times when there was no key yet, and then another one.
    for earlier in [[], keys[1:]] if keys else []:
        durably = await started(earlier)
        await durably.trigger(complete, {"value": "from before"}, labels={"team": "x"})
        await settled()
        await durably.stop()
    scene = Scene(clock, backend.path, await started(keys), keys)
    gate = gates["second"] = Gate()
    try:
        await fill(scene)
        await bounded(gate.reached())
        yield scene
    finally:
        gate.open()
        await bounded(scene.durably.stop())


async def fill(scene: Scene) -> None:
    """Runs in all states."""
    clock, durably, made = scene.clock, scene.durably, scene.made
    for number, value in enumerate(VALUES):
        await made(f"value {number}", complete, {"value": value}, labels={"team": "x", "n": str(number)})
    for number, value in enumerate(TAGGED):
        scene.tagged.add(await made(f"tagged {number}", complete, {"value": value}, labels={"tagged": "yes"}))
    failed = await made("failed", fail, {}, labels={"team": "ü🦆", 'a"b.c': "__proto__"}, priority=7)
    await made("again", again, {"a": 1})
    await made("sleep", sleep, {}, priority=-(2**31) + 1)
    await made("wait", wait, {}, concurrency_key="held")
    await made("wait shortly", wait, {"timeout": 60})
    await made("parent", parent, {})
    cancelled = await made("cancelled", wait, {})
    deleted = await made("deleted", fail, {})
    await settled()
    await durably.cancel(cancelled)
    await durably.delete_run(deleted)
    await durably.pause(scene.ids["sleep"])
    await made("behind", wait, {}, concurrency_key="held", coalesce="queue", labels={"team": "x"})
    await made("delayed", idle, {}, delay=90.25, labels={"team": "x"}, idempotency_key="once")
    await made("at a moment", idle, ["list"], run_at=instant(clock.now() + 86_400_001))
    await made("at a moment that is over", idle, 5, run_at=instant(1))
    await durably.pause(await made("paused", idle, "text", delay=60))
    await durably.schedule(idle, name="nightly ü", every=0.005, input=1, labels={"team": "x"})
    clock.advance(0.007)
    await settled()
    scene.ids["by hand"] = (await durably.trigger_schedule("nightly ü")).id
    await settled()
    (_, tick) = await durably.get_runs(schedule="nightly ü")
    scene.ids["tick"] = tick.id
    await durably.remove_schedule("nightly ü")
    scene.ids["fork"] = (await durably.fork(scene.ids["value 1"], from_step="value")).id
    scene.ids["retrigger"] = (await durably.retrigger(failed)).id
    await settled()
    await made("busy", busy, {})
    await settled()


def same(answer: str, response: Response) -> bool:
    """With 1.0 apart from 1, and whatever the order of keys."""
    body = {"status": response.status, "body": response.body}
    return json.dumps(json.loads(answer), sort_keys=True) == json.dumps(body, sort_keys=True)


def questions(ids: Mapping[str, str]) -> Iterator[Asked]:
    """About the runs of these ids, whatever they are."""
    for run_id in [*ids.values(), "nobody", ""]:
        yield Asked("GET", "/run", {"runId": run_id})
    statuses: list[dict[str, str]] = [{}, {"status": "pending,waiting"}, {"status": "completed,failed,cancelled"}]
    statuses += [{"status": str(status)} for status in STATUSES]
    statuses.append({"status": "done"})
    jobs: list[dict[str, Any]] = [{}, {"jobName": "idle"}, {"jobName": ["complete", "fail"]}, {"jobName": ["x"]}]
    labels: list[dict[str, str]] = [
        {},
        {"label.team": "x"},
        {"label.team": "x", "label.n": "1"},
        {"label.team": "ü🦆", 'label.a"b.c': "__proto__"},
        {"label.a": ""},
    ]
    pages: list[dict[str, str]] = [{}, {"limit": "2"}, {"limit": "3", "offset": "1"}, {"offset": "4"}, {"limit": "0"}]
    for status, jobs_, labels_, page in itertools.product(statuses, jobs, labels, pages):
        yield Asked("GET", "/runs", {**status, **jobs_, **labels_, **page})
    for schedule in ("nightly ü", "nobody"):
        for more in (
            {},
            {"status": "completed", "limit": "1"},
            {"status": "pending"},
            {"label.team": "x", "offset": "1"},
        ):
            yield Asked("GET", "/runs", {"schedule": schedule, **more})
    for run_id in [*ids.values(), "0", "~", "\ue000"]:
        yield Asked("GET", "/runs", {"after": run_id, "limit": "3"})
        yield Asked("GET", "/runs", {"after": run_id, "status": "pending"})
    for number in range(len(ids) + 3):
        yield Asked("GET", "/runs", {"offset": str(number), "limit": "1"})
        yield Asked("GET", "/runs", {"offset": str(number), "limit": "4"})
    for query in ({"limit": "-1"}, {"offset": "x"}, {"createdBefore": "2030-01-01T00:00:00Z"}, {"jobName": ""}):
        yield Asked("GET", "/runs", query)


async def respond_to(durably: Durably, asked: Asked) -> Response:
    return await respond(durably, Request(asked.method, asked.path, asked.query, asked.body, asked.id))


async def test_runs_in_all_states_are_read_as_the_engine_reads_them(scene: Scene, root: Path) -> None:
    asked = list(questions(scene.ids))
    answers = scene.early(root, asked)
    told = 0
    for one, answer in zip(asked, answers, strict=True):
        response = await respond_to(scene.durably, one)
        if scene.left_to_python(response):
            assert answer is None, one
        else:
            assert answer is not None, one
            assert same(answer, response), (one, answer, response)
            told += len(response.body) if isinstance(response.body, list) else 1
    assert told > 500
    every = await respond_to(scene.durably, Asked("GET", "/runs"))
    assert {run["status"] for run in every.body} == set(STATUSES)
    for name in (
        "wakeAt",
        "runAt",
        "parentRunId",
        "forkedFrom",
        "concurrencyKey",
        "progress",
        "error",
        "paused",
        "scheduledAt",
    ):
        assert any(run[name] for run in every.body), name


def triggers() -> list[Asked]:
    """What the inbox takes, each with an id of its own."""
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/trigger", {"jobName": "idle", "input": value})
        # Numbers as JavaScript writes them, and what looks like a tag.
        for value in [*VALUES[1:], [1, 1.5, 1e300, 5e-324, 10**20, True], {"$type": "tuple", "value": [1]}]
    ]
    bodies += [
        ("/trigger", {"jobName": "idle", **options})
        for options in (
            {},
            {"labels": {"team": "x", "n": "1"}, "priority": 5},
            {"labels": {"team": "ü🦆", 'a"b.c': "__proto__"}},
            {"delayMs": 0},
            {"delayMs": 1500},
            {"delayMs": 0.2},
            {"delayMs": 3_000_000_000_001},
            {"runAt": "2023-11-14T22:13:20Z"},
            {"runAt": "2033-01-31T12:00:00.5+05:30"},
            {"runAt": "2031-12-31T23:59-23:59"},
            {"runAt": "2240-02-29T00:00:00.001Z"},
            {"concurrencyKey": "held", "coalesce": "queue"},
            {"concurrencyKey": "held", "coalesce": "queue", "delayMs": 5, "priority": -1},
            {"idempotencyKey": "once"},
            {"idempotencyKey": "twice", "input": 1},
            {"idempotencyKey": "twice", "input": 2},
            {"idempotencyKey": "thrice", "concurrencyKey": "k", "coalesce": "queue"},
            dict.fromkeys(("input", "labels", "idempotencyKey", "coalesce", "priority", "runAt", "debounceMs")),
        )
    ]
    items = [{}, {"input": [1]}, {"idempotencyKey": "once"}, {"idempotencyKey": "twice"}, {"idempotencyKey": "new"}]
    items += [{"idempotencyKey": "new"}, {"labels": {"team": "x"}, "delayMs": 7}, {"priority": 3}]
    bodies.append(("/trigger-many", {"jobName": "idle", "items": items}))
    bodies.append(("/trigger-many", {"jobName": "complete", "items": [{"input": {"value": 1}}]}))
    # Far apart, and not in their order: ids of several tabs.
    asked = [
        Asked("POST", path, {}, body, counted_up(REQUEST, (number * 7 % 31 + 1) << 64))
        for number, (path, body) in enumerate(bodies)
    ]
    assert len({one.id for one in asked}) == len(asked)
    return [*asked, *asked[-5:]]


async def test_triggers_are_read_as_the_runs_that_the_engine_makes_of_them(scene: Scene, root: Path) -> None:
    later = Durably(str(scene.copy("later")), jobs=JOBS, clock=scene.clock, codec=codec_of(scene.keys))
    await later.migrate()
    asked = triggers()
    made: dict[str, str] = {}
    responses = []
    for number, one in enumerate(asked):
        responses.append(await respond_to(later, one))
        assert responses[-1].status == 200, (one, responses[-1])
        found = responses[-1].body if isinstance(responses[-1].body, list) else [responses[-1].body]
        made |= {f"{number} {position}": run["runId"] for position, run in enumerate(found)}
    more = list(questions(scene.ids | made))
    answers = scene.early(root, [*asked, *more])
    for one, response, answer in zip(asked, responses, answers, strict=False):
        assert answer is not None and same(answer, response), (one, answer, response)
    for one, answer in zip(more, answers[len(asked) :], strict=True):
        response = await respond_to(later, one)
        if scene.left_to_python(response):
            assert answer is None, one
        else:
            assert answer is not None and same(answer, response), (one, answer, response)
    await later.stop()
