"""What a process tells whoever watches over it: health, metrics, and lines of JSON, from its start to its very end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import PATIENCE, Command, CommandLine

JOBS = """
import asyncio, os, sys, time
from durably_web import Durably, Step, job
from starlette.exceptions import HTTPException

def say(text):
    os.write(2, f"{text}\\n".encode())

async def hold():
    say("held")
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    return 7

@job
async def holding(step: Step, input: dict) -> int:
    step.log.info("at it", api_key="k-1")
    first = await step.run("hold", hold)
    return await step.run("more", lambda: first + 1)

@job
async def hanging(step: Step, input: dict) -> None:
    say("hangs")
    while not os.path.exists("go"):
        time.sleep(0.01)

class Admins:
    def authenticate(self, request):
        return None

durably = Durably("engine.db", jobs=[holding])
"""

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

OK = (200, {"status": "ok"})
UNAVAILABLE = (503, {"status": "unavailable"})


def begin(command_line: CommandLine, *arguments: str) -> tuple[Command, str]:
    """The command, and where it tells of its health."""
    (command_line.folder / "work.py").write_text(JOBS)
    command = command_line.start(*arguments, "--health-port", "0")
    line = command.wait_for_line(lambda line: line.startswith("health and metrics at "))
    return command, line.split()[-1]


def told(address: str, path: str) -> tuple[int, Any]:
    answer = httpx.get(address + path, timeout=PATIENCE)
    return answer.status_code, answer.json()


def becomes(address: str, path: str, wanted: tuple[int, Any]) -> None:
    """Ask until the answer is that."""
    deadline = time.monotonic() + PATIENCE
    while (found := told(address, path)) != wanted:
        assert time.monotonic() < deadline, found


def samples(address: str, name: str) -> list[Any]:
    answer = httpx.get(f"{address}/metrics", timeout=PATIENCE)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    return [
        sample
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name
    ]


def trigger(command_line: CommandLine, job: str, database: str = "durably.db") -> str:
    code = f"""
import asyncio, work
from durably_web import Durably
async def main():
    durably = Durably({database!r}, jobs=[work.holding, work.hanging])
    await durably.migrate()
    print((await durably.trigger({job!r})).id)
    await durably.stop()
