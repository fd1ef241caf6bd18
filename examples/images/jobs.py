"""Look at a batch of pictures on several cores. A browser tab and a server run this same file.

Each picture is one stored step, executed in another worker or process. Killed in the middle, the run goes on with the
pictures that have no result.
"""

import asyncio
from typing import Any, NotRequired, TypedDict

from alike import groups
from pictures import look

from durably_web import OffloadFailed, Retry, Step, job

# A worker may die of a huge picture; the next one may have more memory.
AGAIN = Retry(max_attempts=2, retry_on=(OffloadFailed,))


class Picture(TypedDict):
    """A picture, under the name that `pictures.py` finds it by."""

    file: str
    name: str  # as the visitor knows it


class Batch(TypedDict):
    """What `sort_pictures` is asked to do."""

    pictures: list[Picture]
    at_once: NotRequired[int]  # no more than so many pictures at a time; without it as many as there are workers


@job
async def sort_pictures(step: Step, input: Batch) -> dict[str, Any]:
    """What is in each picture, and which are alike. A picture that cannot be read is named, and the others go on."""
    pictures = input["pictures"]
    places = asyncio.Semaphore(input.get("at_once", len(pictures) or 1))
    done = 0

    async def one(number: int, picture: Picture) -> dict[str, Any]:
        nonlocal done
        async with places:
            try:
                name = f"picture {number}"
                found = await step.run(name, look, picture["file"], offload=True, timeout=60, retry=AGAIN)
            except Exception as error:  # cancellation is none of these
                step.log.warning(f"{picture['name']}: {error}")
                found = {"error": str(error)}
        done += 1
        step.progress(done, total=len(pictures), message=picture["name"])
        # The small picture stays with its step: what the whole run gives is short.
        return {"name": picture["name"], **{key: value for key, value in found.items() if key != "small"}}

    results = await asyncio.gather(*(one(number, picture) for number, picture in enumerate(pictures, 1)))
    alike = await step.run("alike", groups, [result.get("hash") for result in results])
    return {"pictures": results, "alike": alike, "failed": sum("error" in result for result in results)}
