"""The database as a plain file: taken out, gone on with by a server, and put in again; whole, or not at all."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from durably_web import Durably
from tests.e2e.conftest import create
from tests.e2e.jobs import large_jobs
from tests.e2e.tabs import evaluate, kill, processes_of, wait, wait_for_leader
from tests.e2e.test_start import link_site

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

REFUSED = "({name, message}) => `${name}: ${message}`"
JOBS = ["jobs.py", "large_jobs.py"]
DATA_URL = """(blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
})"""
FOLDERS = """async () => {
  const place = await (await navigator.storage.getDirectory()).getDirectoryHandle("durably-web");
  return (await Array.fromAsync(place.keys())).length;
}"""
BLOB = "async (text) => (await fetch(`data:application/octet-stream;base64,${text}`)).blob()"


def export(page: Page, to: Path) -> Path:
    to.write_bytes(base64.b64decode(evaluate(page, f"async () => ({DATA_URL})(await durably.exportDatabase())")))
    return to


def import_(page: Page, content: bytes) -> str | None:
    """How it ended: `None`, or its error as `Name: message`."""
    text = base64.b64encode(content).decode()
    function = f"async (text) => durably.importDatabase(await ({BLOB})(text)).then(() => null, {REFUSED})"
    told: str | None = evaluate(page, function, text)
    return told


def rows_of(path: Path) -> dict[str, list[Any]]:
    """All that is stored, but what a start of the engine writes."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        ]
        return {table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall()) for table in tables}


def test_a_server_goes_on_with_what_a_browser_began_and_the_other_way_round(
    visit: Callable[..., Page], tmp_path: Path
) -> None:
    leader, page = visit(), visit()
    assert create(leader, jobs=JOBS) == "leader"
    assert create(page, jobs=JOBS) == "follower"
    evaluate(page, "() => durably.triggerAndWait('gather_pieces', {pieces: 30, bytes: 100_000})")
    run = evaluate(page, "() => durably.trigger('waits_for_ever', {})")
    wait(page, "events.some(({type, stepName}) => type === 'step:start' && stepName === 'second')")
    [first] = [
        one["output"] for one in evaluate(page, "id => durably.getSteps(id)", run["id"]) if one["name"] == "first"
    ]
    # While commits go on, and from a follower.
    page.evaluate("durably.triggerMany('keep', Array.from({length: 300}, () => ({input: {text: 'x'}})))")
    path = export(page, tmp_path / "exported.db")
    assert path.read_bytes()[18:20] == b"\x01\x01"
    before = rows_of(path)
    assert len(before["durably_runs"]) >= 2

    async def go_on() -> Any:
        async with Durably(str(path), jobs=[large_jobs.waits_for_ever, large_jobs.fill]) as durably:
            ended = await durably.wait_for_run(run["id"], timeout=60)
            other = await durably.trigger(large_jobs.fill, {"bytes": 100_000})
            await durably.wait_for_run(other.id, timeout=60)
            return ended, other.id

    # This thread has an event loop, which drives the browser.
    with ThreadPoolExecutor(1) as server:
        ended, made = server.submit(lambda: asyncio.run(go_on())).result(timeout=90)
    assert (ended.status, ended.output) == ("completed", {"first": first, "second": "elsewhere"})
    # And back, with a log ahead in its header, into a tab that has other runs now.
    evaluate(page, "() => durably.trigger('keep', {text: 'replaced'})")
    listed = rows_of(path)
    assert path.read_bytes()[18:20] == b"\x02\x02"
    assert import_(page, path.read_bytes()) is None
    now = wait_for_leader([leader, page])
    # It is the same here as there: nothing more, nothing less.
    assert evaluate(page, "id => durably.waitForRun(id)", run["id"])["output"] == {
        "first": first,
        "second": "elsewhere",
    }
    assert evaluate(page, "id => durably.getRun(id)", made)["status"] == "completed"
    for tab in (leader, page):
        wait(tab, "async () => (await durably.stats()).byStatus.pending === undefined")
    again = rows_of(export(now, tmp_path / "again.db"))
    ids = {row[0] for row in listed["durably_runs"]}
    assert {row[0] for row in again["durably_runs"]} == ids
    # A round trip of a database at rest changes no row.
    assert import_(now, (tmp_path / "again.db").read_bytes()) is None
    now = wait_for_leader([leader, page])
    evaluate(now, "() => durably.stats()")
    assert rows_of(export(now, tmp_path / "third.db")) == again
    assert evaluate(now, "() => durably.triggerAndWait('keep', {text: 'goes on'})") == 7


