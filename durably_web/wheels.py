"""Modules that few runs need. In a browser they come with the site, as wheels that are fetched when they are needed."""

from __future__ import annotations

import importlib
import sys

from durably_web.errors import RequirementFailed


async def load(*names: str) -> None:
    """Let these modules, `cronsim` or `tzdata`, be imported. Costs nothing where they can be already.

    Raises `RequirementFailed`, with what to do about it; asked again, it tries again. Safe to call at the same time.
    """
    for name in names:
        if not _is_there(name):
            await _fetch(name)


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


async def _fetch(name: str) -> None:
    try:
        # Late: what JavaScript has is not there when the module is loaded, and elsewhere it is never there.
        from durably_bridge import wheel
    except ImportError:
        raise RequirementFailed(f"{name} is not installed: install it") from None
    try:
        path = await wheel(name)
    except Exception as error:
        message = getattr(error, "message", None) or str(error)
        advice = "what needs it is tried again, and needs this site's server for that once"
        raise RequirementFailed(f"{message}; {advice}") from None
    if path not in sys.path:
        # At the end: what the jobs require comes first.
        sys.path.append(path)
    importlib.import_module(name)
