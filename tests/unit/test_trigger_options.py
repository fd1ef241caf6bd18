"""What callers pass to a trigger, and to `@job`: each mistake is one clear message, and nothing is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from durably_web.engine import Durably
from durably_web.errors import InvalidInput
from durably_web.jobs import job
from durably_web.retry import Debounce, RateLimit, Retry
from durably_web.steps import Step

SOON = datetime(2099, 1, 1, tzinfo=UTC)


@job
async def quick(step: Step, input: dict[str, Any]) -> None: ...


@pytest.fixture
async def durably() -> AsyncIterator[Durably]:
    durably = Durably(":memory:", jobs=[quick])
    await durably.migrate()
    yield durably
    assert await durably.get_runs() == []
    await durably.stop()


# The options, and what the message has to name.
WRONG: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({"delay": -1}, ("delay", "-1")),
    ({"delay": timedelta(seconds=-1)}, ("delay",)),
    ({"delay": float("nan")}, ("delay", "nan")),
    ({"delay": float("inf")}, ("delay", "inf")),
    ({"delay": 10**30}, ("delay",)),
    ({"delay": timedelta.max}, ("delay",)),
    ({"delay": 10**12}, ("delay",)),
    ({"debounce": 10**12, "concurrency_key": "k"}, ("delay",)),
    ({"delay": "5"}, ("delay", "'5'", "seconds")),
    ({"delay": True}, ("delay", "True")),
    ({"delay": 1, "run_at": SOON}, ("delay", "run_at")),
    ({"delay": 0, "run_at": SOON}, ("delay", "run_at")),
    ({"run_at": datetime(2099, 1, 1)}, ("run_at", "zone")),
    ({"run_at": date(2099, 1, 1)}, ("run_at", "datetime")),
    ({"run_at": 4_070_908_800}, ("run_at", "datetime")),
    ({"run_at": "2099-01-01T00:00:00Z"}, ("run_at", "datetime")),
    ({"priority": True}, ("priority", "True")),
    ({"priority": 1.5}, ("priority", "1.5")),
    ({"priority": "high"}, ("priority", "high")),
    ({"priority": None}, ("priority",)),
    ({"priority": 2**63}, ("priority",)),
    ({"concurrency_key": ""}, ("concurrency", "key")),
    ({"concurrency_key": 7}, ("concurrency", "key", "7")),
    ({"concurrency_key": "\ud800"}, ("concurrency", "key")),
    ({"idempotency_key": ""}, ("idempotency key",)),
    ({"idempotency_key": 7}, ("idempotency key", "7")),
    ({"coalesce": "later", "concurrency_key": "k"}, ("coalesce", "'later'", "skip", "replace", "queue")),
    ({"coalesce": True, "concurrency_key": "k"}, ("coalesce", "skip")),
    ({"coalesce": [], "concurrency_key": "k"}, ("coalesce", "skip")),
    ({"coalesce": "skip"}, ("coalesce", "concurrency_key")),
    ({"coalesce": "queue"}, ("coalesce", "concurrency_key")),
    ({"debounce": 5}, ("debounce", "concurrency_key")),
    ({"debounce": -5, "concurrency_key": "k"}, ("delay", "-5")),
    ({"debounce": "5", "concurrency_key": "k"}, ("5", "seconds")),
    ({"debounce": True, "concurrency_key": "k"}, ("True",)),
    ({"debounce": 5, "concurrency_key": "k", "coalesce": "skip"}, ("debounce", "coalesce")),
    ({"debounce": 5, "concurrency_key": "k", "delay": 1}, ("debounce", "delay")),
    ({"debounce": 5, "concurrency_key": "k", "run_at": SOON}, ("debounce", "run_at")),
    ({"labels": {"a": 1}}, ("label 'a'", "1")),
    ({"labels": {"": "a"}}, ("label",)),
    ({"labels": ["a"]}, ("labels",)),
)


@pytest.mark.parametrize(("options", "named"), WRONG, ids=str)
async def test_a_wrong_option_is_named(durably: Durably, options: dict[str, Any], named: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        await durably.trigger(quick, {}, **options)
    message = str(caught.value)
    assert [word for word in named if word not in message] == [], message
    assert "\n" not in message
    with pytest.raises(InvalidInput):
        await durably.trigger_many(quick, [{"input": {}}, {"input": {}, **options}])


@pytest.mark.parametrize(
    ("items", "named"),
    [
        ([{"input": {}}, {"colour": 1}], "colour"),
        ([{"debounce": 5, "concurrency_key": "k"}], "debounce"),
        ([{"input": {}}, 5], "5"),
        ([{"input": float("nan")}], "nan"),
        ({"input": {}}, "'input'"),
        ("abc", "'a"),
    ],
    ids=str,
)
async def test_a_wrong_item_of_many_is_named(durably: Durably, items: Any, named: str) -> None:
    with pytest.raises((InvalidInput, TypeError)) as caught:
        await durably.trigger_many(quick, items)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": 1.5},
        {"max_concurrent_runs": 0},
        {"max_concurrent_runs": "3"},
        {"max_concurrent_per_key": 0},
        {"max_concurrent_per_key": None},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": "1 h"},
        {"retry": 3},
        {"rate_limit": 5},
    ],
    ids=str,
)
def test_a_wrong_option_of_a_job_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):

        @job(**options)
        async def wrong(step: Step, input: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RateLimit(0, 1), "limit"),
        (lambda: RateLimit(True, 1), "limit"),
        (lambda: RateLimit(1, 0), "period"),
        (lambda: RateLimit(1, -5), "period"),
        (lambda: RateLimit(1, float("inf")), "period"),
        (lambda: RateLimit(1, timedelta(0)), "period"),
        (lambda: Debounce(-1), "delay"),
        (lambda: Debounce("5"), "delay"),  # type: ignore[arg-type]
        (lambda: Debounce(5, max_delay=-1), "max_delay"),
        (lambda: Debounce(5, max_delay=4), "max_delay"),
        (lambda: Retry(max_attempts=0), "max_attempts"),
        (lambda: Retry(initial_delay=-1), "initial_delay"),
    ],
)
def test_a_wrong_policy_is_refused_when_it_is_made(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize(
    "options",
    [
        {"delay": 0},
        {"delay": 0.001},
        {"delay": timedelta(days=400)},
        {"run_at": datetime(1990, 1, 1, tzinfo=UTC)},
        {"run_at": SOON},
        {"priority": -(2**31) + 1},
        {"concurrency_key": "k", "coalesce": "queue", "delay": 5},
        {"concurrency_key": "k" * 1000},
        {"concurrency_key": "ü 🦆"},
        {"concurrency_key": "k", "debounce": timedelta(seconds=5)},
        {"concurrency_key": "k", "debounce": Debounce(5, max_delay=5)},
        {"labels": {}, "idempotency_key": None, "concurrency_key": None, "coalesce": None, "delay": None},
    ],
    ids=str,
)
async def test_what_may_be_passed(options: dict[str, Any]) -> None:
    durably = Durably(":memory:", jobs=[quick])
    await durably.migrate()
    handle = await durably.trigger(quick, {}, **options)
    assert handle.disposition == "created"
    await durably.stop()
