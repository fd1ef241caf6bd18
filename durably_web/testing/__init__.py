"""Tests of jobs: time that passes at once, crashes at every point, and what a job must not do outside of its steps."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Name → module. Loaded when a name is first asked for: pytest starts with this package wherever it is installed.
_EXPORTS = {
    "CrashPoint": "points",
    "check": "points",
    "crash_points": "points",
    "VirtualDurably": "virtual",
    "engine": "virtual",
    "replay": "replaying",
    "Finding": "errors",
    "NeverCame": "errors",
    "NotDurable": "errors",
    "ReplayDiffers": "errors",
    "Stuck": "errors",
}
__all__ = [
    "CrashPoint",
    "Finding",
    "NeverCame",
    "NotDurable",
    "ReplayDiffers",
    "Stuck",
    "VirtualDurably",
    "check",
    "crash_points",
    "engine",
    "replay",
]

if TYPE_CHECKING:
    from durably_web.testing.errors import Finding as Finding
    from durably_web.testing.errors import NeverCame as NeverCame
    from durably_web.testing.errors import NotDurable as NotDurable
    from durably_web.testing.errors import ReplayDiffers as ReplayDiffers
    from durably_web.testing.errors import Stuck as Stuck
    from durably_web.testing.points import CrashPoint as CrashPoint
    from durably_web.testing.points import check as check
    from durably_web.testing.points import crash_points as crash_points
    from durably_web.testing.replaying import replay as replay
    from durably_web.testing.virtual import VirtualDurably as VirtualDurably
    from durably_web.testing.virtual import engine as engine


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value
