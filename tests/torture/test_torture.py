"""Worker processes and clients on one database are killed, stopped and cut off: nothing is lost, and nothing is done
twice.

More of it: make torture BACKEND=postgres ARGS="--runs 50000 --seed 2"
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.databases import ServerMissing
from tests.torture.databases import BACKENDS, DURABILITY
from tests.torture.plan import Plan
from tests.torture.torture import torture

SEED = int(os.environ.get("SEED", "1"))

# As much as takes a minute on two cores that nobody else uses.
PLANS = {
    "sqlite": Plan(SEED, runs=5000, kills=24, stops=8, client_kills=4, reader_kills=3, seconds=300),
    "postgres": Plan(
        SEED, runs=1500, kills=12, stops=5, client_kills=3, reader_kills=3, restarts=1, crashes=3, seconds=300
    ),
    "libsql": Plan(
        SEED, runs=1000, kills=8, stops=4, client_kills=3, reader_kills=2, restarts=1, crashes=2, seconds=300
    ),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be stopped and continued here")
@pytest.mark.parametrize("backend", PLANS)
async def test_nothing_is_lost_and_nothing_is_done_twice(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = PLANS[backend]._replace(durability=DURABILITY[backend])
    try:
        beginning = BACKENDS[backend](tmp_path)
        with beginning as database:
            figures, wrong = await torture(tmp_path, plan, database)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with capsys.disabled():
        print(f"\n{backend}: {plan}: {figures}")  # noqa: T201 — whoever looks for what happened
    assert wrong == []
    # That which was to be survived did come.
    assert figures.kills == plan.kills and figures.stops > 0 and figures.taken_over > 0
    if backend == "sqlite":
        assert [name for name in os.listdir(tmp_path) if name.startswith("app.db-") and "worker" not in name] == []
    else:
        assert (figures.server_restarts, figures.server_kills) == (plan.restarts, plan.crashes)
        assert figures.cut > 0 and figures.lost > 0 and figures.delayed > 0


def test_a_seed_is_a_plan() -> None:
    one, same, other = Plan(SEED), Plan(SEED), Plan(SEED + 1)
    assert one.faults() == same.faults() != other.faults()
    assert [one.asked(number) for number in range(500)] == [same.asked(number) for number in range(500)]
    assert len({*one.faults()}) == sum(
        (one.kills, one.stops, one.client_kills, one.reader_kills, one.restarts, one.crashes)
    )


def test_every_run_is_asked_for_and_some_are_by_two_clients() -> None:
    plan = Plan(SEED, runs=1000)
    by_client = [plan.asked_by(client) for client in range(plan.clients)]
    assert {number for numbers in by_client for number in numbers} == {*range(plan.runs)}
    assert 0 < sum(map(len, by_client)) - plan.runs < plan.runs // 5
