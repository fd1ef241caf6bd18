"""Jobs: functions with a name and a schema, independent of any engine."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, overload

from durably_web import codec, schema, shapes
from durably_web.arguments import Duration, check_text, milliseconds_of, seconds_of
from durably_web.codec import Codec
from durably_web.errors import InvalidInput, NotSerializable
from durably_web.retry import RateLimit, Retry
from durably_web.store.operations import JobLimits

if TYPE_CHECKING:
    from durably_web.steps import Step

Input = TypeVar("Input")
Output = TypeVar("Output")

JobFunction = Callable[["Step", Input], Awaitable[Output]]


# How many workers in a row may die under a run that gets nowhere.
MAX_ATTEMPTS = 10


OnChange = Literal["continue", "fail", "restart"]
_ON_CHANGE = ("continue", "fail", "restart")


class Options(NamedTuple):
    """What `@job` was told beside the name."""

    retry: Retry | None = None
    timeout: Duration | None = None
    max_attempts: int = MAX_ATTEMPTS
    max_concurrent_runs: int | None = None
    max_concurrent_per_key: int = 1
    rate_limit: RateLimit | None = None
    version: str | None = None
    on_change: OnChange = "continue"

    def check(self) -> None:
        """Raises `ValueError` for what cannot be."""
        if self.timeout is not None and seconds_of(self.timeout, "timeout") == 0:
            raise ValueError("timeout must be longer than 0 seconds")
        for name in ("max_attempts", "max_concurrent_runs", "max_concurrent_per_key"):
            number = getattr(self, name)
            if not (name == "max_concurrent_runs" and number is None) and (type(number) is not int or number < 1):
                raise ValueError(f"{name} is a whole number from 1 on, not {number!r}")
        for name, kind in (("retry", Retry), ("rate_limit", RateLimit)):
            if not isinstance(getattr(self, name), kind | None):
                raise ValueError(f"{name} is a {kind.__name__}, not {getattr(self, name)!r}")
        version: object = self.version
        if version is not None and (type(version) is not str or not version):
            raise ValueError(f"version is a text, such as '2', not {version!r}")
        if self.on_change not in _ON_CHANGE:
            raise ValueError(f"on_change is one of {', '.join(map(repr, _ON_CHANGE))}, not {self.on_change!r}")
        if self.retry is not None and self.retry.when_offline != "count":
            raise ValueError("when_offline='wait' is for a step: pass that policy to step.run or step.map")


_DEFAULT = Options()


class Job(Generic[Input, Output]):
    """A definition: what `@job` makes of a function. Any number of engines can register it."""

    def __init__(self, fn: JobFunction[Input, Output], name: str, options: Options = _DEFAULT) -> None:
        options.check()
        check_text(name, "a job's name")
        self.fn = fn
        self.name = name
        self.options = options
        rate = options.rate_limit
        self.limits = JobLimits(
            name,
            options.max_concurrent_runs,
            options.max_concurrent_per_key,
            None if rate is None else rate.limit,
            None if rate is None else milliseconds_of(rate.period, "period"),
            rate is not None and rate.per_key,
        )
        self.__doc__ = fn.__doc__
        self.known_code: str | None = None
        """`code`, once somebody has asked for it."""
        self._has_code = False
        self._found: tuple[schema.Loader, schema.Loader | None, bool] | None = None

    def __repr__(self) -> str:
        return f"<Job {self.name}>"

    @property
    def code(self) -> str | None:
        """What tells this code of the job from another: its version, or a fingerprint of what calls steps.

        `None` where there is neither: no version was given, and the source cannot be found.
        """
        if not self._has_code:
            self._has_code = True
            if self.options.version is not None:
                self.known_code = f"version {self.options.version}"
            else:
                # Not at the top: in a browser nobody needs it before a run is executed.
                from durably_web.fingerprints import fingerprint

                self.known_code = fingerprint(self.fn)
        return self.known_code

    def encode_input(self, value: object, own_codec: Codec | None = None) -> str:
        """The text of an input that fits the annotation. Raises `InvalidInput`."""
        load, _, shaped = self._loaders()
        raw = shapes.dump(value) if shaped else value
        if raw is None:
            raw = {}
        try:
            text, stored = codec.store(raw, own_codec)
        except TypeError as error:
            raise InvalidInput(f"the input of job {self.name!r} cannot be stored: {error}") from None
        try:
            built = load(stored, "input")
        except InvalidInput as error:
            raise InvalidInput(f"the input of job {self.name!r} does not fit: {error}") from error
        if shaped and (found := shapes.difference(value, built, "input")):
            raise InvalidInput(f"the input of job {self.name!r} does not fit: {found}")
        return text

    def load_output(self, raw: Any) -> Output:
        """What the function returned, of what is stored of it."""
        load = self._loaders()[1]
        output: Output = raw if load is None else load(raw, "output")
        return output

    async def execute(self, step: Step, raw: Any) -> object:
        """Call the function with the input that its annotation asks for; gives what is to be stored of its output."""
        load_input, load_output, _ = self._loaders()
        output = await self.fn(step, load_input(raw, "input"))
        try:
            return output if load_output is None else shapes.plain(output, load_output)
        except NotSerializable as error:
            raise NotSerializable(f"the output of job {self.name!r} cannot be stored: {error}") from None

    def _loaders(self) -> tuple[schema.Loader, schema.Loader | None, bool]:
        """For the input and for the output, and whether the input has parts that are not what is stored of them."""
        # At first use, when all that the annotations name has been defined.
        if self._found is None:
            parameter = list(inspect.signature(self.fn).parameters)[1]
            annotation = schema.annotation_of(self.fn, parameter)
            # An output is not checked, only built where its annotation says how.
            output = shapes.result_loader(self.fn)
            self._found = schema.loader(annotation), output, shapes.names_a_shape(annotation)
        return self._found


@overload
def job(fn: JobFunction[Input, Output], /) -> Job[Input, Output]: ...


@overload
def job(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    max_concurrent_runs: int | None = None,
    max_concurrent_per_key: int = 1,
    rate_limit: RateLimit | None = None,
    version: str | None = None,
    on_change: OnChange = "continue",
) -> Callable[[JobFunction[Input, Output]], Job[Input, Output]]: ...


def job(fn: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a job of an async function of a `Step` and an input.

    The default name is the function's. The input's annotation is its schema: `dict`, a `TypedDict`, a
    dataclass, or, where pydantic is installed, anything that it can validate.

        @job
        async def greet(step: Step, input: dict) -> str:
            return await step.run("greet", make_greeting, input["name"])

    `retry`: a run that ends with an exception that the policy covers goes on after the delay, as after
    `durably.retry`: stored results stay. `timeout`, in seconds: how long a run may take from its first claim on,
    with all that it waits for; then it fails. `max_attempts`: how many workers in a row may die under a run
    that stores no new step; then it fails too. `max_concurrent_runs`: how many runs of the job may execute at
    once, over all workers; `max_concurrent_per_key`: how many of one concurrency key may have begun and not
    ended. `rate_limit`: how many may begin within a period.

    `on_change`: what becomes of a run that has stored something, when the code that calls its steps is not what it was:
    it goes on (`"continue"`), fails with `CodeChanged` (`"fail"`), or begins anew (`"restart"`). An event,
    `run:code-changed`, tells of it in any case. With a `version` that alone says whether the code is the same.
    Raises `ValueError` for what cannot be.
    """

    def decorate(fn: JobFunction[Input, Output]) -> Job[Input, Output]:
        if not inspect.iscoroutinefunction(fn):
            raise TypeError(
                f"a job is an async function: write `async def {getattr(fn, '__name__', 'job')}(step, input)`"
            )
        if len(inspect.signature(fn).parameters) != 2:
            raise TypeError(f"a job has two parameters, the step and the input: `async def {fn.__name__}(step, input)`")
        return Job(fn, name or fn.__name__, Options(**options))

    return decorate if fn is None else decorate(fn)
