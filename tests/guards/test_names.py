"""The public names: one list, wherever it is written down."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import durably_web
from durably_web import _EXPORTS


def test_the_list_and_the_lazy_table_agree() -> None:
    assert list(durably_web.__all__) == list(_EXPORTS)


@pytest.mark.parametrize("name", durably_web.__all__)
def test_each_name_comes_from_the_module_of_the_table(name: str) -> None:
    value = getattr(durably_web, name)
    assert value is getattr(importlib.import_module(f"durably_web.{_EXPORTS[name]}"), name)
    assert (value.__doc__ or "").strip(), f"{name} says nothing about itself"


def test_type_checkers_see_the_same_names(root: Path) -> None:
    tree = ast.parse((root / "durably_web" / "__init__.py").read_text())
    seen = {
        alias.name: (node.module or "").removeprefix("durably_web.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("durably_web.")
        for alias in node.names
    }
    assert seen == _EXPORTS


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = durably_web.nonsense


def documented(root: Path) -> dict[str, set[str]]:
    """File → names that its examples import from the package itself."""
    found: dict[str, set[str]] = {}
    patterns = ("*.md", "docs/**/*.md", "demo/*.py", "examples/*/*.py", "examples/*/site/*.py")
    for path in (path for pattern in patterns for path in root.glob(pattern)):
        text = path.read_text()
        for names in re.findall(r"^from durably_web import \(?([\w\s,]+?)\)?(?:\s*#.*)?$", text, re.MULTILINE):
            found.setdefault(path.name, set()).update(name.strip() for name in names.split(",") if name.strip())
    return found


def test_examples_import_only_public_names(root: Path) -> None:
    examples = documented(root)
    assert examples, "no example at all imports the package"
    wrong = {file: names - set(durably_web.__all__) for file, names in examples.items()}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_the_page_of_names_is_complete(root: Path) -> None:
    """Nobody should have to read the source to learn what there is."""
    page = (root / "docs" / "names.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(durably_web.__all__)
