"""The demo's second job: an expense that a person has to approve. While it waits, nothing of it runs anywhere."""

from datetime import timedelta
from random import randrange
from typing import Any, TypedDict

from durably_web import SignalTimeout, Step, job

PATIENCE = timedelta(days=7)


class Expense(TypedDict):
    """What somebody wants to have paid."""

    what: str
    amount: float


@job
async def expense(step: Step, input: Expense) -> dict[str, Any]:
    """File the expense, wait for a decision, and pay once when it is approved."""
    if not input["what"].strip() or not 0 < input["amount"] < 1_000_000:
        raise ValueError("an expense says what it is for, and is more than 0")
    number = await step.run("file", new_number, "E")
    try:
        decision = await step.wait_for_signal("decision", timeout=PATIENCE)
    except SignalTimeout:
        return {"number": number, "decision": "expired"}
    if decision != "approved":
        return {"number": number, "decision": "rejected"}
    return {"number": number, "decision": "approved", "payment": await step.run("pay", new_number, "P")}


def new_number(prefix: str) -> str:
    """Another one at each call: that it stays the same shows that its step was executed once."""
    return f"{prefix}-{randrange(10_000, 100_000)}"
