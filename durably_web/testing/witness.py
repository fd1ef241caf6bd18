"""What jobs do in each of their executions, and where a later one does something else.

Up to where something is stored, each execution of a run must do the same: the same steps in the same order, with the
same arguments. How far that is, the journal says: with each outcome it keeps how many steps had been called by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from durably_web import failures
from durably_web.errors import ControlFlow
from durably_web.testing.effects import Watcher
from durably_web.testing.errors import Finding
from durably_web.testing.loop import PROCESS
from durably_web.testing.memory import Places, fingerprint, places_of, snapshot, variables_of
from durably_web.testing.source import catches_everything, reads_as_data

_RETURN_IT = "What a step's function changes is lost in later executions, which do not call it: let it return that"
_SAME = "An execution after a crash must come to the same steps: decide by the input and by results of steps alone"
_LET_PASS = "Catch `Exception`: what ends an execution is none, and the run goes on later from where it was"


class Call:
    """A step that a job called."""

    __slots__ = ("arguments", "key")

    def __init__(self, key: str, arguments: str | None) -> None:
        self.key = key
        self.arguments = arguments


class Trace:
    """One execution of a run."""

    def __init__(self, execution: Any) -> None:
        self.calls: list[Call] = []
        self.called: dict[str, Call] = {}
        self.parallel = False
        # So many calls must be as in the execution before.
        self.known = max((entry.calls or 0 for entry in execution.history.outcomes.values()), default=0)
        self.stored = frozenset(execution.history.outcomes)
        # Of steps whose functions this execution called.
        self.executed: set[str] = set()
        # What it came to, when nothing ended it before.
        self.outcome: str | None = None
        self.thrown = False


class Story:
    """The executions of one run, and what they did to variables."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.traces: list[Trace] = []
        self.places: Places = places_of(job.fn)
        self.read: frozenset[str] = reads_as_data(job.fn)
        # Variable → the executions in which code of the job changed it, and behind which step.
        self.changed: dict[str, dict[int, str | None]] = {}
        # Step → what its function changed of what it was given or closes over.
        self.lost: dict[str, str] = {}

    def advice(self) -> str | None:
        """What may be the reason that a later execution came to something else."""
        lost = [f"step {key!r} changes {what}" for key, what in self.lost.items()]
        return f"{'; '.join(lost)}. {_RETURN_IT}" if lost else None


