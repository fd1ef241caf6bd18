"""The client's declarations (`.d.ts`) have what its modules have, and what Python sends."""

from __future__ import annotations

import datetime
import itertools
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably_web.events import EVENT_TYPES, Event
from durably_web.records import LogEntry, Run, Stats, StepRecord

pytestmark = pytest.mark.pyodide

NOW = datetime.datetime(2030, 1, 31, tzinfo=datetime.UTC)
# The classes whose public methods a page calls.
METHODS = """
const { Durably } = await import(process.argv[1]);
const methods = [];
for (let type = Durably.prototype; type !== Object.prototype; type = Object.getPrototypeOf(type)) {
  methods.push(...Object.getOwnPropertyNames(type));
}
console.log(JSON.stringify(methods));
"""
TYPES = "console.log(JSON.stringify((await import(process.argv[1])).EVENT_TYPES));"
DECLARATIONS = ("client.d.ts", "asking.d.ts", "handing.d.ts", "scheduling.d.ts")
# Of the client's own use.
INTERNAL = {"constructor", "started"}


@pytest.fixture(scope="module")
def declarations(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `make types` puts into build/types/."""
    folder = tmp_path_factory.mktemp("types")
    tsc, project = root / "web/node_modules/.bin/tsc", root / "web/jsconfig.types.json"
    command = [str(tsc), "--project", str(project), "--outDir", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout
    return folder


@pytest.fixture(scope="module")
def in_node(root: Path) -> Callable[[str, str], Any]:
    """What a script makes of a module of web/."""

    def run(script: str, module: str) -> Any:
        path = (root / "web" / module).as_uri()
        result = subprocess.run(
            ["node", "--input-type=module", "--eval", script, path], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return run


def fields(declarations: Path, name: str) -> set[str]:
    """The properties of a shape in types.d.ts."""
    text = (declarations / "types.d.ts").read_text()
    found = re.search(rf"^export type {name} = \{{\n(.*?)^\}};", text, re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return set(re.findall(r'^ {4}\[?"?([\w:-]+)"?\]?\??: ', found[1], re.MULTILINE))


def test_every_method_is_declared(declarations: Path, in_node: Callable[[str, str], Any]) -> None:
    methods = set(in_node(METHODS, "client.js")) - INTERNAL
    text = "".join((declarations / name).read_text() for name in DECLARATIONS)
    declared = set(re.findall(r"^ {4}(?:get )?(\w+)(?:<.*>)?\(", text, re.MULTILINE))
    assert declared - {"constructor"} == methods
    assert {"trigger", "waitForRun", "on", "jobs", "status", "close"} <= methods


def test_every_declared_method_is_described(declarations: Path) -> None:
    for name in DECLARATIONS:
        lines = (declarations / name).read_text().splitlines()
        bare = [
            line
            for before, line in itertools.pairwise(lines)
            if re.match(r"^ {4}(?:get )?\w+(?:<.*>)?\(", line) and before.strip() != "*/"
        ]
        assert bare == []


def test_events_are_the_same_in_both_languages(declarations: Path, in_node: Callable[[str, str], Any]) -> None:
    assert set(in_node(TYPES, "hearing.js")) == fields(declarations, "EventDetails") == EVENT_TYPES


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("Run", Run("r", "a", "pending", {}, None, None, {}, None, 1, None, None, 0, NOW, None, None, None, 0)),
        ("Step", StepRecord("s", "completed", None, None, 1, NOW, None)),
        ("LogLine", LogEntry("info", "m", {}, None, NOW)),
        ("Stats", Stats(0, {}, {}, [])),
    ],
)
def test_records_are_the_same_in_both_languages(declarations: Path, name: str, record: Any) -> None:
    assert fields(declarations, name) == set(record.to_wire())


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
def test_events_have_the_fields_that_are_declared(declarations: Path, kind: Any) -> None:
    text = (declarations / "types.d.ts").read_text()
    head = re.search(r"^export type EventHead = \{\n(.*?)^\};", text, re.DOTALL | re.MULTILINE)
    about = re.search(rf'^ {{4}}\["{kind}"\]: \{{(.*?)\}};\n', text, re.DOTALL | re.MULTILINE)
    assert head is not None and about is not None
    declared = set(re.findall(r"^ +(\w+)\??: ", head[1] + about[1], re.MULTILINE)) | {"type"}
    # Those that come only where there is something to say.
    optional = set(re.findall(r"^ +(\w+)\?: ", about[1], re.MULTILINE))
    sent = set(Event(kind, 1, 1, NOW, "r", "a", {}).to_wire())
    assert declared - optional - {"progress"} == sent
