"""Jobs that ask a server, each in a way of its own, and tell how that went."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from js import fetch
from pyodide.http import pyfetch

from durably_web import NetworkError, Retry, Step, idempotency_key, is_network_failure, job


async def ask_with_pyfetch(url: str, options: dict[str, Any]) -> Any:
    options = {name: value for name, value in options.items() if name != "timeout"}
    response = await pyfetch(url, **options)
    return [response.status, await response.string()]


async def ask_with_fetch(url: str, options: dict[str, Any]) -> Any:
    response = await fetch(url)
    return [response.status, await response.text()]


def ask_with_urllib(url: str, options: dict[str, Any]) -> Any:
    body = options.get("body")
    request = urllib.request.Request(
        url, body and body.encode(), options.get("headers", {}), method=options.get("method")
    )
    try:
        with urllib.request.urlopen(request, timeout=options.get("timeout", 30)) as response:
            return [response.status, response.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]


def ask_with_requests(url: str, options: dict[str, Any]) -> Any:
    import requests

    response = requests.request(
        options.get("method", "GET"),
        url,
        data=options.get("body"),
        headers=options.get("headers"),
        timeout=options.get("timeout", 30),
    )
    return [response.status_code, response.text]


WAYS = {"pyfetch": ask_with_pyfetch, "fetch": ask_with_fetch, "urllib": ask_with_urllib, "requests": ask_with_requests}


@job
async def ask(step: Step, input: dict[str, Any]) -> Any:
    """The answer, or what the step's exception is."""
    try:
        return await step.run(
            "ask", WAYS[input["way"]], input["url"], input.get("options", {}), offload=input["offload"]
        )
    except Exception as error:
        names = [f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__]
        cause = error.__cause__
        url = error.url if isinstance(error, NetworkError) else None
        return {
            "names": names,
            "text": str(error),
            "cause": type(cause).__name__ if cause else None,
            "failure": is_network_failure(error),
            "url": url,
        }


async def post(url: str) -> Any:
    headers = {"Idempotency-Key": idempotency_key(), "Content-Type": "application/json"}
    response = await pyfetch(url, method="POST", headers=headers, body=json.dumps({"n": 1}))
    return response.status


PATIENT = Retry(max_attempts=2, initial_delay=300, max_delay=300, jitter=False, when_offline="wait")


@job
async def send(step: Step, input: dict[str, Any]) -> Any:
    await step.run("prepare", lambda: "ready")
    return await step.run("send", post, input["url"], retry=PATIENT)


@job
async def download(step: Step, input: dict[str, Any]) -> int:
    def measure() -> int:
        with urllib.request.urlopen(input["url"]) as response:
            return sum(response.read())

    return await step.run("download", measure)
