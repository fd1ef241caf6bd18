"""What happens to a sync engine when its process forks, and when it ends. Each is a program of its own."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60

BEGIN = """
import json, os, signal, sys, threading
from durably_web.blocking import Durably
from durably_web import StoreUnavailable
from tests.blocking.jobs import JOBS, double, greets, holds_up, reached, sleeps, stuck, where
durably = Durably("app.db", jobs=JOBS, polling_interval=0.05, exit_timeout=0.5, stale_threshold=3600)

def tell(*values):
    os.write(1, (json.dumps(values) + "\\n").encode())

"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")


def execute(root: Path, folder: Path, program: str) -> list[Any]:
    """What the program tells. It must exit by itself, with 0, and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- forks -------------------------------------------------------------------------------------------------


def test_a_child_opens_for_itself(root: Path, tmp_path: Path) -> None:
    """Before the fork it was open, with a worker; after it both go on, and the child executes nothing."""
    told = execute(
        root,
        tmp_path,
        """
durably.start()
run = durably.trigger(where)
tell("parent", run.result(timeout=30)["pid"] == os.getpid())
for _ in range(3):
    child = os.fork()
    if child == 0:
        mine = durably.trigger(where)
        tell("child", threading.active_count(), mine.result(timeout=30)["pid"] == os.getppid())
        tell("started", durably.stats().by_status)
        sys.exit(0)  # with all that an exit does
    tell("ended", os.waitpid(child, 0)[1])
tell("parent", durably.trigger_and_wait(double, {"n": 3}, timeout=30))
""",
    )
    assert [line for line in told if line[0] == "child"] == [["child", 2, True]] * 3
    assert [line for line in told if line[0] == "ended"] == [["ended", 0]] * 3
    assert [line[1] for line in told if line[0] == "parent"] == [True, 6]
    assert os.listdir(tmp_path) == ["app.db"]
    assert sqlite3.connect(tmp_path / "app.db").execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_children_that_outlive_their_parent_keep_nothing_of_it(root: Path, tmp_path: Path) -> None:
    """A worker that is killed is known to be dead, also while children of its process live."""
    told = execute(
        root,
        tmp_path,
        """
reading, writing = os.pipe()
first = os.fork()
if first == 0:
    durably.start()
    run = durably.trigger(sleeps)
    reached.wait(30)
    if os.fork() == 0:
        os.close(writing)
        os.read(reading, 1)  # until the program ends
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
os.close(reading)
os.waitpid(first, 0)
[run] = durably.get_runs()
tell("killed", run.status)
durably.start()  # frees the leases of the dead
for event in durably.subscribe(run.id):
    if event.type == "run:leased" and event.attempt == 2:
        break
durably.cancel(run.id)
tell("cancelled", durably.wait_for_run(run.id, timeout=30).status)
""",
    )
    assert told[0] == ["killed", "leased"] and told[-1] == ["cancelled", "cancelled"]


def test_a_child_does_not_wait_for_its_parents_steps(root: Path, tmp_path: Path) -> None:
    told = execute(
        root,
        tmp_path,
        """
durably.start()
durably.trigger(stuck)
reached.wait(30)
child = os.fork()
if child == 0:
    tell(durably.stats().by_status)
    sys.exit(0)
tell(os.waitpid(child, 0)[1])
""",
    )
    assert told == [[{"leased": 1}], [0]]


def test_a_program_that_is_a_worker(root: Path, tmp_path: Path) -> None:
    told = execute(
        root,
        tmp_path,
        """
run = durably.trigger(where)
durably.on("run:complete", lambda event: os.kill(os.getpid(), signal.SIGTERM))
durably.run_forever(stop_timeout=5)
tell(run.result(timeout=0)["job"])
""",
    )
    assert told == [["MainThread"]]


def test_what_is_the_parents_is_not_closed_by_a_child(root: Path, tmp_path: Path) -> None:
    """Neither when it is let go of, nor when the interpreter takes everything apart."""
    told = execute(
        root,
        tmp_path,
        """
import sqlite3
from durably_web.backends.sqlite import SqliteExecutor
import asyncio
class Told(sqlite3.Connection):
    def __del__(self):
        os.write(1, b'"closed by %d"\\n' % (os.getpid() == parent))
parent = os.getpid()
executor = SqliteExecutor("app.db")
connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Told, **options)
asyncio.run(executor.open())
child = os.fork()
if child == 0:
    sys.exit(0)
os.waitpid(child, 0)
asyncio.run(executor.close())
""",
    )
    assert told == ["closed by 1"]


def test_forks_while_other_threads_write(root: Path, tmp_path: Path) -> None:
    told = execute(
        root,
        tmp_path,
        """
durably.start()
go_on = True
def write():
    while go_on:
        durably.trigger(double, {"n": 1})
