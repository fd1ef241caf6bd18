"""`durably-web serve`: from the shell to requests and back."""

from __future__ import annotations

import signal
import socket
import threading

import httpx
import pytest

from tests.cli.conftest import CommandLine

JOBS = """
import asyncio
from durably_web import Durably, Step, job
from starlette.exceptions import HTTPException

@job
async def add(step: Step, input: dict) -> int:
    return await step.run("add", sum, input["numbers"])

@job
async def ask(step: Step, input: dict) -> int:
    return await step.wait_for_signal("answer")

@job
async def rest(step: Step, input: dict) -> None:
    for _ in range(20):
        await step.run("rest", asyncio.sleep, 0.05)

durably = Durably("engine.db", jobs=[add])
resting = Durably("engine.db", jobs=[rest], max_concurrent_runs=1)
number = 5

class Auth:
    def authenticate(self, request):
        if request.headers.get("authorization") != "Bearer me":
            raise HTTPException(401, "who are you?")
"""


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("work.py", "--database", "file.db"), "file.db"),
        (("work.py:durably",), "engine.db"),
        (("work:durably", "--path", "/api/durably/"), "engine.db"),
    ],
)
def test_from_a_request_to_its_output(command_line: CommandLine, arguments: tuple[str, ...], file: str) -> None:
    (command_line.folder / "work.py").write_text(JOBS)
    command = command_line.start("serve", *arguments, "--port", "0")
    address = command.wait_for_line(lambda line: "serving" in line).split()[-1]
    assert address.endswith("/api/durably") is ("--path" in arguments)
    with httpx.Client(base_url=address, timeout=30) as client:
        body = {"jobName": "add", "input": {"numbers": [1, 2]}}
        run_id = client.post("/trigger", json=body).json()["runId"]
        with client.stream("GET", f"/subscribe?runId={run_id}") as response:
            assert '"output":3' in response.read().decode()
        # A stream that would go on ends with the server.
        with client.stream("GET", "/runs/subscribe") as response:
            lines = response.iter_lines()
            assert "event: connected" in (next(lines), next(lines))
            command.process.send_signal(signal.SIGTERM)
            # Ended, and not cut: that would raise.
            assert not any(line.startswith("event:") for line in lines)
            assert command.end() == 0
    assert command.told[-1] == "server stopped"
    assert (command_line.folder / file).exists()


def test_with_auth_and_without_work(command_line: CommandLine) -> None:
    (command_line.folder / "work.py").write_text(JOBS)
    command = command_line.start("serve", "work.py:durably", "--port", "0", "--auth", "work:Auth", "--no-work")
    address = command.wait_for_line(lambda line: "serving" in line).split()[-1]
    body = {"jobName": "add", "input": {"numbers": [1, 2]}}
    assert httpx.post(f"{address}trigger", json=body).status_code == 401
    me = {"Authorization": "Bearer me"}
    run_id = httpx.post(f"{address}trigger", json=body, headers=me).json()["runId"]
    run = httpx.get(f"{address}run", params={"runId": run_id}, headers=me).json()
    assert run["status"] == "pending"
    command.process.send_signal(signal.SIGINT)
    assert command.end() == 0
    [stored] = command_line.json("runs", "list", "--database", "engine.db")
    assert (stored["id"], stored["status"]) == (run_id, "pending")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("absent.py",), "absent.py does not exist"),
        (("work.py:nothing",), "there is no nothing in work.py"),
        (("work.py:number",), "work.py:number is no engine"),
        (("work.py:durably", "--database", "other.db"), "has its database already"),
        (("work.py", "--host", "0.0.0.0"), "at 0.0.0.0 everybody could do everything"),
        (("work.py", "--auth", "work"), "work names nothing in a module"),
        (("work.py", "--database", "work.py"), "not a SQLite database"),
    ],
)
def test_mistakes(command_line: CommandLine, arguments: tuple[str, ...], complaint: str) -> None:
    (command_line.folder / "work.py").write_text(JOBS)
    done = command_line.run("serve", *arguments, "--port", "0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert complaint in done.stderr


def test_only_names_of_this_machine_lead_to_it(command_line: CommandLine) -> None:
    """Otherwise a page whose own name leads to this machine could do everything."""
    (command_line.folder / "work.py").write_text(JOBS)
    for arguments, stranger in (((), 400), (("--anybody",), 200)):
        command = command_line.start("serve", "work.py:durably", "--port", "0", *arguments)
        address = command.wait_for_line(lambda line: "serving" in line).split()[-1]
        for host, status in (
            ("elsewhere.example:8174", stranger),
            ("localhost:8174", 200),
            ("127.0.0.1", 200),
            ("[::1]:8174", 200),
        ):
            assert httpx.get(f"{address}runs", headers={"Host": host}).status_code == status, host
        command.process.send_signal(signal.SIGTERM)
        assert command.end() == 0


def test_a_cron_job_works_where_the_server_does_not(command_line: CommandLine) -> None:
    """With the secret of the environment, as cron jobs know it."""
    (command_line.folder / "work.py").write_text(JOBS)
    command_line.environment["CRON_SECRET"] = "of the crontab"
    command = command_line.start("serve", "work.py:durably", "--port", "0", "--no-work")
    address = command.wait_for_line(lambda line: "serving" in line).split()[-1]
    body = {"jobName": "add", "input": {"numbers": [1, 2]}}
    run_id = httpx.post(f"{address}trigger", json=body).json()["runId"]
    assert httpx.post(f"{address}process").status_code == 401
    answer = httpx.post(f"{address}process", headers={"Authorization": "Bearer of the crontab"}, timeout=30)
    assert answer.json()["processed"] == 1
    assert httpx.get(f"{address}run", params={"runId": run_id}).json()["output"] == 3
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == 0


def test_a_stop_waits_neither_for_a_call_of_cron_nor_for_a_client_that_says_no_more(command_line: CommandLine) -> None:
    """The call ends behind the current step, and is answered; the client is left."""
    (command_line.folder / "work.py").write_text(JOBS)
    arguments = ("--port", "0", "--no-work", "--cron-secret", "secret", "--stop-timeout", "2s")
    command = command_line.start("serve", "work.py:resting", *arguments)
    address = command.wait_for_line(lambda line: "serving" in line).split()[-1]
    many = {"jobName": "rest", "items": [{"input": {}}] * 100}
    assert httpx.post(f"{address}trigger-many", json=many).status_code == 200
    answers: list[httpx.Response] = []

    def call() -> None:
        headers = {"Authorization": "Bearer secret"}
        answers.append(httpx.post(f"{address}process", headers=headers, timeout=120))

    calling = threading.Thread(target=call)
    calling.start()
    command.wait_for_line(lambda line: "started rest" in line)
    host, port = httpx.URL(address).host, httpx.URL(address).port
    with socket.create_connection((host, port)) as client:
        client.sendall(b"POST /trigger HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: 100\r\n\r\n{")
        command.process.send_signal(signal.SIGTERM)
        assert command.end() == 0
    calling.join()
    assert answers[0].status_code == 200
    # One call may take fifty seconds; of a hundred runs of a second each it had begun few.
    assert answers[0].json()["due"] > 90
    assert command.told[-1] == "server stopped"
