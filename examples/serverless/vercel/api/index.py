"""The function. Vercel's Python runtime serves `app`, an ASGI application, and opens and closes it by its lifespan.

There is no worker: Vercel Cron calls GET /api/process, as vercel.json says, with the CRON_SECRET of the project.
"""

from __future__ import annotations

import hmac
import os

from jobs import count_words
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount

from durably_web import Durably
from durably_web.server import Limits, create_app, lifespan


def setting(name: str) -> str:
    """A variable of the environment; an empty one would let everybody in."""
    if not (value := os.environ.get(name)):
        raise RuntimeError(f"set {name} in the settings of the function")
    return value


class ApiKey:
    """Who sends the key may do everything but what concerns all runs."""

    key = setting("API_KEY").encode()

    def authenticate(self, request: Request) -> None:
        given = request.headers.get("x-api-key", "").encode()
        if not hmac.compare_digest(given, self.key):
            raise HTTPException(401, "send the header X-API-Key")


# A database over the network: what an instance writes to its own disk is gone with it.
durably = Durably(setting("DATABASE_URL"), jobs=[count_words])

api = create_app(
    durably,
    auth=ApiKey(),
    cron_secret=setting("CRON_SECRET"),
    # A call works for so long, and for the longest step more: together less than maxDuration in vercel.json.
    limits=Limits(process_seconds=45),
)

app = Starlette(routes=[Mount("/api", api)], lifespan=lifespan(durably, work=False))
