"""docs/protocol.md tells of every message that there is in web/protocol.js, and of every time that the code has."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "protocol.md").read_text("utf-8")
CODE = (ROOT / "web" / "protocol.js").read_text("utf-8")

MESSAGES = ["FromClient", "ToClient", "ToWorker", "FromWorker", "OnChannel", "ToFollower"]
# Where messages wait for each other, or are sent again.
TIMED = ["hearing.js", "http.js", "link.js", "options.js", "ownership.js", "copies.js", "tabs.js", "watchdog.js"]

_CONSTANT = re.compile(r"^const ([A-Z_]+) = ([\d_]+);", re.MULTILINE)
_ROW = re.compile(r"^\| (.*) \|$", re.MULTILINE)
_TIME = re.compile(r"`(\w+\.js)` `([A-Z_]+)`")
_UNITS = {"s": 1000, "ms": 1, "": 1}


def typedef(name: str) -> str:
    """What a type of web/protocol.js is, without the outer braces."""
    for found in re.finditer(r"@typedef \{", CODE):
        depth = 1
        end = found.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(CODE[end], 0)
            end += 1
        if re.match(rf" {name}\b", CODE[end:]):
            return CODE[found.end() : end - 1]
    raise LookupError(name)


def messages(text: str) -> dict[str, list[str]]:
    """The messages that a type is made of, each with its fields."""
    found = {}
    for body in re.findall(r"\{([^{}]*)\}", text):
        [kind] = re.findall(r'\btype: "(\w+)"', body)
        # A field begins the object or follows a comma: the colons of the types behind do not count.
        found[kind] = [name for name in re.findall(r"(?:^|, )(\w+):", body) if name != "type"]
    return found


def section(title: str) -> str:
    """What stands below a heading, up to the next one."""
    [text] = re.findall(rf"^### `{title}`\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return str(text)


def rows(text: str) -> list[list[str]]:
    """The rows of a table, without its head."""
    cells = [row.split(" | ") for row in _ROW.findall(text.replace("| |", "|  |"))]
    return [row for row in cells if not set(row[0]) <= {"-", " "} and row[0] not in ("type", "property", "what")]


def named(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_messages_are_those_of_the_code(name: str) -> None:
    expected = messages(typedef(name))
    if name == "FromClient":
        # Told as a part of what a page says.
        assert f"`{name}`" in section("ToWorker")
        return
    if name == "ToWorker":
        expected |= messages(typedef("FromClient"))
    told = {named(row[0])[0]: named(row[1]) for row in rows(section(name))}
    assert told == expected
    for other in set(MESSAGES) - {"FromClient"}:
        assert (other in typedef(name)) is (f"all of `{other}`" in section(name).replace("All", "all"))


def test_every_message_of_the_code_is_in_one_of_these_types() -> None:
    everywhere = {kind for name in MESSAGES for kind in messages(typedef(name))}
    assert set(re.findall(r'\btype: "(\w+)"', CODE)) == everywhere


def test_the_version_is_that_of_the_code() -> None:
    assert re.findall(r"PROTOCOL_VERSION = (\d+)", CODE) == re.findall(r"`PROTOCOL_VERSION` is \*\*(\d+)\*\*", PAGE)


@pytest.mark.parametrize("name", ["BootOptions", "Aftermath"])
def test_what_a_worker_is_started_with(name: str) -> None:
    if name == "Aftermath":
        expected = re.findall(r"(\w+):", typedef(name))
    else:
        [block] = re.findall(rf"@typedef \{{object\}} {name}\n(.*?)\*/", CODE, re.DOTALL)
        expected = re.findall(r"@property \{.*?\} (\w+)  ?|@property \{.*?\} (\w+)\n", block)
        expected = [one or other for one, other in expected]
    assert sorted(one for row in rows(section(name)) for one in named(row[0])) == sorted(expected)


@pytest.mark.parametrize("name", ["Phase", "ShutdownReason"])
def test_every_value_is_told(name: str) -> None:
    values = re.findall(r'"(\w+)"', typedef(name))
    assert values and all(f"`{value}`" in PAGE for value in values)


def test_the_times_are_those_of_the_code() -> None:
    code = {}
    for file in TIMED:
        for name, value in _CONSTANT.findall((ROOT / "web" / file).read_text("utf-8")):
            code[file, name] = int(value.replace("_", ""))
    told = {}
    for row in rows(PAGE.partition("## Times")[2]):
        [place] = _TIME.findall(row[1])
        number, _, unit = row[2].partition(" ")
        told[place] = int(number) * _UNITS[unit]
    assert told == {place: value for place, value in code.items() if place in told}
    assert {place for place in code if place[1].endswith("_MS")} <= told.keys()


# -- a test of the tests: what is read here is what is there ---------------------------------------------


def test_a_type_is_read_as_it_is_written() -> None:
    assert messages('A | {type: "one", a: string[]}\n *   | {type: "two"}') == {"one": ["a"], "two": []}
    assert messages(typedef("FromClient")) == {
        "listen": ["events"],
        "request": ["text", "id"],
        "storage": ["text", "id"],
    }
    assert rows("| type | fields |\n| --- | --- |\n| `a` | |\n| `b` | `c`, `d` |\n") == [
        ["`a`", ""],
        ["`b`", "`c`, `d`"],
    ]
