"""A crash at every point of a run, and the same outcome each time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from durably_web.jobs import Job
from durably_web.records import Run, StepRecord
from durably_web.testing.dying import CLAIM, says
from durably_web.testing.errors import Finding, NotDurable, Stuck
from durably_web.testing.memory import fingerprint
from durably_web.testing.source import unordered
from durably_web.testing.virtual import VirtualDurably
from durably_web.testing.witness import Witness

# The run has the same id each time: jobs make names of it.
RUN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


class CrashPoint(NamedTuple):
    """A run that was executed, with one crash or without, to its end.

    `what` says where it crashed. `number` counts from 0, which is the run without a crash. `run` and `steps` are as
    they were at the end.
    """

    number: int
    what: str
    run: Run
    steps: list[StepRecord]

    @property
    def output(self) -> Any:
        return self.run.output


class _Outcome(NamedTuple):
    """What must be the same: the end of the run, each step's result, and the runs that it started."""

    end: str
    steps: dict[str, str]
    others: list[str]


class _Played(NamedTuple):
    run: Run
    steps: list[StepRecord]
    outcome: _Outcome
    writes: list[str]
    executed: dict[str, int]
    advice: str | None


async def crash_points(
    job: Job[Any, Any],
    input: Any = None,
    *,
    jobs: Iterable[Job[Any, Any]] = (),
    signals: Mapping[str, Any] | None = None,
    varies: Collection[str] = (),
    most: int | None = None,
    **options: Any,
) -> AsyncIterator[CrashPoint]:
    """Execute a job again and again, each time in a new database, and let its engine die at another point.

        async for crash in crash_points(import_csv, {"text": TEXT}):
            assert saved == EXPECTED
            saved.clear()

    First without a crash, then stopped after each step, then with a crash before and after each write of the run. After
    the crash a new engine goes on. When it does not come to the same (output or error, steps and their results), or
    does something outside of its steps that it must not, `NotDurable` says where and why.

    The functions of steps are really called, those at a crash twice: give them fakes, and look at these in the loop,
    which is entered once a run has ended. `signals` has the payload of each signal that the job waits for; time passes
    by itself.
    `jobs` are the others that it starts. Results that differ by themselves, such as times, are found out by executing
    the job twice without a crash; `varies` names steps of which chance may hide that. `most` crashes at so many points
    only, evenly spread. Other options are those of `VirtualDurably`.
    """
    __tracebackhide__ = True
    if findings := list(unordered(job.fn)):
        raise NotDurable(job.name, findings)
    play = _Player(job, input, [job, *jobs], signals or {}, options)
    reference = await play()
    yield CrashPoint(0, "without a crash", reference.run, reference.steps)
    again = await play()
    yield CrashPoint(1, "without a crash, again", again.run, again.steps)
    ours = {key for key in reference.outcome.steps if reference.outcome.steps[key] != again.outcome.steps.get(key)}
    loose = _Loose(ours | set(varies), reference.outcome, again.outcome)
    number = 2
    stopped = await play(stops=len(reference.steps) + len(again.steps))
    play.compare(reference, stopped, loose, "stopped after each step")
    yield CrashPoint(number, "stopped after each step", stopped.run, stopped.steps)
    places: list[tuple[int, Literal["before", "after"]]] = []
    for index in range(1, len(reference.writes) + 1):
        places += [(index, "before"), (index, "after")]
    if most is not None and len(places) > most:
        places = [places[round(index * (len(places) - 1) / max(1, most - 1))] for index in range(most)]
    for index, when in places:
        what = f"a crash {when} write {index}, {reference.writes[index - 1]}"
        played = await play((index, when, what))
        play.compare(reference, played, loose, what)
        number += 1
        yield CrashPoint(number, what, played.run, played.steps)


async def check(
    job: Job[Any, Any], input: Any = None, *, reset: Callable[[], object] | None = None, **options: Any
) -> list[CrashPoint]:
    """`crash_points` in one call, with its options; gives all of them. `reset` is called before each, for fakes.

    Raises `NotDurable`.
    """
    __tracebackhide__ = True
    points = []
    if reset is not None:
        reset()
    async for point in crash_points(job, input, **options):
        points.append(point)
        if reset is not None:
            reset()
    return points


class _Loose:
    """What differs by itself: steps, and with them perhaps the way that the job takes."""

    def __init__(self, steps: set[str], one: _Outcome, other: _Outcome) -> None:
        self.steps = steps
        self.ends = one.end != other.end
        self.others = one.others != other.others


