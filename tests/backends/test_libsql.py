"""The contract suites on libSQL: a namespace of a real `sqld` for each case, plain and behind one with a bad habit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract import BARE, SUITES, Backend, Case, cases, run_case
from tests.support.backends import Through
from tests.support.executors import RepeatingExecutor
from tests.support.libsql import Libsql
from tests.support.servers import Sqld

SECONDS = 400
"""For a case: some send thousands of requests."""

_TWICE = ("flow", "children", "schedules")
"""Suites whose every batch is sent twice as well. That of the store does so with each operation by itself."""

_FAULT_BY_FAULT = (
    "a_family_survives_a_failure_before_any_batch",
    "a_family_survives_the_loss_of_any_reply",
    "the_same_engine_takes_a_family_on_after_a_fault",
    "a_crash_at_any_batch_loses_no_tick_and_doubles_none",
)
"""Of those suites, what meets a fault at each batch already, lost replies among them: thousands of requests each."""

_TOO_LARGE = ("a_large_result_is_stored_and_read",)
"""A server takes values of a few megabytes; the tests of failures have what it says to more."""

_OF_ONE_TURN = (
    "a_run_that_never_waits_leaves_room_for_others",
    "of_two_workers_one_takes_up_each_sleeper",
    "a_child_of_another_worker_wakes_its_parent",
    "a_family_survives_death_at_any_batch",
    "the_winner_of_a_race_wins_again",
    "branches_keep_their_results_when_a_step_before_them_is_done_again",
    "branches_of_a_fork_keep_their_results_when_a_step_before_them_is_done_again",
    "a_thousand_runs_of_a_key_go_in_their_order",
    "background_work_that_stops_the_engine_with_a_deadline_is_not_abandoned_itself",
    "a_run_comes_to_its_end_through_many_stops",
)
"""Cases that move the clock, or count turns and attempts, for a database that answers within a turn of the loop; here
the clock is ahead of the answers. Not bound: on a server they fail for that."""


def _bindings() -> list[object]:
    found: list[object] = []
    for suite in SUITES:
        for kind in ("plain", "repeating") if suite in _TWICE and suite not in BARE else ("plain",):
            found += [
                pytest.param(kind, case, id=f"{suite}-{name}-{kind}")
                for name, case in cases(suite, Libsql.has)
                if name not in (*_TOO_LARGE, *_OF_ONE_TURN) and (kind == "plain" or name not in _FAULT_BY_FAULT)
            ]
    return found


@pytest.fixture
def backend(kind: str, sqld: Sqld) -> Iterator[Backend]:
    url = sqld.namespace()
    yield Libsql(url) if kind == "plain" else Through(Libsql(url), RepeatingExecutor)
    sqld.drop_namespace(url)


@pytest.mark.parametrize(("kind", "case"), _bindings())
async def test_contract(backend: Backend, case: Case) -> None:
    await run_case(case, backend, SECONDS)
