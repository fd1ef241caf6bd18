"""A job that needs a package from elsewhere, and the network."""

from __future__ import annotations

from typing import Any

import requests

from durably_web import Step, job


@job
async def fetch_with_requests(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    def fetch() -> dict[str, Any]:
        response = requests.get(input["url"], timeout=30)
        return {"status": response.status_code, "text": response.text}

    return await step.run("fetch", fetch)
