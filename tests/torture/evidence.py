"""What is known after a torture: the rows of the database, and the files of all who took part."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from durably_web.store.batch import Executor
from tests.torture.databases import ask
from tests.torture.plan import Plan

# So many rows in one answer, since a server may refuse to give many.
PAGE = 5000


class RunRow(NamedTuple):
    id: str
    job: str
    status: str
    output: str | None
    idempotency_key: str | None
    key: str | None
    generation: int
    attempt: int


class Entry(NamedTuple):
    seq: int
    run_id: str
    number: int
    generation: int
    type: str
    step: str | None
    data: str | None
    created_at: int


class Line(NamedTuple):
    """What a process wrote down, at a moment in nanoseconds."""

    moment: int
    process: str
    what: str
    words: tuple[str, ...]


class Execution(NamedTuple):
    """A call of a step's function. `ended` is `None` where its process did not come to that."""

    run_id: str
    step: str
    generation: int
    token: str
    process: str
    begun: int
    ended: int | None


@dataclass
class Evidence:
    plan: Plan
    backend: str
    runs: list[RunRow] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    """Of workers, clients, readers and of the program that torments them (`torment`), by moment."""
    damages: list[str] = field(default_factory=list)

    def of(self, what: str) -> list[Line]:
        return [line for line in self.lines if line.what == what]

    def executions(self) -> list[Execution]:
        ends = {line.words[3]: line.moment for line in self.of("end")}
        return [
            Execution(run_id, step, int(generation), token, line.process, line.moment, ends.get(token))
            for line in self.of("begin")
            for run_id, step, generation, token in [line.words]
        ]


def read_lines(folder: Path) -> list[Line]:
    """All files of processes in the folder; each is named after its process."""
    lines = []
    for path in folder.glob("*.log"):
        for text in path.read_text().splitlines():
            moment, what, *words = text.split(" ")
            lines.append(Line(int(moment), path.stem, what, tuple(words)))
    return sorted(lines)


async def read_rows(executor: Executor) -> tuple[list[RunRow], list[Entry]]:
    runs: list[RunRow] = []
    last = ""
    columns = "id, job_name, status, output, idempotency_key, concurrency_key, generation, attempt"
    while rows := await ask(
        executor, f"SELECT {columns} FROM durably_runs WHERE id > ? ORDER BY id LIMIT {PAGE}", last
    ):
        runs += [RunRow(*cast("tuple[Any, ...]", row)) for row in rows]
        last = runs[-1].id
    entries: list[Entry] = []
    seq = 0
    columns = "seq, run_id, number, generation, type, step_name, data, created_at"
    while rows := await ask(
        executor, f"SELECT {columns} FROM durably_journal WHERE seq > ? ORDER BY seq LIMIT {PAGE}", seq
    ):
        entries += [Entry(*cast("tuple[Any, ...]", row)) for row in rows]
        seq = entries[-1].seq
    return runs, entries
