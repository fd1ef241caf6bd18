"""Values come back as they were, before and after a crash; on the wire they are JSON, and with a key sealed."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from durably_web.codec import JsonCodec
from durably_web.encryption import AesGcmCodec
from durably_web.engine import Durably
from durably_web.errors import DecryptionFailed, InvalidInput, NotSerializable, RunFailed
from durably_web.jobs import job
from durably_web.steps import Step
from durably_web.store.batch import Batch, Row, Statement
from durably_web.store.sealing import sealing
from tests.contract import Backend
from tests.support.world import Gate, Heard, World, bounded, raised

UTC = datetime.UTC
AT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)

VALUES: dict[str, Any] = {
    "aware": AT,
    "offset": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
    "naive": datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
    "date": datetime.date(2026, 1, 2),
    "time": datetime.time(3, 4, 5, 6),
    "span": datetime.timedelta(days=-1, microseconds=1),
    "price": Decimal("1.10"),
    "key": UUID(int=1),
    "bytes": bytes(range(256)),
    "set": {1, 2, 3},
    "frozen": frozenset({"a"}),
    "tuple": (1, (2, [3]), ()),
    "keys": {1: "a", (1, 2): "b", None: "c", AT: "d"},
    "tag": {"$type": "date", "value": "2026-01-02"},
    "deep": [{"a": ({"b": b""},)}],
    "plain": {"a": [1, 1.0, True, None, "ü🦆\0"]},
}

WIRE: dict[str, Any] = {
    "aware": "2026-01-02T03:04:05.678Z",
    "offset": "2026-01-02T00:00:00+05:30",
    "naive": "2026-01-02T03:04:05.000006",
    "date": "2026-01-02",
    "time": "03:04:05.000006",
    "span": -86399.999999,
    "price": "1.10",
    "key": "00000000-0000-0000-0000-000000000001",
    "set": [1, 2, 3],
    "frozen": ["a"],
    "tuple": [1, [2, [3]], []],
    "tag": {"$type": "date", "value": "2026-01-02"},
    "deep": [{"a": [{"b": ""}]}],
    "plain": VALUES["plain"],
}


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    one: int
    other: Any = None


@dataclasses.dataclass
class Order:
    when: datetime.datetime
    total: Decimal = Decimal(0)
    lines: list[Pair] = dataclasses.field(default_factory=list)
    colour: Colour = Colour.RED


ORDER = Order(AT, Decimal("2.50"), [Pair(1, (b"\xff",))])


def _make_order() -> Order:
    return ORDER


async def _make_orders() -> dict[str, list[Order]]:
    return {"all": [ORDER, ORDER]}


@job
async def echo(step: Step, input: Any) -> Any:
    return await step.run("echo", lambda: input)


async def results_are_the_same_before_and_after_a_crash(backend: Backend) -> None:
    gate, seen = Gate(), []

    @job
    async def keeps(step: Step, input: Any) -> Any:
        got = [await step.run(name, lambda value=value: value) for name, value in VALUES.items()]
        seen.append([input, got, await step.run("order", _make_order), await step.run("orders", _make_orders)])
        return await step.run("wait", gate.wait, (got, input))

    async with World(backend) as world:
        first = await world.started(keeps)
        handle = await first.trigger(keeps, VALUES)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(keeps)
        await second.process_one()
        assert len(seen) == 2
        for one in seen:
            assert repr(one) == repr([VALUES, list(VALUES.values()), ORDER, {"all": [ORDER, ORDER]}]), one
        run = await second.get_run(handle.id)
        assert run is not None and repr(run.input) == repr(VALUES), run
        assert repr(run.output) == repr((list(VALUES.values()), VALUES)), run.output
        assert repr(await second.wait_for_run(handle.id)) == repr(run)
        steps = {one.name: one.output for one in await second.get_steps(handle.id)}
        assert all(repr(steps[name]) == repr(value) for name, value in VALUES.items()), steps
        assert steps["order"] == {"when": AT, "total": Decimal("2.50"), "lines": [(1, (b"\xff",))], "colour": "red"}


async def a_result_is_a_copy(backend: Backend) -> None:
    kept: list[set[int]] = [{1}]

    @job
    async def copies(step: Step, input: Any) -> Any:
        got = await step.run("set", lambda: kept[0])
        kept[0].add(2)
        return got

    async with World(backend) as world:
        durably = await world.engine(copies)
        handle = await durably.trigger(copies)
        await durably.process_one()
        assert await handle.result(timeout=60) == {1}


async def what_the_annotation_does_not_name_is_refused(backend: Backend) -> None:
    """Rather than that it came back as a dict."""
    errors: list[str] = []

    @job
    async def returns(step: Step, input: dict[str, Any]) -> Any:
        for number, value in enumerate([ORDER, [ORDER], Pair(1), Colour.RED]):
            try:
                await step.run(f"bad {number}", lambda value=value: value)
            except NotSerializable as error:
                errors.append(str(error))
        return ORDER

    @job
    async def lies(step: Step, input: dict[str, Any]) -> Order:
        return Pair(1)  # type: ignore[return-value]

    async with World(backend) as world:
        durably = await world.engine(returns, lies)
        handle = await durably.trigger(returns)
        await durably.process_one()
        for number, name in enumerate(["Order", "Order", "Pair", "Colour"]):
            assert f"step 'bad {number}'" in errors[number] and f"-> {name}" in errors[number], errors
        failed = await raised(RunFailed, bounded(handle.result()))
        assert "NotSerializable: the output of job 'returns' cannot be stored" in str(failed), failed
        wrong = await durably.trigger(lies)
        await durably.process_one()
        failed = await raised(RunFailed, bounded(wrong.result()))
        assert "not what its annotation says" in str(failed), failed
        refused = await raised(InvalidInput, durably.trigger(returns, {"order": ORDER}))
        assert "value['order'] is a Order" in str(refused), refused
        assert len(await durably.get_runs()) == 2


async def what_is_nested_too_deeply_is_refused_and_the_engine_goes_on(backend: Backend) -> None:
    """In a browser it would be the end of Python. Some Pythons on servers take more than it."""
    errors: list[str] = []

    @job
    async def dives(step: Step, input: Any) -> str:
        deep: Any = None
        for _ in range(2_000):
            deep = [deep]
        try:
            await step.run("deep", lambda: deep)
        except NotSerializable as error:
            errors.append(str(error))
        return await step.run("up", lambda: "up again")

    async with World(backend) as world:
        durably = await world.started(dives)
        handle = await durably.trigger(dives)
        assert await bounded(handle.result()) == "up again"
    assert all("nested too deeply" in error for error in errors), errors


async def inputs_and_outputs_are_built_as_annotated(backend: Backend) -> None:
    @job
    async def doubles(step: Step, input: Order) -> list[Order]:
        assert input == ORDER and type(input.lines[0]) is Pair, input
        return [input, input]

    async with World(backend) as world:
        durably = await world.engine(doubles)
        given = await durably.trigger(doubles, ORDER)
        # As a page sends it.
        wire = json.loads(json.dumps((await given.run()).to_wire()))["input"]  # type: ignore[union-attr]
        assert wire == {"when": "2026-01-02T03:04:05.678Z", "total": "2.50", "lines": [[1, ["/w=="]]], "colour": "red"}
        await durably.process_until_idle()
        assert await given.result(timeout=60) == [ORDER, ORDER]
        sent = {**wire, "when": AT.isoformat(), "lines": []}
        await raised(InvalidInput, durably.trigger(doubles, {**sent, "when": "today"}))
        fine = await durably.trigger(doubles, sent)
        run = await durably.get_run(fine.id)
        assert run is not None and run.input == sent


async def on_the_wire_everything_is_json(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(echo)
        heard = Heard(durably)
        handle = await durably.trigger(echo, VALUES)
        await durably.process_one()
        run = await durably.get_run(handle.id)
        assert run is not None
        stored = [event async for event in durably.subscribe(handle.id)]
        wires = [run.to_wire(), *[one.to_wire() for one in await durably.get_steps(handle.id)]]
        wires += [event.to_wire() for event in (*stored, *heard.events)]
        found = 0
        for wire in wires:
            assert json.loads(json.dumps(wire)) == wire, wire
            for value in (wire.get("input"), wire.get("output")):
                if value is not None:
                    found += 1
                    assert {name: value[name] for name in WIRE} == WIRE, value
        assert found >= 8, wires


async def what_a_log_line_carries_comes_back(backend: Backend) -> None:
    @job
    async def logs(step: Step, input: dict[str, Any]) -> None:
        step.log.info("values", at=AT, price=Decimal("1.10"), what=object)
        step.log.info("at", at=AT)

    async with World(backend) as world:
        durably = await world.engine(logs)
        handle = await durably.trigger(logs)
        await durably.process_one()
        first, second = await durably.get_logs(handle.id)
        assert second.data == {"at": AT} and second.to_wire()["data"] == {"at": "2026-01-02T03:04:05.678Z"}
        assert first.data["what"] == "<class 'object'>", first


async def a_large_result_is_stored_and_read(backend: Backend) -> None:
    """30 MB, of which a part is not ASCII."""
    lines = [f"{number:07d} " + "x" * 980 + "ü🦆" for number in range(30_000)]
    gate = Gate()

    @job
    async def makes(step: Step, input: dict[str, Any]) -> list[Any]:
        got = await step.run("lines", lambda: lines)
        return await step.run("wait", gate.wait, [len(got), got == lines])

    async with World(backend) as world:
        first = await world.started(makes)
        handle = await first.trigger(makes)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(makes)
        await second.process_one()
        assert await _output_of(second, handle.id) == [30_000, True]
        [step, _] = await second.get_steps(handle.id)
        assert step.output == lines


async def _output_of(durably: Durably, run_id: str) -> Any:
    return (await durably.wait_for_run(run_id, timeout=60)).output


# -- codecs ----------------------------------------------------------------------------------------------


class Backwards:
    """A codec of somebody's own, for texts that no other can read."""

    def __init__(self) -> None:
        self._inner = JsonCodec()

    def encode(self, value: Any, /) -> str:
        return json.dumps("<" + self._inner.encode(value)[::-1])

    def decode(self, text: str, /) -> Any:
        assert text.startswith('"<'), f"not a text of this codec: {text!r}"
        return self._inner.decode(json.loads(text)[:0:-1])


