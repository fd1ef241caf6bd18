"""Runs that wait, for a moment, a person or other runs, in a browser: also across the end of their tab."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import create, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

JOBS = "waiting_jobs.py"
ENDED = "async id => await durably.waitForRun(id, {timeout: 30_000})"
WAITS = "async id => (await durably.getRun(id)).status === 'waiting'"
FOLLOW = """async ([id, after]) => {
  const seen = [];
  for await (const { seq, type } of durably.subscribe(id, { after })) seen.push([seq, type]);
  return seen;
}"""


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    page = visit()
    assert create(page, jobs=JOBS) == "leader"
    return page


def trigger(page: Page, name: str, input: Any = None, **options: Any) -> str:
    """The id of a new run."""
    made = page.evaluate("([name, input, options]) => durably.trigger(name, input, options)", [name, input, options])
    assert made["disposition"] == "created"
    return str(made["id"])


def wait_until_waiting(page: Page, run_id: str) -> Any:
    wait_until(page, WAITS, run_id)
    return page.evaluate("id => durably.getRun(id)", run_id)


def steps(page: Page, run_id: str) -> dict[str, Any]:
    return {step["name"]: step for step in page.evaluate("id => durably.getSteps(id)", run_id)}


def test_retries(page: Page) -> None:
    heard = "globalThis.retries = []; durably.on('step:retry', ({attempt, error}) => retries.push([attempt, error]))"
    page.evaluate(f"() => {{ {heard} }}")
    run_id = trigger(page, "flaky", {"succeeds_at": 3})
    assert page.evaluate(ENDED, run_id)["output"] == 3
    step = steps(page, run_id)["fetch"]
    failed = [[1, "ConnectionError: try 1"], [2, "ConnectionError: try 2"]]
    assert step["attempt"] == 3
    assert [[attempt["attempt"], attempt["error"]] for attempt in step["attempts"]] == failed
    assert page.evaluate("retries") == failed


def test_a_sleep_outlasts_its_tab_and_ends_at_the_stored_moment(page: Page, visit: Callable[..., Page]) -> None:
    run_id = trigger(page, "nap", {"seconds": 2})
    before = wait_until_waiting(page, run_id)
    stored = steps(page, run_id)
    assert stored["nap"]["status"] == "waiting"
    assert stored["nap"]["until"] == before["wakeAt"]
    page.close()

    page = visit()
    assert create(page, jobs=JOBS) == "leader"
    run = page.evaluate(ENDED, run_id)
    after = steps(page, run_id)
    assert run["output"] == [stored["before"]["output"], after["after"]["output"]]
    # Texts of instants in one form are in their order.
    assert after["after"]["startedAt"] >= before["wakeAt"]


def test_a_person_answers_after_a_reload(page: Page) -> None:
    run_id = trigger(page, "ask", {"amount": 5})
    assert wait_until_waiting(page, run_id)["wakeAt"] is None
    asked = steps(page, run_id)["ask"]["output"]
    page.reload()
    assert create(page, jobs=JOBS) == "leader"
    page.evaluate(
        """id => {
          const button = document.body.appendChild(document.createElement("button"));
          button.textContent = "Approve";
          button.addEventListener("click", () => durably.signal(id, "answer", { approved: true }));
        }""",
        run_id,
    )
    page.get_by_role("button", name="Approve").click()
    assert page.evaluate(ENDED, run_id)["output"] == {
        "input": {"amount": 5},
        "asked": asked,
        "answer": {"approved": True},
    }
    late = page.evaluate("id => durably.signal(id, 'answer').catch(({name}) => name)", run_id)
    assert late == "Conflict"


def test_children_and_parallel_steps(page: Page) -> None:
    run_id = trigger(page, "family", labels={"org": "acme"})
    output = page.evaluate(ENDED, run_id)["output"]
    assert output == {"doubled": [0, 2, 4], "squares": [n * n for n in range(20)]}
    children = page.evaluate("durably.getRuns({jobName: 'double', labels: {org: 'acme'}})")
    assert [child["parentRunId"] for child in children] == [run_id] * 3


def test_a_cancelled_parent_takes_its_child_along(page: Page) -> None:
    run_id = trigger(page, "wait_for_child")
    wait_until(page, "async () => (await durably.getRuns({status: 'waiting'})).length === 2")
    page.evaluate("id => durably.cancel(id)", run_id)
    runs = page.evaluate("durably.getRuns()")
    assert [(run["jobName"], run["status"]) for run in runs] == [("ask", "cancelled"), ("wait_for_child", "cancelled")]


def test_coalescing(page: Page) -> None:
    """The first of a key waits for an answer; of those behind it there is one."""
    first = trigger(page, "ask", {"n": 0}, concurrencyKey="k")
    wait_until_waiting(page, first)
    second = trigger(page, "ask", {"n": 1}, concurrencyKey="k")
    ask = "options => durably.trigger('ask', {n: 2}, {concurrencyKey: 'k', ...options}).catch(({name}) => name)"
    assert page.evaluate(ask, {}) == "Conflict"
    assert page.evaluate(ask, {"coalesce": "skip"}) == {"id": second, "disposition": "coalesced"}
    assert page.evaluate("id => durably.getRun(id)", second)["input"] == {"n": 1}
    assert page.evaluate(ask, {"coalesce": "replace"}) == {"id": second, "disposition": "coalesced"}
    third = page.evaluate(ask, {"coalesce": "queue"})
    assert third["disposition"] == "created"
    for run_id in (first, second, third["id"]):
        page.evaluate("id => durably.signal(id, 'answer', id)", run_id)
    outputs = [page.evaluate(ENDED, run_id)["output"] for run_id in (first, second, third["id"])]
    assert [output["input"]["n"] for output in outputs] == [0, 2, 2]


def test_debouncing(page: Page) -> None:
    typed = page.evaluate(
        """async () => {
          const options = { concurrencyKey: "search", debounce: { delay: 1500, maxDelay: 60_000 } };
          const made = [];
          for (const text of ["d", "du", "dur"]) made.push(await durably.trigger("echo", { text }, options));
          return made;
        }"""
    )
    assert [one["disposition"] for one in typed] == ["created", "coalesced", "coalesced"]
    assert page.evaluate(ENDED, typed[0]["id"])["output"] == {"text": "dur"}
    assert len(page.evaluate("durably.getRuns()")) == 1


def test_delays_and_priorities(page: Page) -> None:
    soon = page.evaluate("durably.trigger('echo', {}, {delay: 100, priority: 5})")
    run = page.evaluate(ENDED, soon["id"])
    assert run["priority"] == 5 and run["startedAt"] >= run["runAt"]
    later = page.evaluate("durably.trigger('echo', {}, {runAt: new Date('2100-01-01T00:00:00Z')})")
    run = page.evaluate("id => durably.getRun(id)", later["id"])
    assert (run["status"], run["runAt"]) == ("pending", "2100-01-01T00:00:00.000Z")


def test_pause_and_resume(page: Page) -> None:
    run_id = trigger(page, "ask")
    wait_until_waiting(page, run_id)
    page.evaluate("async id => { await durably.pause(id); await durably.signal(id, 'answer', 1) }", run_id)
    page.evaluate("durably.pauseJob('double')")
    doubled = trigger(page, "double", {"n": 2})
    # What is triggered after them ends before them.
    assert page.evaluate("durably.triggerAndWait('echo', {text: 'through'})") == {"text": "through"}
    run = page.evaluate("id => durably.getRun(id)", run_id)
    # The answer has come, so it waits for nothing but somebody to resume it.
    assert (run["status"], run["paused"]) == ("pending", True)
    assert page.evaluate("durably.stats()") == {
        "total": 3,
        "byStatus": {"pending": 2, "completed": 1},
        "byJob": {"ask": {"pending": 1}, "double": {"pending": 1}, "echo": {"completed": 1}},
        "pausedJobs": ["double"],
        "storageFull": False,
    }
    page.evaluate("id => durably.resume(id)", run_id)
    assert page.evaluate(ENDED, run_id)["output"]["answer"] == 1
    page.evaluate("durably.resumeJob('double')")
    assert page.evaluate(ENDED, doubled)["output"] == 4


def test_many_at_once(page: Page) -> None:
    items = [{"input": {"n": n}, "labels": {"half": str(n % 2)}} for n in range(6)]
    made = page.evaluate("items => durably.triggerMany('ask', items)", items)
    assert [one["disposition"] for one in made] == ["created"] * 6
    wait_until(page, "async () => (await durably.getRuns({status: 'waiting'})).length === 6")
    assert page.evaluate("durably.cancelRuns({labels: {half: '0'}})") == 3
    assert page.evaluate("durably.pauseRuns({status: ['waiting', 'pending']})") == 3
    assert page.evaluate("durably.resumeRuns({createdBefore: new Date('2100-01-01')})") == 3
    assert page.evaluate("durably.deleteRuns({status: 'cancelled', labels: {half: '1'}})") == 0
    assert page.evaluate("durably.purgeRuns({olderThan: 3_600_000})") == 0
    assert page.evaluate("durably.purgeRuns({olderThan: new Date('2100-01-01'), limit: 2})") == 2
    assert page.evaluate("durably.retryRuns({jobName: 'ask'})") == 1
    assert len(page.evaluate("durably.getRuns({jobName: 'ask'})")) == 4


def test_fork(page: Page) -> None:
    run_id = trigger(page, "nap", {"seconds": 0})
    before, after = page.evaluate(ENDED, run_id)["output"]
    forked = page.evaluate("id => durably.fork(id, {fromStep: 'after'})", run_id)["id"]
    run = page.evaluate(ENDED, forked)
    assert run["forkedFrom"] == run_id
    assert run["output"][0] == before and run["output"][1] != after


def test_following_a_run_across_the_death_of_its_worker(page: Page) -> None:
    run_id = trigger(page, "ask")
    page.evaluate(f"id => {{ globalThis.following = ({FOLLOW})([id, 0]) }}", run_id)
    wait_until_waiting(page, run_id)
    page.evaluate("workers[0].terminate()")
    page.wait_for_function("workers.length === 2 && durably.status === 'leader'")
    page.evaluate("id => durably.signal(id, 'answer')", run_id)
    followed = page.evaluate("following")
    assert followed == page.evaluate(FOLLOW, [run_id, 0])
    types = [type for _, type in followed]
    assert types[0] == "run:trigger" and types[-1] == "run:complete" and "log:write" in types
    seqs = [seq for seq, _ in followed]
    assert seqs == sorted(set(seqs))
    assert page.evaluate(FOLLOW, [run_id, seqs[2]]) == followed[3:]


def test_a_result_of_20_mb_crosses(page: Page) -> None:
    run_id = trigger(page, "large", {"length": 20_000_000})
    assert page.evaluate(f"async id => (await ({ENDED})(id)).output.length", run_id) == 20_000_000
    assert page.evaluate("async id => (await durably.getSteps(id))[0].output.length", run_id) == 20_000_000


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("durably.trigger('echo', {}, {prority: 1})", "InvalidInput: a trigger has no prority"),
        ("durably.trigger('echo', {}, {delay: 1, runAt: new Date()})", "InvalidInput: delay and run_at"),
        ("durably.trigger('echo', {}, {coalesce: 'skip'})", "InvalidInput: coalesce needs a concurrency_key"),
        ("durably.trigger('echo', {}, {runAt: '2030-01-31'})", "BadRequest: runAt must be an instant with a zone"),
        ("durably.deleteRuns({})", "InvalidInput: which runs"),
        ("durably.pauseJob('nobody')", "NotFound: "),
        ("durably.fork('nobody')", "NotFound: "),
        ("durably.subscribe('nobody').next()", "NotFound: there is no run"),
    ],
)
def test_a_mistake_is_told(page: Page, request_: str, message: str) -> None:
    told = page.evaluate(f"{request_}.catch(({{name, message}}) => `${{name}}: ${{message}}`)")
    assert told.startswith(message)


def test_a_cancelled_run_is_undone_also_by_the_next_tab(page: Page, visit: Callable[..., Page]) -> None:
    """The cancellation may be all that the first one has done."""
    page.evaluate("""() => { globalThis.heard = [];
        durably.on("run:undo", ({ undoing }) => heard.push(undoing)) }""")
    run_id = trigger(page, "books")
    wait_until_waiting(page, run_id)
    page.evaluate("id => durably.cancel(id)", run_id)
    assert page.evaluate(ENDED, run_id)["status"] == "cancelled"
    assert page.evaluate("heard") == ["cancelled"]
    _is_undone(page, run_id)

    run_id = trigger(page, "books")
    wait_until_waiting(page, run_id)
    assert page.evaluate("id => durably.cancel(id).then(() => durably.getRun(id))", run_id)["id"] == run_id
    page.close()
    page = visit()
    assert create(page, jobs=JOBS) == "leader"
    assert page.evaluate(ENDED, run_id)["status"] == "cancelled"
    _is_undone(page, run_id)


def _is_undone(page: Page, run_id: str) -> None:
    assert {name: step["status"] for name, step in steps(page, run_id).items()} == {
        "hotel": "undone",
        "car": "undone",
        "go": "waiting",
        "car#undo": "completed",
        "hotel#undo": "completed",
    }
    said = page.evaluate("async id => (await durably.getLogs(id)).map(({ data }) => data.booking)", run_id)
    assert said == ["the car", "the hotel"]
