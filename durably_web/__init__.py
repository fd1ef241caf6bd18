"""Durable execution for Python, in a browser tab and on a server.

A job is an async function made of steps; each step's result is stored before the next begins, so a job goes on
after a crash, a closed tab or a deploy from the first step without a result.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Name → module. Loaded when a name is first asked for, so that nothing is imported in vain.
_EXPORTS = {
    "Durably": "engine",
    "RunHandle": "handle",
    "Job": "jobs",
    "job": "jobs",
    "Step": "steps",
    "Retry": "retry",
    "RateLimit": "retry",
    "Debounce": "retry",
    "cancelled": "context",
    "shutting_down": "context",
    "wait_until": "context",
    "idempotency_key": "context",
    "Event": "events",
    "Run": "records",
    "StepRecord": "records",
    "FailedAttempt": "records",
    "LogEntry": "records",
    "Progress": "records",
    "Schedule": "records",
    "Stats": "records",
    "Processed": "draining",
    "Codec": "codec",
    "JsonCodec": "codec",
    "AesGcmCodec": "encryption",
    "Clock": "clock",
    "SystemClock": "clock",
    "ManualClock": "clock",
    "Network": "network",
    "is_network_failure": "network",
    "DurablyError": "errors",
    "InvalidInput": "errors",
    "NotFound": "errors",
    "Conflict": "errors",
    "NotSerializable": "errors",
    "Fatal": "errors",
    "ReplayMismatch": "errors",
    "CodeChanged": "errors",
    "SignalTimeout": "errors",
    "OffloadFailed": "errors",
    "RequirementFailed": "errors",
    "NetworkError": "errors",
    "Offline": "errors",
    "Unreachable": "errors",
    "CrossOriginRefused": "errors",
    "MixedContent": "errors",
    "StepFailed": "errors",
    "RunFailed": "errors",
    "RunCancelled": "errors",
    "LeaseLost": "errors",
    "StoreError": "errors",
    "StoreBusy": "errors",
    "StoreUnavailable": "errors",
    "StorageFull": "errors",
    "ResponseTooLarge": "errors",
    "StoreNotDurable": "errors",
    "DecryptionFailed": "errors",
    "NotADatabase": "errors",
    "SchemaTooNew": "errors",
}

__all__ = [  # noqa: RUF022 — in the order of the table above
    "Durably",
    "RunHandle",
    "Job",
    "job",
    "Step",
    "Retry",
    "RateLimit",
    "Debounce",
    "cancelled",
    "shutting_down",
    "wait_until",
    "idempotency_key",
    "Event",
    "Run",
    "StepRecord",
    "FailedAttempt",
    "LogEntry",
    "Progress",
    "Schedule",
    "Stats",
    "Processed",
    "Codec",
    "JsonCodec",
    "AesGcmCodec",
    "Clock",
    "SystemClock",
    "ManualClock",
    "Network",
    "is_network_failure",
    "DurablyError",
    "InvalidInput",
    "NotFound",
    "Conflict",
    "NotSerializable",
    "Fatal",
    "ReplayMismatch",
    "CodeChanged",
    "SignalTimeout",
    "OffloadFailed",
    "RequirementFailed",
    "NetworkError",
    "Offline",
    "Unreachable",
    "CrossOriginRefused",
    "MixedContent",
    "StepFailed",
    "RunFailed",
    "RunCancelled",
    "LeaseLost",
    "StoreError",
    "StoreBusy",
    "StoreUnavailable",
    "StorageFull",
    "ResponseTooLarge",
    "StoreNotDurable",
    "DecryptionFailed",
    "NotADatabase",
    "SchemaTooNew",
]

if TYPE_CHECKING:
    from durably_web.clock import Clock, ManualClock, SystemClock
    from durably_web.codec import Codec, JsonCodec
    from durably_web.context import cancelled, idempotency_key, shutting_down, wait_until
    from durably_web.draining import Processed
    from durably_web.encryption import AesGcmCodec
    from durably_web.engine import Durably
    from durably_web.errors import (
        CodeChanged,
        Conflict,
        CrossOriginRefused,
        DecryptionFailed,
        DurablyError,
        Fatal,
        InvalidInput,
        LeaseLost,
        MixedContent,
        NetworkError,
        NotADatabase,
        NotFound,
        NotSerializable,
        Offline,
        OffloadFailed,
        ReplayMismatch,
        RequirementFailed,
        ResponseTooLarge,
        RunCancelled,
        RunFailed,
        SchemaTooNew,
        SignalTimeout,
        StepFailed,
        StorageFull,
        StoreBusy,
        StoreError,
        StoreNotDurable,
        StoreUnavailable,
        Unreachable,
    )
    from durably_web.events import Event
    from durably_web.handle import RunHandle
    from durably_web.jobs import Job, job
    from durably_web.network import Network, is_network_failure
    from durably_web.records import FailedAttempt, LogEntry, Progress, Run, Schedule, Stats, StepRecord
    from durably_web.retry import Debounce, RateLimit, Retry
    from durably_web.steps import Step


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
