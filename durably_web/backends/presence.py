"""How workers on one SQLite file learn that another has died, without waiting for its leases to end.

Each worker holds an operating-system lock on a file of its own beside the database. The system drops the lock
when the process ends, however it ends: whoever can take the lock knows that the worker is gone. Where
there are no such locks (Windows), nobody is ever reported as gone, and leases run out by time.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Iterable

if sys.platform != "win32":
    import fcntl


class Presence:
    """The lives of the workers on one database file."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._held: dict[str, int] = {}

    def announce(self, worker_id: str) -> None:
        """Hold this worker's lock until `close` or the end of the process."""
        if sys.platform == "win32" or worker_id in self._held:
            return
        path = self._path(worker_id)
        while True:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Somebody who tidied up may have removed the file between the two calls.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    break
            os.close(descriptor)
        self._held[worker_id] = descriptor

    def gone(self, worker_ids: Iterable[str]) -> list[str]:
        """Those whose lock is free. Their files are removed."""
        return [
            worker_id
            for worker_id in worker_ids
            if worker_id not in self._held and _remove_if_free(self._path(worker_id))
        ]

    def close(self) -> None:
        """Give up the locks, and tidy up after workers that died."""
        for worker_id, descriptor in self._held.items():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(worker_id))
            os.close(descriptor)
        self._held.clear()
        for path in glob.glob(f"{glob.escape(self._database)}-worker-*"):
            _remove_if_free(path)

    def _path(self, worker_id: str) -> str:
        safe = "".join(letter if letter.isalnum() else "-" for letter in worker_id)
        return f"{self._database}-worker-{safe}"


def _remove_if_free(path: str) -> bool:
    """Whether nobody holds the lock on `path`; the file is then removed."""
    if sys.platform != "win32":
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            # No file tells nothing: the worker may be on a machine that cannot see ours.
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return False