class _Player:
    """Executes the job in new databases."""

    def __init__(
        self,
        job: Job[Any, Any],
        input: Any,
        jobs: list[Job[Any, Any]],
        signals: Mapping[str, Any],
        options: dict[str, Any],
    ) -> None:
        self._job = job
        self._input = input
        self._jobs = list(dict.fromkeys(jobs))
        self._signals = signals
        self._options = options

    async def __call__(
        self, crash: tuple[int, Literal["before", "after"], str] | None = None, stops: int = 0
    ) -> _Played:
        __tracebackhide__ = True
        witness = Witness()
        witness.stops = stops
        durably = VirtualDurably(jobs=self._jobs, witness=witness, **self._options)
        async with durably:
            run = await durably.trigger(self._job, self._input, request_id=RUN_ID)
            if crash is not None:
                durably.crash_at(*crash)
            first = len(durably._writes)
            await self._to_the_end(durably, run.id)
            if crash is None:
                writes = [says(batch) for batch in durably._writes[first:]]
                while writes and writes[-1] == CLAIM:
                    # Of nothing, when all is done.
                    writes.pop()
            else:
                # A way that is shorter by itself.
                writes = []
                durably._traps.clear()
            played = await self._played(durably, run.id, writes, witness)
        if witness.findings:
            raise NotDurable(self._job.name, list(witness.findings.values()))
        return played

    async def _to_the_end(self, durably: VirtualDurably, run_id: str) -> None:
        while True:
            await durably.settle()
            if await self._send_signals(durably):
                continue
            runs = [run for run in await durably.get_runs() if run.is_active]
            if not await durably.pass_on():
                if any(run.id == run_id for run in runs):
                    (run,) = [run for run in runs if run.id == run_id]
                    raise Stuck(
                        f"run of job {run.job_name!r} is {run.status}, and {await durably._why(run)}: "
                        f'signals={{"name": payload}} says what to send'
                    )
                return
            if not runs:
                return

    async def _send_signals(self, durably: VirtualDurably) -> bool:
        sent = False
        for run in reversed(await durably.get_runs(status="waiting")):
            for step in await durably.get_steps(run.id):
                name = (step.waits_for or "").removeprefix("signal ")
                if step.status == "waiting" and name != step.waits_for and name in self._signals:
                    await durably.signal(run.id, name, self._signals[name])
                    sent = True
        return sent

    async def _played(self, durably: VirtualDurably, run_id: str, writes: list[str], witness: Witness) -> _Played:
        run = await durably.get_run(run_id)
        assert run is not None
        steps = await durably.get_steps(run_id)
        page = await durably.get_events(run_id, limit=1_000_000)
        numbers = [event.number for event in page.events]
        assert numbers == list(range(1, len(numbers) + 1)), f"the events of the run have a gap: {numbers}"
        executed: dict[str, int] = {}
        story = witness.stories[run_id]
        for trace in story.traces:
            for key in trace.executed:
                executed[key] = executed.get(key, 0) + 1
        return _Played(run, steps, await self._outcome(durably, run, steps), writes, executed, story.advice())

    async def _outcome(self, durably: VirtualDurably, run: Run, steps: list[StepRecord]) -> _Outcome:
        runs = await durably.get_runs()
        names = {one.id: f"<a run of {one.job_name}>" for one in runs if one.id != RUN_ID}

        def text(value: Any) -> str:
            found = fingerprint(value)
            for id, name in names.items():
                found = found.replace(id, name)
            return found

        others = sorted(
            [
                text((one.job_name, one.status, one.output, one.error))
                + text(_results(await durably.get_steps(one.id)))
                for one in runs
                if one.id != RUN_ID
            ]
        )
        return _Outcome(
            text((run.status, run.output if run.error is None else run.error)),
            {step.name: text((step.status, step.output if step.error is None else step.error)) for step in steps},
            others,
        )

    def compare(self, reference: _Played, played: _Played, loose: _Loose, what: str) -> None:
        """Raises `NotDurable` where the outcome is not that of the run without a crash."""
        __tracebackhide__ = True
        one, other = reference.outcome, played.outcome
        if loose.steps and one.steps.keys() != other.steps.keys():
            # Chance may have taken another way.
            return
        findings = []
        for key in [*one.steps, *[key for key in other.steps if key not in one.steps]]:
            before, now = one.steps.get(key, "nothing"), other.steps.get(key, "nothing")
            if before != now and key not in loose.steps:
                twice = played.executed.get(key, 0) > 1
                advice = (
                    "Its function was called twice, as happens when a crash comes between its end and its commit: make "
                    f"it safe to repeat, or say varies={{{key!r}}} when its result may differ"
                    if twice
                    else played.advice
                )
                findings.append(
                    Finding(
                        "outcome", f"step {key!r} came to {before} without a crash, and to {now} with it", None, advice
                    )
                )
        if not findings and one.end != other.end and not (loose.ends or loose.steps):
            findings.append(
                Finding(
                    "outcome",
                    f"the run came to {one.end} without a crash, and to {other.end} with it",
                    None,
                    played.advice,
                )
            )
        if not findings and one.others != other.others and not (loose.others or loose.steps):
            findings.append(
                Finding(
                    "outcome", f"its other runs came to {one.others} without a crash, and to {other.others} with it"
                )
            )
        if findings:
            raise NotDurable(self._job.name, [finding._replace(where=what) for finding in findings])


def _results(steps: list[StepRecord]) -> list[tuple[Any, ...]]:
    return sorted([(step.name, step.status, fingerprint(step.output), step.error) for step in steps])
