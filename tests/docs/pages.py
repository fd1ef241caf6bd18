"""The pages that people read, and the examples on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent

_FENCE = re.compile(r"^(?P<hidden><!-- )?```(?P<info>[^\n`]*)\n(?P<body>.*?)^```(?: -->)?$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# (\w+\.py)\n")
_SHOWN = re.compile(r"#\s→ (.*)$")


class Block(NamedTuple):
    """A fenced block; `line` is where its content begins, from 1."""

    line: int
    info: str
    body: str
    hidden: bool


class Example(NamedTuple):
    """A piece of Python, and what it must print.

    `file` is the name of the file that it is said to be, `None` for what is executed. `output` is all that it prints,
    where a text block says so; `lines` says for single lines of the page what they print.
    """

    line: int
    code: str
    file: str | None
    output: str | None
    lines: dict[int, str]


def pages() -> list[Path]:
    """All of them, with examples or without."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "demo").glob("*.md")])


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page. One inside of an HTML comment is hidden from the reader."""
    return [
        Block(text.count("\n", 0, found.start("body")) + 1, found["info"].strip(), found["body"], bool(found["hidden"]))
        for found in _FENCE.finditer(text)
    ]


def examples(text: str) -> Iterator[Example]:
    """The Python of a page in order. A text block right after one is its output."""
    found = blocks(text)
    for block, following in zip(found, [*found[1:], None], strict=True):
        if block.info != "python":
            if block.info.startswith("python"):
                raise ValueError(f"line {block.line}: every example is executed, there is no {block.info!r}")
            continue
        file = _FILE.match(block.body)
        lines = {
            number: shown[1].strip()
            for number, line in enumerate(block.body.splitlines(), block.line)
            if (shown := _SHOWN.search(line))
        }
        output = following.body if following is not None and following.info == "text" else None
        yield Example(block.line, block.body, file[1] if file else None, output, lines)
