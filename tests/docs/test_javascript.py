"""The JavaScript in the documentation can be read by a machine, and asks for nothing that the client does not have."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, pages

WEB = ROOT / "web"

_SCRIPT = re.compile(r'<script type="module">\n(.*?)</script>', re.DOTALL)
_MEMBER = re.compile(r"^  (?:get |async |async \*|\*)?([a-z]\w*)\(", re.MULTILINE)
_LIST = re.compile(r"^const (?:SHARED|SERVER|PAGE) = \[(.*?)\];", re.DOTALL | re.MULTILINE)


def scripts(text: str) -> Iterator[tuple[int, str]]:
    """The modules on a page, each with the line where it begins."""
    for block in blocks(text):
        if block.info == "js":
            yield block.line, block.body
        elif block.info == "html":
            yield from ((block.line, found) for found in _SCRIPT.findall(block.body))


WITH_SCRIPTS = [path for path in [*pages(), WEB / "README.md"] if any(scripts(path.read_text("utf-8")))]


def check(script: str, folder: Path) -> str:
    """What Node has against a module; nothing when it can be read."""
    file = folder / "example.mjs"
    file.write_text(script)
    outcome = subprocess.run(["node", "--check", file], capture_output=True, text=True, timeout=60, check=False)
    return outcome.stderr if outcome.returncode else ""


def asked_of_the_client(script: str) -> set[str]:
    """The members of `durably` that a script uses."""
    return set(re.findall(r"\bdurably\.(\w+)", re.sub(r"//.*", "", script)))


def members() -> set[str]:
    return {
        name
        for file in ("client.js", "asking.js", "handing.js", "scheduling.js")
        for name in _MEMBER.findall((WEB / file).read_text("utf-8"))
    }


@pytest.mark.parametrize("path", WITH_SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_scripts_of_a_page(path: Path, tmp_path: Path) -> None:
    for line, script in scripts(path.read_text("utf-8")):
        assert check(script, tmp_path) == "", f"{path.name}:{line}"
        assert asked_of_the_client(script) <= members(), f"{path.name}:{line}"


def test_the_guide_names_every_option_of_the_client() -> None:
    code = (WEB / "options.js").read_text("utf-8")
    options = {name for found in _LIST.findall(code) for name in re.findall(r'"(\w+)"', found)}
    table = (ROOT / "docs" / "guide" / "browser.md").read_text("utf-8").partition("## Options")[2].partition("\n## ")[0]
    assert options and set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == options


# -- a test of the tests ---------------------------------------------------------------------------------


def test_a_broken_script_is_noticed(tmp_path: Path) -> None:
    [(line, script)] = scripts("text\n\n```js\nawait f(;\n```\n")
    assert line == 4 and "SyntaxError" in check(script, tmp_path)
    assert check("await f();\n", tmp_path) == ""
    [(_, module)] = scripts('```html\n<script type="module">\n  let a = ;\n</script>\n```\n')
    assert "SyntaxError" in check(module, tmp_path)


def test_what_the_client_has_is_found() -> None:
    assert {"trigger", "subscribe", "on", "status", "ready", "storage", "close", "jobs"} <= members()
    assert asked_of_the_client("durably.trigger('a'); // durably.never()\nawait durably.ready;") == {"trigger", "ready"}
    assert "triger" not in members()
