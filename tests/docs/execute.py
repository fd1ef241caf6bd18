"""Executes the examples of one page, as a reader would who tries them one after the other.

They share a module, an event loop and an empty folder. An example that awaits at its top level stands for the inside of
an async function of the reader's.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
import types
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.docs.pages import Example

SECONDS = 20
"""The longest that one example may take."""

MODULE = "example_of_a_page"


class Differs(AssertionError):
    """An example prints something else than its page says."""


class Printed:
    """Stands in for `print`, and keeps what each line of the page printed."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def __call__(self, *values: object, sep: str = " ") -> None:
        caller = sys._getframe(1)
        self.lines.append((caller.f_lineno, sep.join(map(str, values))))


class Page:
    """The module of one page, made as its examples are executed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._module = types.ModuleType(MODULE)
        self._module.__file__ = str(path)
        self._printed = Printed()
        vars(self._module)["print"] = self._printed
        self._runner = asyncio.Runner()

    def __enter__(self) -> Page:
        # An exception of a stored failure is found by the name of its module.
        sys.modules[MODULE] = self._module
        return self

    def __exit__(self, *_: object) -> None:
        try:
            engine = vars(self._module).get("durably")
            if engine is not None:
                self._runner.run(engine.stop())
        finally:
            self._runner.close()
            del sys.modules[MODULE]

    def execute(self, example: Example) -> None:
        """Raises what the example raises, and `Differs`."""
        if example.file is not None:
            Path(example.file).write_text(example.code)
            return
        self._printed.lines.clear()
        # Tracebacks then show the line of the page.
        source = "\n" * (example.line - 1) + example.code
        code = compile(source, str(self._path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            function = types.FunctionType(code, vars(self._module))
            self._runner.run(asyncio.wait_for(function(), SECONDS))
        else:
            exec(code, vars(self._module))
        self._compare(example)

    def _compare(self, example: Example) -> None:
        where = f"{self._path.name}:{example.line}"
        for line, shown in example.lines.items():
            printed = [text for at, text in self._printed.lines if at == line]
            if printed != [shown]:
                raise Differs(f"{where}: line {line} says that it prints {shown!r}, and printed {printed}")
        rest = [text for at, text in self._printed.lines if at not in example.lines]
        expected = [] if example.output is None else example.output.splitlines()
        printed = "\n".join(rest).splitlines()
        if printed != expected:
            raise Differs(f"{where}: the page shows {expected}, and what was printed is {printed}")


def bounded_run(main: Coroutine[Any, Any, Any]) -> Any:
    """`asyncio.run`, and no longer than an example may take."""
    with asyncio.Runner() as runner:
        return runner.run(asyncio.wait_for(main, SECONDS))
