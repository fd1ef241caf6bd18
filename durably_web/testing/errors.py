"""What is wrong with a job, or with a test of it."""

from __future__ import annotations

from typing import NamedTuple


class Stuck(AssertionError):
    """A run does not come to its end, and time alone does not help."""


class NeverCame(AssertionError):
    """An engine was to be killed at a moment that did not come."""


class Finding(NamedTuple):
    """Something in a job that is not the same in each execution, or not only once.

    `kind` says what sort it is, `where` in which line (`jobs.py:12`), where that is known, and `advice` what to do.
    """

    kind: str
    what: str
    where: str | None = None
    advice: str | None = None

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        return text if self.advice is None else f"{text}\n    {self.advice}"


class NotDurable(AssertionError):
    """A job does not come to the same after a crash. `findings` says why."""

    def __init__(self, job: str, findings: list[Finding]) -> None:
        self.findings = findings
        lines = "\n".join(f"  {finding}" for finding in findings)
        super().__init__(f"job {job!r} is not the same in each execution:\n{lines}")


class ReplayDiffers(AssertionError):
    """A run that was exported takes another way through the code as it is now."""

    def __init__(self, job: str, differences: list[str]) -> None:
        self.differences = differences
        lines = "\n".join(f"  {difference}" for difference in differences)
        super().__init__(f"job {job!r} does not replay the run as it went:\n{lines}")
