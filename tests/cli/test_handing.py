"""Runs that go from one database to another as files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from durably_web import Step, job
from durably_web.blocking import Durably
from durably_web.cli.findings import examine
from durably_web.cli.looking import look

SECONDS = 60


@job
async def ask(step: Step, input: dict[str, Any]) -> Any:
    first = await step.run("first", lambda: 1)
    return [first, await step.wait_for_signal("go")]


def cli(*arguments: str, status: int = 0) -> str:
    """What a command prints; its complaint, where it fails."""
    command = [sys.executable, "-m", "durably_web", "runs", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == status, done
    return (done.stderr if status else done.stdout).strip()


def begun(folder: Path, name: str) -> tuple[Durably, str]:
    durably = Durably(str(folder / f"{name}.db"), jobs=[ask], durability="relaxed")
    run_id = durably.trigger(ask, {}).id
    durably.process_until_idle()
    return durably, run_id


def test_a_run_goes_to_another_database_as_a_file(tmp_path: Path) -> None:
    here, run_id = begun(tmp_path, "here")
    there, _ = begun(tmp_path, "there")
    file, from_here, from_there = tmp_path / "run.json", str(tmp_path / "here.db"), str(tmp_path / "there.db")
    assert "never offered" in cli("confirm", run_id, "-d", from_here, status=2)
    for _ in range(2):
        cli("export", run_id, "-d", from_here, "--hand-over-to", "there", "-o", str(file))
    assert "offered to another database" in cli("cancel", run_id, "-d", from_here, status=2)
    for _ in range(2):
        taken = json.loads(cli("import", str(file), "-d", from_there, "--json"))
        assert taken == {"success": True, "runId": run_id, "handoverId": taken["handoverId"]}
    assert "was taken here" in cli("import", str(file), "--decline", "-d", from_there, status=2)
    assert cli("confirm", run_id, "-d", from_here) == f"run {run_id} is handed over"
    assert "given already" in cli("withdraw", run_id, "-d", from_here, "--yes", status=2)
    assert "handed over to there" in cli("show", run_id, "-d", from_here)
    told = cli("tail", run_id, "-d", from_here)
    assert "to there: offered" in told and "to there: given" in told
    there.signal(run_id, "go", 2)
    there.process_until_idle()
    assert there.output_of(run_id, timeout=SECONDS) == [1, 2]
    here.stop()
    there.stop()


def test_a_file_is_declined_and_its_run_withdrawn(tmp_path: Path) -> None:
    here, run_id = begun(tmp_path, "here")
    there, _ = begun(tmp_path, "there")
    file, from_here, from_there = tmp_path / "run.json", str(tmp_path / "here.db"), str(tmp_path / "there.db")
    cli("export", run_id, "-d", from_here, "--hand-over-to", "there", "-o", str(file))
    assert cli("import", str(file), "--decline", "-d", from_there) == f"run {run_id} is declined"
    assert "was declined here" in cli("import", str(file), "-d", from_there, status=2)
    assert cli("withdraw", run_id, "-d", from_here, "--yes") == f"run {run_id} goes on here"
    here.signal(run_id, "go", 2)
    here.process_until_idle()
    assert here.output_of(run_id, timeout=SECONDS) == [1, 2]
    for wrong, told in (("none.json", "cannot be read"), ("here.db", "not JSON")):
        assert told in cli("import", str(tmp_path / wrong), "-d", from_there, status=2)
    cut = tmp_path / "cut.json"
    cut.write_text(file.read_text("utf-8")[:500], "utf-8")
    assert "not JSON" in cli("import", str(cut), "-d", from_there, status=2)
    here.stop()
    there.stop()


def test_an_offered_run_says_what_it_waits_for(tmp_path: Path) -> None:
    here, run_id = begun(tmp_path, "here")
    database, file = str(tmp_path / "here.db"), str(tmp_path / "run.json")
    unwritable = cli("export", run_id, "-d", database, "--hand-over-to", "there", "-o", str(tmp_path), status=2)
    assert "cannot be written" in unwritable and f"run {run_id} is offered all the same" in unwritable
    command = [sys.executable, "-m", "durably_web", "runs", "export", run_id, "-d", database]
    offer = [*command, "--hand-over-to", "there", "-o", file]
    told = subprocess.run(offer, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert told.stdout == "" and f"There: `runs import {file}`; then here: `runs confirm {run_id}`" in told.stderr
    assert "for there, which it is offered to" in cli("show", run_id, "-d", database)
    with look(database) as connection:
        found = {each.name: each for each in examine(connection, database, 3600, integrity=False)}
    assert found["offered"].level == "note" and "withdraw" in found["offered"].advice
    assert "paused" not in found and "1 run offered" in found["offered"].message
    cli("withdraw", run_id, "-d", database, "--yes")
    assert "for go" in cli("show", run_id, "-d", database)
    here.stop()


def test_withdraw_asks_and_needs_somebody_to_answer(tmp_path: Path) -> None:
    here, run_id = begun(tmp_path, "here")
    database = str(tmp_path / "here.db")
    cli("export", run_id, "-d", database, "--hand-over-to", "there")
    withdraw = [sys.executable, "-m", "durably_web", "runs", "withdraw", run_id, "-d", database]
    nobody = subprocess.run(
        withdraw, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (nobody.returncode, nobody.stderr.count("\n")) == (2, 1) and "say --yes" in nobody.stderr
    if os.name == "posix":
        # The end of the input is that of a terminal: Ctrl-D.
        for typed, code, told in ((b"n\n", 2, "nothing was changed"), (b"\x04", 130, "stopped")):
            assert _answered(withdraw, typed) == (code, told)
    assert "for there" in cli("show", run_id, "-d", database)
    here.stop()


def _answered(command: list[str], typed: bytes) -> tuple[int, str]:
    """The exit code, and the last words, of a command at a terminal at which somebody types."""
    ours, theirs = os.openpty()
    try:
        os.write(ours, typed)
        done = subprocess.run(
            command, stdin=theirs, capture_output=True, text=True, timeout=SECONDS, check=False, start_new_session=True
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr.rstrip().rpartition("durably-web: ")[2]


def test_one_engine_of_sync_code_hands_over_to_another(tmp_path: Path) -> None:
    here, run_id = begun(tmp_path, "here")
    there, _ = begun(tmp_path, "there")
    here.hand_over(run_id, there, target="there")
    there.signal(run_id, "go", 2)
    there.process_until_idle()
    assert there.output_of(run_id, timeout=SECONDS) == [1, 2]
    here.stop()
    there.stop()