class Witness:
    """Sees every execution of an engine, through its deaths; `findings` are in the order in which they were found."""

    def __init__(self) -> None:
        self.findings: dict[tuple[str, str, str | None], Finding] = {}
        self.stories: dict[str, Story] = {}
        self.watcher = Watcher(self.report)
        self.stops = 0
        """How often a step is the last one of its execution, as when an engine is stopped again and again."""
        # Of all runs: while one is under way, nobody knows who changes a variable.
        self._executing = 0

    def report(self, finding: Finding) -> None:
        self.findings.setdefault((finding.kind, finding.what, finding.where), finding)

    async def around(self, execution: Any) -> object:
        """Instead of `execution.run()`."""
        story = self.stories.setdefault(execution.lease.run_id, Story(execution.job))
        trace = Trace(execution)
        story.traces.append(trace)
        # Those of an execution that died are dead.
        self.watcher.tasks.pop(execution.lease.run_id, None)
        _Attendance(self, story, trace, execution)
        try:
            return await execution.run()
        finally:
            # Of one that died the engine tells.
            if story.traces[-1] is trace:
                self.compare(story)

    def died(self) -> None:
        """The engine was killed: its executions are as far as they came."""
        self._executing = 0
        for story in self.stories.values():
            self.compare(story)

    # -- from one execution to the next ------------------------------------------------------------------

    def compare(self, story: Story) -> None:
        """Compare the last execution of a run with the one before."""
        self._look_at_variables(story)
        if len(story.traces) < 2:
            return
        before, now = story.traces[-2:]
        name = story.job.name
        finding = self._different_calls(before, now)
        if finding is None and before.outcome is not None and now.outcome not in (None, before.outcome):
            if not now.executed:
                finding = (
                    f"job {name!r} came to {_short(before.outcome)}, and with the same stored results, when it was "
                    f"executed again, to {_short(now.outcome)}"
                )
        if finding is not None:
            self.report(Finding("replay", finding, None, story.advice() or _SAME))

    def _different_calls(self, before: Trace, now: Trace) -> str | None:
        ended = now.outcome is not None
        if before.parallel or now.parallel:
            for key, call in now.called.items():
                earlier = before.called.get(key)
                if key in now.stored and earlier is not None and _differ(earlier, call):
                    return _arguments(key, earlier, call)
            missing = [key for key in now.stored if key in before.called and key not in now.called]
            return _missing(missing[0]) if ended and missing else None
        limit = min(now.known, len(before.calls))
        for index, (earlier, call) in enumerate(zip(before.calls[:limit], now.calls, strict=False), 1):
            if earlier.key != call.key:
                return (
                    f"as number {index} the job called step {earlier.key!r}, and when it was executed again "
                    f"step {call.key!r}"
                )
            if _differ(earlier, call):
                return _arguments(call.key, earlier, call)
        return _missing(before.calls[len(now.calls)].key) if ended and len(now.calls) < limit else None

    # -- variables ---------------------------------------------------------------------------------------

    def _look_at_variables(self, story: Story) -> None:
        for place, executions in story.changed.items():
            if len(executions) > 1:
                step = next(iter(executions.values()))
                self.report(
                    Finding(
                        "variable",
                        f"the job changes `{place}` outside of a step ({step or 'before its first step'}), again at "
                        "each execution",
                        None,
                        "Keep it in a variable of the job's function, or change it in a step",
                    )
                )

    def enter(self) -> bool:
        self._executing += 1
        return self._executing == 1

    def leave(self) -> bool:
        self._executing = max(0, self._executing - 1)
        return self._executing == 0


