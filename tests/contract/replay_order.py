"""Branches of a job meet in every execution as they met in the first one."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from durably_web.errors import RunFailed
from durably_web.jobs import job
from durably_web.steps import Step
from tests.contract import Backend
from tests.support.scenes import becomes
from tests.support.world import World, bounded, raised, turns

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


# -- what is done again after a retry --------------------------------------------------------------------


async def branches_keep_their_results_when_a_step_before_them_is_done_again(backend: Backend) -> None:
    """It was undone, or the job has caught its failure. It is stored last then, and stands first in later replays."""
    await _done_again_in_all_ways(backend, forked=False)


async def branches_of_a_fork_keep_their_results_when_a_step_before_them_is_done_again(backend: Backend) -> None:
    """A fork is given results alone: what has failed or was undone is done again in it."""
    await _done_again_in_all_ways(backend, forked=True)


async def _done_again_in_all_ways(backend: Backend, forked: bool) -> None:
    for caught in (False, True):
        for beside in (False, True):
            await _done_again(backend, caught, beside, forked)
        if "workers" not in backend.has:
            return


async def _done_again(backend: Backend, caught: bool, beside: bool, forked: bool) -> None:
    """`beside`: it is the first step of one branch, and takes longer than it did before."""
    broken, slow = True, 0

    async def say(word: str) -> str:
        return word

    async def hotel() -> str:
        await turns(slow)
        if broken and caught:
            raise ValueError
        return "hotel"

    async def after(count: int) -> None:
        await turns(count)

    @job
    async def trip(step: Step, input: dict[str, Any]) -> list[list[str]]:
        async def books() -> None:
            try:
                await step.run("hotel", hotel, undo=None if caught else say)
            except ValueError:
                pass

        async def branch(word: str, count: int) -> list[str]:
            if beside and word == "a":
                await books()
            else:
                await step.run(f"think {word}", after, count)
            return [await step.run("save", say, f"{word}{n}") for n in range(2)]

        if not beside:
            await books()
        words = list(await asyncio.gather(branch("a", 60), branch("b", 20)))
        if broken:
            raise RuntimeError
        await step.sleep("rest", 5)
        return words

    async with World(backend) as world:
        durably = await world.started(trip)
        handle = await durably.trigger(trip)
        await raised(RunFailed, bounded(handle.result()))
        broken, slow = False, 100
        if forked:
            handle = await durably.fork(handle.id)
        else:
            await durably.retry(handle.id)
        await becomes(durably, handle.id, "waiting")
        for _ in range(8):
            await world.advance(1)
        assert await bounded(handle.result()) == [["a0", "a1"], ["b0", "b1"]], (caught, beside, forked)
        types = [event.type for event in (await durably.get_events(handle.id)).events]
        assert "step:unasked" not in types
