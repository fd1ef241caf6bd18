"""The reckoning at the end: what everybody was told against what is there."""

from __future__ import annotations

import json

from durably_web.store.batch import Value
from tests.simulation.faults import Network
from tests.simulation.ledger import Ledger
from tests.simulation.model import Model, RunModel
from tests.simulation.programs import Raised, Unfinished, expected
from tests.simulation.readers import Readers
from tests.support.invariants import check_invariants


async def check(network: Network, model: Model, ledger: Ledger, readers: Readers) -> None:
    trace = model.trace
    try:
        await check_invariants(network.database)
    except AssertionError as error:
        trace.fail(f"the invariants do not hold: {error}")
    model.check_table()
    readers.check()
    for run in model.runs.values():
        if run.deleted:
            asked = run.id in ledger.to_delete or ledger.purged
            trace.check(asked, f"nobody asked for run {run.id} to be deleted")
            continue
        row = model.row(run.id)
        trace.check(row is not None, f"run {run.id} is gone")
        if row is not None:
            _check_output(run, model, row)


def _check_output(run: RunModel, model: Model, row: dict[str, Value]) -> None:
    """A run's output is what its program makes of its stored results."""
    check = model.trace.check
    if run.status not in ("completed", "failed"):
        return
    try:
        value = expected(model.program(run), run.results if run.before is None else run.before, run.patches)
    except Raised:
        check(run.status == "failed", f"run {run.id} completed, and its program raises: {run.results}")
    except Unfinished as error:
        forced = run.status == "failed"
        check(forced, f"run {run.id} completed, and {error}: {run.results}")
    else:
        forced = str(row["error"]).startswith(("PoisonRun: ", "TimeoutError: the run took longer"))
        check(run.status == "completed" or forced, f"run {run.id} failed, and its program gives {value}")
        if run.status == "completed":
            found = json.loads(str(row["output"]))
            check(found == value, f"run {run.id} gives {found}, and its stored results {value}")
