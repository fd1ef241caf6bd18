"""A Django site in one file that asks for runs, reads them and waits for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

from durably_web.blocking import Durably
from tests.servers.jobs import ship

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="of a test", ALLOWED_HOSTS=["127.0.0.1"], MIDDLEWARE=[])
durably = Durably(os.environ["DATABASE"], jobs=[ship])


def order(request: HttpRequest, number: int) -> Any:
    run = durably.trigger(ship, {"number": number}, idempotency_key=request.headers.get("Idempotency-Key"))
    return JsonResponse({"run": run.id, "disposition": run.disposition, "pid": os.getpid()}, status=202)


def show(request: HttpRequest, run_id: str) -> Any:
    run = durably.get_run(run_id)
    if run is None:
        raise Http404
    return JsonResponse({"status": run.status, "output": run.output})


def output(request: HttpRequest, run_id: str) -> Any:
    return JsonResponse({"output": durably.output_of(run_id, ship, timeout=30), "pid": os.getpid()})


def events(request: HttpRequest, run_id: str) -> Any:
    def lines() -> Iterator[str]:
        for event in durably.subscribe(run_id):
            yield f"data: {event.type}\n\n"

    return StreamingHttpResponse(lines(), content_type="text/event-stream")


urlpatterns = [
    path("orders/<int:number>", order),
    path("runs/<str:run_id>", show),
    path("runs/<str:run_id>/output", output),
    path("runs/<str:run_id>/events", events),
]
app = get_wsgi_application()
