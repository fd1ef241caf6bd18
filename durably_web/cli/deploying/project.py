"""What is deployed: an engine or a job file, the processes it needs, and the database that keeps its runs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal, NamedTuple

from durably_web.cli.jobfile import is_engine

Database = Literal["sqlite", "postgresql", "libsql"]

# How long a stop waits for the current steps, and how long a platform is asked to wait before it kills: longer, for
# what comes after the steps (leases are given back, the database is closed).
STOP_TIMEOUT = 20
GRACE = 30

WEB_PORT = 8080
WORKER_PORT = 8081
READY = "/health/ready"


class Web(NamedTuple):
    """The process that answers requests.

    `app` is an ASGI application of the user's, in which `create_app` is mounted; otherwise `durably-web serve` answers,
    and `auth` says who may do what, or nothing does, if `None`. `health` is the path that tells how the process is.
    """

    app: str | None = None
    auth: str | None = None
    health: str = READY


@dataclass(frozen=True)
class Process:
    """A process that a platform keeps alive: how it is begun, and where it tells how it is."""

    name: Literal["web", "worker"]
    begin: tuple[str, ...]
    port: int
    health: str
    # The options that say at which address it answers.
    address: tuple[str, str]

    def command(self, host: str | None = "0.0.0.0", port: str | None = None) -> list[str]:
        """Its command line, word for word. `port` may be the name of a variable; without a host nobody asks it."""
        if host is None:
            return list(self.begin)
        at_host, at_port = self.address
        return [*self.begin, at_host, host, at_port, port or str(self.port)]


@dataclass(frozen=True)
class Project:
    """What `durably-web deploy` was asked for. Paths are relative to the root of the user's project."""

    name: str
    target: str
    database: Database
    web: Web | None
    requirements: Literal["requirements.txt", "pyproject.toml"]
    # What a requirements.txt must have that is not there yet.
    missing: str | None
    python: str
    # The command line that makes the same files again.
    line: str

    @property
    def on_disk(self) -> bool:
        """Runs are kept in a file: one machine has it, and all processes that use it run there."""
        return self.database == "sqlite"

    def url(self, folder: str) -> str:
        """The database in a folder, as SQLite's URL."""
        return f"sqlite:///{folder}/durably.db"

    def processes(self, folder: str) -> list[Process]:
        """Those that are needed, the first one being what an image is for. `folder` is where a SQLite file would be.

        With a file there is one: it answers requests and executes runs, and no second one has to share its disk.
        """
        if self.web is None:
            return [self._worker(folder)]
        if self.on_disk:
            return [self._server(self.web, folder, works=True)]
        return [self._server(self.web, folder, works=False), self._worker(folder)]

    def _worker(self, folder: str) -> Process:
        begin = ("durably-web", "worker", self.target, *self._file(folder), "--stop-timeout", f"{STOP_TIMEOUT}s")
        return Process("worker", begin, WORKER_PORT, READY, ("--health-host", "--health-port"))

    def _server(self, web: Web, folder: str, works: bool) -> Process:
        begin: tuple[str, ...]
        if web.app is not None:
            # Requests that are still being answered after 5 seconds are ended; then the engine stops.
            begin = ("uvicorn", web.app, "--timeout-graceful-shutdown", "5")
        else:
            access = ("--anybody",) if web.auth is None else ("--auth", web.auth)
            begin = ("durably-web", "serve", self.target, *self._file(folder), *access)
            begin = (*begin, *([] if works else ["--no-work"]), "--stop-timeout", f"{STOP_TIMEOUT}s")
        return Process("web", begin, WEB_PORT, web.health, ("--host", "--port"))

    def _file(self, folder: str) -> list[str]:
        """An engine reads DATABASE_URL; a job file has no engine, and is told."""
        return [] if is_engine(self.target) else ["--database", f"{folder}/durably.db"]


class Plan(NamedTuple):
    """What a platform gets: files by their path, what is to be typed next, and what one has to know."""

    files: dict[str, str]
    next: list[str]
    notes: list[str]


ONE_MACHINE = (
    "one machine only: the runs are in a SQLite file on its disk, whose locks do not reach another machine. "
    "For several use --database postgresql"
)


def variables(how: str) -> str:
    """A note: where a platform keeps what is in no file."""
    return f"what else your code asks the environment for, such as the secrets of --auth: {how}"


def made_by(project: Project, comment: str = "#") -> str:
    """The first line of a file."""
    return f"{comment} Made by `{project.line}`. It is yours now: change it as you like."


def shell(command: list[str]) -> str:
    """A command as a shell reads it; what is a variable of the platform's stays one."""
    return " ".join(word if word.startswith("$") else shlex.quote(word) for word in command)
