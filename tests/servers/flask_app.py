"""A Flask application that asks for runs, reads them and waits for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, abort, request

from durably_web.blocking import Durably
from tests.servers.jobs import ship

durably = Durably(os.environ["DATABASE"], jobs=[ship])
app = Flask(__name__)


@app.post("/orders/<int:number>")
def order(number: int) -> Any:
    run = durably.trigger(ship, {"number": number}, idempotency_key=request.headers.get("Idempotency-Key"))
    return {"run": run.id, "disposition": run.disposition, "pid": os.getpid()}, 202


@app.get("/runs/<run_id>")
def show(run_id: str) -> Any:
    run = durably.get_run(run_id)
    return {"status": run.status, "output": run.output} if run is not None else abort(404)


@app.get("/runs/<run_id>/output")
def output(run_id: str) -> Any:
    return {"output": durably.output_of(run_id, ship, timeout=30), "pid": os.getpid()}


@app.get("/runs/<run_id>/events")
def events(run_id: str) -> Any:
    def lines() -> Iterator[str]:
        for event in durably.subscribe(run_id):
            yield f"data: {event.type}\n\n"

    return Response(lines(), mimetype="text/event-stream")
