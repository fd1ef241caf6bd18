"""Serves an application with waitress, on a port of its choice.

python -m tests.servers.waitress_server MODULE:APPLICATION
"""

from __future__ import annotations

import importlib
import signal
import sys

import waitress


def main(target: str) -> None:
    module, _, name = target.partition(":")
    application = getattr(importlib.import_module(module), name)
    server = waitress.create_server(application, host="127.0.0.1", port=0, threads=8)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.stderr.write(f"http://127.0.0.1:{server.effective_port}\n")
    sys.stderr.flush()
    server.run()


if __name__ == "__main__":
    main(sys.argv[1])
