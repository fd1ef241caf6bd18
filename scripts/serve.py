"""Serve a folder on this machine only, below a path, the way a static host does.

No cross-origin isolation headers are sent: what works here works on a host that cannot set any.
"""

from __future__ import annotations

import argparse
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".py": "text/x-python; charset=utf-8",
    ".wasm": "application/wasm",
    ".whl": "application/zip",
}


class SiteHandler(SimpleHTTPRequestHandler):
    """Files below `base`, 404 for the rest; says nothing on the terminal."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *connection: Any, base: str, directory: str) -> None:
        self.base = base
        self.extensions_map = {**SimpleHTTPRequestHandler.extensions_map, **TYPES}
        super().__init__(*connection, directory=directory)

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        if urlsplit(self.path).path.startswith(self.base):
            return super().send_head()
        if urlsplit(self.path).path in ("/", self.base.rstrip("/")):
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", self.base)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)
        return None

    def translate_path(self, path: str) -> str:
        return super().translate_path(path[len(self.base) - 1 :])

    def end_headers(self) -> None:
        # Ask again each time, get 304 when nothing changed: an edited file shows at the next reload.
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: str | PathLike[str]) -> io.BytesIO | None:
        self.send_error(HTTPStatus.NOT_FOUND)
        return None

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class SiteServer(ThreadingHTTPServer):
    """Listens on loopback; a tab that was killed in the middle of a download is not worth a traceback."""

    daemon_threads = True

    def __init__(self, directory: Path, *, base: str, port: int = 0) -> None:
        if not (base.startswith("/") and base.endswith("/")):
            raise ValueError(f"the base path must start and end with a slash: {base!r}")
        super().__init__(("127.0.0.1", port), partial(SiteHandler, base=base, directory=str(directory)))
        self.base = base

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.base}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serve(directory: Path, *, base: str = "/", port: int = 0) -> Iterator[str]:
    """Serve `directory` from a thread and give the address, which ends with a slash. Port 0 takes a free one."""
    with SiteServer(directory, base=base, port=port) as server:
        thread = threading.Thread(target=server.serve_forever, name="site", daemon=True)
        thread.start()
        try:
            yield server.address
        finally:
            server.shutdown()
            thread.join(timeout=10)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder on 127.0.0.1.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--base", default="/", help="path below which the site appears (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    options = parser.parse_args()
    with SiteServer(options.directory, base=options.base, port=options.port) as server:
        print(server.address, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
