"""Server processes that end with whoever started them, however that one ends.

Each has a folder of its own under the system's temporary folder, and a guard: a shell that does nothing until the pipe
to it is closed. The system closes that when the process of the tests ends, be it killed, and the guard clears up.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 60
"""The longest that anything is waited for."""

# Below what systems give to whoever asks for any port: nobody gets it by chance while the server is away for a moment.
_PORTS = range(20_000, 32_000)

_ROOM = 8 * 2**30

_GUARD = """
trap '' INT TERM HUP QUIT
read -r line
pid=$(cat "$1/pid" 2>/dev/null) && kill -s "$2" "$pid" 2>/dev/null && {
  tries=0
  while kill -0 "$pid" 2>/dev/null && [ $tries -lt 50 ]; do tries=$((tries + 1)); sleep 0.1; done
}
rm -rf "$1"
"""


class ServerFailed(RuntimeError):
    """It did not start or stop as it should; the end of what it wrote."""


def unprivileged() -> dict[str, Any]:
    """As whom to start what refuses root: arguments for `subprocess.Popen`. As who we are, where that is not root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise ServerFailed("no user to start a server as: there is neither postgres nor nobody here")


def memory() -> Path | None:
    """A folder in memory, where there is one with room for databases and profiles of browsers: a flush there takes no
    time, and programs can be executed."""
    folder = Path("/dev/shm")
    if not folder.is_dir() or shutil.disk_usage(folder).free < _ROOM or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return None
    return folder


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(SECONDS)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Raises `ServerFailed` when it takes too long."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed(f"waited {SECONDS} s for {what}")
        time.sleep(0.005)


class Guarded:
    """One server process. It can be killed and started again, on the same data and the same ports."""

    STOP: signal.Signals = signal.SIGTERM
    """Ask it to end."""
    AT_ONCE: signal.Signals = signal.SIGKILL
    """End it without a question, with all that it has started."""

    def __init__(self, name: str, where: Path | None = None, **user: Any) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"durably-{name}-", dir=where))
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        if user:
            os.chown(self.folder, user["user"], user["group"])
        # In a session of its own, as the server: who interrupts the tests from a terminal does not interrupt these.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self.folder), self.AT_ONCE.name.removeprefix("SIG")],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of the running server. Raises `ServerFailed` when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ServerFailed(f"{self.name} does not run\n{self._tail()}")
        return self._process.pid

    def command(self) -> list[str | Path]:
        """What to start."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether the process that was started answers by now."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it answers. Raises `ServerFailed`."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment(),
                start_new_session=True,
                **self._user,
            )
        (self.folder / "pid").write_text(str(self._process.pid))
        wait_until(lambda: self.pid > 0 and self.ready(), f"{self.name} to answer")

    def stop(self) -> None:
        """Let it end in order; what it keeps stays. Does nothing when it does not run."""
        self._end(self.STOP)

    def kill(self) -> None:
        """As a power cut does it to a process: the server and all its children are gone at once."""
        if self._process is None or self._process.poll() is not None:
            return
        # Stopped first, so that nothing is started while we look.
        os.kill(self._process.pid, signal.SIGSTOP)
        children = list(_children(self._process.pid))
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._end(signal.SIGKILL)
        wait_until(lambda: not any(map(runs, children)), f"the children of {self.name} to end")

    def close(self) -> None:
        """Stop it, and remove its folder. Safe to repeat."""
        try:
            self.stop()
        finally:
            if self._guard.stdin is not None and not self._guard.stdin.closed:
                self._guard.stdin.close()
            self._guard.wait(SECONDS)

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(SECONDS)
                raise ServerFailed(f"{self.name} did not stop\n{self._tail()}") from None
        self._process = None
        (self.folder / "pid").unlink(missing_ok=True)

    def _tail(self) -> str:
        try:
            return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-20:])
        except FileNotFoundError:
            return "it wrote nothing"


def environment() -> dict[str, str]:
    """Without what somebody set for servers of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "SQLD_", "POSTGRES"))}


def _children(pid: int) -> Iterator[int]:
    """Elsewhere than on Linux nobody is found: what a server leaves behind then ends by itself."""
    if Path("/proc/self").exists():
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _stat(entry.name)[1:2] == [str(pid)]:
                yield int(entry.name)


def runs(pid: int) -> bool:
    return _stat(str(pid))[:1] not in ([], ["Z"], ["X"])


def _stat(pid: str) -> list[str]:
    """State, parent, and more."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
