"""What a caller asks for, in the form in which `auth` sees it and may change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from durably_web.api.parsing import which


@dataclass
class TriggerRequest:
    """A run that is asked for. `on_trigger` may change it, or return another one.

    `options` are those of `Durably.trigger` that have no field here: `coalesce`, `priority`, `delay`, `run_at`,
    `debounce`.
    """

    job_name: str
    input: Any = None
    labels: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    concurrency_key: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, job_name: str, input: Any, options: Mapping[str, Any]) -> TriggerRequest:
        rest = dict(options)
        return cls(
            job_name,
            input,
            dict(rest.pop("labels", {})),
            rest.pop("idempotency_key", None),
            rest.pop("concurrency_key", None),
            rest,
        )

    def arguments(self) -> dict[str, Any]:
        """The options of `Durably.trigger`."""
        return {
            "labels": self.labels,
            "idempotency_key": self.idempotency_key,
            "concurrency_key": self.concurrency_key,
            **self.options,
        }


@dataclass
class RunFilter:
    """Which runs are meant: those that meet all conditions. `scope_runs` may change it, or return another one.

    `jobs` and `statuses` are lists of names; `None` is no condition, and an empty list is met by none. A run has to
    have all of `labels`.
    """

    jobs: list[str] | None = None
    statuses: list[str] | None = None
    labels: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, query: Mapping[str, Any]) -> RunFilter:
        """What the parameters of a request say. Raises what `which` raises."""
        found = which(query)
        return cls(found.get("job"), found.get("status"), found.get("labels", {}))

    @property
    def finds_nothing(self) -> bool:
        return self.jobs == [] or self.statuses == []

    @property
    def is_open(self) -> bool:
        """Whether it has no condition."""
        return self.jobs is None and self.statuses is None and not self.labels

    def admits(self, job_name: str | None, labels: Mapping[str, str], status: str | None = None) -> bool:
        """Whether a run like this meets the conditions; without a `status`, whatever that is."""
        return (
            (self.jobs is None or job_name in self.jobs)
            and (self.statuses is None or status is None or status in self.statuses)
            and all(labels.get(key) == value for key, value in self.labels.items())
        )

    def narrow(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a request with the conditions of this filter for its own."""
        kept = {name: value for name, value in query.items() if not _is_condition(name)}
        if self.jobs is not None:
            kept["jobName"] = list(self.jobs)
        if self.statuses is not None:
            kept["status"] = list(self.statuses)
        for key, value in self.labels.items():
            if not value:
                raise ValueError(f"scope_runs gave the label {key!r} no value, which would be met by no run")
            kept[f"label.{key}"] = value
        return kept


def _is_condition(name: str) -> bool:
    return name in ("jobName", "status") or name.startswith("label.")
