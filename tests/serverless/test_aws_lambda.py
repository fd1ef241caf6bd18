"""examples/serverless/aws-lambda: the handler with events as AWS documents them, and a stand-in for the context."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.serverless.conftest import EXAMPLES, ON_EACH, SECRETS, Load

KEY = SECRETS["API_KEY"]


class Context:
    """Of the context that Lambda gives a handler, what is asked for here: the time that is left."""

    function_name = "Function"
    memory_limit_in_mb = 512
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def __init__(self, seconds: float) -> None:
        self._milliseconds = int(seconds * 1000)

    def get_remaining_time_in_millis(self) -> int:
        return self._milliseconds


def request(method: str, path: str, body: Any = None, key: str | None = KEY, query: str = "") -> dict[str, Any]:
    """A request of an HTTP API of API Gateway: payload format 2.0."""
    headers = {
        "accept": "*/*",
        "content-type": "application/json",
        "host": "abc123.execute-api.eu-west-1.amazonaws.com",
        "x-forwarded-for": "203.0.113.7",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
        **({} if key is None else {"x-api-key": key}),
    }
    return {
        "version": "2.0",
        "routeKey": "ANY /api/{proxy+}",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abc123",
            "domainName": "abc123.execute-api.eu-west-1.amazonaws.com",
            "domainPrefix": "abc123",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "curl/8.5.0",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "ANY /api/{proxy+}",
            "stage": "$default",
            "time": "10/Mar/2026:05:16:23 +0000",
            "timeEpoch": 1773119783636,
        },
        "pathParameters": {"proxy": path.removeprefix("/api/")},
        **({} if body is None else {"body": base64.b64encode(json.dumps(body).encode()).decode()}),
        "isBase64Encoded": body is not None,
    }


RULE = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2026-03-10T05:17:00Z",
    "region": "eu-west-1",
    "resources": ["arn:aws:events:eu-west-1:123456789012:rule/function-EveryMinute"],
    "detail": {},
}
# Of EventBridge Scheduler, where a target has no input of its own.
SCHEDULER = {**RULE, "source": "aws.scheduler", "detail": "{}"}


def messages(*bodies: tuple[str, str]) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": message,
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
                "body": body,
                "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1773119783636"},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:Queue",
                "awsRegion": "eu-west-1",
            }
            for message, body in bodies
        ]
    }


@pytest.fixture
def function(load: Load) -> Iterator[ModuleType]:
    """A warm instance: one module for several calls, and nothing open between them."""
    module = load("aws-lambda", "handler")
    yield module
    assert not any(module.loop.run_until_complete(tasks())), "something would go on while the instance is frozen"
    asyncio.set_event_loop(None)
    module.loop.close()


async def tasks() -> list[Any]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


ASKED = {"jobName": "count_words", "input": {"pieces": ["a b", "c", "d e f", "g"], "pause": 0}}


def call(function: ModuleType, event: dict[str, Any], seconds: float = 60) -> Any:
    """What Lambda gives back to whoever sent the event."""
    return json.loads(json.dumps(function.handler(event, Context(seconds))))


def body_of(answer: dict[str, Any], status: int = 200) -> Any:
    assert answer["statusCode"] == status, answer
    return json.loads(answer["body"])


@ON_EACH
@pytest.mark.parametrize("tick", [RULE, SCHEDULER], ids=["rule", "scheduler"])
def test_from_a_request_to_the_end(function: ModuleType, tick: dict[str, Any]) -> None:
    made = body_of(call(function, request("POST", "/api/trigger", ASKED)))
    look = request("GET", "/api/run", query=f"runId={made['runId']}")
    assert body_of(call(function, look))["status"] == "pending"
    done = call(function, tick)
    assert done["processed"] >= 1 and (done["due"], done["leased"], done["later"]) == (0, 0, 0)
    run = body_of(call(function, look))
    assert (run["status"], run["output"]) == ("completed", 7)


def test_nothing_is_begun_that_lambda_would_cut_off(function: ModuleType) -> None:
    """The margin is more than what is left."""
    made = body_of(call(function, request("POST", "/api/trigger", ASKED)))
    for seconds in (14, 0.1):
        done = call(function, RULE, seconds)
        assert (done["processed"], done["due"]) == (0, 1)
    run = body_of(call(function, request("GET", "/api/run", query=f"runId={made['runId']}")))
    assert run["status"] == "pending"


def test_who_does_not_know_the_key_gets_nothing(function: ModuleType) -> None:
    for key in (None, "", "another"):
        body_of(call(function, request("POST", "/api/trigger", ASKED, key)), 401)
    body_of(call(function, request("POST", "/api/process")), 404)
    body_of(call(function, request("POST", "/api/purge", {"olderThanMs": 0})), 403)


def test_a_message_is_a_run_however_often_it_is_delivered(function: ModuleType) -> None:
    good, second = ("059f36b4", json.dumps(ASKED)), ("2e1424d4", json.dumps(ASKED))
    assert call(function, messages(good, second)) == {"batchItemFailures": []}
    assert call(function, messages(good)) == {"batchItemFailures": []}
    runs = body_of(call(function, request("GET", "/api/runs")))
    assert len(runs) == 2

    broken = [
        ("a", "no json"),
        ("b", "[]"),
        ("c", '{"jobName": "nobody"}'),
        ("d", '{"jobName": "count_words", "input": 5}'),
    ]
    answer = call(function, messages(*broken, ("e", json.dumps(ASKED))))
    assert answer == {"batchItemFailures": [{"itemIdentifier": name} for name in "abcd"]}, "and the good one is stored"
    assert len(body_of(call(function, request("GET", "/api/runs")))) == 3


@pytest.mark.parametrize("missing", ["API_KEY", "DATABASE_URL"])
def test_it_does_not_begin_without_its_settings(load: Load, missing: str) -> None:
    with pytest.raises(RuntimeError, match=missing):
        load("aws-lambda", "handler", **{missing: ""})


def test_the_template_is_that_of_this_function() -> None:
    folder = EXAMPLES / "aws-lambda"
    template = yaml.safe_load((folder / "template.yaml").read_text())
    assert template["Transform"] == "AWS::Serverless-2016-10-31"
    function = template["Resources"]["Function"]["Properties"]
    module, name = function["Handler"].split(".")
    source = (folder / f"{module}.py").read_text()
    assert f"def {name}(event" in source
    variables = function["Environment"]["Variables"]
    assert set(re.findall(r'(?:setting|environ\.get)\("([A-Z_]+)"', source)) == set(variables)
    assert float(variables["MARGIN_SECONDS"]) < function["Timeout"] <= 900
    assert template["Resources"]["Queue"]["Properties"]["VisibilityTimeout"] >= 6 * function["Timeout"], (
        "as AWS advises"
    )
    kinds = {event["Type"] for event in function["Events"].values()}
    assert kinds == {"HttpApi", "Schedule", "SQS"}
    assert function["Events"]["Messages"]["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