def _other_application(path: Path) -> bytes:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (id)")
        connection.commit()
    return path.read_bytes()


def _changed(source: Path, path: Path, *statements: str) -> bytes:
    path.write_bytes(source.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path.read_bytes()


def test_what_cannot_be_used_is_refused_and_nothing_is_touched(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit()
    assert create(page, jobs=JOBS) == "leader"
    run = evaluate(page, "() => durably.trigger('gather_pieces', {pieces: 5, bytes: 50_000})")
    evaluate(page, "id => durably.waitForRun(id)", run["id"])
    right = export(page, tmp_path / "right.db")
    content = right.read_bytes()
    middle = len(content) // 4096 // 2 * 4096
    page.evaluate("globalThis.before = statuses.length")
    wrong = {
        "InvalidInput: there is nothing to import": b"",
        "NotADatabase: this is not a SQLite database": b"not a database" * 1000,
        "NotADatabase: the file is cut off": content[:-8192],
        "NotADatabase: the database is damaged": content[:middle] + b"\xff" * 8192 + content[middle + 8192 :],
        "NotADatabase: this is a SQLite database, and none of durably_web": _other_application(tmp_path / "other.db"),
        "SchemaTooNew: the database has schema version 99": _changed(
            right, tmp_path / "new.db", "INSERT INTO durably_schema (version, applied_at) VALUES (99, 0)"
        ),
        "NotADatabase: durably_web makes no trigger": _changed(
            right, tmp_path / "odd.db", "CREATE TRIGGER odd AFTER INSERT ON durably_runs BEGIN SELECT 1; END"
        ),
    }
    for expected, bytes_ in wrong.items():
        told = import_(page, bytes_)
        assert told is not None and told.startswith(expected), (expected, told)
    assert page.evaluate("statuses.length === before"), "nobody was disturbed"
    assert rows_of(export(page, tmp_path / "after.db")) == rows_of(right)
    told = evaluate(page, f"() => durably.importDatabase('text').catch({REFUSED})")
    assert told.startswith("InvalidInput: importDatabase() takes a Blob")
    # Nothing is left behind of all that.
    assert evaluate(page, FOLDERS) == 1


def _create_sealed(page: Page, database: str, key: int) -> None:
    """With a key of bytes that are all the same."""
    create = """async ({ jobs, database, key }) => {
      const { createDurably } = await import("./durably-web/client.js");
      globalThis.durably = await createDurably({ jobs, database, encryptionKey: new Uint8Array(32).fill(key) });
      await durably.ready;
    }"""
    evaluate(page, create, {"jobs": JOBS, "database": database, "key": key})


def test_an_older_schema_and_another_key(visit: Callable[..., Page], tmp_path: Path, root: Path) -> None:
    page = visit()
    _create_sealed(page, "default", 1)
    run = evaluate(page, "() => durably.trigger('keep', {text: 'secret'})")
    evaluate(page, "id => durably.waitForRun(id)", run["id"])
    sealed = export(page, tmp_path / "sealed.db").read_bytes()
    assert b"secret" not in sealed
    evaluate(page, "() => durably.close()")
    assert create(page, jobs=JOBS, database="open") == "leader"
    told = import_(page, sealed)
    assert told is not None and told.startswith("DecryptionFailed: the database is sealed, and this page has no"), told
    evaluate(page, "() => durably.close()")
    _create_sealed(page, "other", 2)
    told = import_(page, sealed)
    assert told is not None and told.startswith("DecryptionFailed: the database was sealed with another key"), told
    evaluate(page, "() => durably.close()")
    _create_sealed(page, "same", 1)
    assert import_(page, sealed) is None
    assert evaluate(page, "id => durably.getRun(id)", run["id"])["output"] == 6
    evaluate(page, "() => durably.close()")
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript((root / "tests" / "fixtures" / "schema-1.sql").read_text())
        known = {row[0] for row in connection.execute("SELECT id FROM durably_runs")}
    assert create(page, jobs=JOBS, database="old") == "leader"
    assert import_(page, old.read_bytes()) is None
    runs = evaluate(page, "() => durably.getRuns({limit: 500})")
    assert {one["id"] for one in runs} == known and known


# The import stands still at a certain moment of it, for ever.
STOPS = {
    "in the middle of the copy": """
let parts = 0;
const read = Blob.prototype.arrayBuffer;
Blob.prototype.arrayBuffer = function () {
  return this.size === 1 << 20 && ++parts === 3 ? hold() : read.call(this);
};
""",
    "before it is complete": """
const get = FileSystemDirectoryHandle.prototype.getFileHandle;
FileSystemDirectoryHandle.prototype.getFileHandle = function (name, options) {
  return name === "complete" && options?.create ? hold() : get.call(this, name, options);
};
""",
    "when it is complete": """
const get = FileSystemDirectoryHandle.prototype.getFileHandle;
FileSystemDirectoryHandle.prototype.getFileHandle = async function (name, options) {
  const handle = await get.call(this, name, options);
  return name === "complete" && options?.create ? hold() : handle;
};
""",
}
HOLD = """
const held = new BroadcastChannel("held");
function hold() {
  held.postMessage("held");
  return new Promise(() => {});
}
"""


def _made_by_a_server(path: Path) -> Path:
    """A database of a few megabytes."""

    async def run() -> None:
        async with Durably(str(path), jobs=[large_jobs.fill]) as durably:
            handle = await durably.trigger(large_jobs.fill, {"bytes": 5_000_000})
            await handle.result(timeout=60)

    with ThreadPoolExecutor(1) as server:
        server.submit(lambda: asyncio.run(run())).result(timeout=90)
    return path


# Gives nothing back: a promise would be waited for.
LISTEN = "() => { held = new Promise((resolve) => { new BroadcastChannel('held').onmessage = resolve; }); }"


@pytest.mark.parametrize("moment", STOPS)
def test_a_tab_that_is_killed_in_an_import(
    moment: str, visit: Callable[..., Page], origin_folder: Path, tmp_path: Path
) -> None:
    """There is the old database afterwards, or the new one, and all of it."""
    site = origin_folder / f"stops-{list(STOPS).index(moment)}"
    worker = link_site(origin_folder / "my-repo", site, without="worker.js")
    (site / "large_jobs.py").symlink_to(origin_folder / "my-repo" / "large_jobs.py")
    worker.write_text((origin_folder / "my-repo" / "durably-web" / "worker.js").read_text() + HOLD + STOPS[moment])
    content = _made_by_a_server(tmp_path / "new.db")
    other = visit()
    page = visit(f"{site.name}/")
    assert create(page, jobs=JOBS) == "leader"
    old = evaluate(page, "() => durably.trigger('keep', {text: 'old'})")
    evaluate(page, "id => durably.waitForRun(id)", old["id"])
    was = rows_of(export(page, tmp_path / "old.db"))
    page.evaluate(LISTEN)
    text = base64.b64encode(content.read_bytes()).decode()
    page.evaluate(f"async (text) => {{ durably.importDatabase(await ({BLOB})(text)); }}", text)
    evaluate(page, "() => held.then(() => true)")
    kill(page, processes_of([page, other])[0])

    # The site as it is without that.
    worker.unlink()
    worker.symlink_to(origin_folder / "my-repo" / "durably-web" / "worker.js")
    page = visit(f"{site.name}/")
    assert create(page, jobs=JOBS) == "leader"
    there = rows_of(export(page, tmp_path / "there.db"))
    assert there == (rows_of(content) if moment == "when it is complete" else was)
    assert evaluate(page, FOLDERS) == 1, "nothing is left behind"


def test_an_import_whose_answer_is_lost_is_done_once(
    visit: Callable[..., Page], origin_folder: Path, tmp_path: Path
) -> None:
    """Its worker dies when the file is in place: the page asks the next one again, which knows of it."""
    site = origin_folder / "stops-once"
    worker = link_site(origin_folder / "my-repo", site, without="worker.js")
    source = (origin_folder / "my-repo" / "durably-web" / "worker.js").read_text()
    worker.write_text(source + HOLD + STOPS["when it is complete"])
    page = visit(f"{site.name}/")
    assert create(page) == "leader"
    run = evaluate(page, "() => durably.trigger('keep', {text: 'first'})")
    evaluate(page, "id => durably.waitForRun(id)", run["id"])
    content = export(page, tmp_path / "first.db").read_bytes()
    page.evaluate(LISTEN)
    text = base64.b64encode(content).decode()
    page.evaluate(f"async (text) => {{ globalThis.importing = durably.importDatabase(await ({BLOB})(text)); }}", text)
    evaluate(page, "() => held.then(() => true)")
    page.evaluate("workers.at(-1).terminate()")
    # Done again, it would stand still again.
    evaluate(page, "() => importing")
    assert evaluate(page, "id => durably.getRun(id)", run["id"])["output"] == 5
