"""Branches of a job meet in every execution as they met in the first one."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from durably_web.jobs import job
from durably_web.steps import Step
from tests.contract import Backend
from tests.support.world import World, bounded, turns

SEEDS = 12


async def branches_that_share_a_name_keep_their_results(backend: Backend) -> None:
    """The one whose sleep is over first calls the next step first, whichever was written first."""
    seen: list[list[str]] = []

    async def say(word: str) -> str:
        return word

    @job
    async def naps(step: Step, input: dict[str, Any]) -> list[str]:
        async def branch(word: str, seconds: float) -> str:
            await step.sleep("nap", seconds)
            return await step.run("say", say, word)

        words = list(await asyncio.gather(branch("slow", 30), branch("fast", 10), branch("middle", 20)))
        seen.append(words)
        await step.sleep("rest", 5)
        return words

    async with World(backend) as world:
        durably = await world.started(naps)
        handle = await durably.trigger(naps)
        for _ in range(45):
            await world.advance(1)
        assert await bounded(handle.result()) == ["slow", "fast", "middle"]
        assert seen == [["slow", "fast", "middle"]] * 2, seen


async def the_winner_of_a_race_wins_again(backend: Backend) -> None:
    winners: list[str] = []

    async def after(count: int, word: str) -> str:
        await turns(count)
        return word

    @job
    async def races(step: Step, input: dict[str, Any]) -> list[str]:
        tasks = [
            asyncio.ensure_future(step.run(word, after, count, word)) for word, count in (("late", 60), ("early", 10))
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winners.append(next(iter(done)).result())
        words = await asyncio.gather(*tasks)
        await step.sleep("rest", 5)
        return words

    async with World(backend) as world:
        durably = await world.started(races)
        handle = await durably.trigger(races)
        for _ in range(10):
            await world.advance(1)
        assert await bounded(handle.result()) == ["late", "early"]
        assert winners == ["early", "early"]


async def a_crash_at_any_point_changes_no_branchs_results(backend: Backend) -> None:
    """Many branches, one name, and steps that take this long in one execution and that long in another."""
    for seed in range(SEEDS):
        draw = random.Random(seed)

        async def think(word: str, draw: random.Random = draw) -> str:
            await turns(draw.randrange(40))
            return word

        @job(name="thinks")
        async def thinks(step: Step, input: dict[str, Any]) -> list[str]:
            async def branch(word: str) -> str:
                return "".join([await step.run("think", think, f"{word}{n}") for n in range(3)])

            return await asyncio.gather(*[branch(word) for word in "abcd"])

        async with World(backend) as world:
            durably = await world.started(thinks)
            handle = await durably.trigger(thinks)
            for _ in range(3):
                await turns(draw.randrange(60))
                await world.crash(durably)
                await world.expire()
                durably = await world.started(thinks)
            assert await bounded(durably.output_of(handle.id)) == ["a0a1a2", "b0b1b2", "c0c1c2", "d0d1d2"], seed
            await durably.stop()
            if "workers" not in backend.has:
                return


async def what_is_not_asked_for_any_more_holds_up_nobody(backend: Backend) -> None:
    """The code has changed since: steps are gone, others are new."""
    older = True

    async def word(text: str) -> str:
        return text

    @job
    async def changes(step: Step, input: dict[str, Any]) -> list[str]:
        if older:
            await asyncio.gather(*[step.run(f"gone {n}", word, "gone") for n in range(3)])
        words = await asyncio.gather(*[step.run(name, word, name) for name in ("kept", "new" if not older else "old")])
        await step.sleep("rest", 5)
        return words

    async with World(backend) as world:
        durably = await world.started(changes)
        handle = await durably.trigger(changes)
        await turns(200)
        older = False
        for _ in range(8):
            await world.advance(1)
        assert await bounded(handle.result()) == ["kept", "new"]
