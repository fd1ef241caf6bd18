"""Many tabs of a site: each answers like the one that runs the jobs, and hears the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.tabs import (
    answer,
    ask,
    assert_same_events,
    evaluate,
    open_client,
    pythons,
    status_of,
    wait,
    wait_for_leader,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

Visit = Callable[..., "Page"]

COLLECT = """async ([id, after]) => {
  const seen = [];
  for await (const event of durably.subscribe(id, { after })) seen.push(event);
  return seen;
}"""

# What changes nothing, so that every tab can be asked the same. `ids` are runs that `prepare` made.
READS = {
    "a run": "durably.getRun(ids.completed)",
    "a run that failed": "durably.getRun(ids.failed)",
    "no such run": "durably.getRun('nobody')",
    "runs": "durably.getRuns()",
    "runs by job": "durably.getRuns({jobName: 'once'})",
    "runs by status and label": "durably.getRuns({jobName: 'ask', status: ['waiting', 'failed'], labels: {k: 'v'}})",
    "a page of runs": "durably.getRuns({limit: 2, offset: 1})",
    "runs behind one": "durably.getRuns({after: ids.failed})",
    "steps": "durably.getSteps(ids.completed)",
    "steps of one that waits": "durably.getSteps(ids.waiting)",
    "steps of nobody": "durably.getSteps('nobody')",
    "logs": "durably.getLogs(ids.logged)",
    "stats": "durably.stats()",
    "the end of a run": "durably.waitForRun(ids.completed)",
    "stored events": f"({COLLECT})([ids.completed, 0])",
    "stored events behind one": f"({COLLECT})([ids.failed, 3])",
}

ERRORS = {
    "an unknown job": ("durably.trigger('nobody')", "NotFound: "),
    "an unknown job of many": ("durably.triggerMany('nobody', [{}])", "NotFound: "),
    "an invalid input": ("durably.trigger('typed', {amount: 'much'})", "InvalidInput: "),
    "one invalid input of many": (
        "durably.triggerMany('typed', [{input: {amount: 1}}, {input: {}}])",
        "InvalidInput: ",
    ),
    "no JSON": ("durably.trigger('echo', {big: 1n})", "InvalidInput: the input is not JSON"),
    "a misspelt option": ("durably.trigger('echo', {}, {prority: 1})", "InvalidInput: a trigger has no prority"),
    "a wrong instant": ("durably.trigger('echo', {}, {runAt: '2030-01-31'})", "BadRequest: runAt "),
    "cancel nobody": ("durably.cancel('nobody')", "NotFound: "),
    "cancel what has ended": ("durably.cancel(ids.completed)", "Conflict: "),
    "retry what is completed": ("durably.retry(ids.completed)", "Conflict: "),
    "retry nobody": ("durably.retry('nobody')", "NotFound: "),
    "signal what has ended": ("durably.signal(ids.completed, 'answer')", "Conflict: "),
    "signal nobody": ("durably.signal('nobody', 'answer')", "NotFound: "),
    "fork nobody": ("durably.fork('nobody')", "NotFound: "),
    "fork from nowhere": ("durably.fork(ids.completed, {fromStep: 'nowhere'})", ""),
    "retrigger nobody": ("durably.retrigger('nobody')", "NotFound: "),
    "delete what waits": ("durably.deleteRun(ids.waiting)", "Conflict: "),
    "delete nobody": ("durably.deleteRun('nobody')", "NotFound: "),
    "delete without a condition": ("durably.deleteRuns({})", "InvalidInput: which runs"),
    "pause no job": ("durably.pauseJob('nobody')", "NotFound: "),
    "events of nobody": ("durably.subscribe('nobody').next()", "NotFound: there is no run"),
    "wait for nobody": ("durably.waitForRun('nobody')", "NotFound: "),
    "wait too long": ("durably.waitForRun(ids.waiting, {timeout: 10})", "TimeoutError: run "),
    "a run that fails": ("durably.triggerAndWait('fail')", "RunFailed: ValueError: no such thing"),
}


def open_tabs(visit: Visit, count: int, **options: Any) -> list[Page]:
    """The leader and its followers, in the order in which they came."""
    pages = [visit() for _ in range(count)]
    assert [open_client(page, **options) for page in pages] == ["leader", *["follower"] * (count - 1)]
    return pages


def prepare(page: Page) -> dict[str, str]:
    """Runs in several states."""
    ids = {
        name: evaluate(page, "([job, input]) => durably.trigger(job, input, {labels: {k: 'v'}})", [job, input])["id"]
        for name, job, input in [
            ("completed", "once", {"n": 1}),
            ("logged", "save_chunks", {"chunks": 2}),
            ("failed", "fail", {}),
            ("waiting", "ask", {}),
        ]
    }
    for name in ("completed", "logged", "failed"):
        evaluate(page, "id => durably.waitForRun(id)", ids[name])
    wait(page, "async id => (await durably.getRun(id)).status === 'waiting'", ids["waiting"])
    return ids


def test_reads_and_errors_are_the_same_everywhere(visit: Visit) -> None:
    leader, *followers = pages = open_tabs(visit, 3)
    ids = prepare(leader)
    for page in pages:
        page.evaluate("made => { globalThis.ids = made }", ids)
    for what, expression in READS.items():
        expected = evaluate(leader, f"() => {expression}")
        for follower in followers:
            assert evaluate(follower, f"() => {expression}") == expected, what
    for what, (expression, beginning) in ERRORS.items():
        told = [evaluate(page, f"() => {expression}.then(() => 'no error', told)") for page in pages]
        # Each tab's own run failed.
        assert told[0].startswith(beginning) and told[0] != "no error", (what, told)
        assert told == told[:1] * 3, what
    assert [status_of(page) for page in pages] == ["leader", "follower", "follower"]


def test_whatever_a_follower_asks_for_is_done(visit: Visit) -> None:
    leader, follower = open_tabs(visit, 2)
    one: Any = evaluate(follower, "() => durably.trigger('once', {n: 1}, {labels: {of: 'follower'}, priority: 3})")
    assert one["disposition"] == "created" and len(one["id"]) == 26
    ended = evaluate(follower, "id => durably.waitForRun(id)", one["id"])
    assert (ended["status"], ended["labels"], ended["priority"]) == ("completed", {"of": "follower"}, 3)
    assert evaluate(leader, "id => durably.getRun(id)", one["id"]) == ended

    assert evaluate(follower, "() => durably.triggerAndWait('once', {n: 2})")["n"] == 2
    many = evaluate(follower, "() => durably.triggerMany('once', [3, 4, 5].map((n) => ({input: {n}})))")
    ends = [evaluate(follower, "id => durably.waitForRun(id)", run["id"]) for run in many]
    assert [run["output"]["n"] for run in ends] == [3, 4, 5]
    assert evaluate(follower, "() => durably.jobs.once.triggerAndWait({n: 6})")["n"] == 6

    keyed = "() => durably.trigger('once', {n: 7}, {idempotencyKey: 'seven'})"
    first, second = evaluate(follower, keyed), evaluate(leader, keyed)
    assert second == {"id": first["id"], "disposition": "idempotent"}

    asked = evaluate(follower, "() => durably.trigger('ask')")["id"]
    ask(follower, "end", "id => durably.waitForRun(id)", asked)
    evaluate(follower, "id => durably.signal(id, 'answer', {approved: true})", asked)
    assert answer(follower, "end")["output"]["answer"] == {"approved": True}

    cancelled = evaluate(follower, "() => durably.trigger('ask')")["id"]
    evaluate(follower, "id => durably.cancel(id)", cancelled)
    assert evaluate(leader, "id => durably.waitForRun(id)", cancelled)["status"] == "cancelled"
    evaluate(follower, "id => durably.retry(id)", cancelled)
    evaluate(follower, "id => durably.signal(id, 'answer', 1)", cancelled)
    assert evaluate(follower, "id => durably.waitForRun(id)", cancelled)["output"]["answer"] == 1

    again = evaluate(follower, "id => durably.retrigger(id)", one["id"])["id"]
    assert evaluate(follower, "id => durably.waitForRun(id)", again)["output"]["n"] == 1

    paused = evaluate(follower, "() => durably.trigger('ask')")["id"]
    evaluate(follower, "id => durably.pause(id)", paused)
    assert evaluate(leader, "id => durably.getRun(id)", paused)["paused"] is True
    evaluate(follower, "id => durably.resume(id)", paused)
    evaluate(follower, "id => durably.cancel(id)", paused)
    evaluate(follower, "() => durably.pauseJob('once')")
    assert evaluate(leader, "() => durably.stats()")["pausedJobs"] == ["once"]
    evaluate(follower, "() => durably.resumeJob('once')")
    assert_same_events([leader, follower])

    forked = evaluate(follower, "id => durably.fork(id)", cancelled)["id"]
    fork = evaluate(follower, "id => durably.waitForRun(id)", forked)
    assert fork["forkedFrom"] == cancelled and fork["status"] == "completed"
    # The events of a run go with it.
    evaluate(follower, "id => durably.deleteRun(id)", paused)
    assert evaluate(leader, "id => durably.getRun(id)", paused) is None
    assert evaluate(follower, "() => durably.purgeRuns({olderThan: new Date('2100-01-01')})") > 0
    assert evaluate(leader, "() => durably.getRuns()") == []


def test_a_subscription_of_a_follower_sees_a_run_happen(visit: Visit) -> None:
    leader, follower = open_tabs(visit, 2)
    run_id = evaluate(follower, "() => durably.trigger('ask')")["id"]
    for page in (leader, follower):
        ask(page, "followed", COLLECT, [run_id, 0])
        page.evaluate("globalThis.answers = []; durably.on('run:complete', ({runId}) => answers.push(runId)), null")
    wait(follower, "async id => (await durably.getRun(id)).status === 'waiting'", run_id)
    evaluate(leader, "id => durably.signal(id, 'answer', 1)", run_id)
    followed = answer(follower, "followed")
    assert [followed[0]["type"], followed[-1]["type"]] == ["run:trigger", "run:complete"]
    assert followed == answer(leader, "followed")
    for page in (leader, follower):
        wait(page, "id => answers.includes(id)", run_id)
        assert page.evaluate("answers") == [run_id]


def test_a_listener_that_left_hears_nothing(visit: Visit) -> None:
    leader, follower = open_tabs(visit, 2)
    follower.evaluate(
        "globalThis.heard = []; globalThis.off = durably.on('run:complete', ({runId}) => heard.push(runId)), null"
    )
    first = evaluate(follower, "() => durably.trigger('once', {n: 1})")["id"]
    wait(follower, "id => heard.includes(id)", first)
    follower.evaluate("off()")
    second = evaluate(follower, "() => durably.trigger('once', {n: 2})")["id"]
    # The other listener of this tab has heard it.
    wait(follower, "id => events.some(({type, runId}) => type === 'run:complete' && runId === id)", second)
    assert follower.evaluate("heard") == [first]
    assert status_of(leader) == "leader"


def test_eight_tabs_one_python(visit: Visit) -> None:
    """All trigger at once, all see all runs end, all hear the same; Python is up once."""
    pages = open_tabs(visit, 8)
    assert pythons(pages) == 1
    for number, page in enumerate(pages):
        ask(
            page,
            "runs",
            """async (number) => {
              const one = Array.from({ length: 4 }, (_, n) => durably.triggerAndWait("once", { n: number * 10 + n }));
              const items = Array.from({ length: 4 }, (_, n) => ({ input: { n: number * 10 + 4 + n } }));
              const many = (await durably.triggerMany("once", items)).map(({ id }) => durably.waitForRun(id));
              return [...(await Promise.all(one)), ...(await Promise.all(many)).map(({ output }) => output)];
            }""",
            number,
        )
    outputs = [output for page in pages for output in answer(page, "runs")]
    assert [output["n"] for output in outputs] == [number * 10 + n for number in range(8) for n in range(8)]
    # One engine counted them all.
    assert sorted(output["executions"] for output in outputs) == list(range(1, 65))
    assert evaluate(pages[-1], "() => durably.stats()")["byStatus"] == {"completed": 64}
    journal = assert_same_events(pages)
    assert len([event for event in journal if event["type"] == "run:complete"]) == 64
    orders = [page.evaluate("events.map(({type, seq, runId}) => [type, seq, runId])") for page in pages]
    assert orders == orders[:1] * 8
    assert pythons(pages) == 1


def test_a_follower_that_closes_harms_nobody(visit: Visit) -> None:
    leader, second, third = open_tabs(visit, 3)
    asked = evaluate(second, "() => durably.trigger('ask')")["id"]
    ask(second, "end", "id => durably.waitForRun(id)", asked)
    evaluate(second, "() => durably.close()")
    assert status_of(second) == "closed"
    assert answer(second, "end") == "StoreUnavailable: this client was closed"
    third.close()
    assert evaluate(leader, "id => durably.signal(id, 'answer', 1)", asked) is None
    assert evaluate(leader, "id => durably.waitForRun(id)", asked)["status"] == "completed"
    assert open_client(second) == "follower"
    assert evaluate(second, "id => durably.getRun(id)", asked)["output"]["answer"] == 1


def test_two_clients_of_one_page(visit: Visit) -> None:
    """One page may have several: they share the database like tabs do."""
    page = visit()
    assert open_client(page) == "leader"
    page.evaluate("globalThis.first = durably, null")
    assert open_client(page) == "follower"
    assert evaluate(page, "() => durably.triggerAndWait('once', {n: 1})")["n"] == 1
    evaluate(page, "() => first.close()")
    wait(page, "durably.status === 'leader'")
    assert evaluate(page, "() => durably.triggerAndWait('once', {n: 2})")["n"] == 2


def test_sites_and_databases_never_meet(visit: Visit) -> None:
    """Three places of one origin, two tabs each: what happens in one is none of the others' business."""
    places = [("my-repo/", "default"), ("other/", "default"), ("my-repo/", "second")]
    tabs = [(visit(site), visit(site)) for site, _ in places]
    for (leader, follower), (_, database) in zip(tabs, places, strict=True):
        assert open_client(leader, database=database) == "leader"
        assert open_client(follower, database=database) == "follower"
    made = []
    for number, (_, follower) in enumerate(tabs):
        run: Any = evaluate(follower, "n => durably.trigger('once', {n}, {idempotencyKey: 'same'})", number)
        assert run["disposition"] == "created"
        assert evaluate(follower, "id => durably.waitForRun(id)", run["id"])["output"]["n"] == number
        made.append(run["id"])
    for number, pair in enumerate(tabs):
        for page in pair:
            assert [run["id"] for run in evaluate(page, "() => durably.getRuns()")] == [made[number]]
            others = [run_id for run_id in made if run_id != made[number]]
            assert evaluate(page, "ids => Promise.all(ids.map((id) => durably.getRun(id)))", others) == [None, None]
            journal = assert_same_events([page])
            assert {event["runId"] for event in journal if event["runId"]} == {made[number]}
    tabs[0][0].close()
    assert wait_for_leader([tabs[0][1]]) is tabs[0][1]
    assert [status_of(page) for pair in tabs[1:] for page in pair] == ["leader", "follower"] * 2
    assert evaluate(tabs[0][1], "() => durably.triggerAndWait('once', {n: 9})")["n"] == 9
    for _, follower in tabs[1:]:
        assert len(evaluate(follower, "() => durably.getRuns()")) == 1
