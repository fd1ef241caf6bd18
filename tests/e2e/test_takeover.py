"""The tab that runs the jobs goes, in every way: another takes over, and no request is lost or done twice."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.tabs import (
    answer,
    ask,
    assert_same_events,
    database_of,
    end,
    evaluate,
    frozen,
    open_client,
    processes_of,
    pythons,
    status_of,
    unanswered,
    wait,
    wait_for_leader,
)

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

Visit = Callable[..., "Page"]

WAYS = ["close", "reload", "kill", "terminate", "navigate"]
CHUNKS, HELD = 12, 7
# Only the fault of the test ends a worker, not the page that finds it busy.
NEVER = 3_600_000
BEGUN = "count => events.filter(({type}) => type === 'step:start').length > count"
STEPS = "async id => (await durably.getSteps(id)).map(({name, output}) => [name, output.nonce])"
OUTPUTS = "async id => (await durably.getSteps(id)).map(({name, output}) => [name, output])"
HEARD = """id => events.filter(({runId, type}) => runId === id && type === "step:complete")
  .map(({stepName, output}) => [stepName, output])"""
WAITS = "async id => (await durably.getRun(id)).status === 'waiting'"
FINISH = "id => durably.waitForRun(id)"
IN_ALL = int(os.environ.get("TABS_TRIGGERS", "1000"))


def open_tabs(visit: Visit, count: int, **options: Any) -> list[Page]:
    pages = [visit() for _ in range(count)]
    assert [open_client(page, **options) for page in pages] == ["leader", *["follower"] * (count - 1)]
    return pages


def begin(page: Page, *, busy: bool) -> tuple[str, list[list[str]]]:
    """A run that hangs in the middle, seen from any tab; its id, and what it has stored."""
    run_id = evaluate(
        page, "input => durably.trigger('save_chunks', input)", {"chunks": CHUNKS, "hold_at": HELD, "busy": busy}
    )["id"]
    wait(page, BEGUN, HELD)
    completed = page.evaluate(
        "events.filter(({type}) => type === 'step:complete').map(({stepName, output}) => [stepName, output.nonce])"
    )
    assert len(completed) == HELD
    return str(run_id), completed


def assert_went_on(page: Page, run_id: str, before: list[list[str]]) -> None:
    """The run is complete, and what was stored before is what is stored now."""
    run = evaluate(page, FINISH, run_id)
    assert run["status"] == "completed", run
    assert run["output"] == {"chunks": list(range(CHUNKS)), "sum": sum(range(CHUNKS))}
    after = evaluate(page, STEPS, run_id)
    assert [name for name, _ in after] == ["save", *(f"save#{number}" for number in range(2, CHUNKS + 1))]
    assert after[: len(before)] == before
    assert len({nonce for _, nonce in after}) == CHUNKS


@pytest.mark.parametrize("how", WAYS)
def test_a_follower_takes_over(how: str, visit: Visit) -> None:
    """Requests of two followers are under way while a step keeps the leader's Python busy for ever."""
    leader, *followers = open_tabs(visit, 3, hangTimeout=NEVER)
    asker, other = followers
    ids = {
        name: evaluate(asker, "() => durably.trigger('ask')")["id"] for name in ("signalled", "cancelled", "deleted")
    }
    for run_id in ids.values():
        wait(asker, WAITS, run_id)
    evaluate(asker, "id => durably.cancel(id)", ids["deleted"])
    done = evaluate(asker, "() => durably.trigger('double', {n: 1})")["id"]
    evaluate(asker, FINISH, done)
    for page in followers:
        page.evaluate("events.length = 0")
    run_id, before = begin(asker, busy=True)

    requests = {
        "trigger": "() => durably.trigger('once', {n: 1})",
        "many": "() => durably.triggerMany('once', [2, 3].map((n) => ({input: {n}})))",
        "signal": f"() => durably.signal('{ids['signalled']}', 'answer', 'once')",
        "cancel": f"() => durably.cancel('{ids['cancelled']}')",
        "delete": f"() => durably.deleteRun('{ids['deleted']}')",
        "retrigger": f"() => durably.retrigger('{done}')",
        "fork": f"() => durably.fork('{done}', {{fromStep: 'double'}})",
        "output": "() => durably.triggerAndWait('once', {n: 4})",
        "nobody": "() => durably.cancel('nobody')",
    }
    reads = {"runs": "() => durably.getRuns({jobName: 'save_chunks'})", "waited": f"() => ({FINISH})('{run_id}')"}
    for name, function in requests.items():
        ask(asker, name, function)
    for name, function in reads.items():
        ask(other, name, function)
    ask(other, "trigger", "() => durably.trigger('once', {n: 5})")
    assert unanswered(asker, requests) and unanswered(other, [*reads, "trigger"])

    kept = end(leader, how, followers)
    answers = {name: answer(asker, name) for name in requests}
    assert answers["trigger"]["disposition"] == "created"
    assert [one["disposition"] for one in answers["many"]] == ["created"] * 2
    assert [answers[name] for name in ("signal", "cancel", "delete")] == [None] * 3
    assert answers["output"]["n"] == 4
    assert answers["nobody"].startswith("NotFound: ")
    assert [run["id"] for run in answer(other, "runs")] == [run_id]
    assert answer(other, "waited")["status"] == "completed"

    pages = [*followers, leader] if kept else followers
    new = wait_for_leader(pages)
    assert_went_on(new, run_id, before)
    late = answer(other, "trigger")["id"]
    made = [answers["trigger"]["id"], *(one["id"] for one in answers["many"]), late]
    for one in made:
        assert evaluate(other, FINISH, one)["status"] == "completed"
    assert evaluate(other, FINISH, ids["signalled"])["output"]["answer"] == "once"
    assert evaluate(other, FINISH, ids["cancelled"])["status"] == "cancelled"
    assert evaluate(other, "id => durably.getRun(id)", ids["deleted"]) is None
    # Each was done once.
    runs = evaluate(new, "() => durably.getRuns()")
    by_job = {
        name: sorted(run["input"].get("n", 0) for run in runs if run["jobName"] == name)
        for name in ("once", "ask", "double")
    }
    assert by_job == {"once": [1, 2, 3, 4, 5], "ask": [0, 0], "double": [1, 1, 1]}
    assert evaluate(new, FINISH, answers["retrigger"]["id"])["output"] == 2
    assert evaluate(new, FINISH, answers["fork"]["id"])["output"] == 2
    assert_same_events(followers)
    # A worker that was terminated without notice stays in the list of its page.
    assert pythons(followers) == (0 if kept and new is leader else 1)
    # A tab that was reloaded joins those that are left.
    if how == "reload":
        assert open_client(leader) == "follower"
        assert evaluate(leader, "() => durably.triggerAndWait('once', {n: 6})")["n"] == 6


