"""The fingerprint of a job's code: the same wherever it is computed, and another one when what calls steps has changed.

Made from the syntax tree, so that comments, layout, docstrings, decorators, annotations and the version of Python make
no difference. In it are the job's function and, of the same file, all functions that it names and that take a step, and
those that they name: a parameter is annotated `Step`, or called `step`. What steps do is not, and may change at any
time.
"""

from __future__ import annotations

import contextlib
import inspect
import linecache
import types
from collections.abc import Callable, Iterator
from typing import Any

# As `ast` has it, which need not be loaded for this.
_ONLY_AST = 0x400

_FUNCTIONS = ("FunctionDef", "AsyncFunctionDef")
_LEFT_OUT = frozenset(
    {"decorator_list", "returns", "annotation", "type_params", "type_comment", "ctx", "kind", "simple"}
)

# What a text is divided by: a prime of 128 bits. A digest of hashlib would cost a browser more than all the rest.
_PRIME = 2**128 - 159

# By file; several jobs are in one.
_modules: dict[str, _Module] = {}


def fingerprint(fn: Callable[..., Any]) -> str | None:
    """Of a job's function. `None` where there is no source, as of what was typed in."""
    try:
        function = inspect.unwrap(fn)
        code = function.__code__
        module = _module(code.co_filename, function.__globals__)
        told = "\n".join(_told(module.function(code), module))
    except Exception:
        # Whatever is strange about a source, it must not be in the way of a run.
        return None
    # Surrogates are possible in a text of the source, and have no UTF-8.
    return f"{int.from_bytes(told.encode('utf-8', 'backslashreplace'), 'big') % _PRIME:032x}"


def _module(filename: str, space: dict[str, Any]) -> _Module:
    linecache.checkcache(filename)
    lines = linecache.getlines(filename, space)
    known = _modules.get(filename)
    if known is None or known.lines is not lines:
        known = _modules[filename] = _Module(lines)
    return known


class _Module:
    """The functions of a file, each parsed when it is asked for: all of it would take far longer."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self._job = -1
        self._places: dict[str, list[int]] = {}
        for place, line in enumerate(lines):
            if "def " in line:
                words = line.partition("(")[0].split()
                if words[:1] == ["def"] or words[:2] == ["async", "def"]:
                    self._places.setdefault(words[-1].partition("[")[0], []).append(place)

    def function(self, code: types.CodeType) -> Any:
        """The function that this code is of: the first of its name behind its decorators."""
        first = code.co_firstlineno - 1
        self._job = next(place for place in self._places.get(code.co_name, ()) if place >= first)
        return self._parse(self._job)

    def takers(self, name: str) -> list[Any]:
        """The functions and methods of that name that take a step, without the job."""
        found = []
        for place in self._places.get(name, ()):
            if place != self._job and self._may_take_step(place):
                # One that only looks like a function stands in a text.
                with contextlib.suppress(SyntaxError):
                    found.append(self._parse(place))
        return [node for node in found if _takes_step(node)]

    def _may_take_step(self, place: int) -> bool:
        for line in self.lines[place:]:
            if "step" in line or "Step" in line:
                return True
            if line.partition("#")[0].rstrip().endswith(":"):
                break
        return False

    def _parse(self, place: int) -> Any:
        """The function that begins on a line. It ends before a line that stands no deeper, where that is no string."""
        lines = self.lines
        depth = _depth(lines[place])
        for end in range(place + 1, len(lines) + 1):
            if end < len(lines) and (not (line := lines[end].strip()) or line[0] == "#" or _depth(lines[end]) > depth):
                continue
            text = "if 1:\n" * (depth > 0) + "".join(lines[place:end])
            try:
                tree: Any = compile(text, "<job>", "exec", _ONLY_AST, dont_inherit=True)
            except SyntaxError:
                continue
            return tree.body[0].body[0] if depth else tree.body[0]
        raise SyntaxError


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _told(begin: Any, module: _Module) -> Iterator[str]:
    """What is compared: the job's function, whatever it is called, and behind it the others by their names."""
    yield _text(begin)
    reached: dict[str, list[Any]] = {}
    following = [begin]
    while following:
        for name in set(_names(following.pop())):
            if name not in reached:
                reached[name] = module.takers(name)
                following += reached[name]
    for name in sorted(reached):
        for node in reached[name]:
            yield f"{name} {_text(node)}"


def _children(node: Any) -> Iterator[Any]:
    for name in node._fields:
        value = getattr(node, name, None)
        for child in value if type(value) is list else (value,):
            if hasattr(child, "_fields"):
                yield child


def _takes_step(node: Any) -> bool:
    arguments = node.args
    for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        said = one.annotation
        name = getattr(said, "value", None) if type(said).__name__ == "Constant" else None
        name = name or getattr(said, "id", None) or getattr(said, "attr", None)
        if one.arg == "step" or (isinstance(name, str) and name.rpartition(".")[2] == "Step"):
            return True
    return False


def _names(node: Any) -> Iterator[str]:
    """Every name in a function, and every attribute: a method is found by its name."""
    name = getattr(node, "id", None) or getattr(node, "attr", None)
    if name is not None:
        yield name
    for child in _children(node):
        yield from _names(child)


def _text(node: Any) -> str:
    """A function as a text: its parameters and what it does."""
    parts: list[str] = []
    _write(node.args, parts)
    _write(_without_docstring(node.body), parts)
    return "".join(parts)


def _write(value: Any, parts: list[str]) -> None:
    """What versions of Python have added since, and leave empty, is not written; nor is where it stands."""
    if type(value) is list:
        parts.append("[")
        for item in value:
            _write(item, parts)
        parts.append("]")
    elif not hasattr(value, "_fields"):
        parts.append(f"{type(value).__name__}:{value!r};")
    elif type(value).__name__ == "AnnAssign":
        # A variable with a type is the variable.
        if value.value is not None:
            parts.append("Assign(targets=[")
            _write(value.target, parts)
            parts.append("]value=")
            _write(value.value, parts)
            parts.append(")")
    else:
        parts.append(type(value).__name__ + "(")
        for name in value._fields:
            field: Any = getattr(value, name, None)
            if name == "body" and type(value).__name__ in (*_FUNCTIONS, "ClassDef"):
                field = _without_docstring(field)
            elif type(value).__name__ == "JoinedStr" and name == "values":
                field = [part for part in field if getattr(part, "value", None) != ""]
            if name not in _LEFT_OUT and field is not None and field != []:
                parts.append(name + "=")
                _write(field, parts)
        parts.append(")")


def _without_docstring(body: list[Any]) -> list[Any]:
    first = body[0] if body else None
    if type(first).__name__ == "Expr" and isinstance(getattr(getattr(first, "value", None), "value", None), str):
        return body[1:]
    return body