asyncio.run(main())
"""
    return command_line.python(code).strip()


@posix
def test_a_worker_until_the_very_end_of_its_stop(command_line: CommandLine) -> None:
    command, address = begin(command_line, "worker", "work.py")
    command.wait_for_line(lambda line: line.startswith("worker on "))
    assert told(address, "/health/live") == told(address, "/health/ready") == OK
    run_id = trigger(command_line, "holding")
    command.wait_for_line(lambda line: line == "held")
    [executing] = [s for s in samples(address, "durably_executing_runs") if s.labels["job"] == "holding"]
    assert executing.value == 1
    assert samples(address, "process_cpu_seconds_total")
    command.process.send_signal(signal.SIGTERM)
    command.wait_for_line(lambda line: line == "SIGTERM: finishing the current steps")
    # The step is not finished, so the process is there, alive, and to be given nothing more.
    becomes(address, "/health/ready", UNAVAILABLE)
    assert told(address, "/health/live") == OK
    assert samples(address, "durably_database_up")
    (command_line.folder / "go").touch()
    assert command.end() == 0
    assert command.told[-1] == "worker stopped"
    run = command_line.json("runs", "show", run_id)
    # The step that executed is finished and stored, the next was not begun, and the lease is given back.
    assert (run["status"], [(step["name"], step["output"]) for step in run["steps"]]) == ("pending", [("hold", 7)])
    leases = command_line.run(
        "sql", "durably.db", "SELECT count(*) AS n FROM durably_runs WHERE lease_owner IS NOT NULL"
    )
    assert "0" in leases.stdout


@posix
def test_several_workers_are_answered_for_by_one(command_line: CommandLine) -> None:
    command, address = begin(command_line, "worker", "work.py", "--processes", "2")
    becomes(address, "/health/ready", OK)
    assert told(address, "/health/live") == OK
    for name in ("durably_storage_full", "process_start_time_seconds"):
        assert {sample.labels["worker"] for sample in samples(address, name)} == {"1", "2"}
    assert [sample.labels for sample in samples(address, "durably_database_up")] == [{}]
    assert [sample.value for sample in samples(address, "durably_worker_processes")] == [2]
    pid = int(next(line for line in command.told if line.startswith("worker 2 is process")).split()[-1])
    os.kill(pid, signal.SIGKILL)
    # One that died is replaced; meanwhile not all are ready, and nobody has to be begun anew from outside.
    command.wait_for_line(lambda line: line.startswith("worker 2 was killed by SIGKILL"))
    assert told(address, "/health/live") == OK
    becomes(address, "/health/ready", OK)
    assert [sample.value for sample in samples(address, "durably_worker_restarts_total")] == [1]
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0


@posix
def test_a_worker_whose_event_loop_is_blocked_is_not_alive(
    command_line: CommandLine,
) -> None:
    command, address = begin(command_line, "worker", "work.py", "--processes", "2")
    becomes(address, "/health/ready", OK)
    trigger(command_line, "hanging")
    command.wait_for_line(lambda line: line == "hangs")
    assert told(address, "/health/live") == UNAVAILABLE
    assert told(address, "/health/ready") == UNAVAILABLE
    command.wait_for_line(lambda line: "not alive: worker " in line and "does not answer" in line)
    (command_line.folder / "go").touch()
    becomes(address, "/health/live", OK)
    becomes(address, "/health/ready", OK)
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0


@posix
def test_a_server_is_unready_first_and_answers_while_it_drains(command_line: CommandLine) -> None:
    command, health = begin(command_line, "serve", "work.py:durably", "--port", "0", "--drain", "1w")
    address = command.wait_for_line(lambda line: line.startswith("serving")).split()[-1].rstrip("/")
    assert told(address, "/health/ready") == told(health, "/health/ready") == OK
    with httpx.stream("GET", f"{address}/runs/subscribe", timeout=PATIENCE) as stream:
        command.process.send_signal(signal.SIGTERM)
        command.wait_for_line(lambda line: line == "SIGTERM: finishing")
        assert told(address, "/health/ready") == told(health, "/health/ready") == UNAVAILABLE
        assert told(address, "/health/live") == OK
        # Requests that are still sent to it are still carried out.
        assert httpx.get(f"{address}/runs").json() == []
        assert httpx.post(f"{address}/trigger", json={"jobName": "holding"}).status_code == 200
        command.wait_for_line(lambda line: line == "held")
        # A second signal does not wait for whoever is still connected, but for the step.
        command.process.send_signal(signal.SIGTERM)
        list(stream.iter_lines())
    becomes(health, "/health/ready", UNAVAILABLE)
    assert command.process.poll() is None
    (command_line.folder / "go").touch()
    assert command.end() == 0
    assert command.told[-1] == "server stopped"
    [run] = command_line.json("runs", "list", "-d", "engine.db")
    assert run["status"] == "pending"


@posix
def test_a_server_does_not_wait_for_a_step_beyond_its_deadline(command_line: CommandLine) -> None:
    command, _ = begin(command_line, "serve", "work.py:durably", "--port", "0", "--stop-timeout", "100ms")
    address = command.wait_for_line(lambda line: line.startswith("serving")).split()[-1].rstrip("/")
    assert httpx.post(f"{address}/trigger", json={"jobName": "holding"}).status_code == 200
    command.wait_for_line(lambda line: line == "held")
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0
    assert any("step 'hold' of run" in line and "0.1 s" in line for line in command.told)
    [run] = command_line.json("runs", "list", "-d", "engine.db")
    assert run["status"] == "pending"


@posix
def test_metrics_of_a_server(command_line: CommandLine) -> None:
    (command_line.folder / "work.py").write_text(JOBS)
    command_line.environment["DURABLY_WEB_METRICS_TOKEN"] = "s3cret"
    command = command_line.start("serve", "work.py:durably", "--port", "0")
    address = command.wait_for_line(lambda line: line.startswith("serving")).split()[-1].rstrip("/")
    assert httpx.get(f"{address}/metrics").status_code == 401
    answer = httpx.get(f"{address}/metrics", headers={"Authorization": "Bearer s3cret"})
    assert answer.status_code == 200 and "durably_database_up 1.0" in answer.text
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0
    command_line.environment["DURABLY_WEB_METRICS_TOKEN"] = " "
    refused = command_line.run("serve", "work.py:durably", "--port", "0")
    assert refused.returncode == 2 and "token for metrics is empty" in refused.stderr
    del command_line.environment["DURABLY_WEB_METRICS_TOKEN"]
    guarded = ("serve", "work.py:durably", "--port", "0", "--auth", "work.py:Admins", "--metrics")
    command = command_line.start(*guarded)
    address = command.wait_for_line(lambda line: line.startswith("serving")).split()[-1].rstrip("/")
    assert httpx.get(f"{address}/metrics").status_code == 403
    assert told(address, "/health/ready") == OK
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0


@posix
@pytest.mark.parametrize("arguments", [("worker", "work.py"), ("serve", "work.py:durably", "--port", "0")])
def test_a_port_that_is_taken_is_a_mistake(command_line: CommandLine, arguments: tuple[str, ...]) -> None:
    command, address = begin(command_line, "worker", "work.py")
    port = address.rpartition(":")[2]
    refused = command_line.run(*arguments, "--health-port", port)
    assert refused.returncode == 2 and f"port {port}" in refused.stderr and refused.stderr.count("\n") == 1
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0


# -- lines -------------------------------------------------------------------------------------------------


def parsed(command: Command) -> list[dict[str, Any]]:
    """Every line is JSON, but for those that the job writes itself."""
    return [json.loads(line) for line in command.told if line not in ("held", "hangs")]


def line_with(event: str) -> Callable[[str], bool]:
    return lambda line: f'"event": "{event}"' in line


@posix
@pytest.mark.parametrize("processes", [(), ("--processes", "1"), ("--processes", "2")])
def test_lines_of_json(command_line: CommandLine, processes: tuple[str, ...]) -> None:
    (command_line.folder / "work.py").write_text(JOBS)
    (command_line.folder / "go").touch()
    command = command_line.start("worker", "work.py", *processes, "--log-format", "json", "--log-level", "debug")
    command.wait_for_line(lambda line: '"worker on ' in line)
    run_id = trigger(command_line, "holding")
    command.wait_for_line(line_with("run:complete"))
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0
    found = parsed(command)
    assert all({"timestamp", "level", "logger", "message"} <= line.keys() for line in found)
    of_run = [line for line in found if line.get("run_id") == run_id]
    assert {line["event"] for line in of_run} >= {"run:leased", "step:start", "step:complete", "log:write"}
    for line in of_run:
        assert line["job_name"] == "holding" and line["worker_id"] and line["attempt"] == line["generation"] == 1
    assert [line["step_name"] for line in of_run if line["event"] == "step:complete"] == ["hold", "more"]
    assert [line["data"] for line in of_run if line["event"] == "log:write"] == [{"api_key": "***"}]
    assert ("durably_web.supervisor" in {line["logger"] for line in found}) == (processes == ("--processes", "2"))


@posix
def test_a_level_leaves_the_rest_out(command_line: CommandLine) -> None:
    (command_line.folder / "work.py").write_text(JOBS)
    (command_line.folder / "go").touch()
    command = command_line.start("worker", "work.py", "--log-level", "error")
    trigger(command_line, "holding")
    command.wait_for_line(lambda line: line == "held")
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0
    assert command.told == ["held"]


def test_a_mistake_is_a_line_of_json_too(command_line: CommandLine) -> None:
    (command_line.folder / "work.py").write_text(JOBS)
    (command_line.folder / "durably.db").write_text("this is no database" * 100)
    ended = command_line.run("worker", "work.py", "--log-format", "json")
    assert ended.returncode == 2
    last = json.loads(ended.stderr.splitlines()[-1])
    assert last["level"] == "error" and "not a SQLite database" in last["message"]


def test_logging_of_the_application_stays_as_it_is(command_line: CommandLine) -> None:
    """Its own handler hears of its own loggers, and ours is not doubled."""
    set_up = "import logging\nlogging.basicConfig(format='OWN %(message)s', level=logging.INFO)\n"
    (command_line.folder / "work.py").write_text(set_up + "logging.getLogger('app').info('begins')\n" + JOBS)
    command = command_line.start("worker", "work.py")
    command.wait_for_line(lambda line: line.startswith("worker on "))
    command.process.terminate()
    command.end()
    assert "OWN begins" in command.told
    assert not any(line.startswith("OWN worker") for line in command.told)
