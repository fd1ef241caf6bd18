"""Several tabs of one site: a client in each, what they were asked and have not answered, and how a tab may end."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from playwright.sync_api import TimeoutError

from tests.e2e.conftest import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

# How long anything may take: another tab's engine starts, on a machine with other things to do.
PATIENCE_MS = 90_000
BOUNDED = f"""
const bounded = (promise, what) => Promise.race([promise, new Promise((_, reject) => setTimeout(
  () => reject(new Error(`no end within {PATIENCE_MS} ms: ${{what}}`)), {PATIENCE_MS}))]);
"""

# `readiness` tells how `ready` ended: a test looks at it when it wants to.
OPEN = """async (options) => {
  const { createDurably } = await import("./durably-web/client.js");
  globalThis.statuses = [];
  globalThis.events = [];
  globalThis.asked = {};
  globalThis.told = (error) => `${error.name}: ${error.message}`;
  const onStatus = (status, { phase, error }) => statuses.push([status, phase ?? null, error ? told(error) : null]);
  try {
    const jobs = ["jobs.py", "waiting_jobs.py", "tab_jobs.py"];
    globalThis.durably = await createDurably({ jobs, onStatus, ...options });
  } catch (error) {
    return told(error);
  }
  durably.on("*", (event) => events.push(event));
  globalThis.readiness = "waiting";
  durably.ready.then(() => (readiness = "ready"), (error) => (readiness = told(error)));
  return durably.status;
}"""

STORED = "events.filter(({seq}) => seq !== null)"
JOURNAL = """async (newest) => {
  const read = [];
  for await (const event of durably.subscribe()) {
    read.push(event);
    if (event.seq >= newest) return read;
  }
}"""

# Where each file of this origin's databases is, and its bytes in base 64.
FILES = """async () => {
  const files = [];
  const root = await navigator.storage.getDirectory();
  await look(await root.getDirectoryHandle("durably-web"), []);
  return files;

  async function look(folder, path) {
    for await (const entry of folder.values()) {
      if (entry.kind === "directory") await look(entry, [...path, entry.name]);
      else files.push([[...path, entry.name], await bytesOf(await entry.getFile())]);
    }
  }

  function bytesOf(file) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(file);
    });
  }
}"""


def open_early(page: Page, **options: Any) -> str:
    """`createDurably` on the page: its status, or its error as `Name: message`. Python may not be up yet."""
    return str(evaluate(page, OPEN, options))


def open_client(page: Page, **options: Any) -> str:
    """`createDurably` on the page, and `ready`. The leader hears of what this page listens to when this returns."""
    status = open_early(page, **options)
    assert status in ("leader", "follower"), status
    evaluate(page, "() => durably.ready")
    evaluate(page, "() => durably.stats()")
    return str(page.evaluate("durably.status"))


def evaluate(page: Page, function: str, arg: Any = None) -> Any:
    """What a function of the page gives, or its promise, within bounds."""
    return page.evaluate(f"(arg) => {{ {BOUNDED} return bounded((async () => ({function})(arg))(), 'evaluate') }}", arg)


def ask(page: Page, name: str, function: str, arg: Any = None) -> None:
    """Begin something on the page, and do not wait for its end."""
    page.evaluate(
        f"""([name, arg]) => {{
          const asked = (async () => ({function})(arg))();
          globalThis.asked[name] = asked.then((value) => value ?? null, told);
        }}""",
        [name, arg],
    )


def answer(page: Page, name: str) -> Any:
    """How that ended: its value, or its error as `Name: message`."""
    return evaluate(page, "(name) => asked[name]", name)


def unanswered(page: Page, names: Iterable[str]) -> bool:
    """Whether none of these has ended; what was sent before has certainly been sent."""
    probe = "(names) => Promise.race([...names.map((name) => asked[name].then(() => false)), Promise.resolve(true)])"
    return bool(evaluate(page, probe, list(names)))


def wait(page: Page, condition: str, arg: Any = None) -> None:
    """Until an expression of the page, or an async function, is true."""
    if condition.startswith("async"):
        wait_until(page, condition, arg, PATIENCE_MS)
    else:
        page.wait_for_function(condition, arg=arg, timeout=PATIENCE_MS)


def status_of(page: Page) -> str:
    return str(page.evaluate("durably.status"))


def wait_for_leader(pages: list[Page]) -> Page:
    """The one of these tabs that leads, once each knows what it is and the jobs can run."""
    for page in pages:
        wait(page, "['leader', 'follower'].includes(durably.status)")
    # A follower that has an answer of the leader knows that there is one.
    for page in pages:
        evaluate(page, "() => durably.stats()")
    leaders = [page for page in pages if status_of(page) == "leader"]
    assert len(leaders) == 1, [status_of(page) for page in pages]
    return leaders[0]


# -- files -------------------------------------------------------------------------------------------------

HEADER = 4096


def files_of(page: Page) -> list[tuple[list[str], bytes]]:
    """The files of all databases of this origin: where each is, and what is in it."""
    return [(path, base64.b64decode(text)) for path, text in evaluate(page, FILES)]


@contextmanager
def database_of(page: Page, name: str = "default") -> Iterator[Callable[[str], list[Any]]]:
    """What SQL finds in the only database of this name on this origin. Close all its clients first."""
    files = [file for file in files_of(page) if file[0][0].startswith(f"{name}-")]
    # A database that was copied away from a tab that slept is in the folder with the highest number.
    folders = {path[0]: int(f"{path[0]}.0".split(".")[1]) for path, _ in files}
    newest = max(folders, key=lambda folder: folders[folder])
    with TemporaryDirectory() as target:
        for path, content in files:
            own = content.partition(b"\0")[0]
            if path[0] == newest and own.startswith(b"/durably.db"):
                (Path(target) / own.decode()[1:]).write_bytes(content[HEADER:])
        with closing(sqlite3.connect(Path(target) / "durably.db")) as connection:
            yield lambda sql: connection.execute(sql).fetchall()


# -- events ------------------------------------------------------------------------------------------------


# How far apart two events may be that are told in another order than they are stored.
BORDER = 64


def assert_same_events(pages: list[Page]) -> list[dict[str, Any]]:
    """Each tab has heard what the journal has from its first event on: no gap, no duplicate, a run's events in order.

    What one turn of the engine's event loop stored for several runs may be told run by run.
    """
    newest = max(int(page.evaluate(f"Math.max(0, ...{STORED}.map(({{seq}}) => seq))")) for page in pages)
    assert newest > 0, "nothing was heard"
    journal: list[dict[str, Any]] = evaluate(pages[0], JOURNAL, newest)
    for page in pages:
        with suppress(TimeoutError):
            # Told below, with what is missing.
            wait(page, f"newest => {STORED}.some(({{seq}}) => seq === newest)", newest)
        heard = page.evaluate(STORED)
        assert heard, ("a tab heard nothing", page.evaluate("statuses"))
        # A tab that came in the middle of much may have come between two events that are told out of order.
        first = heard[0]["seq"] + (0 if heard[0]["seq"] < 100 else BORDER)
        heard = [event for event in heard if event["seq"] >= first]
        stored = [event for event in journal if event["seq"] >= first]
        by_seq = {event["seq"]: event for event in stored}
        missed = by_seq.keys() - {event["seq"] for event in heard}
        assert not missed, ("missed", [by_seq[seq] for seq in sorted(missed)], page.evaluate("statuses"))
        count = Counter(event["seq"] for event in heard)
        assert not count.keys() - by_seq.keys(), ("not stored", sorted(count.keys() - by_seq.keys()), first, newest)
        assert max(count.values(), default=1) == 1, ("twice", [seq for seq in count if count[seq] > 1], first, newest)
        wrong = [(event, by_seq[event["seq"]]) for event in heard if event != by_seq[event["seq"]]]
        assert not wrong, ("heard differently from what is stored", wrong)
        for run_id in {event["runId"] for event in stored}:
            of_run = [[event["seq"] for event in events if event["runId"] == run_id] for events in (heard, stored)]
            assert of_run[0] == of_run[1], f"the events of {run_id} came in another order"
    return journal


# -- processes ---------------------------------------------------------------------------------------------


def processes_of(pages: list[Page]) -> list[int]:
    """The process of each tab, which is that tab's alone.

    Every page leaves a mark in a trace, and the trace names its process. Comparing lists of processes would not do,
    because the browser keeps one in reserve. All of these must be alive and awake.
    """
    browser = pages[0].context.browser
    assert browser is not None
    session = browser.new_browser_cdp_session()
    events: list[dict[str, Any]] = []
    ends: list[Any] = []
    session.on("Tracing.dataCollected", lambda part: events.extend(part["value"]))
    session.on("Tracing.tracingComplete", lambda end: ends.append(end))
    marks = [f"tab-{secrets.token_hex(8)}" for _ in pages]
    session.send("Tracing.start", {"categories": "-*,blink.user_timing", "transferMode": "ReportEvents"})
    for page, mark in zip(pages, marks, strict=True):
        page.evaluate("(mark) => { performance.mark(mark) }", mark)
    session.send("Tracing.end")
    for _ in range(100_000):
        if ends:
            break
        session.send("Browser.getVersion")
    session.detach()
    seen = {event["name"]: int(event["pid"]) for event in events if event["name"] in marks}
    found = [seen[mark] for mark in marks]
    assert len(set(found)) == len(found), "two tabs share a process"
    return found


def kill(page: Page, process: int) -> None:
    """Take a tab away as a crash does: no event, no clean-up."""
    with page.expect_event("crash", timeout=PATIENCE_MS):
        os.kill(process, signal.SIGKILL)
    page.close()


@contextmanager
def frozen(process: int) -> Iterator[None]:
    """A process that stands still inside, and goes on behind, whatever happens."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        try:
            os.kill(process, signal.SIGCONT)
        except ProcessLookupError:
            pass


def end(page: Page, how: str, others: list[Page]) -> bool:
    """End what runs in a tab, one way or another; whether its page still has the client. `others` are open too."""
    match how:
        case "close":
            page.close()
        case "reload":
            page.reload()
        case "navigate":
            page.goto("about:blank")
        case "kill":
            kill(page, processes_of([page, *others])[0])
        case "terminate":
            page.evaluate("workers.at(-1).terminate()")
            return True
        case _:
            raise ValueError(how)
    return False


def pythons(pages: list[Page]) -> int:
    """How many workers of these tabs have loaded Python."""
    loaded = "performance.getEntriesByType('resource').some(({name}) => name.endsWith('pyodide.asm.wasm'))"
    return sum(bool(worker.evaluate(loaded)) for page in pages for worker in page.workers)