@pytest.mark.parametrize("how", ["close", "terminate", "kill"])
def test_a_run_that_waits_and_a_chain_of_leaders(how: str, visit: Visit) -> None:
    """Three leaders in a row end; the last tab finishes what the first began."""
    pages = open_tabs(visit, 4)
    run_id, before = begin(pages[-1], busy=False)
    asked = evaluate(pages[-1], "() => durably.trigger('ask')")["id"]
    ask(pages[-1], "end", FINISH, asked)
    ask(
        pages[-1],
        "followed",
        "async id => { for await (const e of durably.subscribe(id)) globalThis.last = e.type }",
        asked,
    )
    living = list(pages)
    for _ in range(3):
        leader = wait_for_leader(living)
        if leader is pages[-1]:
            break
        if not end(leader, how, [page for page in living if page is not leader]):
            living.remove(leader)
    assert_went_on(pages[-1], run_id, before)
    evaluate(pages[-1], "id => durably.signal(id, 'answer', 1)", asked)
    assert answer(pages[-1], "end")["output"]["answer"] == 1
    answer(pages[-1], "followed")
    assert pages[-1].evaluate("last") == "run:complete"
    assert_same_events([pages[-1]])


def test_a_leader_without_followers_is_not_missed_by_a_new_tab(visit: Visit) -> None:
    """The tab that comes meets the lock of one that is just going."""
    page = visit()
    for number in range(5):
        assert open_client(page) == "leader"
        assert evaluate(page, "n => durably.triggerAndWait('once', {n})", number)["n"] == number
        fresh = visit()
        page.close()
        page = fresh
    assert open_client(page) == "leader"
    assert evaluate(page, "() => durably.stats()")["byStatus"] == {"completed": 5}


