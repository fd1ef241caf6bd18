"""The jobs that play programs, and tell the ledger what they do and what they get."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from typing import Any

from durably_web.errors import Offline, SignalTimeout
from durably_web.jobs import Job, job
from durably_web.retry import Retry
from durably_web.steps import Step
from tests.simulation.ledger import Ledger
from tests.simulation.programs import Names, Node, Program, patch_of


class Planned(Exception):
    """A step fails because its program says so."""


def make_job(name: str, ledger: Ledger, registry: dict[str, Job[Any, Any]], options: dict[str, Any]) -> Job[Any, Any]:
    """A job of that name, which plays the program in its input."""

    async def play(step: Step, input: dict[str, Any]) -> list[Any]:
        return await _Player(step, ledger, registry).block(input["program"])

    return job(name=name, **options)(play)


class _Player:
    def __init__(self, step: Step, ledger: Ledger, registry: dict[str, Job[Any, Any]]) -> None:
        self._step = step
        self._run = step.run_id
        self._ledger = ledger
        self._registry = registry
        self._names = Names()

    async def block(self, nodes: Program) -> list[Any]:
        values: list[Any] = []
        for node in nodes:
            await self._node(node, values)
        return values

    async def _node(self, node: Node, values: list[Any]) -> None:
        match node["do"]:
            case "step":
                values.append(await self._run_step(node))
            case "try":
                try:
                    values.append(await self.block(node["body"]))
                except Exception:
                    values.append("caught")
            case "gather":
                branches = [self.block(branch) for branch in node["branches"]]
                found: list[Any] = await asyncio.gather(*branches, return_exceptions=node["exceptions"])
                values.append(["raised" if isinstance(one, BaseException) else one for one in found])
            case "log":
                self._step.log.info("at", place=node["say"])
            case "patched":
                values.append(self._step.patched(patch_of(node)))
            case "progress":
                self._step.progress(len(values), message=node["say"])
            case "map":
                values.append(await self._map(node))
            case "signal":
                values.append(await self._signal(node))
            case _:
                values.append(await self._told(node["name"], self._wait(node)))

    async def _told(self, name: str, awaited: Awaitable[Any]) -> Any:
        """The value of a step, which the ledger hears of."""
        key = self._names.key(name)
        try:
            value = await awaited
        except Exception as error:
            self._ledger.failed(self._run, key, error)
            raise
        self._ledger.given(self._run, key, value)
        return value

    async def _run_step(self, node: Node) -> Any:
        options: dict[str, Any] = {name: node[name] for name in ("timeout",) if name in node}
        if "retry" in node:
            options["retry"] = Retry(**node["retry"])
        key = self._names.next(node["name"])
        if "undo" in node:
            options["undo"] = self._undo(node)
            self._ledger.undoable(self._run, [key])
        return await self._told(node["name"], self._step.run(node["name"], self._function(node), key, **options))

    def _function(self, node: Node) -> Callable[[str], Any]:
        ledger, run = self._ledger, self._run

        def end(key: str, time: int) -> str:
            fails, drops = node.get("fails", 0), node.get("drops", 0)
            if time <= drops:
                raise Offline(ledger.unique(key))
            if fails == -1 or time - drops <= fails:
                raise Planned(ledger.unique(key))
            return ledger.unique(key)

        def in_thread(key: str) -> str:
            return end(key, ledger.begin(run, key, in_thread=True))

        async def in_loop(key: str) -> str:
            time = ledger.begin(run, key)
            if "seconds" in node:
                await asyncio.sleep(node["seconds"])
            return end(key, time)

        return in_thread if node.get("thread") else in_loop

    def _undo(self, node: Node) -> Callable[[str], Any]:
        ledger, run, fails = self._ledger, self._run, node["undo"]

        def in_thread(value: str) -> object:
            time = ledger.undo(run, value, in_thread=True)
            if fails == -1 or time <= fails:
                raise Planned(ledger.unique("undo"))
            # Nobody wants it, and it cannot be stored.
            return ledger

        async def in_loop(value: str) -> object:
            time = ledger.undo(run, value)
            if "seconds" in node:
                await asyncio.sleep(node["seconds"])
            if fails == -1 or time <= fails:
                raise Planned(ledger.unique("undo"))
            return ledger

        return in_thread if node.get("thread") else in_loop

    async def _map(self, node: Node) -> list[Any]:
        keys = [f"{node['name']}[{index}]" for index in range(node["items"])]
        options: dict[str, Any] = {"retry": Retry(**node["retry"])} if "retry" in node else {}
        if "timeout" in node:
            options["timeout"] = node["timeout"]
        if "undo" in node:
            options["undo"] = self._undo(node)
            self._ledger.undoable(self._run, keys)
        values = await self._step.map(
            node["name"], self._function(node), keys, concurrency=node["concurrency"], **options
        )
        for key, value in zip(keys, values, strict=True):
            self._ledger.given(self._run, key, value)
        return list(values)

    def _wait(self, node: Node) -> Awaitable[Any]:
        step, name = self._step, node["name"]
        match node["do"]:
            case "sleep":
                return step.sleep(name, node["seconds"])
            case "sleep_until":
                when = datetime.datetime.fromtimestamp(node["at"] / 1000, datetime.UTC)
                return step.sleep_until(name, when)
            case "call" | "trigger":
                start: Callable[..., Awaitable[Any]] = getattr(step, node["do"])
                key = self._names.next(name)
                input = {"program": node["program"], "child of": [self._run, key]}
                return start(self._registry[node["job"]], input, name=name)
        raise ValueError(f"no program does {node['do']!r}")

    async def _signal(self, node: Node) -> Any:
        name = node["name"]
        key = self._names.next(name)
        try:
            payload = await self._told(name, self._step.wait_for_signal(name, timeout=node["timeout"]))
        except SignalTimeout:
            self._ledger.signal_missed(self._run, name, key)
            raise
        self._ledger.signal_received(self._run, name, key, payload)
        return payload
