"""Every example in the documentation is executed, and prints what its page says."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.execute import Differs, Page, bounded_run
from tests.docs.pages import ROOT, examples, pages

WITH_EXAMPLES = [path for path in pages() if "```python" in path.read_text("utf-8")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder of its own, in which the files that a page names can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(asyncio, "run", bounded_run)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def execute(path: Path, text: str) -> None:
    with Page(path) as page:
        for example in examples(text):
            page.execute(example)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_of_a_page(path: Path) -> None:
    execute(path, path.read_text("utf-8"))


def test_every_page_of_the_guide_begins_with_an_example() -> None:
    guide = {path.name for path in pages() if path.parent.name == "guide"} - {"README.md"}
    assert guide and guide <= {path.name for path in WITH_EXAMPLES}


# -- a test of the tests: each of these pages is wrong ---------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("```python\nraise LookupError\n```\n", LookupError),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", Differs),
        ("```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n```\n", Differs),
        ("```python\nprint(1)  # → 2\n```\n", Differs),
        ("```python\nif False:\n    print(1)  # → 1\n```\n", Differs),
        ("```python\nprint('nobody shows this')\n```\n", Differs),
        ("```python\nx = 1\n```\n\n<!-- ```python\nassert x == 2\n``` -->\n", AssertionError),
        ("```python\nimport asyncio\nawait asyncio.sleep(0)\nraise LookupError\n```\n", LookupError),
        ("```python not executed\nx = 1\n```\n", ValueError),
        ("```python\n# lib.py\nx = 1\n```\n\n```python\nfrom lib import y\n```\n", ImportError),
    ],
)
def test_a_broken_example_is_noticed(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        execute(Path("page.md"), text)


def test_an_example_that_never_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.docs.execute.SECONDS", 0)
    for text in ("await asyncio.Event().wait()", "asyncio.run(asyncio.Event().wait())"):
        with pytest.raises(TimeoutError):
            execute(Path("page.md"), f"```python\nimport asyncio\n{text}\n```\n")


def test_examples_of_one_page_share_their_names() -> None:
    execute(
        Path("page.md"),
        "```python\n# lib.py\nx = 1\n```\n\n```python\nfrom lib import x\n```\n\n"
        "```python\nprint(x)  # → 1\nprint('done')\n```\n\n```text\ndone\n```\n",
    )
