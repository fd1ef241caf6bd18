"""Durable before Python is up: its files are held back, and what was acknowledged meanwhile happens, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.gates import PYTHON, Gate, serve_gated
from tests.e2e.tabs import (
    JOURNAL,
    OPEN,
    answer,
    ask,
    assert_same_events,
    end,
    evaluate,
    files_of,
    kill,
    open_client,
    open_early,
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

FINISH = "id => durably.waitForRun(id)"
GET = "id => durably.getRun(id)"


@pytest.fixture
def gate() -> Gate:
    """Closed at first."""
    return Gate(PYTHON)


@pytest.fixture
def visit(browser: BrowserContext, origin_folder: Path, gate: Gate) -> Iterator[Visit]:
    with serve_gated(origin_folder, gate) as address:

        def visit(site: str = "my-repo/") -> Page:
            page = browser.new_page()
            page.goto(address + site)
            return page

        yield visit


def trigger(page: Page, job: str, input: Any, **options: Any) -> str:
    made = evaluate(page, "([job, input, options]) => durably.trigger(job, input, options)", [job, input, options])
    assert made["disposition"] == "created"
    return str(made["id"])


def outcome(page: Page, run_id: str) -> list[Any]:
    run = evaluate(page, FINISH, run_id)
    return [run["status"], run["error"]]


def test_acknowledged_and_visible_before_python_is_up(visit: Visit, gate: Gate) -> None:
    page = visit()
    assert open_early(page) == "leader"
    first = trigger(page, "once", {"n": 1}, labels={"of": "early"}, priority=3)
    second = trigger(page, "save_chunks", {"chunks": 2})
    assert len(first) == 26 and first < second
    ask(page, "output", "() => durably.triggerAndWait('once', {n: 3})")
    wait(page, "async () => (await durably.getRuns()).length === 3")
    early = evaluate(page, GET, first)
    shown = {
        name: early[name] for name in ("id", "jobName", "status", "input", "output", "error", "labels", "priority")
    }
    assert shown == {
        "id": first,
        "jobName": "once",
        "status": "pending",
        "input": {"n": 1},
        "output": None,
        "error": None,
        "labels": {"of": "early"},
        "priority": 3,
    }
    assert (early["startedAt"], early["isActive"], early["isTerminal"]) == (None, True, False)
    assert [run["id"] for run in evaluate(page, "() => durably.getRuns()")][1:] == [second, first]
    assert [run["id"] for run in evaluate(page, "() => durably.getRuns({jobName: 'save_chunks'})")] == [second]
    assert [run["id"] for run in evaluate(page, "() => durably.getRuns({labels: {of: 'early'}})")] == [first]
    assert len(evaluate(page, "() => durably.getRuns({status: 'pending', limit: 2})")) == 2
    assert evaluate(page, "() => durably.getRuns({status: ['completed', 'failed']})") == []
    # What SQLite alone does not know, the engine is asked for.
    ask(page, "nobody", GET, "nobody")
    assert unanswered(page, ["nobody"])
    assert (page.evaluate("readiness"), status_of(page), pythons([page])) == ("waiting", "leader", 0)

    gate.open()
    evaluate(page, "() => durably.ready")
    late = evaluate(page, FINISH, first)
    # A run that was shown while it waited is the run that ran: nothing that was told of it has changed.
    told = ("id", "jobName", "input", "labels", "priority", "createdAt", "concurrencyKey", "parentRunId", "forkedFrom")
    assert {name: late[name] for name in told} == {name: early[name] for name in told}
    assert early.keys() == late.keys()
    assert (late["status"], late["output"]["n"]) == ("completed", 1)
    assert evaluate(page, FINISH, second)["status"] == "completed"
    assert answer(page, "output")["n"] == 3
    assert answer(page, "nobody") is None
    assert evaluate(page, "() => durably.stats()")["byStatus"] == {"completed": 3}
    phases = [phase for _, phase, _ in page.evaluate("statuses") if phase]
    assert list(dict.fromkeys(phases)) == ["locking", "opening", "python", "jobs", "running"]
    assert_same_events([page])


def assert_executed_once(page: Page, runs: list[str]) -> list[dict[str, Any]]:
    """Each run of the job `once` was begun in this order, with n counted up, and executed once, all in one engine.

    Runs that were begun execute beside each other: whose step is called first is nobody's promise.
    """
    outputs = [evaluate(page, FINISH, run_id)["output"] for run_id in runs]
    assert [output["n"] for output in outputs] == list(range(len(runs)))
    assert sorted(output["executions"] for output in outputs) == list(range(1, len(runs) + 1))
    stored = evaluate(page, JOURNAL, 4 * len(runs))
    assert [event["runId"] for event in stored if event["type"] == "run:leased"] == runs
    return outputs


@pytest.mark.parametrize("how", ["kill", "close", "reload", "terminate", "client.close"])
def test_a_tab_that_goes_before_python_came_up(how: str, visit: Visit, gate: Gate) -> None:
    """The next visit runs what was acknowledged, once; the one behind that finds it done."""
    page = visit()
    assert open_early(page) == "leader"
    runs = [trigger(page, "once", {"n": number}) for number in range(3)]
    if how == "client.close":
        evaluate(page, "() => durably.close()")
    elif not end(page, how, []) and how != "reload":
        page = visit()
    elif how == "terminate":
        # The page starts another worker by itself, and sees what is waiting before Python is up.
        wait(page, "workers.length === 2 && durably.status === 'leader'")
        assert evaluate(page, GET, runs[0])["status"] == "pending"
    gate.open()
    if how == "terminate":
        evaluate(page, "() => durably.ready")
    else:
        assert open_client(page) == "leader"
    outputs = assert_executed_once(page, runs)
    page.close()
    page = visit()
    assert open_client(page) == "leader"
    assert [evaluate(page, GET, run_id)["output"] for run_id in runs] == outputs
    assert evaluate(page, "() => durably.stats()")["byStatus"] == {"completed": 3}


def test_visits_that_never_see_python(visit: Visit, gate: Gate) -> None:
    """Each leaves something and is killed; the last one does it all, in the order in which it came."""
    made: list[str] = []
    for number in range(4):
        page = visit()
        assert open_early(page) == "leader"
        seen = evaluate(page, "() => durably.getRuns()")
        assert [run["id"] for run in seen] == made[::-1]
        made.append(trigger(page, "once", {"n": number}))
        kill(page, processes_of([page])[0])
    gate.open()
    page = visit()
    assert open_client(page) == "leader"
    assert_executed_once(page, made)


def test_followers_of_a_leader_that_starts(visit: Visit, gate: Gate) -> None:
    """They are acknowledged by it, and its end before Python came up loses nothing of theirs."""
    leader, *followers = pages = [visit() for _ in range(3)]
    assert [open_early(page) for page in pages] == ["leader", "follower", "follower"]
    made = [trigger(page, "once", {"n": number}) for number, page in enumerate(pages)]
    for page in pages:
        assert [run["id"] for run in evaluate(page, "() => durably.getRuns()")] == made[::-1]
        assert page.evaluate("readiness") == "waiting"
        ask(page, "stats", "() => durably.stats()")
    ask(followers[1], "end", FINISH, made[0])
    assert unanswered(followers[0], ["stats"]) and unanswered(followers[1], ["stats", "end"])
    kill(leader, processes_of(pages)[0])
    for page in followers:
        wait(page, "['leader', 'follower'].includes(durably.status)")
    made.append(trigger(followers[0], "once", {"n": 3}))
    assert [run["id"] for run in evaluate(followers[1], "() => durably.getRuns()")] == made[::-1]
    gate.open()
    wait_for_leader(followers)
    assert answer(followers[1], "end")["output"]["n"] == 0
    for page in followers:
        assert answer(page, "stats")["total"] == 4
        assert evaluate(page, "() => durably.ready") is None
    assert_executed_once(followers[0], made)
    assert pythons(followers) == 1
    assert_same_events(followers)


def test_what_turns_out_to_be_impossible_becomes_a_failed_run(visit: Visit, gate: Gate) -> None:
    page = visit()
    assert open_early(page) == "leader"
    nobody = trigger(page, "nobody", {"a": 1})
    wrong = trigger(page, "typed", {"amount": "much"}, labels={"k": "v"})
    many = evaluate(page, "() => durably.triggerMany('typed', [{input: {amount: 1}}, {input: {amount: null}}])")
    right = trigger(page, "typed", {"amount": 5})
    gate.open()
    evaluate(page, "() => durably.ready")
    assert outcome(page, right) == ["completed", None]
    status, error = outcome(page, nobody)
    assert status == "failed" and error.startswith("NotFound: ") and "nobody" in error
    status, error = outcome(page, wrong)
    assert status == "failed" and error.startswith("InvalidInput: ")
    run = evaluate(page, GET, wrong)
    assert (run["jobName"], run["input"], run["labels"]) == ("typed", {"amount": "much"}, {"k": "v"})
    run = evaluate(page, GET, nobody)
    assert (run["jobName"], run["input"]) == ("nobody", {"a": 1})
    ends = [outcome(page, one["id"]) for one in many]
    # All of them are refused together, as ever; or each is what it is. None is lost.
    assert ends[1][0] == "failed" and ends[1][1].startswith("InvalidInput: ")
    assert ends[0][0] in ("completed", "failed")
    assert len(evaluate(page, "() => durably.getRuns()")) == 5


def test_what_is_wrong_at_once_is_refused_at_once(visit: Visit) -> None:
    page = visit()
    assert open_early(page) == "leader"
    for request in ("durably.trigger('once', {big: 1n})", "durably.trigger('once', {}, {prority: 1})"):
        assert evaluate(page, f"() => {request}.catch(told)").startswith("InvalidInput: ")
    assert evaluate(page, "() => durably.getRuns()") == []


def test_an_idempotency_key_gives_one_run(visit: Visit, gate: Gate) -> None:
    """Used twice before Python is up, and used at an earlier visit."""
    gate.open()
    page = visit()
    assert open_client(page) == "leader"
    old = trigger(page, "once", {"n": 0}, idempotencyKey="old")
    assert outcome(page, old) == ["completed", None]
    gate.close()
    page.reload()
    keyed = "([n, key]) => durably.trigger('once', {n}, {idempotencyKey: key})"
    assert open_early(page) == "leader"
    again = evaluate(page, keyed, [1, "old"])
    first, second = evaluate(page, keyed, [2, "new"]), evaluate(page, keyed, [3, "new"])
    assert first["disposition"] == "created"
    many = "([n, key]) => durably.triggerMany('once', [{input: {n}, idempotencyKey: key}])"
    third = evaluate(page, many, [4, "new"])[0]
    # The key belongs to a job.
    other = evaluate(page, "() => durably.trigger('echo', {}, {idempotencyKey: 'new'})")
    assert other["disposition"] == "created"
    gate.open()
    evaluate(page, "() => durably.ready")
    assert again == {"id": old, "disposition": "idempotent"}
    assert second == third == {"id": first["id"], "disposition": "idempotent"}
    assert evaluate(page, keyed, [5, "new"]) == {"id": first["id"], "disposition": "idempotent"}
    assert evaluate(page, FINISH, first["id"])["output"]["n"] == 2
    assert outcome(page, other["id"]) == ["completed", None]
    assert len(evaluate(page, "() => durably.getRuns()")) == 3


def test_many_at_once(visit: Visit, gate: Gate) -> None:
    page = visit()
    assert open_early(page) == "leader"
    many = "() => durably.triggerMany('once', Array.from({length: 50}, (_, n) => ({input: {n}, labels: {of: 'many'}})))"
    made = [one["id"] for one in evaluate(page, many)]
    assert made == sorted(set(made)) and len(made) == 50
    early = evaluate(page, "() => durably.getRuns({labels: {of: 'many'}})")
    assert [run["id"] for run in early] == made[::-1] and {run["status"] for run in early} == {"pending"}
    kill(page, processes_of([page])[0])
    gate.open()
    page = visit()
    assert open_client(page) == "leader"
    outputs = [evaluate(page, FINISH, run_id)["output"]["n"] for run_id in made]
    assert outputs == list(range(50))
    assert len(evaluate(page, "() => durably.getRuns({limit: 100})")) == 50


def test_the_rest_waits_and_comes_behind_what_was_acknowledged(visit: Visit, gate: Gate) -> None:
    """Requests about a run that only the inbox has: they wait for Python, and find the run."""
    page = visit()
    assert open_early(page) == "leader"
    cancelled = trigger(page, "once", {"n": 1}, delay=3_600_000)
    asked = trigger(page, "ask", {})
    requests = {
        "cancel": f"() => durably.cancel('{cancelled}')",
        "signal": f"() => durably.signal('{asked}', 'answer', 'early')",
        "steps": f"() => durably.getSteps('{cancelled}')",
        "conflict": "() => durably.trigger('ask', {n: 1}, {concurrencyKey: 'k', delay: 3600000})",
        "skip": "() => durably.trigger('ask', {n: 2}, {concurrencyKey: 'k', coalesce: 'skip'})",
        "debounce": "() => durably.trigger('echo', {}, {concurrencyKey: 'd', debounce: 10})",
    }
    for name, function in requests.items():
        ask(page, name, function)
    assert unanswered(page, ["cancel", "signal", "steps", "skip", "debounce"])
    early = evaluate(page, GET, cancelled)
    assert early["status"] == "pending" and early["runAt"] > early["createdAt"]
    gate.open()
    assert answer(page, "cancel") is None and answer(page, "signal") is None and answer(page, "steps") == []
    assert outcome(page, cancelled) == ["cancelled", None]
    assert evaluate(page, FINISH, asked)["output"]["answer"] == "early"
    assert answer(page, "skip") == {"id": answer(page, "conflict")["id"], "disposition": "coalesced"}
    assert outcome(page, answer(page, "debounce")["id"]) == ["completed", None]


# A word that stands in no file of ours.
CANARY = b"a-canary-that-nobody-may-read"


@pytest.mark.parametrize("sealed", [True, False], ids=["with a key", "without"])
def test_what_waits_is_sealed_like_everything_else(sealed: bool, visit: Visit, gate: Gate) -> None:
    """Without a key the same search finds the word: it would be seen."""
    page = visit()
    key = "{ encryptionKey: new Uint8Array(32).fill(7) }" if sealed else "{}"
    assert evaluate(page, f"() => ({OPEN})({key})") == "leader"
    early = trigger(page, "echo", {"text": CANARY.decode()}, idempotencyKey="k")
    many = evaluate(page, "text => durably.triggerMany('echo', [{input: {text}}])", CANARY.decode())[0]["id"]
    assert evaluate(page, GET, early)["input"] == {"text": CANARY.decode()}
    evaluate(page, "() => durably.close()")
    everything = b"".join(content for _, content in files_of(page))
    assert early.encode() in everything
    assert (CANARY in everything) is not sealed
    gate.open()
    page.reload()
    assert evaluate(page, f"() => ({OPEN})({key})") == "leader"
    for run_id in (early, many):
        assert evaluate(page, FINISH, run_id)["output"] == {"text": CANARY.decode()}
    evaluate(page, "() => durably.close()")
    assert any(CANARY in content for _, content in files_of(page)) is not sealed


def test_a_job_file_that_cannot_be_loaded(visit: Visit, gate: Gate, origin_folder: Path) -> None:
    """What was acknowledged before that was known is done at the visit after the correction."""
    job_file = origin_folder / "my-repo" / "corrected.py"
    head, tail = (
        "from durably_web import job\n\n\n@job\nasync def corrected(step, input: dict",
        ") -> int:\n    return 1\n",
    )
    job_file.write_text(head + tail.replace(")", ""))
    leader, follower = visit(), visit()
    assert open_early(leader, jobs="corrected.py") == "leader"
    assert open_early(follower, jobs="corrected.py") == "follower"
    made = [trigger(page, "corrected", {"n": number}) for number, page in enumerate((leader, follower))]
    ask(leader, "stats", "() => durably.stats()")
    gate.open()
    wait(leader, "durably.status === 'failed'")
    wait(leader, "readiness !== 'waiting'")
    problem = leader.evaluate("readiness")
    assert problem.startswith("SyntaxError: corrected.py, line 5: ")
    assert answer(leader, "stats") == problem
    assert evaluate(leader, "() => durably.trigger('corrected', {n: 9}).then(() => 'made', told)") == problem
    assert leader.evaluate("statuses.at(-1)") == ["failed", None, problem]
    # The other tab had its turn, with the same file.
    wait(follower, "durably.status === 'failed'")
    assert follower.evaluate("readiness") == problem
    follower.close()
    job_file.write_text(head + tail)
    leader.reload()
    assert open_client(leader, jobs="corrected.py") == "leader"
    assert [evaluate(leader, FINISH, run_id)["output"] for run_id in made] == [1, 1]
    assert len(evaluate(leader, "() => durably.getRuns()")) == 2