class _Attendance:
    """Is there at one execution: stands in the place of some of its methods."""

    def __init__(self, witness: Witness, story: Story, trace: Trace, execution: Any) -> None:
        self.witness = witness
        self.story = story
        self.trace = trace
        self.execution = execution
        self._given: dict[str, tuple[Any, ...]] = {}
        self._before: dict[str, tuple[str, str, dict[str, str]]] = {}
        self._number = len(story.traces)
        self._last: str | None = None
        self._variables: dict[str, str] | None = snapshot(story.places)
        self._arguments: tuple[Any, ...] | None = None
        # Whoever cleans up behind a dead one is not to be heard.
        self._process = PROCESS.get()
        self._own: dict[str, Any] = {}
        for name in ("key", "step", "item", "enter", "leave", "go_on", "check", "end", "_call_job"):
            self._own[name] = getattr(execution, name)
            setattr(execution, name, getattr(self, name.lstrip("_")))

    @property
    def _dead(self) -> bool:
        return self._process is not None and self._process.dead

    def key(self, name: str) -> str:
        key: str = self._own["key"](name)
        given, self._arguments = self._arguments, None
        call = Call(key, None if given is None else _given(*given))
        if given is not None:
            self._given[key] = given
        trace = self.trace
        trace.calls.append(call)
        trace.called[key] = call
        trace.parallel = trace.parallel or asyncio.current_task() is not self.execution._task
        return key

    def step(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], *policies: Any) -> Any:
        self._arguments = (fn, args)
        return self._own["step"](name, fn, args, *policies)

    def item(self, key: str, fn: Callable[..., Any], args: tuple[Any, ...], *policies: Any) -> Any:
        self._given[key] = (fn, args)
        self.trace.called[key].arguments = _given(fn, args)
        # `step.map` has a task for each of those that it does at once, and they come in order.
        return self._own["item"](key, fn, args, *policies)

    def enter(self, key: str) -> int:
        first = self.witness.enter()
        if first and self._variables is not None:
            self._changed_outside(self._last)
        self._variables = None
        self.trace.executed.add(key)
        fn, args = self._given.get(key, (None, ()))
        read = {name: value for name, value in self.story.places.items() if name in self.story.read}
        self._before[key] = (fingerprint(args), fingerprint(snapshot(variables_of(fn))), snapshot(read))
        parallel: int = self._own["enter"](key)
        self.witness.watcher.entered()
        return parallel

    def leave(self, key: str, parallel: int) -> None:
        if self._dead:
            self._own["leave"](key, parallel)
            return
        fn, args = self._given.get(key, (None, ()))
        arguments, variables, read = self._before.pop(key, ("", "", {}))
        if fingerprint(args) != arguments:
            self.story.lost[key] = "what it is given as an argument"
        elif fingerprint(snapshot(variables_of(fn))) != variables:
            self.story.lost[key] = f"variables of the job ({', '.join(variables_of(fn))})"
        for name, before in read.items():
            if fingerprint(self.story.places[name]()) != before:
                self.witness.report(
                    Finding(
                        "variable",
                        f"the job reads `{name}`, which step {key!r} changes",
                        None,
                        "After a crash another process goes on, and has it not: let the step return it",
                    )
                )
        self._last = f"behind step {key!r}"
        if self.witness.leave():
            self._variables = snapshot(self.story.places)
        self._own["leave"](key, parallel)
        self.witness.watcher.left()
        if self.witness.stops and not self.witness.findings:
            # Not for ever: with other steps each time, a run never comes to its end.
            self.witness.stops -= 1
            self.execution.stop()

    def go_on(self) -> None:
        try:
            self._own["go_on"]()
        except ControlFlow:
            self.trace.thrown = True
            raise

    def check(self) -> None:
        try:
            self._own["check"]()
        except ControlFlow:
            self.trace.thrown = True
            raise

    def end(self, reason: ControlFlow) -> None:
        self._own["end"](reason)
        # Otherwise its task is cancelled.
        if _current() is not self.execution._task:
            self.trace.thrown = True

    async def call_job(self) -> str:
        execution, trace = self.execution, self.trace
        try:
            text: str = await self._own["_call_job"]()
        except (asyncio.CancelledError, ControlFlow, GeneratorExit):
            raise
        except BaseException as error:
            if not self._swallowed():
                trace.outcome = failures.describe(error)
            raise
        else:
            if not self._swallowed():
                trace.outcome = text
                self.witness.watcher.returned(execution.lease.run_id)
            return text
        finally:
            if self._variables is not None and not self._dead:
                self._changed_outside(self._last)

    def _swallowed(self) -> bool:
        if self.execution._ending is None or self._dead or not self.trace.thrown:
            # An exception of its own may be on its way while the execution is told to end.
            return False
        self.witness.report(
            Finding(
                "swallowed",
                "the job catches what ends an execution when its run is suspended, and goes on",
                catches_everything(self.story.job.fn),
                _LET_PASS,
            )
        )
        return True

    def _changed_outside(self, where: str | None) -> None:
        before, self._variables = self._variables or {}, None
        for name, text in before.items():
            if fingerprint(self.story.places[name]()) != text:
                self.story.changed.setdefault(name, {}).setdefault(self._number, where)


def _current() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _given(fn: Any, args: tuple[Any, ...]) -> str:
    # What a lambda closes over is as good as an argument.
    closed = snapshot(variables_of(fn)) if getattr(fn, "__name__", "") == "<lambda>" else {}
    return fingerprint((fn, args)) + (f" {closed}" if closed else "")


def _differ(before: Call, now: Call) -> bool:
    # Of one that has not been executed nothing may be known.
    return None not in (before.arguments, now.arguments) and before.arguments != now.arguments


def _arguments(key: str, before: Call, now: Call) -> str:
    return (
        f"step {key!r} was called with {_short(before.arguments)}, and when the job was executed again "
        f"with {_short(now.arguments)}"
    )


def _missing(key: str) -> str:
    return f"the job called step {key!r}, and when it was executed again it ended without"


def _short(text: str | None, most: int = 200) -> str:
    text = text or "other arguments"
    return text if len(text) <= most else f"{text[:most]}…"
