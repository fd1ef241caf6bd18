"""Policies: what they accept, what they cover, and how long they wait."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably_web.errors import Fatal
from durably_web.jobs import Options
from durably_web.retry import Debounce, RateLimit, Retry


def _never() -> float:
    raise AssertionError("chance was asked, and there is no jitter")


def _delays(policy: Retry, count: int, random: Callable[[], float] = _never) -> list[float]:
    return [policy.delay(attempt, random) for attempt in range(1, count + 1)]


def test_what_a_policy_is_without_arguments() -> None:
    policy = Retry()
    assert (policy.max_attempts, policy.initial_delay, policy.backoff, policy.max_delay) == (3, 1.0, 2.0, 60.0)
    assert policy.jitter is True and policy.retry_on == (Exception,) and policy.give_up_on == ()
    assert policy.should_retry is None and policy == Retry() and hash(policy) == hash(Retry())


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Retry().max_attempts = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("max_attempts", [0, -1, 1.5, "3", None, True, math.inf]),
        ("initial_delay", [-1, -0.001, math.nan, math.inf, "1", None, timedelta(seconds=-1)]),
        ("max_delay", [-1, math.nan, math.inf, "1", None, timedelta(seconds=-1)]),
        ("backoff", [-1, 0, math.nan, math.inf, "2", None]),
        ("retry_on", [int, "ValueError", (int,), ValueError("an instance"), None, (ValueError, "OSError")]),
        ("give_up_on", [int, (int,), ("OSError",), None]),
        ("should_retry", ["always", 1]),
    ],
)
def test_wrong_arguments_are_refused_at_once(argument: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=argument):
            Retry(**{argument: value})


def test_a_class_alone_and_a_list_are_taken_too() -> None:
    assert Retry(retry_on=OSError).retry_on == (OSError,)  # type: ignore[arg-type]
    assert Retry(give_up_on=[OSError, ValueError]).give_up_on == (OSError, ValueError)  # type: ignore[arg-type]


def test_max_attempts_counts_the_first_try() -> None:
    policy = Retry(max_attempts=3)
    assert [policy.covers(ValueError(), attempt) for attempt in (1, 2, 3, 4)] == [True, True, False, False]
    assert not Retry(max_attempts=1).covers(ValueError(), 1)


class Mine(Fatal):
    pass


def test_what_is_covered() -> None:
    def covered(error: Exception, **arguments: Any) -> bool:
        return Retry(**arguments).covers(error, 1)

    assert covered(KeyError(), retry_on=(LookupError,)) and not covered(KeyError(), retry_on=(OSError,))
    assert not covered(KeyError(), give_up_on=(LookupError,)) and covered(OSError(), give_up_on=(LookupError,))
    assert not covered(KeyError(), retry_on=(LookupError,), give_up_on=(KeyError,))
    assert not any(covered(error, retry_on=(Exception, Fatal)) for error in (Fatal("no"), Mine("no")))
    assert not covered(KeyError(), should_retry=lambda error: None)
    assert covered(KeyError("k"), should_retry=lambda error: "k" in str(error))


def test_should_retry_is_asked_last() -> None:
    asked: list[Exception] = []

    def asks(error: Exception) -> bool:
        asked.append(error)
        return True

    policy = Retry(max_attempts=2, retry_on=(ValueError,), should_retry=asks)
    for error, attempt in ((Fatal("no"), 1), (KeyError(), 1), (ValueError(), 2)):
        assert not policy.covers(error, attempt)
    assert asked == []
    assert policy.covers(ValueError(), 1) and len(asked) == 1


def test_delays_grow_up_to_their_limit() -> None:
    assert _delays(Retry(jitter=False), 8) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert _delays(Retry(jitter=False, backoff=1.0, initial_delay=5), 3) == [5, 5, 5]
    assert _delays(Retry(jitter=False, initial_delay=100.0), 2) == [60, 60]
    assert _delays(Retry(jitter=False, initial_delay=0), 2) == [0, 0]
    minutes = Retry(jitter=False, initial_delay=timedelta(minutes=1), max_delay=timedelta(minutes=3))
    assert _delays(minutes, 3) == [60, 120, 180]


def test_a_delay_does_not_overflow() -> None:
    assert Retry(jitter=False, backoff=10.0).delay(100_000, _never) == 60
    assert Retry(jitter=False, initial_delay=0, backoff=10.0).delay(100_000, _never) == 0


@given(
    st.floats(0, 1e6),
    st.floats(1, 100),
    st.floats(0, 1e6),
    st.integers(1, 2000),
    st.floats(0, 1, exclude_max=True),
)
def test_jitter_takes_up_to_half_of_the_delay_away(
    initial: float, backoff: float, limit: float, attempt: int, random: float
) -> None:
    policy = Retry(initial_delay=initial, backoff=backoff, max_delay=limit)
    steady = dataclasses.replace(policy, jitter=False).delay(attempt, _never)
    assert 0 <= steady <= limit
    assert steady / 2 <= policy.delay(attempt, lambda: random) <= steady
    assert policy.delay(attempt, lambda: 0.0) == steady / 2


def test_waiting_for_the_network_is_for_steps() -> None:
    assert Retry().when_offline == "count"
    with pytest.raises(ValueError, match="'wait' or 'count'"):
        Retry(when_offline="retry")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for a step"):
        Options(retry=Retry(when_offline="wait")).check()


def test_limits_that_cannot_be_are_refused() -> None:
    for limit, period in ((0, 1), (-1, 1), (1.5, 1), ("1", 1), (1, 0), (1, -1), (1, math.nan), (1, math.inf), (1, "1")):
        with pytest.raises(ValueError):
            RateLimit(limit, period)  # type: ignore[arg-type]
    assert RateLimit(5, timedelta(minutes=1)).per_key is False


def test_debounces_that_cannot_be_are_refused() -> None:
    for delay, longest in ((-1, None), (math.nan, None), ("1", None), (1, -1), (1, math.inf), (1, "1")):
        with pytest.raises(ValueError):
            Debounce(delay, longest)  # type: ignore[arg-type]
    assert Debounce(1).max_delay is None
