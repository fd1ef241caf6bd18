"""Flask and Django on WSGI servers with several processes and threads; a worker process beside executes the runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60

GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "4", "--no-control-socket")
SERVERS = {
    "gunicorn, forked before the application is imported": (*GUNICORN, "--workers", "2"),
    "gunicorn, forked after it was imported": (*GUNICORN, "--workers", "2", "--preload"),
    "waitress, threads of one process": ("-m", "tests.servers.waitress_server"),
}

Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a Python program, and wait until it says on stderr what is looked for."""
    with contextlib.ExitStack() as started:

        def end(process: subprocess.Popen[str]) -> None:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
                if process.stderr is not None:
                    process.stderr.close()

        def begin(*arguments: str, until: str) -> tuple[subprocess.Popen[str], str]:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(root), "DATABASE": str(tmp_path / "app.db")},
                stderr=subprocess.PIPE,
                text=True,
            )
            started.callback(end, process)
            assert process.stderr is not None
            told = []
            for line in process.stderr:
                told.append(line)
                if found := re.search(until, line):
                    return process, found[found.re.groups]
            pytest.fail(f"it ended early: {told}")

        yield begin


def ask(address: str, method: str = "GET", **headers: str) -> Any:
    request = urllib.request.Request(address, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


@pytest.mark.parametrize("framework", ["flask", "django"])
@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_requests_ask_for_runs_that_a_worker_executes(
    start: Start, tmp_path: Path, framework: str, server: tuple[str, ...]
) -> None:
    application = f"tests.servers.{framework}_app:app"
    process, address = start(*server, application, until=r"(http://127\.0\.0\.1:\d+)")
    worker, _ = start("-m", "durably_web", "worker", "tests.servers.jobs", "-d", "app.db", until="worker on")

    def one(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        asked = ask(f"{address}/orders/{number}", "POST", **{"Idempotency-Key": f"order {number}"})
        return asked, ask(f"{address}/runs/{asked['run']}/output")

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(one, range(60)))
    for number, (asked, got) in enumerate(answers):
        assert (asked["disposition"], got["output"]) == ("created", {"label": 10 * number, "pid": worker.pid})
    pids = {asked["pid"] for asked, _ in answers}
    assert process.pid not in pids if "gunicorn" in server else pids == {process.pid}

    run_id = answers[7][0]["run"]
    # The same again, of whichever process: the first run.
    again = ask(f"{address}/orders/7", "POST", **{"Idempotency-Key": "order 7"})
    assert (again["run"], again["disposition"]) == (run_id, "idempotent")
    assert ask(f"{address}/runs/{run_id}")["status"] == "completed"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(f"{address}/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV")
    with urllib.request.urlopen(f"{address}/runs/{run_id}/events", timeout=PATIENCE) as stream:
        events = [line.decode().split()[1] for line in stream if line.strip()]
    assert (events[0], events[-1]) == ("run:trigger", "run:complete") and events.count("step:complete") == 2

    for each in (process, worker):
        each.send_signal(signal.SIGTERM)
        assert each.wait(PATIENCE) in (0, -signal.SIGTERM)
    assert os.listdir(tmp_path) == ["app.db"], "all have closed it"
    assert sqlite3.connect(tmp_path / "app.db").execute("PRAGMA integrity_check").fetchone() == ("ok",)
