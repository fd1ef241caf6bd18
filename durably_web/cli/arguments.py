"""A job's input and labels as they are typed on a command line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from durably_web.cli.mistakes import Mistake

_ASSIGNMENT = re.compile(r"([A-Za-z_][\w.-]*)(:=|=)(.*)", re.DOTALL)


def parse_input(assignments: Sequence[str]) -> dict[str, Any]:
    """`key=text`, `key:=json`, `key=@file` for a file's text and `key:=@file` for JSON in a file, as one object."""
    value: dict[str, Any] = {}
    for assignment in assignments:
        found = _ASSIGNMENT.fullmatch(assignment)
        if found is None:
            raise Mistake(f"{_short(assignment)} is not key=value, key:=json or key=@file")
        key, operator, text = found.groups()
        if key in value:
            raise Mistake(f"{key} is given twice")
        if text.startswith("@"):
            text = _read(key, text[1:])
        value[key] = _json(key, text) if operator == ":=" else text
    return value


def parse_labels(labels: Sequence[str]) -> dict[str, str]:
    """`key=value` labels as one object."""
    value: dict[str, str] = {}
    for label in labels:
        key, equals, text = label.partition("=")
        if not (key and equals):
            raise Mistake(f"the label {_short(label)} is not key=value")
        if key in value:
            raise Mistake(f"the label {key} is given twice")
        value[key] = text
    return value


def _json(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Mistake(f"{key} is not JSON: {error} in {_short(text)}; for plain text write {key}=…") from None
    except RecursionError:
        raise Mistake(f"{key} is nested too deeply") from None


def _read(key: str, name: str) -> str:
    try:
        # Bytes, because opening it as text would change its line ends.
        return Path(name).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise Mistake(f"{key}: {name} is not UTF-8 text") from None
    except OSError as error:
        raise Mistake(f"{key}: {name or 'the file'} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Mistake(f"{key}: {name!r} is not a file name: {error}") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
