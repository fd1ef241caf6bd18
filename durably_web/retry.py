"""Policies: what is tried again, and how often runs may begin."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from durably_web.arguments import Duration, seconds_of
from durably_web.errors import Fatal, NetworkError, NotSerializable
from durably_web.network import is_network_failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try again what failed, after a delay that grows.

    `max_attempts` counts the first try. After the n-th failed one the delay is `initial_delay * backoff**(n - 1)`,
    and at most `max_delay`, in seconds or as `timedelta`; `jitter` takes a random part of up to half of it away, so
    that many that failed together do not come back together. Tried again is what is of one of the classes `retry_on`,
    of none of `give_up_on`, and what `should_retry`, where it is given, answers with true. `Fatal` never is,
    nor what cannot be stored. In `retry_on` and `give_up_on`, `NetworkError` stands for what any library raises when a
    request gets no answer.

    With `when_offline="wait"` an attempt that fails because there is no network is not counted: the step waits until
    there is one again, and while there is known to be none, no attempt is begun. It is for steps, not for jobs.

    Raises `ValueError` for what cannot be.
    """

    max_attempts: int = 3
    initial_delay: Duration = 1.0
    backoff: float = 2.0
    max_delay: Duration = 60.0
    jitter: bool = True
    retry_on: tuple[type[Exception], ...] = (Exception,)
    give_up_on: tuple[type[Exception], ...] = ()
    should_retry: Callable[[Exception], bool] | None = None
    when_offline: Literal["wait", "count"] = "count"

    def __post_init__(self) -> None:
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise ValueError(f"max_attempts is a whole number from 1 on, not {self.max_attempts!r}")
        seconds_of(self.initial_delay, "initial_delay")
        seconds_of(self.max_delay, "max_delay")
        backoff: object = self.backoff
        if not (isinstance(backoff, int | float) and math.isfinite(backoff) and backoff >= 1):
            raise ValueError(f"backoff is a number from 1 on, not {backoff!r}")
        for name in ("retry_on", "give_up_on"):
            given = getattr(self, name)
            kinds = tuple(given) if isinstance(given, Iterable) else (given,)
            if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
                raise ValueError(f"{name} is a tuple of exception classes, not {given!r}")
            object.__setattr__(self, name, kinds)
        if self.should_retry is not None and not callable(self.should_retry):
            raise ValueError(f"should_retry is a function of an exception, not {self.should_retry!r}")
        if self.when_offline not in ("wait", "count"):
            raise ValueError(f"when_offline is 'wait' or 'count', not {self.when_offline!r}")

    def covers(self, error: Exception, attempt: int) -> bool:
        """Whether there is another try after the `attempt`-th, which raised `error`."""
        return attempt < self.max_attempts and self.wants(error)

    def wants(self, error: Exception) -> bool:
        """Whether what raised `error` is to be tried again, if there were attempts left."""
        return (
            _is_of(error, self.retry_on)
            and not _is_of(error, (*self.give_up_on, Fatal, NotSerializable))
            and (self.should_retry is None or bool(self.should_retry(error)))
        )

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after the `attempt`-th try. `random` gives numbers in [0, 1)."""
        first, longest = seconds_of(self.initial_delay, "initial_delay"), seconds_of(self.max_delay, "max_delay")
        try:
            delay = min(first * self.backoff ** (attempt - 1), longest)
        except OverflowError:
            delay = longest if first else 0
        return delay * (0.5 + random() / 2) if self.jitter else delay


def _is_of(error: Exception, kinds: tuple[type[Exception], ...]) -> bool:
    return isinstance(error, kinds) or (NetworkError in kinds and is_network_failure(error))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` runs of a job begin within any `period` of seconds; with `per_key`, of each concurrency key.

    Raises `ValueError` for what cannot be.
    """

    limit: int
    period: Duration
    per_key: bool = False

    def __post_init__(self) -> None:
        if type(self.limit) is not int or self.limit < 1:
            raise ValueError(f"limit is a whole number from 1 on, not {self.limit!r}")
        if seconds_of(self.period, "period") == 0:
            raise ValueError("period must be longer than 0 seconds")


@dataclass(frozen=True, slots=True)
class Debounce:
    """One run after the last trigger of a burst: due `delay` after it, and at most `max_delay` after the first.

    Seconds or `timedelta`. Raises `ValueError` for what cannot be.
    """

    delay: Duration
    max_delay: Duration | None = None

    def __post_init__(self) -> None:
        seconds_of(self.delay, "delay")
        if self.max_delay is not None and seconds_of(self.max_delay, "max_delay") < seconds_of(self.delay, "delay"):
            raise ValueError("max_delay must not be shorter than delay")