# -- a leader that stands still ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["waiting", "committing"])
def test_a_frozen_leader(what: str, visit: Visit) -> None:
    """Its process stands still, and keeps lock and files. Another tab takes over; the woken one changes nothing."""
    leader, *followers = pages = open_tabs(visit, 3)
    processes = processes_of(pages)
    witness, other = followers
    if what == "waiting":
        run_id, before = begin(witness, busy=False)
    else:
        run_id = evaluate(witness, "() => durably.trigger('commits', {steps: 3000})")["id"]
        wait(witness, BEGUN, 50)
        before = []
    with frozen(processes[0]):
        # Nothing that happened before this is still on its way to a tab that answers.
        acknowledged = witness.evaluate(HEARD, run_id)
        ask(witness, "trigger", "() => durably.triggerAndWait('once', {n: 1})")
        ask(other, "trigger", "() => durably.triggerAndWait('once', {n: 2})")
        assert answer(witness, "trigger")["n"] == 1
        assert answer(other, "trigger")["n"] == 2
        new = wait_for_leader(followers)
        run = evaluate(witness, FINISH, run_id)
        assert run["status"] == "completed", run
        steps = evaluate(witness, OUTPUTS, run_id)
        assert steps[: len(acknowledged)] == acknowledged
        runs = evaluate(witness, "() => durably.getRuns()")
    if what == "waiting":
        assert_went_on(other, run_id, before)
    # The woken one finds itself deposed, follows, and works.
    wait(leader, "durably.status === 'follower'")
    assert evaluate(leader, "() => durably.triggerAndWait('once', {n: 3})")["n"] == 3
    assert status_of(new) == "leader"
    assert pythons(pages) == 1
    assert evaluate(leader, OUTPUTS, run_id) == steps
    after = evaluate(other, "() => durably.getRuns()")
    assert after[1:] == runs
    assert_same_events(pages)
    # The files are whole, and hold what the tabs tell.
    for page in pages:
        evaluate(page, "() => durably.close()")
    with database_of(other) as rows:
        assert rows("PRAGMA integrity_check") == [("ok",)]
        assert rows("SELECT count(*) FROM durably_runs WHERE status = 'completed'") == [(len(after),)]


@pytest.mark.parametrize("phase", ["opening", "python", "jobs", "running"])
def test_a_leader_that_wakes_while_another_takes_over(phase: str, visit: Visit) -> None:
    """It finds requests that were sent while it slept, and its own run in the middle: it answers and ends none."""
    leader, *followers = pages = open_tabs(visit, 3)
    process = processes_of(pages)[0]
    witness, other = followers
    asked = evaluate(witness, "() => durably.trigger('ask')")["id"]
    wait(witness, WAITS, asked)
    run_id = evaluate(witness, "() => durably.trigger('commits', {steps: 1000})")["id"]
    wait(witness, BEGUN, 50)
    for page in followers:
        # Told as soon as one of them has got so far; the others follow its starts.
        page.evaluate("statuses.length = 0")
    with frozen(process):
        acknowledged = witness.evaluate(HEARD, run_id)
        for number, page in enumerate(followers):
            ask(page, "trigger", "n => durably.triggerMany('once', [{input: {n}}, {input: {n: n + 10}}])", number)
        ask(witness, "signal", "id => durably.signal(id, 'answer', 'while it slept')", asked)
        ask(other, "retrigger", "() => durably.triggerAndWait('once', {n: 30})")
        ask(other, "runs", "() => durably.getRuns({jobName: 'commits'})")
        wait(witness, "phase => statuses.some(([, reached]) => reached === phase)", phase)
    for number, page in enumerate(followers):
        made = answer(page, "trigger")
        assert [one["disposition"] for one in made] == ["created"] * 2
        assert [evaluate(page, FINISH, one["id"])["output"]["n"] for one in made] == [number, number + 10]
    assert answer(witness, "signal") is None
    assert answer(other, "retrigger")["n"] == 30
    assert [run["id"] for run in answer(other, "runs")] == [run_id]
    assert evaluate(other, FINISH, asked)["output"]["answer"] == "while it slept"
    assert evaluate(other, FINISH, run_id)["output"] == 1000
    wait_for_leader(pages)
    steps = evaluate(leader, OUTPUTS, run_id)
    assert steps[: len(acknowledged)] == acknowledged
    assert [place for _, (place, _) in steps] == list(range(1000))
    runs = evaluate(leader, "() => durably.getRuns({jobName: 'once'})")
    assert sorted(run["input"]["n"] for run in runs) == [0, 1, 10, 11, 30]
    assert_same_events(pages)
    for page in pages:
        evaluate(page, "() => durably.close()")
    with database_of(other) as rows:
        assert rows("PRAGMA integrity_check") == [("ok",)]
        assert rows("SELECT count(*) FROM durably_runs WHERE status = 'completed'") == [(7,)]


def test_a_frozen_leader_that_is_alone(visit: Visit) -> None:
    """Nobody is there to take over: it goes on when it wakes, and the tab that came meanwhile has its answer."""
    page = visit()
    assert open_client(page) == "leader"
    (process,) = processes_of([page])
    run_id, before = begin(page, busy=False)
    with frozen(process):
        pass
    assert status_of(page) == "leader"
    other = visit()
    assert open_client(other) == "follower"
    page.close()
    wait(other, "durably.status === 'leader'")
    assert_went_on(other, run_id, before)


def test_a_tab_that_comes_to_a_frozen_leader(visit: Visit) -> None:
    page = visit()
    assert open_client(page) == "leader"
    (process,) = processes_of([page])
    run_id, before = begin(page, busy=False)
    with frozen(process):
        other = visit()
        assert open_client(other) in ("leader", "follower")
        assert_went_on(other, run_id, before)
        assert status_of(other) == "leader"
    wait(page, "durably.status === 'follower'")
    assert_went_on(page, run_id, before)


