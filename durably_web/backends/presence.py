"""How workers on one SQLite file learn that another has died, without waiting for its leases to end.

Each worker holds an operating-system lock on a file of its own beside the database. The system drops the lock
when the process ends, however it ends: whoever can take the lock knows that the worker is gone. Where there are
no such locks (Windows, or Emscripten, which grants every lock), nobody is ever reported as gone, and leases
run out by time.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import time
from collections.abc import Iterable

from durably_web.errors import Conflict

if sys.platform != "win32":
    import fcntl

_LOCKS_WORK = sys.platform not in ("win32", "emscripten")


_lingering: dict[str, int] = {}
"""The locks of workers that are stopped in this process, while what they have abandoned may still run: by path."""


# How long a worker's own file may be in the hands of somebody who tidies up: two system calls.
_TRIES = 20
_PAUSE = 0.001


class Presence:
    """The lives of the workers on one database file."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._held: dict[str, int] = {}
        self._tidy = False

    def announce(self, worker_id: str) -> None:
        """Hold this worker's lock until `close` or the end of the process.

        Raises `Conflict` when another worker that is alive has the same id.
        """
        if worker_id not in self._held:
            descriptor = self._lock(worker_id)
            if descriptor is not None:
                self._held[worker_id] = descriptor

    def linger(self, worker_id: str) -> None:
        """As `announce`, beyond `close`, until a worker of that id begins in this process, or this process ends."""
        descriptor = self._lock(worker_id)
        if descriptor is not None:
            _lingering[self._path(worker_id)] = descriptor

    def _lock(self, worker_id: str) -> int | None:
        """The descriptor that holds the lock of this worker; `None` where there are no locks."""
        if sys.platform == "win32" or not _LOCKS_WORK:
            return None
        path = self._path(worker_id)
        before = _lingering.pop(path, None)
        if before is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(path), os.fstat(before)):
                    return before
            # The database was removed meanwhile.
            os.close(before)
        for _ in range(_TRIES):
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            # Somebody who tidies up may hold the lock for a moment, and remove the file between the calls.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    return descriptor
            os.close(descriptor)
            time.sleep(_PAUSE)
        raise Conflict(f"another worker with the id {worker_id!r} is alive: give each one an id of its own")

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        """Those whose lock is free. The files of dead workers that nobody asks for any more are removed.

        One that is asked for keeps its file: whoever asks may die before the answer has any effect, and the next
        one must get the same answer.
        """
        asked = {self._path(worker_id): worker_id for worker_id in worker_ids if worker_id not in self._held}
        dead = self.dead(asked.values())
        if not self._tidy:
            self._remove_others({*asked, *map(self._path, self._held)})
        # The files of those that are dead now can go once somebody has freed their leases.
        self._tidy = not dead
        return dead

    def dead(self, worker_ids: Iterable[str]) -> list[str]:
        """Those whose lock is free. Nothing is changed."""
        return [worker_id for worker_id in worker_ids if _free(self._path(worker_id), remove=False)]

    def _remove_others(self, needed: set[str]) -> None:
        for path in glob.glob(f"{glob.escape(self._database)}-worker-*"):
            if path not in needed:
                _free(path, remove=True)

    def close(self) -> None:
        """Give up the locks.

        The files of dead workers stay: they tell the next worker whose leases it may free.
        """
        for worker_id, descriptor in self._held.items():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(worker_id))
            os.close(descriptor)
        self._held.clear()

    def forsake(self) -> None:
        """In the child of a fork: the locks are the parent's, and end with it."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _path(self, worker_id: str) -> str:
        safe = "".join(letter if letter.isalnum() else "-" for letter in worker_id)
        return f"{self._database}-worker-{safe}"


def _free(path: str, *, remove: bool) -> bool:
    """Whether nobody holds the lock on `path`; the file is then removed, if that is asked for."""
    if sys.platform != "win32" and _LOCKS_WORK:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            # No file tells nothing: the worker may be on a machine that cannot see ours.
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if remove:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return False


def _in_the_child() -> None:
    for descriptor in _lingering.values():
        os.close(descriptor)
    _lingering.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_the_child)
