"""Moving what was committed from SQLite's write-ahead log into the database, where SQLite itself does it wrong.

Up to 3.51.2 a checkpoint can lose commits. It has read how long the log is; another connection, whose turn it is to
write, starts the log anew; the checkpoint then notes that pages were moved which are those of the new log. A later
checkpoint skips them. Two connections are enough, so every process that may share its file with others must care.

No log is started anew while nobody else may write. So here a checkpoint is made only by a connection of ours that looks
on while another one of ours holds the right to write: in a transaction that writes nothing.
"""

from __future__ import annotations

import os
import sqlite3

_FIRST_AFFECTED = (3, 7, 0)
_REPAIRED = (3, 51, 3)
# Releases of older lines with the correction: (line, from that patch on).
_REPAIRED_LINES = {(3, 44): 6, (3, 50): 7}

# As long as SQLite lets the log become by itself.
_PAGES = 1000
_PAGE_SIZE = 4096
# So many writes until it may be that long, to begin with, and at least and at most.
_WRITES, _FEWEST_WRITES, _MOST_WRITES = 100, 10, 1000


def loses_commits(version: tuple[int, ...]) -> bool:
    """Whether SQLite of this version may lose commits when one connection checkpoints while another writes."""
    if not _FIRST_AFFECTED <= version < _REPAIRED:
        return False
    patch = _REPAIRED_LINES.get((version[0], version[1]))
    return patch is None or version[2] < patch


class Checkpoints:
    """Checkpoints in place of SQLite's own, for one connection that writes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._onlooker: sqlite3.Connection | None = None
        self._writes = 0
        self._between = _WRITES

    def take_over(self, writer: sqlite3.Connection) -> None:
        """Let the writer make none by itself.

        Who closes before one is due leaves it to the next. So where the log is long already, the first write makes one.
        """
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        if self._log_size() > _PAGES * _PAGE_SIZE:
            self._writes = self._between

    def is_due(self) -> bool:
        """Asked once before each write."""
        self._writes += 1
        return self._writes > self._between

    def make(self, writer: sqlite3.Connection) -> None:
        """Move what can be moved, while the writer keeps others from writing; tried again with the next write when
        somebody else is at it.

        In a transaction of its own, and before a write: that one then finds all moved, and may start the log anew.
        """
        try:
            writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            return
        try:
            if self._onlooker is None:
                self._onlooker = self._open()
            [(_, pages, _)] = self._onlooker.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error:
            # The log stays longer for a while; nothing depends on it.
            self.close()
        else:
            # Writes of this process; the pages are those of all.
            fitting = self._between * _PAGES // max(1, pages)
            self._between = max(_FEWEST_WRITES, min(_MOST_WRITES, 2 * self._between, fitting))
        finally:
            self._writes = 0
            writer.execute("ROLLBACK")

    def _log_size(self) -> int:
        try:
            return os.path.getsize(f"{self._path}-wal")
        except OSError:
            return 0

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def close(self) -> None:
        """Before the writer is closed, so that SQLite knows that one as the last."""
        onlooker, self._onlooker = self._onlooker, None
        if onlooker is not None:
            onlooker.close()

    def forsake(self) -> sqlite3.Connection | None:
        """In the child of a fork: the connection that is the parent's."""
        onlooker, self._onlooker = self._onlooker, None
        return onlooker