async def a_codec_of_ones_own_is_used_for_all_values_of_users(backend: Backend) -> None:
    async with World(backend) as world:
        durably = await world.engine(echo, codec=Backwards())
        handle = await durably.trigger(echo, VALUES)
        await durably.process_one()
        assert repr(await handle.result(timeout=60)) == repr(VALUES)
        assert [repr(one.output) for one in await durably.get_steps(handle.id)] == [repr(VALUES)]
        [[given, output]] = await world.rows("SELECT input, output FROM durably_runs")
        assert str(given)[:2] == str(output)[:2] == '"<', (given, output)
        data = await world.rows("SELECT data FROM durably_journal WHERE type = 'step:complete'")
        assert [str(text)[:2] for (text,) in data] == ['"<'], data
        events = [event async for event in durably.subscribe(handle.id)]
        values = [event.input or event.output for event in events if event.input or event.output]
        assert [repr(value) for value in values] == [repr(VALUES)] * 3, events


# -- sealing ---------------------------------------------------------------------------------------------

KEY, NEW_KEY = b"\1" * 32, b"\2" * 32
TABLES = ("durably_runs", "durably_journal", "durably_labels", "durably_signals")


class SealedWorld(World):
    """Its invariants are looked for with the key."""

    codec = AesGcmCodec([NEW_KEY, KEY])

    async def check(self) -> None:
        sealed, backend = self.codec, self.backend

        class Opening:
            has = backend.has
            hold = backend.hold

            def connect(self) -> Any:
                return sealing(backend.connect(), sealed)

        async with World(Opening()):
            pass


