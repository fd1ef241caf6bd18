"""Answers of a libSQL server that are cut, or that something on the way has made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durably_web.backends.libsql.failures import Again, of_status
from durably_web.backends.libsql.hrana import Garbled, answer
from durably_web.backends.libsql.transport import Reply
from durably_web.store.batch import Batch, Statement

DONE: dict[str, Any] = {"rows": []}


def body(*outcomes: Any) -> bytes:
    result = {"step_results": outcomes, "step_errors": [None] * len(outcomes)}
    response = {"type": "batch", "result": result}
    return json.dumps({"results": [{"type": "ok", "response": response}]}).encode()


@pytest.mark.parametrize("count", range(4))
def test_what_does_not_say_that_it_was_committed_was_not(count: int) -> None:
    """A batch of two: the beginning, each statement, and the end have an outcome."""
    batch = Batch("write", (Statement("SELECT 1"), Statement("SELECT 2")))
    with pytest.raises(Garbled):
        answer(body(*[DONE] * count), batch)
    with pytest.raises(Garbled):
        answer(body(*[DONE] * count, *[None] * (5 - count)), batch)
    assert answer(body(*[DONE] * 4, None), batch).rows == [[], []]


@pytest.mark.parametrize(
    "moment", ["Mon, 01 Jan 99999 00:00:00 GMT", "Mon, 01 Jan 0000 00:00:00 GMT", "soon", "-1", "\N{SUPERSCRIPT TWO}"]
)
def test_a_moment_in_no_calendar_is_not_waited_for(moment: str) -> None:
    found = of_status(Reply(503, {"retry-after": moment}, b""), "there", has_token=False)
    assert isinstance(found, Again) and found.pause == 0