threads = [threading.Thread(target=write) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        run = durably.trigger(double, {"n": 2}, labels={"of": "child"})
        os._exit(0 if durably.get_run(run.id).labels == {"of": "child"} else 1)
    tell("ended", os.waitpid(child, 0)[1])
go_on = False
for thread in threads:
    thread.join()
tell("children", len(durably.get_runs(labels={"of": "child"})))
""",
    )
    assert told == [["ended", 0]] * 10 + [["children", 10]]


def test_an_async_engine_says_that_it_was_opened_before_the_fork(root: Path, tmp_path: Path) -> None:
    told = execute(
        root,
        tmp_path,
        """
import asyncio, durably_web
engine = durably_web.Durably("other.db", jobs=[double])
loop = asyncio.new_event_loop()
loop.run_until_complete(engine.migrate())
child = os.fork()
if child == 0:
    async def ask():
        try:
            await engine.stats()
        except StoreUnavailable as error:
            tell(str(error))
    asyncio.run(ask())
    os._exit(0)
os.waitpid(child, 0)
tell(loop.run_until_complete(engine.stats()).total)
loop.run_until_complete(engine.stop())
loop.close()
""",
    )
    assert "before a fork" in told[0][0] and told[1] == [0]


# -- the end of the process --------------------------------------------------------------------------------


def test_an_exit_stops_it_and_finishes_the_step(root: Path, tmp_path: Path) -> None:
    told = execute(
        root,
        tmp_path,
        """
import durably_web
began = threading.Event()
@durably_web.job
async def slow(step, input: dict) -> int:
    def work():
        began.set()
        threading.Event().wait(0.1)  # the exit comes while it executes
        return 1
    return await step.run("slow", work) + await step.run("next", lambda: 1)
durably.register(slow)
durably.start()
run = durably.trigger(slow)
began.wait(30)
tell(run.id)
""",
    )
    assert os.listdir(tmp_path) == ["app.db"]
    connection = sqlite3.connect(tmp_path / "app.db")
    names = connection.execute("SELECT step_name FROM durably_journal WHERE type = 'step:complete'").fetchall()
    assert names == [("slow",)]
    assert connection.execute("SELECT id, status FROM durably_runs").fetchall() == [(told[0][0], "pending")]


def test_an_exit_stops_one_that_nobody_refers_to(root: Path, tmp_path: Path) -> None:
    execute(
        root,
        tmp_path,
        """
import gc, durably_web
began = threading.Event()
@durably_web.job
async def slow(step, input: dict) -> None:
    def work():
        began.set()
        threading.Event().wait(0.1)  # the exit comes while it executes
    await step.run("slow", work)
    await step.run("next", lambda: 1)
def begin():
    engine = Durably("app.db", jobs=[slow])
    engine.start()
    engine.trigger(slow)
begin()
gc.collect()
began.wait(30)
""",
    )
    assert os.listdir(tmp_path) == ["app.db"]
    connection = sqlite3.connect(tmp_path / "app.db")
    names = connection.execute("SELECT step_name FROM durably_journal WHERE type = 'step:complete'").fetchall()
    assert names == [("slow",)]
    assert connection.execute("SELECT status, crashes FROM durably_runs").fetchall() == [("pending", 0)]


def test_one_that_nobody_refers_to_and_that_executes_nothing_is_closed(root: Path, tmp_path: Path) -> None:
    """Also in the child of a fork, where its thread is the parent's."""
    told = execute(
        root,
        tmp_path,
        """
import gc, time
def forget():
    gc.collect()
    deadline = time.monotonic() + 20
    for thread in threading.enumerate():
        if thread.name == "durably":
            thread.join(max(0, deadline - time.monotonic()))
    return threading.active_count()
def ask():
    Durably("app.db").stats()
for _ in range(10):
    ask()
tell("parent", forget(), os.listdir("."))
engine = Durably("app.db")
engine.stats()
child = os.fork()
if child == 0:
    del engine
    tell("child", forget())
    sys.exit(0)
tell("ended", os.waitpid(child, 0)[1], engine.stats().total)
""",
    )
    assert told == [["parent", 1, ["app.db"]], ["child", 1], ["ended", 0, 0]]


@pytest.mark.parametrize("name", ["stuck", "holds_up", "sleeps"])
def test_what_does_not_end_does_not_keep_the_process(root: Path, tmp_path: Path, name: str) -> None:
    """A step in a thread, code that holds up the loop, and a step that waits for an hour."""
    execute(root, tmp_path, f"durably.start()\nrun = durably.trigger({name})\nreached.wait(30)\n")
    rows = sqlite3.connect(tmp_path / "app.db").execute("SELECT type FROM durably_journal").fetchall()
    assert ("step:complete",) in rows and ("step:fail",) not in rows, "and nothing is made of it that it is not"


def test_an_exit_by_an_exception_or_in_a_thread(root: Path, tmp_path: Path) -> None:
    program = BEGIN + "durably.start()\ndurably.trigger(sleeps)\nraise SystemExit(3)\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, "")


def test_an_undo_may_end_the_process_too(root: Path, tmp_path: Path) -> None:
    """Once: it is not called again and again by a process that goes on."""
    program = """
import asyncio, os, sys
from durably_web import Durably, job

async def back(value):
    os.write(1, b"called ")
    sys.exit(3)

@job
async def trip(step, input):
    await step.run("hotel", int, undo=back)
    raise ValueError

async def main():
    async with Durably(":memory:", jobs=[trip]) as durably:
        await durably.wait_for_run((await durably.trigger(trip)).id, timeout=60)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "called "), done


def test_an_interrupt_ends_a_wait(root: Path, tmp_path: Path) -> None:
    told = execute(
        root,
        tmp_path,
        """
run = durably.trigger(greets)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    run.result()
except KeyboardInterrupt:
    tell("interrupted")
tell(durably.get_run(run.id).status)
""",
    )
    assert told == [["interrupted"], ["pending"]]
