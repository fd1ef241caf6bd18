"""A host of static sites that can go away and come back, and knows what it was asked for; and sites to put on it."""

from __future__ import annotations

import io
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from durably_web.site.release import write_release
from scripts.serve import SiteHandler, SiteServer
from tests.e2e.conftest import PAGE

JOBS = Path(__file__).parent / "jobs"


class Asked(NamedTuple):
    path: str
    status: int


class _Handler(SiteHandler):
    def __init__(self, *connection: Any, host: Host, directory: str) -> None:
        self.host = host
        super().__init__(*connection, base="/", directory=directory)

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        if self.host.falls_at(self.path):
            self.close_connection = True
            return None
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.host.asked.append(Asked(self.path, HTTPStatus(int(code)).value))


class _Server(SiteServer):
    """Cuts its connections when it closes: a browser keeps some of them open for later."""

    def __init__(self, directory: Path, host: Host, port: int) -> None:
        self._connections: list[socket.socket] = []
        super().__init__(directory, base="/", port=port)
        self.RequestHandlerClass = partial(_Handler, host=host, directory=str(directory))

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def server_close(self) -> None:
        super().server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Host:
    """Serves the folder `directory` whenever it is up, always at the same address."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked: list[Asked] = []
        self.fallen = threading.Event()
        self._fall_at: str | None = None
        self._falling = False
        self._port = 0
        self._server: _Server | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def start(self) -> None:
        self._falling = False
        self._server = _Server(self.directory, self, self._port)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="host", daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._server = None

    def fall_at(self, path: str) -> None:
        """Whoever asks for this path takes the host down."""
        self._fall_at = path

    def falls_at(self, path: str) -> bool:
        # A browser asks again over the connections that it has, and those are served until the host is down.
        if self._falling:
            return True
        if path != self._fall_at:
            return False
        self._fall_at = None
        self._falling = True
        threading.Thread(target=self._fall, name="fall", daemon=True).start()
        return True

    def _fall(self) -> None:
        self.stop()
        self.fallen.set()


@contextmanager
def host_of(directory: Path) -> Iterator[Host]:
    host = Host(directory)
    host.start()
    try:
        yield host
    finally:
        host.stop()


def publish(built: Path, site: Path, version: str) -> str:
    """Put a site of the tests at `site`, in place of an older version, file by file; gives its release's version.

    What tells the versions apart is the page's title, a module that the page may load when it likes, a job file, and a
    function that runs in a worker of its own.
    """
    if not (site / "durably-web").exists():
        shutil.copytree(built / "durably-web", site / "durably-web")
    (site / "index.html").write_text(PAGE.replace("<title>test", f"<title>{version}"))
    (site / "lazy.js").write_text(f'export const version = "{version}";\n')
    (site / "greeting.txt").write_text("0123456789")
    for name in ("jobs.py", "offload_jobs.py"):
        shutil.copy(JOBS / name, site / name)
    (site / "version_jobs.py").write_text((JOBS / "version_jobs.py").read_text().replace("VERSION", version))
    worker = built / "durably-web" / "offload-worker.js"
    (site / "durably-web" / "offload-worker.js").write_text(
        f'{worker.read_text()}\nglobalThis.version = "{version}";\n'
    )
    return write_release(site)
