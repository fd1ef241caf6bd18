"""An exported run, replayed against the code as it is now."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from durably_web import replay as replays
from durably_web.jobs import Job
from durably_web.replay import Replay
from durably_web.testing.errors import ReplayDiffers

Export = Mapping[str, Any] | str | os.PathLike[str]


async def replay(export: Export, jobs: Job[Any, Any] | Iterable[Job[Any, Any]], **options: Any) -> Replay:
    """Replay what `durably.export_run` gave, or a file with it as JSON, without executing a step.

    Raises `ReplayDiffers` when the job does not come by all that the run has stored; gives what the replay came to, and
    with which steps the run would go on. `jobs` is the job or all that there are; options are those of
    `durably_web.replay.replay`.
    """
    found = await replays.replay(_read(export), jobs, **options)
    if found.differences:
        raise ReplayDiffers(found.job_name, [str(one.message) for one in found.differences])
    return found


def _read(export: Export) -> Any:
    return export if isinstance(export, Mapping) else json.loads(Path(export).read_text("utf-8"))
