"""Random jobs: a tree of what a job can do, made from the seed and carried in the run's input.

So every engine plays the same program of a run, whichever code took it up. A node is a dict with `do`; what a program
gives is the list of what its steps gave, from which `expected` can tell it again by the stored results alone.
"""

from __future__ import annotations

import random
from typing import Any

Node = dict[str, Any]
Program = list[Node]


class Writer:
    """Writes programs. `size` is what is left of the number of steps that one may have."""

    def __init__(self, draw: random.Random, jobs: list[str], epoch: int) -> None:
        self._draw = draw
        self._jobs = jobs
        self._epoch = epoch
        self._size = 0

    def program(self, size: int, depth: int = 2) -> Program:
        self._size = size
        return self._block("", depth)

    def _block(self, path: str, depth: int) -> Program:
        nodes: Program = []
        while self._size > 0 and len(nodes) < 6:
            self._size -= 1
            nodes.append(self._node(f"{path}{len(nodes)}", path, depth))
            if self._draw.random() < 0.15:
                break
        return nodes

    def _node(self, place: str, path: str, depth: int) -> Node:
        draw = self._draw
        kinds = ["step"] * 10 + ["log", "progress", "patched", "sleep", "sleep_until", "signal", "map"]
        if depth > 0:
            kinds += ["gather", "gather", "gather", "try", "try", "call", "trigger"]
        kind = draw.choice(kinds)
        # In a block a name may come again; branches that run beside each other share none.
        name = f"{path}{draw.choice('ab')}"
        match kind:
            case "step":
                return self._step(name)
            case "gather":
                branches = [self._block(f"{place}{letter}.", depth - 1) for letter in "xyz"[: draw.randrange(2, 4)]]
                return {"do": "gather", "branches": branches, "exceptions": draw.random() < 0.6}
            case "try":
                return {"do": "try", "body": self._block(f"{place}t.", depth - 1)}
            case "map":
                step = self._step(f"{place}m")
                return {**step, "do": "map", "items": draw.randrange(1, 4), "concurrency": draw.randrange(1, 4)}
            case "sleep":
                return {"do": "sleep", "name": name, "seconds": draw.choice((0.0, 0.01, 0.5, 3.0, 20.0))}
            case "sleep_until":
                return {"do": "sleep_until", "name": name, "at": self._epoch + draw.randrange(-5_000, 60_000)}
            case "signal":
                timeout = draw.choice((None, None, 0.05, 2.0, 20.0))
                return {"do": "signal", "name": f"{path}red", "timeout": timeout}
            case "call" | "trigger":
                child = self._block(f"{place}c.", 0)
                return {"do": kind, "name": name, "job": draw.choice(self._jobs), "program": child}
        return {"do": kind, "say": place}

    def _step(self, name: str) -> Node:
        draw = self._draw
        node: Node = {"do": "step", "name": name}
        if draw.random() < 0.3:
            node["thread"] = True
        elif draw.random() < 0.5:
            node["seconds"] = draw.choice((0.0, 0.01, 0.3, 2.0, 8.0))
        if draw.random() < 0.15:
            # How often it fails in all, in whatever run's attempt; -1 always.
            node["fails"] = draw.choice((1, 1, 2, -1))
        if draw.random() < (0.7 if "fails" in node else 0.1):
            node["retry"] = {
                "max_attempts": draw.randrange(1, 4),
                "initial_delay": draw.choice((0.0, 0.05, 0.5, 4.0)),
                "jitter": draw.random() < 0.5,
            }
        if "retry" in node and draw.random() < 0.3:
            # It waits for the network; so often it finds none, though its engine was told nothing.
            node["retry"]["when_offline"] = "wait"
            node["drops"] = draw.choice((0, 1, 3))
        if draw.random() < 0.1:
            node["timeout"] = draw.choice((0.005, 0.5, 10.0))
        if draw.random() < 0.4:
            # How often its undo fails in all; -1 always.
            node["undo"] = draw.choice((0, 0, 0, 1, -1))
        return node


class Unfinished(Exception):
    """A program that is not told to its end by the stored results."""


class Raised(Exception):
    """What an `except` of the program sees."""


def expected(program: Program, results: dict[str, tuple[str, Any]], patches: dict[str, bool]) -> list[Any]:
    """The output of a program with these stored results and answers. Raises `Raised` where the program does."""
    return _Teller(results, patches).block(program)


class _Teller:
    def __init__(self, results: dict[str, tuple[str, Any]], patches: dict[str, bool]) -> None:
        self._results = results
        self._patches = patches
        self._names = Names()

    def block(self, nodes: Program) -> list[Any]:
        values: list[Any] = []
        for node in nodes:
            self._node(node, values)
        return values

    def _node(self, node: Node, values: list[Any]) -> None:
        match node["do"]:
            case "try":
                try:
                    values.append(self.block(node["body"]))
                except Raised:
                    values.append("caught")
            case "gather":
                values.append(self._gather(node))
            case "map":
                keys = [f"{node['name']}[{index}]" for index in range(node["items"])]
                # Behind a failure no item begins, in a replay not even an earlier one.
                failed = [key for key in keys if self._results.get(key, ("", None))[0] == "step:fail"]
                values.append([self._value(key) for key in failed or keys])
            case "log" | "progress":
                pass
            case "patched":
                # Of a run that was ended before its next write no answer is stored.
                values.append(self._patches.get(patch_of(node), True))
            case _:
                values.append(self._value(self._names.key(node["name"])))

    def _gather(self, node: Node) -> list[Any]:
        outcomes: list[Any] = []
        raised = unfinished = 0
        for branch in node["branches"]:
            try:
                outcomes.append(self.block(branch))
            except Raised:
                raised += 1
                outcomes.append("raised")
            except Unfinished:
                unfinished += 1
        if raised and not node["exceptions"]:
            # The others may still be on their way.
            raise Raised
        if unfinished:
            raise Unfinished
        return outcomes

    def _value(self, key: str) -> Any:
        if key not in self._results:
            raise Unfinished(f"{key} has no result")
        type_, data = self._results[key]
        if type_ == "step:fail":
            raise Raised(key)
        return data


def patch_of(node: Node) -> str:
    """The name that a node asks `step.patched` with."""
    return f"patch {node['say']}"


class Names:
    """Counts the occurrences of steps' names, as the engine says that it does."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def key(self, name: str) -> str:
        key = self.next(name)
        self._counts[name] = self._counts.get(name, 0) + 1
        return key

    def next(self, name: str) -> str:
        count = self._counts.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"


def signals_of(program: Program) -> list[str]:
    """The names of the signals that a program waits for, as often as it does."""
    names: list[str] = []
    for node in program:
        if node["do"] == "signal":
            names.append(node["name"])
        for branch in (*node.get("branches", ()), node.get("body", ())):
            names += signals_of(branch)
    return names
