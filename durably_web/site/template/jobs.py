"""The jobs of this site. They run in the browser, and on a server as they are."""

import asyncio
import re
from collections import Counter
from typing import Any

from durably_web import Step, job


async def read(paragraph: str) -> dict[str, int]:
    """The words of one paragraph, and how often each comes."""
    await asyncio.sleep(0.5)  # time to watch, and to reload the page
    return dict(Counter(re.findall(r"\w+", paragraph.lower())))


@job
async def count_words(step: Step, input: dict[str, Any]) -> dict[str, Any]:
    """Each paragraph is a step. A step whose result is stored never runs again, whatever happens to the tab."""
    paragraphs = [text.strip() for text in input["text"].split("\n\n") if text.strip()]
    words: Counter[str] = Counter()
    for number, paragraph in enumerate(paragraphs, 1):
        words.update(await step.run("read", read, paragraph))
        step.progress(number, total=len(paragraphs), message=f"paragraph {number} of {len(paragraphs)}")
    step.log.info("counted", words=words.total(), paragraphs=len(paragraphs))
    return {"words": words.total(), "different": len(words), "frequent": words.most_common(8)}
