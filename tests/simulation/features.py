"""Which features the engine has: what is not there yet is not used.

A test says that all of them are found, so that a renamed parameter does not make the simulation quietly poorer.
"""

from __future__ import annotations

import inspect
from typing import Any

from durably_web.engine import Durably
from durably_web.jobs import job
from durably_web.steps import Step

_PARAMETERS: dict[str, tuple[type, str, str]] = {
    "step_retry": (Step, "run", "retry"),
    "step_timeout": (Step, "run", "timeout"),
    "keys": (Durably, "trigger", "concurrency_key"),
    "coalesce": (Durably, "trigger", "coalesce"),
    "priority": (Durably, "trigger", "priority"),
    "delay": (Durably, "trigger", "delay"),
    "debounce": (Durably, "trigger", "debounce"),
    "random_bytes": (Durably, "__init__", "random_bytes"),
}
_METHODS: dict[str, tuple[type, str]] = {
    "sleep": (Step, "sleep"),
    "sleep_until": (Step, "sleep_until"),
    "wait_for_signal": (Step, "wait_for_signal"),
    "call": (Step, "call"),
    "step_trigger": (Step, "trigger"),
    "map": (Step, "map"),
    "signal": (Durably, "signal"),
    "fork": (Durably, "fork"),
    "pause": (Durably, "pause"),
    "pause_job": (Durably, "pause_job"),
    "pause_worker": (Durably, "pause_worker"),
    "trigger_many": (Durably, "trigger_many"),
    "purge": (Durably, "purge_runs"),
    "bulk": (Durably, "cancel_runs"),
}
_JOB_OPTIONS = {
    "job_retry": "retry",
    "job_timeout": "timeout",
    "max_attempts": "max_attempts",
    "max_runs": "max_concurrent_runs",
    "per_key": "max_concurrent_per_key",
    "rate_limit": "rate_limit",
}
ALL = frozenset({*_PARAMETERS, *_METHODS, *_JOB_OPTIONS})


def _names(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def _found() -> frozenset[str]:
    found = {
        feature
        for feature, (owner, method, name) in _PARAMETERS.items()
        if hasattr(owner, method) and name in _names(getattr(owner, method))
    }
    found |= {feature for feature, (owner, method) in _METHODS.items() if hasattr(owner, method)}
    found |= {feature for feature, name in _JOB_OPTIONS.items() if name in _names(job)}
    return frozenset(found)


FEATURES = _found()
