"""A Procfile and a unit of systemd on this machine, and Vercel's function: what they begin is begun."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from durably_web.cli.deploying import PLATFORMS
from durably_web.cli.deploying.project import GRACE, STOP_TIMEOUT, Web
from durably_web.cli.deploying.vercel import MAX_DURATION, PROCESS_SECONDS
from tests.deploying.conftest import ME, plans, project
from tests.deploying.running import (
    SECONDS,
    Process,
    answers,
    become_well,
    elsewhere,
    order_of_a_worker,
    order_over_http,
)
from tests.support.guarded import free_port

BIN = Path(sys.executable).parent
AUTH = Web(auth="app:Auth")


@contextmanager
def started(command: list[str], folder: Path, began: Path | None = None, **environment: str) -> Iterator[Process]:
    """A process in a session of its own; what is left of it at the end is killed."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "BEGAN": str(began), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=SECONDS)


# -- Procfile --------------------------------------------------------------------------------------------


def test_honcho_runs_the_procfile(shop: Path) -> None:
    (shop / "Procfile").write_text(PLATFORMS["procfile"](project(web=AUTH)).files["Procfile"])
    port, began = free_port(), shop / "began"
    address = f"http://127.0.0.1:{port}"

    def start() -> AbstractContextManager[Process]:
        command = [sys.executable, "-m", "honcho", "start", "--no-colour"]
        return started(command, shop, began, PORT=str(port), DATABASE_URL="sqlite:///shop.db")

    # What honcho says of itself when it was asked to end; its "stopped (rc=0)" is of ours.
    order_over_http(start, address, lambda: answers(f"{address}/health/ready"), began, code=128 + signal.SIGTERM)
    assert (shop / "shop.db").exists()


# -- systemd ---------------------------------------------------------------------------------------------


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("there is no systemd-analyze")
    return found


def units() -> dict[str, str]:
    """Every unit that there can be, with its programs where they are here."""
    found = {}
    for name, (_, plan) in plans("systemd").items():
        for path, text in plan.files.items():
            if path.endswith(".service"):
                found[f"{name}-{path}"] = text.replace("/opt/shop/.venv/bin", str(BIN)).replace("/opt/shop", str(BIN))
    return found


def test_systemd_takes_the_units(analyze: str, tmp_path: Path) -> None:
    for name, text in units().items():
        (tmp_path / name).write_text(text)
    command = [analyze, "verify", "--man=no", *sorted(map(str, tmp_path.glob("*.service")))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "shop" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
    bad = tmp_path / "bad.service"
    bad.write_text(next(iter(units().values())).replace("TimeoutStopSec=", "TimeoutStopSeconds="))
    done = subprocess.run([analyze, "verify", "--man=no", bad], capture_output=True, text=True, timeout=60, check=False)
    assert "TimeoutStopSeconds" in done.stderr


def test_the_units_are_hardened(analyze: str, tmp_path: Path) -> None:
    """By systemd's own scale of exposure, from 0 to 10, where below 3 is called OK."""
    unit = tmp_path / "shop.service"
    unit.write_text(next(iter(units().values())))
    command = [analyze, "security", "--offline=true", "--threshold=30", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot look at a file that is not installed")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    unit.write_text(re.sub(r"(?m)^(Protect|Private|Restrict|System|Dynamic|Capability).*\n", "", unit.read_text()))
    assert subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).returncode == 1


@pytest.mark.parametrize("web", [AUTH, None], ids=["web", "worker"])
def test_what_systemd_begins(shop: Path, web: Web | None) -> None:
    """The very line, in its folder, with its variables; only what lies in folders of root's is elsewhere."""
    text = PLATFORMS["systemd"](project(web=web)).files["shop.service"]
    settings = re.findall(r"(?m)^(\w+)=(.*)$", text)
    said = {key: value for key, value in settings if key != "Environment"}
    assert (said["KillSignal"], said["KillMode"], said["Restart"]) == ("SIGTERM", "mixed", "on-failure")
    assert int(said["TimeoutStopSec"]) == GRACE > STOP_TIMEOUT
    assert (said["DynamicUser"], said["StateDirectory"]) == ("yes", "shop")
    state = shop / "state"
    state.mkdir()
    environment = dict(value.split("=", 1) for key, value in settings if key == "Environment")
    # systemd makes StateDirectory below /var/lib, and it is where the database goes.
    assert environment["DATABASE_URL"] == "sqlite:////var/lib/shop/durably.db"
    environment["DATABASE_URL"] = f"sqlite:///{state}/durably.db"
    program, *arguments = shlex.split(said["ExecStart"])
    assert Path(program).parent.as_posix() == f"{said['WorkingDirectory']}/.venv/bin"
    port, began = free_port(), shop / "began"
    command = elsewhere([str(BIN / Path(program).name), *arguments], {8080: port, 8081: port})
    address = f"http://127.0.0.1:{port}"

    def is_well() -> bool:
        return answers(f"{address}/health/ready")

    def start() -> AbstractContextManager[Process]:
        return started(command, shop, began, **environment)

    if web is not None:
        order_over_http(start, address, is_well, began)
    else:
        order_of_a_worker(start, str(state / "durably.db"), is_well, began)
    assert (state / "durably.db").exists()


# -- Vercel ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("web", [AUTH, Web()], ids=["auth", "anybody"])
def test_vercels_function_works_when_it_is_called(shop: Path, web: Web) -> None:
    files = PLATFORMS["vercel"](project("postgresql", web)).files
    (shop / "api").mkdir()
    (shop / "api" / "index.py").write_text(files["api/index.py"])
    [cron] = json.loads(files["vercel.json"])["crons"]
    port, began = free_port(), shop / "began"
    address = f"http://127.0.0.1:{port}"
    command = [str(BIN / "uvicorn"), "api.index:app", "--port", str(port), "--log-level", "warning"]
    # Any database does for what is looked at here.
    with started(command, shop, began, DATABASE_URL="sqlite:///shop.db", CRON_SECRET="only the cron job") as process:
        become_well(process, lambda: answers(f"{address}/api/health/ready"))
        body = {"jobName": "order", "input": {"item": "a lamp"}}
        trigger = httpx.post(f"{address}/api/trigger", json=body, headers=ME, timeout=SECONDS)
        assert trigger.status_code == 200
        expected = 401 if web.auth else 200
        assert httpx.post(f"{address}/api/trigger", json=body, timeout=SECONDS).status_code == expected
        assert not began.exists()
        # As Vercel calls it: with GET, and the secret of the project.
        assert httpx.get(f"{address}{cron['path']}", timeout=SECONDS).status_code == 401
        secret = {"Authorization": "Bearer only the cron job"}
        done = httpx.get(f"{address}{cron['path']}", headers=secret, timeout=SECONDS).json()
        assert done["processed"] == (1 if web.auth else 2)
        assert began.read_text() == "reserve\n" * done["processed"]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)
    assert PROCESS_SECONDS < MAX_DURATION