def test_a_frozen_follower(visit: Visit) -> None:
    """Harms nobody, and catches up when it wakes: no gap, no duplicate, and its request is done once."""
    leader, follower = pages = open_tabs(visit, 2)
    process = processes_of(pages)[1]
    ask(follower, "one", "() => durably.triggerAndWait('once', {n: 1})")
    with frozen(process):
        assert evaluate(leader, "() => durably.triggerAndWait('commits', {steps: 300})") == 300
        assert status_of(leader) == "leader"
    assert answer(follower, "one")["n"] == 1
    assert len(evaluate(follower, "() => durably.getRuns()")) == 2
    assert_same_events(pages)


# -- eight tabs, many triggers, any fault ------------------------------------------------------------------

# Several loops at once take numbers from the test, and tell it of each acknowledgement when it comes.
WORK = """async () => {
  const durably = globalThis.durably;
  async function loop() {
    for (let n = await take(); n >= 0; n = await take()) {
      const { id } = await durably.trigger("once", { n });
      await note([n, id]);
    }
  }
  await Promise.all(Array.from({ length: 4 }, loop));
}"""


@pytest.mark.parametrize("seed", [int(os.environ.get("TABS_SEED", "20261122"))])
def test_any_fault_and_nothing_lost(seed: int, visit: Visit, browser: BrowserContext) -> None:
    """Every trigger that was acknowledged ran, once; none ran twice; and after the last fault everything finishes."""
    chance = random.Random(seed)
    notes: list[tuple[int, str]] = []
    numbers = iter(range(IN_ALL))
    browser.expose_binding("note", lambda _, note: notes.append((note[0], note[1])))
    browser.expose_binding("take", lambda _: next(numbers, -1))
    browser.expose_binding("noted", lambda _: len(notes))
    # A tab with no client, which no fault hits.
    witness = visit("other/")

    def start(page: Page) -> None:
        assert open_client(page) in ("leader", "follower")
        ask(page, "work", WORK)

    pages = [visit() for _ in range(8)]
    for page in pages:
        start(page)
    faults = []
    # Some numbers are taken by a tab that ends before they are acknowledged.
    for step in range(12):
        wait(witness, "async count => await noted() >= count", (step + 1) * IN_ALL // 14)
        leaders = [page for page in pages if status_of(page) == "leader"]
        # Half of the faults hit the leader, if there is one just now.
        victim = leaders[0] if leaders and chance.random() < 0.5 else chance.choice(pages)
        how = chance.choice(["close", "reload", "terminate", "kill"])
        faults.append((how, "leader" if victim in leaders else "follower"))
        if how == "reload":
            victim.reload()
            start(victim)
        elif not end(victim, how, [witness, *(page for page in pages if page is not victim)]):
            pages.remove(victim)
            if len(pages) < 2 or chance.random() < 0.5:
                pages.append(visit())
                start(pages[-1])
    for page in pages:
        assert answer(page, "work") is None
    assert next(numbers, -1) == -1

    reader = wait_for_leader(pages)
    # A tab that came late has not heard anything else.
    assert evaluate(reader, "n => durably.triggerAndWait('once', {n})", IN_ALL)["n"] == IN_ALL
    wait(reader, "async () => Object.keys((await durably.stats()).byStatus).join() === 'completed'")
    runs: list[Any] = evaluate(
        reader,
        """async () => {
          const runs = [];
          for (let page; !page || page.length > 0; runs.push(...page)) {
            page = await durably.getRuns({ limit: 100, after: runs.at(-1)?.id });
          }
          return runs;
        }""",
    )
    assert len({run["id"] for run in runs}) == len(runs)
    # Also what was never acknowledged happened at most once: a request that is repeated is still one.
    assert len({run["input"]["n"] for run in runs}) == len(runs)
    made = {run["id"]: run for run in runs}
    lost = [(number, run_id) for number, run_id in notes if run_id not in made]
    assert not lost, (lost, faults)
    for number, run_id in notes:
        assert (made[run_id]["status"], made[run_id]["output"]["n"]) == ("completed", number)
    journal = assert_same_events(pages)
    for type in ("step:complete", "run:complete"):
        ends = [(event["runId"], event["output"]["nonce"]) for event in journal if event["type"] == type]
        assert sorted(ends) == sorted((run["id"], run["output"]["nonce"]) for run in runs)
    for page in pages:
        evaluate(page, "() => durably.close()")
    with database_of(reader) as rows:
        assert rows("PRAGMA integrity_check") == [("ok",)]
        assert rows("SELECT count(*) FROM durably_runs WHERE status = 'completed'") == [(len(runs),)]
