"""The function: `handler` takes requests of API Gateway, messages of SQS, and the calls of a schedule of EventBridge.

There is no worker. The schedule executes what is due, for as long as Lambda lets this call live.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from typing import Any

from jobs import count_words
from mangum import Mangum
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Mount

from durably_web import Durably, InvalidInput, StoreError
from durably_web.server import create_app, lifespan

# What is left for the longest step, and for giving runs back, when nothing more is begun.
MARGIN = float(os.environ.get("MARGIN_SECONDS", "15"))


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


durably = Durably(setting("DATABASE_URL"), jobs=[count_words])
# Opened and closed with each call: nothing is left that a frozen instance would have to keep alive.
opened = lifespan(durably, work=False)
app = Starlette(routes=[Mount("/api", create_app(durably, auth=ApiKey()))], lifespan=opened)

# One loop for all calls of an instance, which is frozen in between.
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
requests = Mangum(app, lifespan="on")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    if event.get("source") in ("aws.events", "aws.scheduler"):
        return loop.run_until_complete(process(context))
    if "Records" in event:
        return loop.run_until_complete(take(event["Records"]))
    return requests(event, context)


async def process(context: Any) -> dict[str, Any]:
    """Execute what is due. Nobody else can send such an event: that is what the function's policy is for."""
    seconds = context.get_remaining_time_in_millis() / 1000 - MARGIN
    async with opened():
        return (await durably.process(max_seconds=max(0.0, seconds))).to_wire()


async def take(records: list[dict[str, Any]]) -> dict[str, Any]:
    """A run for each message, however often SQS delivers it. Those that could not be stored are delivered again."""
    failed = []
    async with opened():
        for record in records:
            try:
                asked = json.loads(record["body"])
                key = f"sqs {record['messageId']}"
                await durably.trigger(asked["jobName"], asked.get("input"), idempotency_key=key)
            except (StoreError, InvalidInput, LookupError, TypeError, ValueError) as error:
                print(f"message {record['messageId']}: {type(error).__name__}: {error}")  # noqa: T201
                failed.append({"itemIdentifier": record["messageId"]})
    # What can never be stored ends in the dead letter queue, after as many deliveries as the queue allows.
    return {"batchItemFailures": failed}
