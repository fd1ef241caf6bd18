"""What the function asks for. The same file runs in a worker (`durably-web worker jobs.py`), and in a browser."""

from __future__ import annotations

from typing import Any

from durably_web import Retry, Step, job


def count(piece: str) -> int:
    return len(piece.split())


@job(retry=Retry(max_attempts=3))
async def count_words(step: Step, input: dict[str, Any]) -> int:
    """Counts the words of `{"pieces": […], "pause": seconds}`, with a pause in between: another call goes on then."""
    pieces: list[str] = input["pieces"]
    half = len(pieces) // 2
    before = await step.map("count", count, pieces[:half])
    await step.sleep("pause", input.get("pause", 60))
    after = await step.map("count the rest", count, pieces[half:])
    return sum(before) + sum(after)
