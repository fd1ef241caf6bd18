"""What the text of a job says that no execution in one process can show."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from durably_web.testing.errors import Finding
from durably_web.testing.frames import place

_TO_SORT = "Texts have other hashes in each process, and sets another order: use sorted(…)"

# What makes a sequence of a set, in its order.
_ORDERED = frozenset({"list", "tuple", "enumerate", "iter", "zip", "map", "reversed", "next", "join"})
_UNORDERED = frozenset({"sorted", "len", "sum", "min", "max", "any", "all", "set", "frozenset"})
_SETS = frozenset({"union", "intersection", "difference", "symmetric_difference"})


@functools.lru_cache(maxsize=1000)
def _tree_of(fn: Any) -> tuple[ast.AST, str, int] | None:
    try:
        lines, first = inspect.getsourcelines(fn)
        return ast.parse(textwrap.dedent("".join(lines))), fn.__code__.co_filename, first
    except (OSError, TypeError, SyntaxError):
        return None


def catches_everything(fn: Any) -> str | None:
    """The first line of a job where `except:` or `except BaseException` stands."""
    found = _tree_of(fn)
    if found is None:
        return None
    tree, file, first = found
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _is_everything(node.type):
            return place(file, first + node.lineno - 1)
    return None


def _is_everything(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(_is_everything(one) for one in kind.elts)
    return kind is None or getattr(kind, "id", getattr(kind, "attr", "")) in ("BaseException", "CancelledError")


def reads_as_data(fn: Any) -> frozenset[str]:
    """The names that a job looks into by itself, and does not only pass on or call a method of."""
    found = _tree_of(fn)
    if found is None:
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(found[0]):
        looked: list[ast.expr | None] = []
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            looked = [node.value]
        elif isinstance(node, ast.Compare):
            looked = [node.left, *node.comparators]
        elif isinstance(node, ast.For | ast.comprehension):
            looked = [node.iter]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("len", "sum", "sorted", "list")
        ):
            looked = list(node.args)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("get", "items", "values")
        ):
            looked = [node.func.value]
        elif isinstance(node, ast.If | ast.While | ast.Return):
            looked = [node.test if not isinstance(node, ast.Return) else node.value]
        names.update(one.id for one in looked if isinstance(one, ast.Name))
    return frozenset(names)


def unordered(fn: Any) -> Iterator[Finding]:
    """Where a job goes through a set, and it matters in which order."""
    found = _tree_of(fn)
    if found is None:
        return
    tree, file, first = found
    sets = _names_of_sets(tree)
    sorted_out = {
        id(one) for node in ast.walk(tree) if _forgets_order(node) for one in ast.walk(node) if one is not node
    }
    for node in ast.walk(tree):
        if id(node) in sorted_out:
            continue
        over: ast.expr | None = None
        if isinstance(node, ast.For | ast.AsyncFor) and _awaits(node.body):
            over = node.iter
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp) and _calls_step(node):
            over = node.generators[0].iter
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in _ORDERED:
                over = next((one for one in node.args if _is_set(one, sets)), None)
        elif isinstance(node, ast.Starred) and isinstance(node.ctx, ast.Load):
            over = node.value
        if over is not None and _is_set(over, sets):
            where = place(file, first + over.lineno - 1)
            yield Finding("order", "the job goes through a set in the order that it happens to have", where, _TO_SORT)


def _names_of_sets(tree: ast.AST) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _is_set(node.value, frozenset(names)):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and node.value is not None and _is_set(node.value, frozenset(names)):
            names.update([node.target.id] if isinstance(node.target, ast.Name) else [])
    return frozenset(names)


def _is_set(node: ast.expr, sets: frozenset[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Name):
        return node.id in sets
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return _is_set(node.left, sets) or (isinstance(node.op, ast.BitAnd) and _is_set(node.right, sets))
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return node.func.id in ("set", "frozenset")
        if isinstance(node.func, ast.Attribute):
            return node.func.attr in _SETS and _is_set(node.func.value, sets)
    return False


def _forgets_order(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _UNORDERED


def _awaits(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Await) for statement in body for node in ast.walk(statement))


def _calls_step(node: ast.AST) -> bool:
    return any(
        isinstance(one, ast.Call)
        and isinstance(one.func, ast.Attribute)
        and isinstance(one.func.value, ast.Name)
        and one.func.value.id == "step"
        for one in ast.walk(node)
    )
