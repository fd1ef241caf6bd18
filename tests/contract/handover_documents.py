"""What a document may say: all that an engine wrote, and of everything else one clear error, and nothing is stored."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from durably_web.codec import JsonCodec
from durably_web.engine import Durably
from durably_web.errors import Conflict, InvalidInput, NotFound
from durably_web.jobs import Job, job
from durably_web.steps import Step
from durably_web.store.batch import Batch, Statement
from tests.contract import Backend, needs
from tests.support.scenes import run_of
from tests.support.store_scene import TABLES
from tests.support.two import Two, refused, tables
from tests.support.world import World, bounded, raised

# What may stand where something else is expected.
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 2**31, 2**70, 0.5, "", "x", "sealed:x", "\ud800", "\0", [], ["x"], {}, {"$type": "x", "value": 1},
    {"$type": "Decimal", "value": "no"}, "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00Z", "run:complete",
)  # fmt: skip


class _Error(Exception):
    """Raised by a step."""


async def _failing() -> None:
    raise _Error("it fails")


@job
async def work(step: Step, input: dict[str, Any]) -> Any:
    step.log.info("begun", n=1.0)
    step.progress(1, 2, "half")
    await step.run("tuple", _give, (1, Decimal("2.5")))
    await step.run("kept", _give, "kept", undo=_undo)
    try:
        await step.run("fails", _failing)
    except Exception as error:
        step.log.warning("caught", kind=type(error).__name__)
    await step.sleep("nap", 0.0)
    taken = await step.wait_for_signal("taken")
    return [taken, await step.wait_for_signal("go")]


def _give(value: Any) -> Any:
    return value


async def _undo(value: Any) -> None: ...


async def _document(world: World, **options: Any) -> tuple[Durably, dict[str, Any]]:
    durably = await world.engine(work, **options)
    run_id = (await durably.trigger(work, {"a": {"b": [1, 1.0]}}, labels={"l": "m"}, idempotency_key="i")).id
    await durably.signal(run_id, "taken", {"x": Decimal(1)})
    await durably.signal(run_id, "open", None)
    await bounded(durably.process_until_idle())
    offer = await durably.offer_run(run_id, "there")
    assert offer.document is not None
    return durably, offer.document


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _paths(item, (*path, number))


def _changed(document: Any, path: tuple[Any, ...], value: Any = None, *, gone: bool = False) -> Any:
    again = copy.deepcopy(document)
    place = again
    for part in path[:-1]:
        place = place[part]
    if gone:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return again


async def _tried(two: Two, there: Durably, document: Any, before: Any) -> bool:
    """Whether it is taken. If it is not, nothing was stored; if it is, the run can be read and executed."""
    try:
        handle = await there.import_run(document)
    except (InvalidInput, NotFound, Conflict) as error:
        assert str(error) and len(str(error)) < 2000, "an error that can be read"
        assert await tables(two.there) == before, document
        return False
    await two.there.check()
    run = await run_of(there, handle.id)
    json.dumps([run.to_wire(), [one.to_wire() for one in await there.get_steps(handle.id)]])
    json.dumps([one.to_wire() for one in await there.get_logs(handle.id)])
    json.dumps([one.to_wire() for one in (await there.get_events(handle.id)).events])
    await bounded(there.process_until_idle())
    assert (await run_of(there, handle.id)).attempt >= run.attempt
    if not (await run_of(there, handle.id)).is_terminal:
        await there.cancel(handle.id)
        await bounded(there.process_until_idle())
    await there.delete_run(handle.id)
    return True


async def _each(backend: Backend, change: Any) -> tuple[int, int]:
    """Tries every change of a document on a database with nothing in it; how many were taken and refused."""
    counts = [0, 0]
    async with Two(backend) as two:
        _, document = await _document(two.here)
        there = await two.there.engine(work)
        before = await tables(two.there)
        for changed in change(document):
            taken = await _tried(two, there, changed, before)
            counts[not taken] += 1
            if taken:
                await _forget(two.there)
                assert await tables(two.there) == before
        assert await _tried(two, there, document, before), "and the right one is taken after all that"
    return counts[0], counts[1]


async def _forget(world: World) -> None:
    """As if there had never been anything."""
    from durably_web.store.batch import Batch, Statement

    executor = world.executor()
    await executor.open()
    await executor.run(
        Batch("write", (Statement("DELETE FROM durably_journal"), Statement("DELETE FROM durably_requests")))
    )
    await executor.close()


@needs("another")
async def whatever_is_missing_is_missed(backend: Backend) -> None:
    def each(document: Any) -> Iterator[Any]:
        for path in _paths(document):
            yield _changed(document, path, gone=True)

    taken, refusals = await _each(backend, each)
    assert refusals > 2 * taken > 0, (taken, refusals)


@needs("another")
async def whatever_stands_in_the_wrong_place_is_refused_or_harmless(backend: Backend) -> None:
    def each(document: Any) -> Iterator[Any]:
        for number, path in enumerate(_paths(document)):
            for value in HOSTILE[number % 3 :: 3]:
                yield _changed(document, path, copy.deepcopy(value))

    taken, refusals = await _each(backend, each)
    assert refusals > taken > 0, (taken, refusals)


@needs("another")
async def what_is_cut_off_is_refused(backend: Backend) -> None:
    async with Two(backend) as two:
        _, document = await _document(two.here)
        there = await two.there.engine(work)
        before, text = await tables(two.there), json.dumps(document)
        for end in range(0, len(text) - 1, 29):
            error = await raised(InvalidInput, there.import_run(text[:end]))
            assert "not JSON" in str(error)
        for wrong in (
            None,
            7,
            [],
            {},
            "[]",
            "null",
            '"text"',
            "NaN",
            "[" * 100_000,
            '{"a":' * 100_000,
            b"\xff",
            object(),
        ):
            await raised(InvalidInput, there.import_run(wrong))
        deep: Any = None
        # In a browser, Python cannot even let go of what is nested twice as deep, or a little more: it ends.
        for _ in range(1_000):
            deep = [deep]
        places: list[tuple[Any, ...]] = [("run", "input"), ("run", "progress"), ("journal", 0, "data"), ("more",)]
        for path in places:
            error = await raised(InvalidInput, there.import_run(_changed(document, path, deep)))
            assert "nested too deeply" in str(error), (path, error)
        for awaits in ("[" * 100_000, "[[]]", "{}", "no"):
            path = ("journal", -1, "data", "awaits")
            error = await raised(InvalidInput, there.import_run(_changed(document, path, awaits)))
            assert "it waits for" in str(error) or "JSONDecodeError" in str(error), (awaits, error)
        await raised(InvalidInput, there.import_run(_changed(document, ("run", "input"), float("nan"))))
        assert await tables(two.there) == before


@needs("another")
async def what_is_newer_or_something_else_says_so(backend: Backend) -> None:
    async with Two(backend) as two:
        here, document = await _document(two.here)
        there = await two.there.engine(work)
        table = [
            (_changed(document, ("version",), 2), "made by a newer durably_web"),
            (_changed(document, ("format",), "else"), 'no "format"'),
            ({**document, "more": 1}, "more, which is not known here"),
            (_changed(document, ("run", "more"), 1), "more, which is not known here"),
            (_changed(document, ("journal", 2, "more"), 1), "more, which is not known here"),
            (_changed(document, ("journal", 2, "type"), "run:teleport"), "run:teleport, which is not known here"),
            (await here.export_run(document["run"]["id"]), "would then be executed twice"),
            (_changed(document, ("run", "input"), 7), "input of job 'work' does not fit"),
        ]
        for wrong, told in table:
            error = await raised(InvalidInput, there.import_run(wrong))
            assert told in str(error), error
        assert "no job 'none'" in str(
            await raised(NotFound, there.import_run(_changed(document, ("run", "jobName"), "none")))
        )


@needs("another")
async def nothing_is_imported_by_its_name(backend: Backend) -> None:
    """A step that failed says of which class its exception was; no module is loaded for it that nobody has loaded."""

    async with Two(backend) as two:
        _, document = await _document(two.here)
        there = await two.there.engine(work)
        [number] = [n for n, entry in enumerate(document["journal"]) if entry["type"] == "step:fail"]
        assert document["journal"][number]["data"]["name"] == "_Error"
        for module in ("this", "antigravity", "unittest.__main__", "__main__.x"):
            data = {"error": "E: e", "module": module, "name": "Error", "message": "e"}
            wrong = _changed(document, ("journal", number, "data"), data)
            run_id = (await there.import_run(wrong)).id
            await there.signal(run_id, "go", 1)
            await bounded(there.process_until_idle())
            assert (await run_of(there, run_id)).status == "completed"
            assert module not in sys.modules
            await there.delete_run(run_id)
            await _forget(two.there)


# -- values and keys -----------------------------------------------------------------------------------------


class _Reversed:
    """A codec of one's own."""

    def encode(self, value: Any, /) -> str:
        return JsonCodec().encode(value)[::-1]

    def decode(self, text: str, /) -> Any:
        return JsonCodec().decode(text[::-1])


