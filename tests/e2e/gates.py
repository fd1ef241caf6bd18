"""A server that holds files back until the test lets them go: Python starts as late as the test likes."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from scripts.serve import SiteHandler, SiteServer

# So long a request waits when a test forgets it.
PATIENCE_S = 120
PYTHON = "pyodide.asm.wasm"


class Gate:
    """Closed, nothing called `name` is served: whoever asks for it waits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def pass_through(self) -> None:
        self._open.wait(PATIENCE_S)


class GatedHandler(SiteHandler):
    def __init__(self, *connection: Any, gate: Gate, base: str, directory: str) -> None:
        self.gate = gate
        super().__init__(*connection, base=base, directory=directory)

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        if self.path.endswith(self.gate.name):
            self.gate.pass_through()
        return super().send_head()


@contextmanager
def serve_gated(directory: Path, gate: Gate) -> Iterator[str]:
    """Like `scripts.serve.serve`, with a gate."""
    with SiteServer(directory, base="/") as server:
        server.RequestHandlerClass = partial(GatedHandler, gate=gate, base="/", directory=str(directory))
        thread = threading.Thread(target=server.serve_forever, name="gated site", daemon=True)
        thread.start()
        try:
            yield server.address
        finally:
            gate.open()
            server.shutdown()
            thread.join(timeout=10)
