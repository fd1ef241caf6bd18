"""What the guide says of the command line is there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from typer.main import get_command

from durably_web.cli import app
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "guide" / "command-line.md").read_text("utf-8")


def _commands() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found[name] = command
        found |= {f"{name} {inner}": one for inner, one in getattr(command, "commands", {}).items()}
    return found


COMMANDS = _commands()


def _rows() -> list[tuple[str, str]]:
    """The commands of a row, and the row."""
    return [(line.split("|")[1], line) for line in PAGE.splitlines() if line.startswith("| `durably-web")]


def test_every_command_of_the_page_is_there() -> None:
    named = re.findall(r"durably-web ((?:runs|schedules) [a-z]+|[a-z]+)", " ".join(cell for cell, _ in _rows()))
    assert len(named) > 15 and set(named) <= COMMANDS.keys()


def test_what_is_there_is_on_the_page() -> None:
    for name in ("run", "worker", "serve", "stats", "doctor", "migrate", "sql", "verify", "runs", "schedules"):
        assert f"durably-web {name}" in PAGE, name
    for name in COMMANDS:
        group, _, inner = name.partition(" ")
        # Others may add commands, each with a page of its own; those that there were stay on this one.
        if group in ("runs", "schedules") and inner in (
            *("list", "show", "tail", "logs", "export", "cancel", "retry", "pause", "resume", "delete", "retrigger"),
            *("fork", "signal", "purge", "trigger", "remove"),
        ):
            assert re.search(rf"\b{inner}\b", PAGE), name


@pytest.mark.parametrize(("cell", "line"), _rows())
def test_the_options_of_a_row_are_those_of_its_command(cell: str, line: str) -> None:
    [first, *_] = re.findall(r"durably-web ((?:runs|schedules) [a-z]+|[a-z]+)", cell)
    known = {option for one in COMMANDS[first].params for option in one.opts}
    if first == "serve":
        assert {"--stop-timeout", "--health-port", "--log-format", "--log-level"} <= known
    assert set(re.findall(r"--[a-z][a-z-]+", line)) <= known, first


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_says_what_it_does(name: str) -> None:
    assert COMMANDS[name].help, name
    for one in COMMANDS[name].params:
        assert getattr(one, "help", None) or one.name == "help", (name, one.name)