class _Sealing:
    """Hides what it is given behind its own name."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._inner = JsonCodec()

    def encode(self, value: Any, /) -> str:
        return self._inner.encode(value)

    def decode(self, text: str, /) -> Any:
        return self._inner.decode(text)

    async def seal(self, texts: list[str], /) -> list[str]:
        return [f"{self.key}:{text[::-1]}" for text in texts]

    async def unseal(self, texts: list[str], /) -> list[str]:
        assert all(text.startswith(f"{self.key}:") for text in texts), "another key"
        return [text.removeprefix(f"{self.key}:")[::-1] for text in texts]


@needs("another")
async def values_are_what_they_were_or_are_refused(backend: Backend) -> None:
    """Between codecs of one's own; from one with a key to one with another; never from sealed to readable."""
    sealed_here: list[tuple[Any, Any, str]] = [
        (None, _Sealing("b"), ""),
        (_Reversed(), _Reversed(), ""),
        (None, _Reversed(), "written by another codec"),
        (_Reversed(), None, "written by another codec"),
    ]
    for own, other, told in sealed_here:
        async with Two(backend) as two:
            here, document = await _document(two.here, codec=own)
            there = await two.there.engine(work, codec=other)
            run_id = document["run"]["id"]
            if told:
                before = await tables(two.there)
                assert told in str(await raised(InvalidInput, there.import_run(document)))
                assert await tables(two.there) == before
                handover = document["handover"]["id"]
                await there.decline_handover(run_id, handover)
                await here.withdraw_handover(run_id, handover)
                await here.cancel(run_id)
                await bounded(here.process_until_idle())
            else:
                await there.import_run(json.dumps(document))
                await there.signal(run_id, "go", (1,))
                await bounded(there.process_until_idle())
                run = await run_of(there, run_id)
                assert (run.input, run.output) == ({"a": {"b": [1, 1.0]}}, [{"x": Decimal(1)}, (1,)])
                assert (await there.get_steps(run_id))[0].output == (1, Decimal("2.5"))
                if isinstance(other, _Sealing):
                    [[text]] = await two.there.rows("SELECT input FROM durably_runs WHERE id = ?", run_id)
                    assert str(text).startswith("sealed:b:")
                    back = await there.offer_run((await there.trigger(work, {})).id, "here")
                    error = await raised(InvalidInput, here.import_run(back.document))
                    assert "has no key to seal them with" in str(error)
                await here.confirm_handover(run_id, document["handover"]["id"])
            for world in (two.here, two.there):
                world_engine = world._engines[-1][0]
                for run in await world_engine.get_runs():
                    if run.is_terminal:
                        await world_engine.delete_run(run.id)
            # What is sealed is not for the check, which reads what is stored.
            if isinstance(other, _Sealing):
                await _emptied(two.there)


