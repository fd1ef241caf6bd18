"""What a server has to do for the outbox: each report once, however often it comes.

    python examples/outbox/server.py

It listens on this machine only. A browser that has no answer sends a report again, with the same `Idempotency-Key`: the
first one may have arrived. So the key is stored in the transaction that stores the report, and a key that is there
already changes nothing and gets the answer that the first one got.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any
from wsgiref.simple_server import make_server

LONGEST = 1000  # characters of a report
ALLOWED = [
    ("Access-Control-Allow-Origin", "*"),  # better: the address of your site
    ("Access-Control-Allow-Headers", "content-type, idempotency-key"),
    ("Access-Control-Max-Age", "7200"),
]


class Reports:
    """A WSGI application that keeps reports in SQLite."""

    def __init__(self, database: str) -> None:
        self._database = database
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS reports (number INTEGER PRIMARY KEY, key UNIQUE, report)")

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, answer = self.respond(environ)
        start_response(status, [("Content-Type", "application/json"), *ALLOWED])
        return [json.dumps(answer).encode()]

    def respond(self, environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return "200 OK", {}  # the browser asks whether it may
        if environ["REQUEST_METHOD"] != "POST" or environ["PATH_INFO"] != "/reports":
            return "404 Not Found", {"error": "send reports to /reports"}
        key = environ.get("HTTP_IDEMPOTENCY_KEY")
        if not key:
            return "400 Bad Request", {"error": "a report needs an Idempotency-Key"}
        report = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        if not 0 < len(report["what"]) <= LONGEST:
            return "422 Unprocessable Entity", {"error": f"a report has 1 to {LONGEST} characters"}
        return "201 Created", {"number": self.keep(key, json.dumps(report))}

    def keep(self, key: str, report: str) -> int:
        """The number of the report; the one that it has already where the key is known."""
        with closing(sqlite3.connect(self._database)) as connection, connection:
            connection.execute("INSERT INTO reports (key, report) VALUES (?, ?) ON CONFLICT DO NOTHING", (key, report))
            number: int = connection.execute("SELECT number FROM reports WHERE key = ?", (key,)).fetchone()[0]
        return number


if __name__ == "__main__":
    with make_server("127.0.0.1", 8001, Reports("reports.db")) as server:
        server.serve_forever()
