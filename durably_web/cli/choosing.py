"""Which runs a command is about: those that meet all conditions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer

from durably_web.cli.arguments import parse_labels
from durably_web.cli.completing import job_names, statuses_like
from durably_web.cli.mistakes import Mistake
from durably_web.cli.times import parse_before, when
from durably_web.engine import Durably
from durably_web.records import STATUSES, Instant

Statuses = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help=f"Only these: {', '.join(STATUSES)}; may be repeated.",
        autocompletion=statuses_like,
    ),
]
JobName = Annotated[
    str | None, typer.Option("--job", metavar="JOB", help="Only runs of this job.", autocompletion=job_names)
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Only runs with it; may be repeated.")
]
CreatedBefore = Annotated[
    str | None,
    typer.Option("--created-before", metavar="WHEN", help="Only older ones: an age as 7d, or a day as 2030-01-31."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before many runs are changed.")]

_MOST_COUNTED = 1000
_PAGE = 100


class Choice(NamedTuple):
    """Conditions that a run must meet, all of them."""

    statuses: list[str]
    job: str | None
    labels: dict[str, str]
    created_before: Instant | None

    @property
    def is_open(self) -> bool:
        """There is no condition."""
        return not any(self)

    def conditions(self) -> dict[str, Any]:
        """As `Durably.cancel_runs` and its like take them."""
        given = {
            "status": self.statuses,
            "job": self.job,
            "labels": self.labels,
            "created_before": self.created_before,
        }
        return {name: value for name, value in given.items() if value}

    def __str__(self) -> str:
        parts = [
            f"status {' or '.join(self.statuses)}" if self.statuses else "",
            f"job {self.job}" if self.job else "",
            *(f"label {key}={value}" for key, value in self.labels.items()),
            f"made before {when(self.created_before)}" if self.created_before else "",
        ]
        return ", ".join(filter(None, parts))


def choice(
    statuses: Sequence[str] | None, job: str | None, labels: Sequence[str] | None, created_before: str | None
) -> Choice:
    """The options, checked. Raises `Mistake`."""
    for status in statuses or ():
        if status not in STATUSES:
            raise Mistake(f"there is no status {status!r}; there is {', '.join(STATUSES)}")
    before = None if created_before is None else parse_before(created_before, "--created-before")
    return Choice(list(statuses or ()), job, parse_labels(labels or []), before)


async def confirm(durably: Durably, verb: str, chosen: Choice, allowed: Sequence[str]) -> bool:
    """Ask the person at the terminal, with the number of runs; `False` when there are none. Raises `Mistake`."""
    statuses = [status for status in chosen.statuses or allowed if status in allowed]
    number = await _count(durably, chosen, statuses)
    if number == 0:
        return False
    runs = (
        "1 run"
        if number == 1
        else f"{number:,} runs"
        if number <= _MOST_COUNTED
        else f"more than {_MOST_COUNTED:,} runs"
    )
    require_consent(f"{verb.capitalize()} {runs} ({chosen})?", f"this would {verb} {runs}")
    return True


def require_consent(question: str, otherwise: str) -> None:
    """Ask the person at the terminal. Raises `Mistake` unless they agree, or with `otherwise` when there is nobody."""
    if not sys.stdin.isatty():
        raise Mistake(f"{otherwise}: say --yes, since there is nobody to ask")
    if not typer.confirm(question, err=True):
        raise Mistake("nothing was changed")


async def _count(durably: Durably, chosen: Choice, statuses: list[str]) -> int:
    """How many there are; it stops to count soon after it is clear that there are many."""
    number, after = 0, None
    while statuses and number <= _MOST_COUNTED:
        page = await durably.get_runs(status=statuses, job=chosen.job, labels=chosen.labels, limit=_PAGE, after=after)
        number += sum(chosen.created_before is None or run.created_at < chosen.created_before for run in page)
        if len(page) < _PAGE:
            break
        after = page[-1].id
    return number