async def _dump(world: World) -> list[Row]:
    """Everything that the database holds."""
    executor = world.backend.connect()
    await executor.open()
    try:
        selects = tuple(Statement(f"SELECT * FROM {name}") for name in TABLES)
        return [row for rows in await executor.run(Batch("read", selects)) for row in rows]
    finally:
        await executor.close()


def fail(word: str) -> None:
    raise ValueError(word)


@job
async def child(step: Step, input: dict[str, Any]) -> Any:
    return {"canary": input}


@job
async def says_everything(step: Step, input: dict[str, Any]) -> Any:
    step.log.info("canary line", canary="canary data")
    step.progress(1, 2, "canary progress")
    await step.run("result", lambda: {"canary": input})
    try:
        await step.run("failure", fail, "canary error")
    except ValueError as error:
        assert str(error) == "canary error", error
    step.progress(2, 2, "canary progress")
    payload = await step.wait_for_signal("go")
    output = await step.call(child, {"canary": payload})
    if input.get("fails"):
        raise ValueError("canary end")
    return {"canary": [payload, output]}


async def nothing_of_a_user_is_readable_in_a_sealed_database(backend: Backend) -> None:
    async with SealedWorld(backend) as world:
        durably = await world.started(says_everything, child, codec=AesGcmCodec(KEY))
        fine = await durably.trigger(says_everything, {"word": "canary"}, labels={"seen": "label"})
        wrong = await durably.trigger(says_everything, {"word": "canary", "fails": True}, idempotency_key="seen")
        for coalesce in ("queue", "replace"):
            await durably.trigger(
                says_everything,
                {"word": "canary queued"},
                concurrency_key="seen",
                delay=1000,
                coalesce=coalesce,
            )
        many = await durably.trigger_many(says_everything, [{"input": {"word": "canary many"}, "delay": 1000}])
        for handle in (fine, wrong):
            await durably.signal(handle.id, "go", "canary payload")
        expected = ["canary payload", {"canary": {"canary": "canary payload"}}]
        assert await world.drive(fine.result()) == {"canary": expected}
        assert "canary end" in str(await raised(RunFailed, world.drive(wrong.result())))
        await durably.signal(many[0].id, "go", "canary waits")
        dumped = repr(await _dump(world))
        assert "canary" not in dumped, dumped[max(0, dumped.index("canary") - 500) :][:1000]
        for word in ("says_everything", "'result'", "'failure'", "seen", "label", "'go'", "sealed:1:"):
            assert word in dumped, word
        # And all of it can be read.
        second = await world.engine(says_everything, child, codec=AesGcmCodec([NEW_KEY, KEY]))
        runs = await second.get_runs()
        assert len(runs) == 6 and all("canary" in repr(run.input) for run in runs), runs
        logs = await second.get_logs(fine.id)
        assert [(log.message, log.data) for log in logs] == [("canary line", {"canary": "canary data"})]
        run = await second.get_run(fine.id)
        assert run is not None and run.progress == (2, 2, "canary progress"), run
        steps = {one.name: one for one in await second.get_steps(fine.id)}
        assert steps["result"].output == {"canary": {"word": "canary"}} and steps["go"].output == "canary payload"
        assert steps["failure"].error == "ValueError: canary error", steps["failure"]
        events = [event async for event in second.subscribe(wrong.id)]
        assert sum("canary" in repr(event) for event in events) >= 7, events
        assert "canary end" in str(events[-1].traceback), events[-1]


