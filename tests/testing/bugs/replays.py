"""What a job does not do again as it did it."""

from __future__ import annotations

import asyncio
from typing import Any

from durably_web import Step, job
from tests.testing.bugs import Bug, double, same

# -- steps -----------------------------------------------------------------------------------------------


@job(name="numbered")
async def names_a_step_by_the_attempt(step: Step, input: dict[str, Any]) -> int:
    first = await step.run(f"double in {step.attempt}", double, 1)
    return first + await step.run("again", double, first)


@job(name="numbered")
async def names_a_step_by_its_place(step: Step, input: dict[str, Any]) -> int:
    first = await step.run("double", double, 1)
    return first + await step.run("double", double, first)


@job(name="addressed")
async def names_a_step_by_an_address(step: Step, input: dict[str, Any]) -> Any:
    first = await step.run("double", double, 1)
    return await step.run(f"save {id(object()) + step.attempt}", same, first)


@job(name="addressed")
async def names_a_step_by_a_result(step: Step, input: dict[str, Any]) -> Any:
    first = await step.run("double", double, 1)
    return await step.run(f"save {first}", same, first)


@job(name="shorter")
async def does_less_after_a_crash(step: Step, input: dict[str, Any]) -> int:
    if step.attempt == 1:
        await step.run("prepare", double, 1)
        await step.run("check", double, 1)
    return await step.run("work", double, 2)


@job(name="shorter")
async def does_the_same_after_a_crash(step: Step, input: dict[str, Any]) -> int:
    await step.run("prepare", double, 1)
    await step.run("check", double, 1)
    return await step.run("work", double, 2)


@job(name="reordered")
async def turns_the_order_round(step: Step, input: dict[str, Any]) -> list[int]:
    words = ["a", "bb"] if step.attempt % 2 else ["bb", "a"]
    return [await step.run(f"count {word}", len, word) for word in words]


@job(name="reordered")
async def keeps_the_order(step: Step, input: dict[str, Any]) -> list[int]:
    return [await step.run(f"count {word}", len, word) for word in ["a", "bb"]]


@job(name="arguments")
async def passes_the_attempt_on(step: Step, input: dict[str, Any]) -> int:
    return await step.run("double", double, step.attempt) + await step.run("again", double, 1)


@job(name="arguments")
async def passes_on_what_was_given(step: Step, input: dict[str, Any]) -> int:
    return await step.run("double", double, input["number"]) + await step.run("again", double, 1)


@job(name="branches")
async def passes_the_attempt_on_in_branches(step: Step, input: dict[str, Any]) -> list[int]:
    numbers = await asyncio.gather(step.run("a", double, step.attempt), step.run("b", double, 1))
    return [*numbers, await step.run("c", double, 1)]


@job(name="branches")
async def passes_the_same_in_branches(step: Step, input: dict[str, Any]) -> list[int]:
    numbers = await asyncio.gather(step.run("a", double, 1), step.run("b", double, 1))
    return [*numbers, await step.run("c", double, 1)]


@job(name="each")
async def maps_other_items(step: Step, input: dict[str, Any]) -> list[int]:
    numbers = await step.map("double", double, [step.attempt, 5])
    return [*numbers, await step.run("again", double, 1)]


@job(name="each")
async def maps_the_same_items(step: Step, input: dict[str, Any]) -> list[int]:
    return [*await step.map("double", double, [4, 5]), await step.run("again", double, 1)]


@job(name="words")
async def goes_through_a_set(step: Step, input: dict[str, Any]) -> list[int]:
    words = set(input["text"].split())
    found = []
    for word in words:
        found.append(await step.run("count", len, word))  # noqa: PERF401 — as people write it
    return found


@job(name="words")
async def goes_through_a_sorted_set(step: Step, input: dict[str, Any]) -> list[int]:
    words = set(input["text"].split())
    found = []
    for word in sorted(words):
        found.append(await step.run("count", len, word))  # noqa: PERF401 — as people write it
    return found


@job(name="lists")
async def makes_a_list_of_a_set(step: Step, input: dict[str, Any]) -> list[int]:
    return await step.map("count", len, list({*input["text"].split()}))


@job(name="lists")
async def makes_a_sorted_list_of_a_set(step: Step, input: dict[str, Any]) -> list[int]:
    return await step.map("count", len, sorted({*input["text"].split()}))


# -- what ends an execution ------------------------------------------------------------------------------


@job(name="catch")
async def catches_everything(step: Step, input: dict[str, Any]) -> Any:
    try:
        await step.run("double", double, 1)
        await step.sleep("pause", 3600)
    except:  # noqa: E722 — that is the bug
        return "failed"
    return "done"


@job(name="catch")
async def catches_exceptions(step: Step, input: dict[str, Any]) -> Any:
    try:
        await step.run("double", double, 1)
        await step.sleep("pause", 3600)
    except Exception:
        return "failed"
    return "done"


class Wrapped(Exception):
    """What a program makes of all that happens to it."""


@job(name="wrap")
async def wraps_everything(step: Step, input: dict[str, Any]) -> int:
    try:
        return await step.run("double", double, 1) + await step.run("again", double, 1)
    except BaseException as error:
        raise Wrapped from error


@job(name="wrap")
async def wraps_exceptions(step: Step, input: dict[str, Any]) -> int:
    try:
        return await step.run("double", double, 1) + await step.run("again", double, 1)
    except Exception as error:
        raise Wrapped from error


BUGS = [
    Bug(
        names_a_step_by_the_attempt,
        names_a_step_by_its_place,
        "replay",
        "step 'double in 1', and when .* step 'double in 2'",
    ),
    Bug(names_a_step_by_an_address, names_a_step_by_a_result, "replay", r"as number 2 the job called step 'save \d+'"),
    Bug(
        does_less_after_a_crash,
        does_the_same_after_a_crash,
        "replay",
        "as number 1 .* step 'prepare', and .* step 'work'",
    ),
    Bug(turns_the_order_round, keeps_the_order, "replay", "called step 'count a', and when .* step 'count bb'"),
    Bug(
        passes_the_attempt_on,
        passes_on_what_was_given,
        "replay",
        "'double' was called with .*1.* with .*2",
        {"number": 1},
    ),
    Bug(passes_the_attempt_on_in_branches, passes_the_same_in_branches, "replay", "step 'a' was called with"),
    Bug(maps_other_items, maps_the_same_items, "replay", r"step 'double\[0\]' was called with"),
    Bug(
        goes_through_a_set,
        goes_through_a_sorted_set,
        "order",
        r"replays\.py:\d+: the job goes through a set",
        {"text": "a b"},
    ),
    Bug(makes_a_list_of_a_set, makes_a_sorted_list_of_a_set, "order", r"use sorted", {"text": "a b"}),
    Bug(catches_everything, catches_exceptions, "swallowed", r"replays\.py:\d+: the job catches what ends"),
    Bug(wraps_everything, wraps_exceptions, "swallowed", r"Catch `Exception`"),
]
