"""How workers on one file learn of each other's death."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durably_web.backends.presence import Presence
from durably_web.errors import Conflict

if sys.platform != "win32":
    import fcntl

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")

_PROGRAM = """
import sys
from durably_web.backends.presence import Presence
presence = Presence(sys.argv[1])
presence.announce(sys.argv[2])
print("announced", flush=True)
sys.stdin.read()
"""


@contextmanager
def _worker(database: str, worker_id: str, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process with a worker on this database; dead after the block."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, database, worker_id], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"announced\n"
        try:
            yield process
        finally:
            process.kill()
            process.wait(timeout=60)


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "app [1].db")


def test_a_killed_process_is_gone_and_a_living_one_is_not(database: str, root: Path) -> None:
    presence = Presence(database)
    with _worker(database, "host-1.a", root):
        assert presence.gone(["host-1.a", "nobody"]) == []
    assert presence.gone(["host-1.a", "nobody"]) == ["host-1.a"]
    assert Presence(database).gone(["host-1.a"]) == ["host-1.a"], "who asked first may have died of it"
    assert presence.gone([]) == []
    assert presence.gone(["host-1.a"]) == [], "nobody needed its file any more"


def test_one_that_only_looked_in_leaves_the_dead_to_the_next_worker(database: str, root: Path) -> None:
    """Such as a command that lists the runs between the crash and the restart."""
    with _worker(database, "dead", root):
        pass
    visitor = Presence(database)
    visitor.announce("visitor")
    visitor.close()
    assert Presence(database).gone(["dead"]) == ["dead"]


def test_files_of_the_dead_that_held_nothing_are_removed(database: str, root: Path, tmp_path: Path) -> None:
    presence = Presence(database)
    presence.announce("me")
    with _worker(database, "dead", root), _worker(database, "alive", root) as alive:
        with _worker(database, "dead too", root):
            pass
        assert presence.gone([]) == []
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            f"app [1].db-worker-{name}" for name in ("alive", "dead", "me")
        ]
        assert alive.poll() is None
    assert sorted(presence.gone(["dead", "alive", "me"])) == ["alive", "dead"]
    assert presence.gone([]) == []
    presence.close()
    assert list(tmp_path.iterdir()) == []


def test_two_living_workers_cannot_have_one_id(database: str, root: Path) -> None:
    presence = Presence(database)
    with _worker(database, "same", root):
        with pytest.raises(Conflict, match="same"):
            presence.announce("same")
    presence.announce("same")
    presence.announce("same")
    with pytest.raises(Conflict):
        Presence(database).announce("same")
    presence.close()
    presence.close()
    Presence(database).announce("same")


def test_one_that_lingers_makes_room_for_its_successor_in_this_process_only(database: str, tmp_path: Path) -> None:
    stopped = Presence(database)
    stopped.announce("same")
    stopped.close()
    stopped.linger("same")
    stopped.close()
    # It is alive for the others, and for the other processes.
    assert Presence(database).gone(["same"]) == Presence(database).gone([]) == []
    with pytest.raises(BlockingIOError):
        _try_lock(f"{database}-worker-same")
    successor = Presence(database)
    successor.announce("same")
    with pytest.raises(Conflict):
        Presence(database).announce("same")
    with pytest.raises(BlockingIOError):
        _try_lock(f"{database}-worker-same")
    successor.close()
    assert list(tmp_path.iterdir()) == []


def _try_lock(path: str) -> None:
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_that_is_gone_makes_no_successor(database: str) -> None:
    """The database was removed, and made again."""
    stopped = Presence(database)
    stopped.linger("same")
    os.unlink(f"{database}-worker-same")
    successor = Presence(database)
    successor.announce("same")
    with pytest.raises(BlockingIOError):
        _try_lock(f"{database}-worker-same")
    successor.close()