async def a_sealed_run_goes_on_after_a_crash(backend: Backend) -> None:
    gate, calls = Gate(), [0]

    def values() -> Any:
        calls[0] += 1
        return VALUES

    @job
    async def keeps(step: Step, input: Any) -> Any:
        step.log.info("said once")
        got: Any = await step.run("values", values)
        try:
            await step.run("failure", fail, "as before")
        except ValueError as error:
            got = [str(error), got]
        return await step.run("wait", gate.wait, got)

    async with SealedWorld(backend) as world:
        first = await world.started(keeps, codec=AesGcmCodec(KEY))
        handle = await first.trigger(keeps, VALUES)
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        # With another key for what is written from now on.
        second = await world.engine(keeps, codec=AesGcmCodec([NEW_KEY, KEY]))
        await second.process_one()
        assert repr(await _output_of(second, handle.id)) == repr(["as before", VALUES])
        assert calls == [1] and len(await second.get_logs(handle.id)) == 1


async def sealing_can_begin_later(backend: Backend) -> None:
    """What was stored before is read as it is."""
    gate = Gate()

    @job
    async def keeps(step: Step, input: Any) -> Any:
        got = await step.run("values", lambda: VALUES)
        return await step.run("wait", gate.wait, {"canary": got})

    async with SealedWorld(backend) as world:
        first = await world.started(keeps)
        handle = await first.trigger(keeps, {"early": 1})
        await gate.reached()
        await world.crash(first)
        await world.expire()
        gate.open()
        second = await world.engine(keeps, codec=AesGcmCodec(KEY))
        await second.process_one()
        assert repr(await _output_of(second, handle.id)) == repr({"canary": VALUES})
        run = await second.get_run(handle.id)
        assert run is not None and run.input == {"early": 1}
        dumped = repr(await _dump(world))
        assert "early" in dumped and "canary" not in dumped