async def _emptied(world: World, *names: str) -> None:
    executor = world.executor()
    await executor.open()
    names = names or tuple(name for name in TABLES if name != "durably_schema")
    await executor.run(Batch("write", tuple(Statement(f"DELETE FROM {name}") for name in names)))
    await executor.close()


# -- code ----------------------------------------------------------------------------------------------------


def _version(on_change: Any, more: bool) -> Job[Any, Any]:
    async def first(step: Step, input: dict[str, Any]) -> Any:
        one = await step.run("one", _give, 1)
        return [one, await step.wait_for_signal("go")]

    async def second(step: Step, input: dict[str, Any]) -> Any:
        one = await step.run("one", _give, 1)
        two = await step.run("two", _give, 2)
        return [one, two, await step.wait_for_signal("go")]

    return job(name="coded", on_change=on_change)(second if more else first)


@needs("another")
async def changed_code_is_met_there_as_it_would_be_here(backend: Backend) -> None:
    outcomes: dict[str, Any] = {}
    async with Two(backend) as two:
        for on_change in ("continue", "fail", "restart"):
            for more in (False, True):
                here = await two.here.engine(_version(on_change, False))
                there = await two.there.engine(_version(on_change, more))
                run_id = (await here.trigger("coded", {})).id
                await bounded(here.process_until_idle())
                await here.hand_over(run_id, there)
                await there.signal(run_id, "go", "go")
                await bounded(there.process_until_idle())
                run = await run_of(there, run_id)
                types = [event.type async for event in there.subscribe(run_id)]
                outcomes[f"{on_change} {more}"] = run.output or str(run.error).partition(":")[0]
                assert ("run:code-changed" in types) is more, (on_change, types)
                assert ("run:restart" in types) is (more and on_change == "restart")
                await here.stop()
                await there.stop()
    same, changed = [1, "go"], [1, 2, "go"]
    assert outcomes == {
        "continue False": same, "continue True": changed, "fail False": same, "fail True": "CodeChanged",
        "restart False": same, "restart True": changed,
    }, outcomes  # fmt: skip


@needs("another")
async def a_long_run_moves_as_a_whole(backend: Backend) -> None:
    @job
    async def long(step: Step, input: dict[str, Any]) -> Any:
        total = 0
        for number in range(400):
            total += await step.run("add", _give, number)
        return total + await step.wait_for_signal("go")

    async with Two(backend) as two:
        here, there = await two.here.engine(long), await two.there.engine(long)
        run_id = (await here.trigger(long, {})).id
        await bounded(here.process_until_idle())
        await bounded(here.hand_over(run_id, there))
        await there.signal(run_id, "go", 1)
        await bounded(there.process_until_idle())
        assert (await run_of(there, run_id)).output == sum(range(400)) + 1
        assert "handed over" in await refused(here.retry(run_id))
