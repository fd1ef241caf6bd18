"""Send a report to a server, exactly once. A browser tab and a server run this same file."""

import asyncio
import json
import sys
from typing import Any, NotRequired, TypedDict

from durably_web import Fatal, NetworkError, Retry, Step, idempotency_key, job


class Report(TypedDict):
    """What somebody has written, and where it goes."""

    endpoint: str
    what: str
    where: str
    written: str
    photo: NotRequired[str]  # a data: URL


class Busy(Exception):
    """The server answered that it cannot do it now."""


# Without a network a report waits as long as it takes; that counts as no attempt. What counts is a server that gives no
# answer, or says that it is busy: that may go on for about two weeks.
PATIENT = Retry(
    max_attempts=20_000,
    initial_delay=1,
    max_delay=60,
    retry_on=(NetworkError, TimeoutError, Busy),
    when_offline="wait",
)


@job
async def send_report(step: Step, input: Report) -> dict[str, Any]:
    """What the server answered. Fails when it refuses the report."""
    return await step.run("send", send, input, retry=PATIENT, timeout=60)


async def send(report: Report) -> dict[str, Any]:
    """One attempt. The key is the same each time, so the server knows a report that it has already."""
    content = {name: value for name, value in report.items() if name != "endpoint"}
    headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key()}
    post = post_in_browser if sys.platform == "emscripten" else post_here
    status, text = await post(report["endpoint"], headers, json.dumps(content))
    if status == 429 or status >= 500:
        raise Busy(f"the server answered {status}")
    if status >= 400:
        raise Fatal(f"the server refused it: {said(text) or status}")
    answer: dict[str, Any] = json.loads(text)
    return answer


def said(text: str) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return ""


async def post_in_browser(url: str, headers: dict[str, str], body: str) -> tuple[int, str]:
    from pyodide.http import pyfetch

    response = await pyfetch(url, method="POST", headers=headers, body=body)
    return response.status, await response.string()


async def post_here(url: str, headers: dict[str, str], body: str) -> tuple[int, str]:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    def post() -> tuple[int, str]:
        try:
            with urlopen(Request(url, body.encode(), headers), timeout=60) as response:
                return response.status, response.read().decode()
        except HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    return await asyncio.to_thread(post)