async def without_the_key_nothing_is_read_and_it_says_so(backend: Backend) -> None:
    async with SealedWorld(backend) as world:
        durably = await world.engine(echo, codec=AesGcmCodec(KEY))
        handle = await durably.trigger(echo, "canary")
        await durably.process_one()
        for missing in (None, JsonCodec()):
            without = await world.engine(echo, codec=missing)
            for reading in (without.get_run(handle.id), without.get_runs(), without.get_steps(handle.id)):
                error = await raised(DecryptionFailed, reading)
                assert "Durably(codec=AesGcmCodec(key))" in str(error), error
        error = await raised(DecryptionFailed, world.engine(echo, codec=AesGcmCodec(NEW_KEY)))
        assert "pass that key too" in str(error), error


async def a_changed_value_is_refused(backend: Backend) -> None:
    async with SealedWorld(backend) as world:
        durably = await world.engine(echo, codec=AesGcmCodec(KEY))
        first, second = [await durably.trigger(echo, word) for word in ("one", "two")]
        executor = backend.connect()
        await executor.open()
        try:
            asked = Batch("read", (Statement("SELECT input FROM durably_runs WHERE id = ?", (first.id,)),))
            [[[before]]] = await executor.run(asked)
            # One character or two in the middle.
            change = "UPDATE durably_runs SET input = substr(input, 1, 30) || '++' || substr(input, 33) WHERE id = ?"
            await executor.run(Batch("write", (Statement(change, (first.id,)),)))
            [[[after]]] = await executor.run(asked)
            assert before != after and len(str(before)) == len(str(after))
            error = await raised(DecryptionFailed, durably.get_run(first.id))
            assert "changed after it was stored" in str(error), error
            run = await durably.get_run(second.id)
            assert run is not None and run.input == "two"
        finally:
            undo = Statement("UPDATE durably_runs SET input = ? WHERE id = ?", (before, first.id))
            await executor.run(Batch("write", (undo,)))
            await executor.close()
