"""Jobs over HTTP: an application to mount in Starlette, FastAPI or Litestar.

    app = Starlette(
        routes=[Mount("/api/durably", create_app(durably, auth=Auth()))],
        lifespan=lifespan(durably),
    )

It answers what `durably_web.api` answers, and streams events as server-sent events.
"""

from __future__ import annotations

from durably_web.server.app import create_app
from durably_web.server.asked import RunFilter, TriggerRequest
from durably_web.server.life import lifespan
from durably_web.server.limits import Limits
from durably_web.server.qstash import QStash

__all__ = ["Limits", "QStash", "RunFilter", "TriggerRequest", "create_app", "lifespan"]
