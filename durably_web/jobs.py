"""Jobs: functions with a name and a schema, independent of any engine."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints, overload

from durably_web import codec, schema
from durably_web.errors import InvalidInput

if TYPE_CHECKING:
    from durably_web.steps import Step

Input = TypeVar("Input")
Output = TypeVar("Output")

JobFunction = Callable[["Step", Input], Awaitable[Output]]


class Job(Generic[Input, Output]):
    """A definition: what `@job` makes of a function. Any number of engines can register it."""

    def __init__(self, fn: JobFunction[Input, Output], name: str) -> None:
        self.fn = fn
        self.name = name
        self.__doc__ = fn.__doc__
        self._load_input: schema.Loader | None = None
        self._load_output: schema.Loader | None = None

    def __repr__(self) -> str:
        return f"<Job {self.name}>"

    def encode_input(self, value: object) -> str:
        """The JSON text of an input that fits the annotation. Raises `InvalidInput`."""
        raw = schema.dump(value)
        if raw is None:
            raw = {}
        try:
            text, stored = codec.store(raw)
        except TypeError as error:
            raise InvalidInput(f"the input of job {self.name!r} is not JSON: {error}") from None
        try:
            self._loaders()[0](stored, "input")
        except InvalidInput as error:
            raise InvalidInput(f"the input of job {self.name!r} does not fit: {error}") from error
        return text

    def load_output(self, raw: Any) -> Output:
        """What the function returned, of what is stored of it."""
        output: Output = self._loaders()[1](raw, "output")
        return output

    async def execute(self, step: Step, raw: Any) -> object:
        """Call the function with the input that its annotation asks for, and give its output as JSON keeps it."""
        return schema.dump(await self.fn(step, self._loaders()[0](raw, "input")))

    def _loaders(self) -> tuple[schema.Loader, schema.Loader]:
        # At first use, when all that the annotations name has been defined.
        if self._load_input is None or self._load_output is None:
            hints = get_type_hints(self.fn)
            parameter = list(inspect.signature(self.fn).parameters)[1]
            self._load_input = schema.loader(hints.get(parameter, Any))
            try:
                self._load_output = schema.loader(hints.get("return", Any))
            except schema.Unsupported:
                # An output is not checked, only built where its annotation says how.
                self._load_output = schema.loader(Any)
        return self._load_input, self._load_output


@overload
def job(fn: JobFunction[Input, Output], /) -> Job[Input, Output]: ...


@overload
def job(*, name: str | None = None) -> Callable[[JobFunction[Input, Output]], Job[Input, Output]]: ...


def job(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Make a job of an async function of a `Step` and an input.

    The default name is the function's. The input's annotation is its schema: `dict`, a `TypedDict`, a
    dataclass, or, where pydantic is installed, anything that it can validate.

        @job
        async def greet(step: Step, input: dict) -> str:
            return await step.run("greet", make_greeting, input["name"])
    """

    def decorate(fn: JobFunction[Input, Output]) -> Job[Input, Output]:
        if not inspect.iscoroutinefunction(fn):
            raise TypeError(
                f"a job is an async function: write `async def {getattr(fn, '__name__', 'job')}(step, input)`"
            )
        if len(inspect.signature(fn).parameters) != 2:
            raise TypeError(f"a job has two parameters, the step and the input: `async def {fn.__name__}(step, input)`")
        return Job(fn, name or fn.__name__)

    return decorate if fn is None else decorate(fn)
