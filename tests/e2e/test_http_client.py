"""One client, two ways to the jobs: it means the same in a page's worker and over HTTP. And what only HTTP has."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from durably_web.jobs import Job
from durably_web.server import streams
from tests.e2e.conftest import HERE, create, wait_until
from tests.support.http_server import HttpServer, http_server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

JOB_FILES = ["jobs.py", "waiting_jobs.py"]
TOLD = "({name, message}) => `${name}: ${message}`"
ENDED = "async id => await durably.waitForRun(id, {timeout: 30_000})"
CONNECT = """async (options) => {
  const { createDurably } = await import("/durably-web/client.js");
  globalThis.statuses = [];
  const onStatus = (status, { error }) => statuses.push([status, error?.name ?? null]);
  try {
    globalThis.durably = await createDurably({ url: "/api/durably", onStatus, ...options });
    return durably.status;
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}"""
FOLLOW = """async ([id, after]) => {
  const seen = [];
  for await (const { seq, type } of durably.subscribe(id, { after })) seen.push([seq, type]);
  return seen;
}"""


def jobs_of(file: str) -> list[Job[Any, Any]]:
    """The jobs of a file that the browser gets too."""
    name = f"tests_e2e_{file.removesuffix('.py')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / "jobs" / file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return [value for value in vars(sys.modules[name]).values() if isinstance(value, Job)]


@pytest.fixture
def server(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    # A test must not wait for the second that streams tell browsers to take.
    monkeypatch.setattr(streams, "RETRY_MS", 50)
    jobs = [job for file in JOB_FILES for job in jobs_of(file)]
    with http_server(tmp_path / "server.db", jobs, root / "web") as server:
        yield server


@pytest.fixture
def served(server: HttpServer, open_browser: Callable[..., BrowserContext]) -> Page:
    """A page whose client speaks to the server."""
    page = open_browser().new_page()
    page.goto(server.address)
    assert page.evaluate(CONNECT, {}) == "follower"
    return page


@pytest.fixture(params=["worker", "http"])
def page(request: pytest.FixtureRequest) -> Page:
    """A page whose jobs run in its worker, and one whose jobs run on a server."""
    if request.param == "http":
        served: Page = request.getfixturevalue("served")
        return served
    page: Page = request.getfixturevalue("visit")()
    assert create(page, jobs=JOB_FILES) == "leader"
    return page


def trigger(page: Page, name: str, input: Any = None, **options: Any) -> str:
    """The id of a new run."""
    made = page.evaluate("([name, input, options]) => durably.trigger(name, input, options)", [name, input, options])
    assert made["disposition"] == "created"
    return str(made["id"])


def wait_until_waiting(page: Page, run_id: str) -> None:
    wait_until(page, "async id => (await durably.getRun(id)).status === 'waiting'", run_id)


def told(page: Page, request: str, argument: Any = None) -> str:
    """How a request is refused."""
    return str(page.evaluate(f"argument => Promise.resolve().then(() => {request}).catch({TOLD})", argument))


# -- one meaning -------------------------------------------------------------------------------------------


def test_triggers_and_outputs(page: Page) -> None:
    assert page.evaluate("durably.triggerAndWait('echo', {text: 'a'}, {timeout: 30_000})") == {"text": "a"}
    assert page.evaluate("durably.jobs.save_chunks.triggerAndWait({chunks: 2})") == {"chunks": [0, 1], "sum": 1}
    first = page.evaluate("durably.trigger('echo', {n: 1}, {idempotencyKey: 'k', labels: {org: 'acme'}})")
    again = page.evaluate("durably.trigger('echo', {n: 2}, {idempotencyKey: 'k'})")
    assert (first["disposition"], again["disposition"]) == ("created", "idempotent")
    assert first["id"] == again["id"]
    run = page.evaluate(ENDED, first["id"])
    assert (run["output"], run["labels"], run["isTerminal"]) == ({"n": 1}, {"org": "acme"}, True)
    assert page.evaluate("durably.getRun('nobody')") is None
    assert told(page, "durably.triggerAndWait('fail')").startswith("RunFailed: ")


OF_SCHEDULE = """async ([name, count]) => {
  return (await durably.getRuns({ status: "completed", schedule: name })).length >= count;
}"""


def test_schedules(page: Page) -> None:
    made = page.evaluate("durably.schedule('echo', {every: 200, input: {n: 1}, labels: {org: 'acme'}, priority: 3})")
    assert (made["name"], made["jobName"], made["every"], made["catchUpWindow"]) == ("echo", "echo", 200, None)
    wait_until(page, OF_SCHEDULE, ["echo", 2])
    run = page.evaluate("durably.getRuns({status: 'completed'}).then(([run]) => run)")
    assert (run["output"], run["labels"], run["priority"], run["schedule"]) == ({"n": 1}, {"org": "acme"}, 3, "echo")
    again = page.evaluate("durably.schedule('echo', {every: 200, input: {n: 1}, labels: {org: 'acme'}, priority: 3})")
    assert (again["createdAt"], again["updatedAt"]) == (made["createdAt"], made["updatedAt"])
    page.evaluate("durably.removeSchedule('echo')")

    night = "{name: 'night', cron: '30 2 * * *', timezone: 'America/New_York', input: {n: 2}, missed: 'one'}"
    made = page.evaluate(f"durably.jobs.double.schedule({night})")
    assert (made["cron"], made["timezone"], made["every"], made["missed"]) == (
        *("30 2 * * *", "America/New_York"),
        *(None, "one"),
    )
    assert page.evaluate("durably.getSchedules()") == [made] == [page.evaluate("durably.getSchedule('night')")]
    assert page.evaluate("durably.getSchedule('nobody')") is None
    page.evaluate("durably.pauseSchedule('night')")
    run_id = page.evaluate("durably.triggerSchedule('night')")["id"]
    run = page.evaluate(ENDED, run_id)
    assert (run["output"], run["schedule"], run["scheduledAt"]) == (4, "night", None)
    paused = page.evaluate("durably.getSchedule('night')")
    assert (paused["paused"], paused["nextAt"]) == (True, None)
    page.evaluate("durably.resumeSchedule('night')")
    assert page.evaluate("durably.getSchedule('night')")["nextAt"] == made["nextAt"]
    page.evaluate("durably.removeSchedule('night')")
    assert page.evaluate("durably.getSchedules()") == []

    for request, beginning in [
        ("durably.schedule('nobody', {every: 1000})", "NotFound: "),
        ("durably.schedule('double', {every: 1000, input: {n: 'much'}, missed: 'never'})", "InvalidInput: missed is "),
        ("durably.schedule('echo', {cron: 'soon'})", "InvalidInput: the cron expression 'soon' cannot be read"),
        ("durably.schedule('echo', {cron: '* * * * *', timezone: 'Nowhere'})", "InvalidInput: there is no time zone"),
        ("durably.schedule('echo', {every: 0})", "InvalidInput: every is longer than 0"),
        ("durably.schedule('echo', {every: 1, cron: '* * * * *'})", "InvalidInput: a schedule has either cron"),
        ("durably.schedule('echo', {every: 1000, timezone: 'Asia/Tokyo'})", "InvalidInput: a timezone belongs to cron"),
        ("durably.pauseSchedule('night')", "NotFound: there is no schedule"),
        ("durably.resumeSchedule('night')", "NotFound: there is no schedule"),
        ("durably.triggerSchedule('night')", "NotFound: there is no schedule"),
        ("durably.removeSchedule('night')", "NotFound: there is no schedule"),
    ]:
        assert told(page, request).startswith(beginning), (request, told(page, request))


def test_ticks_that_are_skipped_are_told(page: Page) -> None:
    """The first run waits for a signal, and no other one may begin beside it."""
    page.evaluate("globalThis.skipped = []; durably.on('schedule:skip', (event) => skipped.push(event)), null")
    page.evaluate("durably.stats()")
    page.evaluate("durably.schedule('ask', {name: 'asks', every: 200, labels: {org: 'acme'}})")
    wait_until(page, "async () => skipped.length >= 2")
    event = page.evaluate("skipped[0]")
    assert (event["schedule"], event["reason"], event["jobName"], event["labels"]) == (
        *("asks", "overlap"),
        *("ask", {"org": "acme"}),
    )
    assert (event["seq"], event["runId"]) == (None, None) and event["ticks"] >= 1
    assert event["firstAt"] <= event["lastAt"]
    refusal = told(page, "durably.triggerSchedule('asks')")
    assert refusal.startswith("Conflict: run ") and "is active" in refusal
    assert page.evaluate("durably.getRuns({jobName: 'ask'}).then((runs) => runs.length)") == 1
    page.evaluate("durably.removeSchedule('asks')")


def test_filters_and_pages(page: Page) -> None:
    items = [{"input": {"n": n}, "labels": {"half": str(n % 2)}} for n in range(6)]
    made = page.evaluate("items => durably.triggerMany('ask', items)", items)
    ids = [one["id"] for one in made]
    assert [one["disposition"] for one in made] == ["created"] * 6 and len(set(ids)) == 6
    doubled = trigger(page, "double", {"n": 4})
    page.evaluate(ENDED, doubled)
    wait_until(page, "async () => (await durably.getRuns({status: 'waiting'})).length === 6")

    def found(filter: dict[str, Any]) -> list[str]:
        return [run["id"] for run in page.evaluate("filter => durably.getRuns(filter)", filter)]

    newest_first = [doubled, *reversed(ids)]
    assert found({}) == newest_first
    assert found({"jobName": "ask", "labels": {"half": "0"}}) == [ids[4], ids[2], ids[0]]
    assert found({"jobName": ["double", "ask"], "status": ["completed", "waiting"]}) == newest_first
    assert found({"jobName": ["double", "echo"]}) == [doubled]
    assert found({"limit": 2, "offset": 1}) == newest_first[1:3]
    assert found({"limit": 2, "after": newest_first[2]}) == newest_first[3:5]
    one_job = "durably.jobs.ask.getRuns({status: 'waiting', labels: {half: '1'}})"
    assert [run["id"] for run in page.evaluate(one_job)] == [ids[5], ids[3], ids[1]]
    assert page.evaluate("id => durably.jobs.ask.getRun(id)", doubled) is None
    assert (
        page.evaluate("id => durably.register({mine: {name: 'double'}}).jobs.mine.getRun(id)", doubled)["output"] == 8
    )
    stats = page.evaluate("durably.stats()")
    assert stats["byJob"] == {"ask": {"waiting": 6}, "double": {"completed": 1}}


def test_following(page: Page) -> None:
    run_id = trigger(page, "ask")
    page.evaluate(f"id => {{ globalThis.following = ({FOLLOW})([id, 0]) }}", run_id)
    wait_until_waiting(page, run_id)
    page.evaluate("id => durably.signal(id, 'answer', 'yes')", run_id)
    assert page.evaluate(ENDED, run_id)["output"]["answer"] == "yes"
    followed = page.evaluate("following")
    types = [type for _, type in followed]
    assert types[0] == "run:trigger" and types[-1] == "run:complete" and "log:write" in types
    seqs = [seq for seq, _ in followed]
    assert seqs == sorted(set(seqs))
    assert page.evaluate(FOLLOW, [run_id, seqs[2]]) == followed[3:]
    endless = """async () => {
      const leaving = new AbortController();
      setTimeout(() => leaving.abort(new Error("enough")));
      for await (const event of durably.subscribe(undefined, { signal: leaving.signal })) void event;
    }"""
    assert told(page, f"({endless})()") == "Error: enough"


def test_listening(page: Page) -> None:
    """What is listened to before a trigger is heard from its first event on, and nothing afterwards."""
    page.evaluate("globalThis.heard = []; globalThis.stop = durably.on('*', (event) => { heard.push(event) }); 0")
    run_id = trigger(page, "save_chunks", {"chunks": 3})
    page.wait_for_function("heard.some(({ type }) => type === 'run:complete')")
    page.evaluate("stop()")
    stored = page.evaluate("heard.filter(({ seq }) => seq !== null).map(({ seq, type }) => [seq, type])")
    assert stored == page.evaluate(FOLLOW, [run_id, 0])
    heard = page.evaluate("heard")
    started = [event["stepName"] for event in heard if event["type"] == "step:start"]
    assert started == ["save", "save#2", "save#3"]
    progress = [event["progress"] for event in heard if event["type"] == "run:progress"]
    assert progress[-1] == {"current": 3, "total": 3}
    page.evaluate("durably.triggerAndWait('echo')")
    assert len(page.evaluate("heard")) == len(heard)


def test_control(page: Page) -> None:
    run_id = trigger(page, "ask")
    wait_until_waiting(page, run_id)
    page.evaluate("id => durably.cancel(id)", run_id)
    assert page.evaluate(ENDED, run_id)["status"] == "cancelled"
    assert told(page, "durably.cancel(argument)", run_id).startswith("Conflict: ")
    assert told(page, "durably.signal(argument, 'answer')", run_id).startswith("Conflict: ")
    page.evaluate("id => durably.retry(id)", run_id)
    wait_until_waiting(page, run_id)
    page.evaluate("async id => { await durably.pause(id); await durably.signal(id, 'answer', 1) }", run_id)
    assert page.evaluate("id => durably.getRun(id)", run_id)["paused"]
    page.evaluate("id => durably.resume(id)", run_id)
    assert page.evaluate(ENDED, run_id)["output"]["answer"] == 1

    forked = page.evaluate("id => durably.fork(id)", run_id)["id"]
    assert page.evaluate(ENDED, forked)["output"] == page.evaluate("id => durably.getRun(id)", run_id)["output"]
    other = page.evaluate("id => durably.retrigger(id)", run_id)["id"]
    assert len({run_id, forked, other}) == 3
    wait_until_waiting(page, other)
    assert page.evaluate("durably.cancelRuns({jobName: ['ask', 'echo']})") == 1
    page.evaluate("id => durably.deleteRun(id)", forked)
    assert page.evaluate("id => durably.getRun(id)", forked) is None
    assert page.evaluate("durably.purgeRuns({olderThan: new Date('2100-01-01')})") == 2
    assert page.evaluate("durably.getRuns()") == []


def test_refusals_have_names(page: Page) -> None:
    for request, refusal in (
        ("durably.trigger('nobody')", "NotFound: "),
        ("durably.trigger('echo', 5)", "InvalidInput: "),
        ("durably.trigger('echo', {text: 1n})", "InvalidInput: the input is not JSON"),
        ("durably.trigger('echo', {}, {labels: {a: 1}})", "BadRequest: "),
        ("durably.trigger('echo', {}, {delay: 1, runAt: new Date()})", "InvalidInput: "),
        ("durably.trigger('echo', {}, {runAt: '2030-01-31'})", "BadRequest: runAt must be an instant with a zone"),
        ("durably.trigger('echo', {}, {timout: 1})", "InvalidInput: a trigger has no timout"),
        ("durably.triggerMany('echo', [{}, {debounce: 1}])", "InvalidInput: "),
        ("durably.getRun('x', {timeout: -1})", "InvalidInput: timeout is "),
        ("durably.getRuns({status: 'odd'})", "BadRequest: "),
        ("durably.getRuns({jobName: []})", "InvalidInput: jobName is an empty list"),
        ("durably.cancel('nobody')", "NotFound: "),
        ("durably.fork('nobody')", "NotFound: "),
        ("durably.pauseJob('nobody')", "NotFound: "),
        ("durably.waitForRun('nobody')", "NotFound: "),
        ("durably.subscribe('nobody').next()", "NotFound: "),
        ("durably.deleteRuns({})", "InvalidInput: which runs"),
        ("durably.on('run:progres', () => {})", "InvalidInput: there is no event"),
    ):
        assert told(page, request).startswith(refusal), request


def test_whoever_waits_may_give_up(page: Page) -> None:
    run_id = trigger(page, "ask")
    assert told(page, "durably.waitForRun(argument, {timeout: 1})", run_id).startswith("TimeoutError: ")
    assert told(page, "durably.triggerAndWait('ask', {}, {timeout: 50})").startswith("TimeoutError: ")
    leave = "({{signal}}) => ({request}).catch((error) => error)"
    for request in ("durably.waitForRun(id, {signal})", "durably.triggerAndWait('ask', {}, {signal})"):
        assert page.evaluate(
            f"""async id => {{
              const leaving = new AbortController();
              const reason = new Error("enough");
              setTimeout(() => leaving.abort(reason));
              return await ({leave.format(request=request)})(leaving) === reason;
            }}""",
            run_id,
        )
    # Who has given up before asks for nothing.
    runs = len(page.evaluate("durably.getRuns()"))
    for request in ("trigger('echo', {}, {signal})", "triggerMany('echo', [{}], {signal})", "cancelRuns({}, {signal})"):
        assert (
            told(page, f"durably.{request.replace('signal', 'signal: AbortSignal.abort(new Error(`no`))')}")
            == "Error: no"
        )
    assert len(page.evaluate("durably.getRuns()")) == runs


def test_after_close_everything_rejects(page: Page) -> None:
    run_id = trigger(page, "ask")
    page.evaluate(f"id => {{ globalThis.waiting = durably.waitForRun(id).catch({TOLD}) }}", run_id)
    page.evaluate("durably.close()")
    assert page.evaluate("waiting").startswith("StoreUnavailable: this client was closed")
    assert told(page, "durably.getRuns()").startswith("StoreUnavailable: this client was closed")
    assert page.evaluate("durably.close().then(() => durably.status)") == "closed"


# -- only over HTTP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drop_replies", "drop_requests"])
def test_a_connection_that_breaks_costs_and_doubles_nothing(served: Page, server: HttpServer, fault: str) -> None:
    """Each request comes three times, with one key; the first two times nobody gets the answer."""

    def broken(request: str, argument: Any = None) -> Any:
        getattr(server, fault)(2)
        before = len(server.asked)
        answer = served.evaluate(f"argument => {request}", argument)
        changes = [asked for asked in server.asked[before:] if asked.method != "GET"]
        assert len(changes) == 3 and len(set(changes)) == 1
        assert changes[0].key
        return answer

    made = broken("durably.trigger('ask', {n: 1})")
    assert made["disposition"] == "created"
    many = broken("durably.triggerMany('ask', [{}, {}])")
    assert [one["disposition"] for one in many] == ["created", "created"]
    assert len(served.evaluate("durably.getRuns()")) == 3
    wait_until_waiting(served, made["id"])
    broken("durably.signal(argument, 'answer', 1)", made["id"])
    assert served.evaluate(ENDED, made["id"])["output"]["answer"] == 1
    broken("durably.cancel(argument)", many[0]["id"])
    broken("durably.retry(argument)", many[0]["id"])
    forked = broken("durably.fork(argument)", made["id"])["id"]
    again = broken("durably.retrigger(argument)", made["id"])["id"]
    assert len(served.evaluate("durably.getRuns()")) == 5
    served.evaluate(ENDED, forked)
    broken("durably.deleteRun(argument)", forked)
    wait_until_waiting(served, again)
    broken("durably.pause(argument)", again)
    broken("durably.resume(argument)", again)
    broken("durably.pauseJob('echo')")
    wait_until_waiting(served, many[0]["id"])
    assert broken("durably.cancelRuns({status: 'waiting'})") == 3
    broken("durably.schedule('echo', {name: 'morning', cron: '0 7 * * *'})")
    broken("durably.pauseSchedule('morning')")
    broken("durably.resumeSchedule('morning')")
    by_hand = broken("durably.triggerSchedule('morning')")
    assert by_hand["disposition"] == "created"
    of_it = "durably.getRuns({schedule: 'morning'}).then((runs) => runs.map(({id}) => id))"
    assert served.evaluate(of_it) == [by_hand["id"]]
    broken("durably.removeSchedule('morning')")
    assert served.evaluate("durably.getSchedules()") == []


def test_a_stream_that_is_cut_leaves_no_gap_and_doubles_nothing(served: Page, server: HttpServer) -> None:
    served.evaluate("globalThis.heard = []; durably.on('*', (event) => { heard.push(event) }); 0")
    run_id = trigger(served, "ask")
    served.evaluate(f"id => {{ globalThis.following = ({FOLLOW})([id, 0]) }}", run_id)
    wait_until_waiting(served, run_id)
    for cut in (server.cut_streams, server.cut_streams_within_an_event, server.cut_streams):
        served.wait_for_function("durably.status === 'follower'")
        cut()
        for _ in range(3):
            served.evaluate("durably.triggerAndWait('save_chunks', {chunks: 3})")
    served.evaluate("id => durably.signal(id, 'answer')", run_id)
    last = served.evaluate("following")[-1][0]
    served.wait_for_function("last => heard.some(({ seq }) => seq === last)", arg=last)
    journal = server.call(lambda: server.durably.get_events())
    stored = served.evaluate("heard.flatMap(({ seq }) => seq === null ? [] : [seq])")
    assert stored == [event.seq for event in journal.events if event.seq <= last]
    assert served.evaluate("following") == [
        [event.seq, event.type] for event in journal.events if event.run_id == run_id
    ]


def test_a_server_that_goes_and_comes_back(served: Page, server: HttpServer) -> None:
    run_id = trigger(served, "ask")
    wait_until_waiting(served, run_id)
    served.evaluate("id => { globalThis.waiting = durably.waitForRun(id) }", run_id)
    served.evaluate("globalThis.heard = []; durably.on('run:complete', ({ runId }) => { heard.push(runId) }); 0")
    served.wait_for_function("durably.status === 'follower'")
    server.go_away()
    served.wait_for_function("durably.status === 'starting'")
    refusal = told(served, "durably.getRuns({}, {timeout: 300})")
    assert refusal == "StoreUnavailable: GET /runs was answered with 502: Bad Gateway"
    # Meanwhile somebody else answers.
    server.call(lambda: server.durably.signal(run_id, "answer", "late"))
    server.call(lambda: server.durably.wait_for_run(run_id, timeout=30))
    asked = served.evaluate("globalThis.asked = durably.getRuns(); 0")
    assert asked == 0
    server.come_back()
    assert len(served.evaluate("asked")) == 1
    assert served.evaluate("waiting")["output"]["answer"] == "late"
    served.wait_for_function("heard.length > 0")
    assert served.evaluate("heard") == [run_id]
    assert served.evaluate("durably.status") == "follower"
    assert ["starting", "StoreUnavailable"] in served.evaluate("statuses")


def test_a_wait_ends_where_no_stream_comes_through(served: Page, server: HttpServer) -> None:
    server.refuses_streams = True
    run_id = trigger(served, "ask")
    served.evaluate(f"id => {{ globalThis.waiting = ({ENDED})(id) }}", run_id)
    served.evaluate(f"id => {{ globalThis.following = ({FOLLOW})([id, 0]) }}", run_id)
    wait_until_waiting(served, run_id)
    server.call(lambda: server.durably.signal(run_id, "answer", 1))
    assert served.evaluate("waiting")["output"]["answer"] == 1
    assert served.evaluate("following")[-1][1] == "run:complete"


def test_a_stream_is_open_only_while_somebody_listens(served: Page, server: HttpServer) -> None:
    assert ("GET", "/runs/subscribe", None) not in server.asked
    served.evaluate("globalThis.stop = durably.on('run:complete', () => {}); 0")
    served.evaluate("durably.getRuns()")
    assert server.streams == 1
    served.evaluate("stop()")
    # The end of a connection takes its time to arrive.
    served.evaluate("durably.getRuns()")
    served.evaluate("durably.triggerAndWait('echo')")
    server.cut_streams()
    assert server.streams == 0


def test_a_client_of_a_server_loads_no_engine(served: Page) -> None:
    loaded = served.evaluate("performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)")
    assert "/durably-web/client.js" in loaded
    assert [name for name in loaded if "worker" in name or "pyodide" in name or "sqlite" in name] == []
    assert told(served, "durably.storage()").startswith("InvalidInput: ")


def test_a_server_that_is_none(served: Page, server: HttpServer) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}/api"
        refusal = served.evaluate(CONNECT, {"url": closed, "requestTimeout": 300})
    assert refusal.startswith(f"StoreUnavailable: GET /health did not reach {closed}: ")
    refusal = served.evaluate(CONNECT, {"url": "/elsewhere"})
    doubt = f"is {server.address}elsewhere the address of a durably_web server?"
    assert refusal == f"StoreUnavailable: GET /health was answered with 404 and no JSON: {doubt}"
    server.go_away()
    refusal = served.evaluate(CONNECT, {"requestTimeout": 300})
    assert refusal == "StoreUnavailable: GET /health was answered with 502: Bad Gateway"
