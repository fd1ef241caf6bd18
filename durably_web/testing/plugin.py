"""The plugin for pytest. It is imported wherever the package is installed, so it imports what it needs when asked."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from durably_web.testing.virtual import VirtualDurably

T = TypeVar("T")

SECONDS = 60.0
"""The longest that `durably_run` waits, of real time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("durably_web")
    says = "find what jobs do outside of their steps, in every engine of durably_web.testing"
    group.addoption("--durably-watch", action="store_true", help=says)
    parser.addini("durably_watch", says, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--durably-watch") or config.getini("durably_watch"):
        from durably_web.testing import settings

        settings.watch = True


@pytest.fixture
def durably_engine() -> Iterator[Callable[..., VirtualDurably]]:
    """Makes engines in memory and in virtual time: `async with durably_engine(jobs=[remind]) as durably:`.

    Takes what `durably_web.testing.engine` takes. The test fails when one of them is still open at its end.
    """
    from durably_web.testing.virtual import VirtualDurably

    made: list[VirtualDurably] = []

    def make(**options: Any) -> VirtualDurably:
        made.append(VirtualDurably(**options))
        return made[-1]

    yield make
    if any(durably.is_open for durably in made):
        pytest.fail("an engine is still open at the end of the test: use `async with durably_engine(…) as durably:`")


@pytest.fixture
def durably_run() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """Lets a test that is not async run what is: `durably_run(check(import_csv, {"text": TEXT}))`.

    All of a test runs on one event loop, each call for a minute of real time at most.
    """
    import asyncio

    async def bounded(coroutine: Coroutine[Any, Any, T]) -> T:
        __tracebackhide__ = True
        async with asyncio.timeout(SECONDS):
            return await coroutine

    with asyncio.Runner() as runner:
        yield lambda coroutine: runner.run(bounded(coroutine))
