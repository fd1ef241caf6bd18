"""What a replay knows of a run that was retried often."""

from __future__ import annotations

from durably_web.history import History
from durably_web.store.rows import StoredEntry

COUNT = 200


class Type(str):
    """The type of an entry, which counts how often somebody looks at it."""

    looks = 0

    def __eq__(self, other: object) -> bool:
        Type.looks += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


def test_results_are_not_looked_at_again_for_each_retry() -> None:
    """Who sends a document of a run could otherwise keep a server busy for many minutes."""
    done = [StoredEntry(Type("step:complete"), f"s#{number}", "1", 0, number) for number in range(COUNT)]
    retried = [StoredEntry(Type("run:retry"), None, None, 0, None) for _ in range(COUNT)]
    history = History([*done, *retried])
    assert list(history.outcomes) == [f"s#{number}" for number in range(COUNT)] and history.redone
    assert Type.looks < 20 * 2 * COUNT
