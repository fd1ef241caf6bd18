"""What a job keeps where a crash takes it away, or changes twice."""

from __future__ import annotations

from typing import Any

from durably_web import Step, job
from tests.testing.bugs import Bug, double, same

COUNT = 0
SEEN: list[str] = []
CACHE: dict[str, int] = {}
SENT: list[int] = []


@job(name="count")
async def counts_in_the_module(step: Step, input: dict[str, Any]) -> int:
    global COUNT
    await step.run("double", double, 1)
    COUNT += 1
    return 1


@job(name="count")
async def counts_for_itself(step: Step, input: dict[str, Any]) -> int:
    count = await step.run("double", double, 1)
    count += 1
    return count


@job(name="remember")
async def remembers_in_the_module(step: Step, input: dict[str, Any]) -> int:
    SEEN.append(step.run_id)
    return await step.run("double", double, 1)


@job(name="remember")
async def remembers_in_a_step(step: Step, input: dict[str, Any]) -> int:
    await step.run("remember", SEEN.append, step.run_id)
    return await step.run("double", double, 1)


def collect(number: int, into: list[int] = []) -> list[int]:  # noqa: B006 — that is the bug
    into.append(number)
    return into


@job(name="collect")
async def collects_in_a_default(step: Step, input: dict[str, Any]) -> int:
    collect(await step.run("double", double, 1))
    return 1


@job(name="collect")
async def collects_in_a_list(step: Step, input: dict[str, Any]) -> int:
    into: list[int] = []
    collect(await step.run("double", double, 1), into)
    return len(into)


def load() -> None:
    CACHE["rate"] = 3


def loaded() -> dict[str, int]:
    return {"rate": 3}


@job(name="cache")
async def reads_what_a_step_has_put_aside(step: Step, input: dict[str, Any]) -> int:
    await step.run("load", load)
    return await step.run("double", double, CACHE["rate"])


@job(name="cache")
async def reads_what_a_step_returns(step: Step, input: dict[str, Any]) -> int:
    cache = await step.run("load", loaded)
    return await step.run("double", double, cache["rate"])


def fill(rows: list[int]) -> None:
    rows.extend([1, 2])


def filled(rows: list[int]) -> list[int]:
    return [*rows, 1, 2]


@job(name="fill")
async def lets_a_step_change_its_argument(step: Step, input: dict[str, Any]) -> Any:
    rows: list[int] = []
    await step.run("fill", fill, rows)
    return await step.run("save", same, rows)


@job(name="fill")
async def lets_a_step_return_it(step: Step, input: dict[str, Any]) -> Any:
    rows: list[int] = []
    rows = await step.run("fill", filled, rows)
    return await step.run("save", same, rows)


@job(name="input")
async def lets_a_step_sort_the_input(step: Step, input: dict[str, Any]) -> Any:
    await step.run("sort", input["numbers"].sort)
    return input["numbers"]


@job(name="input")
async def lets_a_step_return_the_sorted_input(step: Step, input: dict[str, Any]) -> Any:
    return await step.run("sort", sorted, input["numbers"])


@job(name="sum")
async def adds_up_in_a_closure(step: Step, input: dict[str, Any]) -> Any:
    total = 0

    def add(number: int) -> None:
        nonlocal total
        total += number

    for number in (1, 2, 3):
        await step.run("add", add, number)
    return total


@job(name="sum")
async def adds_up_results(step: Step, input: dict[str, Any]) -> Any:
    total = 0
    for number in (1, 2, 3):
        total += await step.run("add", int, number)
    return total


@job(name="result")
async def lets_a_step_change_a_result(step: Step, input: dict[str, Any]) -> Any:
    rows = await step.run("load", same, 3, 1)
    await step.run("sort", rows.sort)
    return await step.run("save", same, *rows)


@job(name="result")
async def changes_a_result_itself(step: Step, input: dict[str, Any]) -> Any:
    rows = await step.run("load", same, 3, 1)
    rows.sort()
    return await step.run("save", same, *rows)


# -- effects that come twice -----------------------------------------------------------------------------


def send(number: int) -> int:
    SENT.append(number)
    return len(SENT)


def send_once(number: int) -> int:
    if number not in SENT:
        SENT.append(number)
    return len(SENT)


@job(name="send")
async def sends_again(step: Step, input: dict[str, Any]) -> Any:
    return [await step.run("send", send, number) for number in (1, 2)]


@job(name="send")
async def sends_once(step: Step, input: dict[str, Any]) -> Any:
    return [await step.run("send", send_once, number) for number in (1, 2)]


def reset() -> None:
    SENT.clear()


BUGS = [
    Bug(
        counts_in_the_module,
        counts_for_itself,
        "variable",
        r"changes `COUNT` outside of a step \(behind step 'double'\)",
    ),
    Bug(remembers_in_the_module, remembers_in_a_step, "variable", r"changes `SEEN` .*\(before its first step\)"),
    Bug(collects_in_a_default, collects_in_a_list, "variable", r"changes `the defaults of collect\(\)`"),
    Bug(
        reads_what_a_step_has_put_aside,
        reads_what_a_step_returns,
        "variable",
        "reads `CACHE`, which step 'load' changes",
    ),
    Bug(lets_a_step_change_its_argument, lets_a_step_return_it, "outcome", "'fill' changes what it is given"),
    Bug(
        lets_a_step_sort_the_input,
        lets_a_step_return_the_sorted_input,
        "outcome",
        r"the run came to .*\[1, 3\]\) without a crash, and to .*\[3, 1\]\) with it",
        {"numbers": [3, 1]},
    ),
    Bug(adds_up_in_a_closure, adds_up_results, "outcome", r"'add' changes variables of the job \(total\)"),
    Bug(
        lets_a_step_change_a_result,
        changes_a_result_itself,
        "outcome",
        r"step 'save' came to .*\[1, 3\].* and to .*\[3, 1\]",
    ),
    Bug(
        sends_again,
        sends_once,
        "outcome",
        r"a crash before write \d+, the outcome of step 'send.*\n.*called twice",
        None,
        {"reset": reset},
    ),
]
