"""What happened in a torture, in numbers."""

from __future__ import annotations

import collections
from typing import NamedTuple

from tests.torture.checker import Facts
from tests.torture.evidence import Evidence


class Figures(NamedTuple):
    runs: int
    steps: int
    """Stored results."""
    kills: int
    """Of workers."""
    stops: int
    client_kills: int
    reader_kills: int
    server_restarts: int
    server_kills: int
    connections: int
    """To a server."""
    cut: int
    """Of these, without those of the next."""
    lost: int
    """Replies to what had been executed."""
    delayed: int
    unanswered: int
    """Questions of clients that they asked again."""
    taken_over: int
    """Runs that were claimed more than once."""
    repeated: int
    """Steps that were begun again, since nothing was stored."""
    stale: int
    """Steps that came to an end, and whose worker had lost the lease."""
    entries: int
    longest: float
    """Seconds from the begin of a step to its stored result, at most."""
    fewest: int
    most: int
    """How many runs were completed by the one that completed the fewest, and the most, of the workers that were there
    all the time."""
    seconds: float
    """From the first question to the last result."""
    runs_per_second: float

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {round(value, 3):g}" for name, value in self._asdict().items())


def figures(evidence: Evidence, network: collections.Counter[str]) -> Figures:
    facts = Facts(evidence)
    done = collections.Counter(
        f"{line.what} {line.words[0].rstrip('0123456789.')}" for line in evidence.lines if line.process == "torment"
    )
    stored_at = {line.words[3]: line.moment for line in reversed(evidence.of("stored"))}
    longest = max(
        (stored_at[each.token] - each.begun for each in facts.executions if each.token in stored_at), default=0
    )
    touched = {line.words[0] for what in ("kill", "stop") for line in evidence.of(what)}
    finished = collections.Counter(line.process for line in evidence.of("done"))
    first = [f"w{slot}.{slot}" for slot in range(evidence.plan.workers)]
    healthy = [finished[name] for name in first if name not in touched] or [0]
    moments = [line.moment for what in ("asks", "stored") for line in evidence.of(what)]
    seconds = (max(moments) - min(moments)) / 1e9
    calls = collections.Counter((each.run_id, each.step) for each in facts.executions)
    return Figures(
        runs=len(evidence.runs),
        steps=len(facts.stored),
        kills=done["kill w"],
        stops=done["stop w"],
        client_kills=done["kill client"],
        reader_kills=done["kill reader"],
        server_restarts=done["restart server"],
        server_kills=done["kill server"],
        connections=network["connections"],
        cut=network["cut"] + network["tear"],
        lost=network["lose"],
        delayed=network["delay"],
        unanswered=len(evidence.of("unanswered")),
        taken_over=sum(run.generation > 1 for run in evidence.runs),
        repeated=sum(count - 1 for count in calls.values()),
        stale=sum(each.ended is not None and not facts.is_stored(each) for each in facts.executions),
        entries=len(evidence.entries),
        longest=longest / 1e9,
        fewest=min(healthy),
        most=max(healthy),
        seconds=seconds,
        runs_per_second=len(evidence.runs) / seconds,
    )
