"""The fingerprint of a job's code: what changes it, and what does not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably_web.fingerprints import fingerprint
from durably_web.jobs import Job, job

SOURCE = '''
import functools
from durably_web import Step, job
from durably_web import steps

SIZE = 100


def parse(text):
    return text.split()


async def save_all(step: Step, rows):
    for row in rows:
        await step.run("save", print, row)
    await report(rows, step)


async def report(rows, step):
    """Says how many."""
    text = f"""{len(rows)!r:>{SIZE}}
rows at the left edge
"""
    await step.run("report", print, text)


class Part:
    async def go(self, s: "steps.Step") -> None:
        await s.sleep("nap", 1)


async def unrelated(step):
    await step.run("other", print)


def annotated(value: Step):
    return value


@job(timeout=5)
async def work(step: Step, input: dict) -> int:
    """What it does."""
    rows: list = await step.run("parse", parse, input["text"])

    async def branch(number):
        "One of several."
        match number:
            case {"a": [1, *rest]} if rest:
                return rest
        with (open("a") as a, open("b") as b):
            return [a, b]

    await save_all(step, rows)  # all of them
    await Part().go(step)
    await branch(1)
    return len(rows)

'''

Printed = Callable[[str], str]


@pytest.fixture
def printed(tmp_path: Path) -> Printed:
    """The fingerprint of `work` in a file with this source."""
    count = 0

    def load(source: str) -> str:
        nonlocal count
        count += 1
        path = tmp_path / f"jobs_{count}.py"
        path.write_text(source, "utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = fingerprint(module.work.fn)
        assert found is not None and len(found) == 32
        return found

    return load


SAME = {
    "a comment": ("# all of them", "# a comment at the end\n# and one at the left edge"),
    "layout": ('await step.run("save", print, row)', 'await step.run(\n            "save",\n  print, row,\n        )'),
    "quotes": ('"parse", parse', "'parse', parse"),
    "a docstring": ('"""What it does."""', ""),
    "another docstring": ('"""Says how many."""', '"""Says it\n\ndef save_all(step): no code at all\n    """'),
    "a docstring inside": ('"One of several."', '"""Another."""'),
    "options": ("@job(timeout=5)", "@job(\n    timeout=6,\n)"),
    "the name of the job": ("async def work(", "async def other_name("),
    "an annotation": ("input: dict) -> int", "input) -> float"),
    "a variable's annotation": ("rows: list = await", "rows = await"),
    "what a step does": ("return text.split()", "return text.splitlines()"),
    "a constant": ("SIZE = 100", "SIZE = 200"),
    "other functions": ('await step.run("other", print)', 'await step.run("another", print)'),
    "lines before it": ("import functools", "import functools\n\n\n\nimport os"),
}

OTHER = {
    "a step's name": ('"parse", parse', '"read", parse'),
    "another step": ("    await branch(1)", "    await branch(1)\n    await step.sleep('rest', 1)"),
    "one step less": ("    await Part().go(step)\n", ""),
    "the order": (
        "    await Part().go(step)\n    await branch(1)\n",
        "    await branch(1)\n    await Part().go(step)\n",
    ),
    "a helper": ('step.run("save"', 'step.run("store"'),
    "a helper of a helper": ('step.run("report"', 'step.run("tell"'),
    "a helper's text": ("rows at the left edge", "rows, at the left edge"),
    "a method": ('s.sleep("nap", 1)', 's.sleep("nap", 2)'),
    "a default": ("async def branch(number)", "async def branch(number=1)"),
    "a condition": ("if rest:", "if not rest:"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_makes_no_difference(printed: Printed, change: tuple[str, str]) -> None:
    old, new = change
    assert old in SOURCE
    changed = SOURCE.replace(old, new)
    if "other_name" in new:
        changed += "\nwork = other_name\n"
    assert printed(changed) == printed(SOURCE)


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_makes_a_difference(printed: Printed, change: tuple[str, str]) -> None:
    old, new = change
    assert old in SOURCE
    assert printed(SOURCE.replace(old, new)) != printed(SOURCE)


def test_it_is_that_of_every_python(printed: Printed) -> None:
    """Runs are handed from one to another: a browser has its own."""
    assert printed(SOURCE) == "041d1abd1cdbe6afe768eddae61f69e8"


def test_without_a_source_there_is_none() -> None:
    space: dict[str, Any] = {}
    exec("async def work(step, input): ...", space)
    assert fingerprint(space["work"]) is None
    assert Job(space["work"], "work").code is None
    assert job(version="2")(space["work"]).code == "version 2"


def test_what_cannot_be(printed: Printed) -> None:
    async def work(step: Any, input: dict[str, Any]) -> None: ...

    for options, told in (
        ({"version": 2}, "version is a text"),
        ({"version": ""}, "version is a text"),
        ({"on_change": "stop"}, "on_change is one of 'continue', 'fail', 'restart'"),
    ):
        with pytest.raises(ValueError, match=told):
            job(**options)(work)
