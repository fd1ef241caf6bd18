"""A run that was handed over, read from its document: all of it is checked before any of it is stored.

Whoever sends one may have written it by hand. So nothing in it is imported by its name, every text can be decoded, the
journal is one that an engine could have written, and what is not known is refused rather than left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, cast, get_args

from durably_web import codec as details
from durably_web.arguments import check_priority, check_text, checked_labels
from durably_web.codec import Codec
from durably_web.errors import InvalidInput
from durably_web.export import FORMAT, VALUES, VERSION, is_json, milliseconds
from durably_web.history import History
from durably_web.ids import is_id
from durably_web.nesting import text_is_deeper_than, value_is_deeper_than
from durably_web.records import Kind, Progress, Status
from durably_web.store import rows
from durably_web.store.batch import Row, Rows
from durably_web.store.operations.taking import TakenEntry, TakenRun, TakenSignal
from durably_web.store.rows import StoredEntry

# Numbers that count something; what lies behind is no count.
_MOST = 2**31
# The end of the calendar, in milliseconds.
_LAST_MOMENT = 253_402_300_799_999

_TYPES = frozenset(
    "run:trigger run:leased run:waiting run:coalesced run:progress run:retry run:undo run:code-changed run:restart "
    "run:patched run:fail run:cancel run:handover step:wait step:retry step:complete step:fail step:unasked "
    "log:write".split()
)
_KINDS = get_args(Kind)
_REPLAYED = ("step:complete", "step:fail", "step:retry", "step:wait", "run:retry", "run:undo", "run:restart",
             "run:patched", "step:unasked")  # fmt: skip

_DOCUMENT = frozenset("format version values run journal signals undos handover".split())
_RUN = frozenset(
    "id jobName status input labels progress attempt idempotencyKey concurrencyKey priority runAt createdAt startedAt "
    "generation crashes paused awaits parentRunId forkedFrom code restarted undoing schedule scheduledAt".split()
)
# Values may have two hundred levels, and stand some levels deep.
_DEEPEST = 300
_TOO_DEEP = "it is nested too deeply"
_ENTRY = frozenset("number generation type stepName kind data startedAt createdAt calls requestId".split())
_SIGNAL = frozenset("number name payload createdAt requestId stepName".split())


def read(document: object, codec: Codec) -> TakenRun:
    """The run of a document that `Durably.offer_run` has made, as a dict or as JSON text. Raises `InvalidInput`."""
    try:
        parsed = _parsed(document)
        if not isinstance(parsed, dict) or parsed.get("format") != FORMAT:
            raise InvalidInput(f'this is no run that was handed over: it has no "format": "{FORMAT}"')
        version = parsed.get("version")
        if type(version) is not int or version < 1:
            _damaged(f"its version is {version!r}")
        if version > VERSION:
            raise InvalidInput(
                f"the document was made by a newer durably_web: it has version {version}, and version {VERSION} is "
                "known here. Update durably_web; nothing was stored"
            )
        if "handover" not in parsed:
            raise InvalidInput(
                "this is the export of a run that may go on where it is, and would then be executed twice: hand it "
                "over with hand_over or offer_run, or begin a new run with its input"
            )
        if unknown := sorted(parsed.keys() - _DOCUMENT):
            _damaged(f"it has {', '.join(unknown)}, which is not known here")
        return _Reader(parsed, codec).run()
    except RecursionError:
        raise InvalidInput("the document is damaged: it is nested too deeply; nothing was stored") from None
    except InvalidInput:
        raise
    except Exception as error:
        _damaged(f"{type(error).__name__}: {error}")


def _parsed(document: object) -> Any:
    if not isinstance(document, str | bytes):
        _expect(not value_is_deeper_than(_DEEPEST, document), _TOO_DEEP)
        return document
    try:
        text = document if isinstance(document, str) else document.decode(json.detect_encoding(document))
        is_too_deep = text_is_deeper_than(_DEEPEST, text)
        found = None if is_too_deep else json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise InvalidInput(f"the document is not JSON: {error}; nothing was stored") from None
    _expect(not is_too_deep, _TOO_DEEP)
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _damaged(what: str) -> NoReturn:
    raise InvalidInput(f"the document is damaged: {what[:300]}; nothing was stored")


def _check_clean(text: object, what: str) -> None:
    """A text as every database keeps it. Beside sealed values none could be told from them that begins as they do."""
    check_text(text, what)
    _expect("\0" not in cast(str, text) and not cast(str, text).startswith("sealed:"), f"{what} is {text!r}")


def _expect(fits: object, what: str) -> None:
    if not fits:
        _damaged(what)


class _Record:
    """A JSON object whose fields are of certain types. What is `null` where nothing may be is refused."""

    def __init__(self, value: Any, where: str, known: frozenset[str]) -> None:
        _expect(isinstance(value, dict), f"{where} is no object")
        if unknown := sorted(map(str, value.keys() - known)):
            _damaged(f"{where} has {', '.join(unknown)}, which is not known here")
        self.value: dict[str, Any] = value
        self.where = where

    def has(self, name: str) -> bool:
        return name in self.value

    def text(self, name: str) -> str:
        value = self.value[name]
        _check_clean(value, f"{name} of {self.where}")
        return cast(str, value)

    def optional(self, name: str) -> str | None:
        return self.text(name) if name in self.value else None

    def count(self, name: str) -> int:
        value = self.value[name]
        _expect(type(value) is int and 0 <= value < _MOST, f"{name} of {self.where} is no count: {value!r}")
        return cast(int, value)

    def instant(self, name: str) -> int:
        value = self.value[name]
        _expect(isinstance(value, str), f"{name} of {self.where} is no instant: {value!r}")
        found = milliseconds(value)
        _expect(0 <= found <= _LAST_MOMENT, f"{name} of {self.where} is no instant of the calendar: {value!r}")
        return found

    def maybe_instant(self, name: str) -> int | None:
        return self.instant(name) if name in self.value else None


class _Reader:
    def __init__(self, document: dict[str, Any], codec: Codec) -> None:
        self._codec = codec
        handover = _Record(document["handover"], "handover", frozenset(("id", "target", "sealed")))
        self._handover_id, self._target = handover.text("id"), handover.text("target")
        _expect(is_id(self._handover_id), "the id of the handover is no ULID")
        if document["values"] not in ("json", "text"):
            _damaged(f"values is {document['values']!r}")
        self._is_json = document["values"] == "json"
        if self._is_json != is_json(codec):
            raise InvalidInput(
                "the values of the run were written by another codec than the one of this engine: give both sides the "
                "same codec; nothing was stored"
            )
        if handover.value.get("sealed") is True and not hasattr(codec, "seal"):
            raise InvalidInput(
                "the values of the run were sealed where it comes from, and this engine has no key to seal them with: "
                "pass it one, as in Durably(codec=AesGcmCodec(key)); nothing was stored"
            )
        self._run = _Record(document["run"], "run", _RUN)
        self._lists = [document[name] for name in ("journal", "signals", "undos")]
        _expect(all(isinstance(one, list) for one in self._lists), "journal, signals and undos are lists")

    def run(self) -> TakenRun:
        run, (entries, signals, undos) = self._run, self._lists
        run_id, job_name = run.text("id"), run.text("jobName")
        _expect(is_id(run_id), "the id of the run is no ULID")
        labels, priority = checked_labels(run.value["labels"]), run.value["priority"]
        check_priority(priority)
        for text in (self._target, *labels, *labels.values()):
            _check_clean(text, "a label, or the target,")
        generation, restarted = run.count("generation"), run.count("restarted")
        journal = [self._entry(number, entry) for number, entry in enumerate(entries, 1)]
        status, wake_at, awaits, paused = self._offer(run, journal)
        undoing = run.optional("undoing")
        _expect(undoing in (None, "failed", "cancelled"), f"undoing is {undoing!r}")
        progress = _compact(run.value["progress"]) if run.has("progress") else None
        taken = TakenRun(
            run_id=run_id,
            handover_id=self._handover_id,
            target=self._target,
            job_name=job_name,
            status=status,
            input=self._value(run.value["input"]),
            labels=labels,
            progress=progress,
            idempotency_key=run.optional("idempotencyKey"),
            concurrency_key=run.optional("concurrencyKey"),
            priority=priority,
            run_at=run.maybe_instant("runAt") or 0,
            created_at=run.instant("createdAt"),
            started_at=run.maybe_instant("startedAt"),
            wake_at=wake_at,
            awaits=awaits,
            generation=generation,
            crashes=run.count("crashes"),
            paused=paused,
            forked_from=run.optional("forkedFrom"),
            code=run.optional("code"),
            restarted=restarted,
            undoing=undoing,
            schedule=run.optional("schedule"),
            scheduled_at=run.maybe_instant("scheduledAt"),
            journal=journal,
            signals=[self._signal(number, signal) for number, signal in enumerate(signals, 1)],
            undos=[self._undo(undo) for undo in undos],
            given=[
                (entry.number, cast(str, details.decode(entry.data or "")["handover"]))
                for entry in journal
                if entry.type == "run:handover" and details.decode(entry.data or "")["state"] in ("given", "taken")
            ],
        )
        self._check_journal(taken, run)
        self._check_rest(taken)
        return taken

    # -- parts -------------------------------------------------------------------------------------------

    def _entry(self, number: int, value: Any) -> TakenEntry:
        entry = _Record(value, f"entry {number}", _ENTRY)
        _expect(entry.count("number") == number, f"entry {number} has the number {entry.value['number']}")
        type_ = entry.text("type")
        _expect(type_ in _TYPES, f"entry {number} is a {type_}, which is not known here")
        kind = entry.optional("kind")
        _expect(kind is None or kind in _KINDS, f"entry {number} is of the kind {kind!r}")
        data = None
        if entry.has("data"):
            data = self._value(entry.value["data"]) if type_ in VALUES else _compact(_tamed(type_, entry.value["data"]))
        return TakenEntry(
            number,
            entry.count("generation"),
            type_,
            entry.optional("stepName"),
            data,
            entry.maybe_instant("startedAt"),
            entry.instant("createdAt"),
            entry.count("calls") if entry.has("calls") else None,
            kind,
        )

    def _signal(self, number: int, value: Any) -> TakenSignal:
        signal = _Record(value, f"signal {number}", _SIGNAL)
        _expect(signal.count("number") == number, f"signal {number} has the number {signal.value['number']}")
        payload = self._value(signal.value["payload"])
        asked = signal.text("requestId")
        created = signal.instant("createdAt")
        return TakenSignal(number, signal.text("name"), payload, created, asked, signal.optional("stepName"))

    def _undo(self, value: Any) -> tuple[int, str]:
        undo = _Record(value, "an undo", frozenset(("number", "stepName")))
        return undo.count("number"), undo.text("stepName")

    def _value(self, value: Any) -> str:
        """A value of a user as the store keeps it; it can be read."""
        if self._is_json:
            text = _compact(value)
        else:
            check_text(value, "a value")
            text = cast(str, value)
            _expect("\0" not in text, "a value has a NUL")
        try:
            self._codec.decode(text)
        except RecursionError:
            raise
        except Exception as error:
            _damaged(f"a value cannot be read: {type(error).__name__}: {error}")
        return text

    def _offer(self, run: _Record, journal: Sequence[TakenEntry]) -> tuple[Status, int | None, str | None, bool]:
        """What the run was before it was offered, which its last entry says."""
        _expect(bool(journal) and journal[-1].type == "run:handover", "its last entry is no offer")
        said = details.decode(journal[-1].data or "null")
        _expect(isinstance(said, dict) and said.get("state") == "offered", "its last entry is no offer")
        _expect(said["handover"] == self._handover_id, "its last entry is the offer of another handover")
        _expect(run.value["status"] == "waiting", f"the run is {run.value['status']!r}, and not offered")
        status, wake_at, awaits, paused = (said[name] for name in ("status", "wakeAt", "awaits", "paused"))
        _expect(status in ("pending", "waiting"), f"it was {status!r}")
        _expect(paused in (0, 1), f"paused is {paused!r}")
        _expect(wake_at is None or (type(wake_at) is int and 0 <= wake_at <= _LAST_MOMENT), f"wakeAt is {wake_at!r}")
        _expect(awaits is None or not text_is_deeper_than(1, awaits), f"it waits for {awaits!r}")
        waits = [] if awaits is None else json.loads(awaits)
        fits = isinstance(waits, list) and all(
            isinstance(one, str) and (one == "network" or one.startswith("signal:")) for one in waits
        )
        _expect(fits, f"it waits for {awaits!r}")
        if status == "waiting":
            _expect(waits or wake_at is not None, "it waits for nothing")
        else:
            _expect(wake_at is None or run.value["generation"] == 0, "it has begun, and is delayed")
        return status, wake_at, None if awaits is None else json.dumps(waits), bool(paused)

    # -- whether an engine could have written it ------------------------------------------------------------

    def _check_journal(self, taken: TakenRun, run: _Record) -> None:
        journal, leases, restarted = taken.journal, 0, 0
        progress, undoing, begun = None, None, False
        _expect(journal[0].type == "run:trigger", "its first entry is not that it was asked for")
        for entry in journal:
            leases += entry.type == "run:leased"
            _expect(entry.generation == leases, f"entry {entry.number} has the generation {entry.generation}")
            if entry.type.startswith("step:"):
                _expect(entry.step_name is not None, f"entry {entry.number} names no step")
            if entry.type == "run:restart":
                restarted = entry.number
            elif entry.type == "run:leased":
                begun = True
            elif entry.type == "run:retry" and entry.data is None:
                # Somebody asked for it: its time begins anew.
                begun = False
            elif entry.type == "run:progress":
                progress = entry.data
            elif entry.type == "run:undo":
                undoing = details.decode(entry.data or "")["undoing"]
            elif entry.type in ("run:fail", "run:cancel"):
                undoing = None
        _expect((taken.started_at is not None) is begun, f"startedAt of a run that has {'' if begun else 'not '}begun")
        _expect(taken.progress == progress, "its progress is not what its entries say")
        _expect(taken.undoing == undoing, f"undoing is {taken.undoing!r}, and its entries say {undoing!r}")
        _expect(taken.generation == run.value["attempt"] == leases, f"it was claimed {leases} times")
        _expect(taken.restarted == restarted, f"restarted is {taken.restarted}, and not {restarted}")
        results = {(entry.number, entry.step_name) for entry in journal if entry.type == "step:complete"}
        for undo in taken.undos:
            _expect(undo in results, f"there is no result {undo}")
        _expect(len(set(taken.undos)) == len(taken.undos), "a step is to be undone twice")
        steps, takers = {step for _, step in results}, [one.step_name for one in taken.signals if one.step_name]
        _expect(set(takers) <= steps and len(set(takers)) == len(takers), "a signal was taken by a step without result")

    def _check_rest(self, taken: TakenRun) -> None:
        """Whoever reads the run must be able to: an execution, a caller, a stream."""
        begun: Rows = []
        for entry in taken.journal:
            number, _, type_, step, data, started_at, created_at, _, _ = entry
            row: Row = (1, number, taken.run_id, type_, step, data, started_at, created_at, taken.job_name, "{}", None)
            rows.event(row, self._codec)
            if type_ == "log:write":
                rows.log((data, step, created_at))
            if type_ in ("step:complete", "step:fail", "step:retry", "step:wait") and number > taken.restarted:
                begun.append((type_, step, data, started_at, created_at))
        rows.steps(begun, self._codec)
        if taken.progress is not None:
            said = details.decode(taken.progress)
            Progress(**said).to_wire()
        stored: list[StoredEntry] = []
        for entry in taken.journal:
            if entry.type == "run:restart":
                stored.clear()
            if entry.type in _REPLAYED:
                kind = cast("Kind | None", entry.kind)
                stored.append(StoredEntry(entry.type, entry.step_name, entry.data, entry.created_at, entry.calls, kind))
        History(stored)


def _compact(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8 form; escaped, it survives.
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text


def _tamed(type_: str, data: Any) -> Any:
    """The data of an entry, of which nothing leads to the import of a module that nobody here has asked for.

    What a step raised is raised again when the run is replayed, as an exception of its class. Of a class whose module
    is not loaded it becomes a `StepFailed`.
    """
    if type_ != "step:fail":
        return data
    for name in ("error", "module", "name", "message"):
        _expect(isinstance(data[name], str), f"a failure has no {name}")
    if data["module"] in sys.modules:
        return data
    return {**data, "module": "durably_web.errors", "name": "StepFailed", "message": data["error"]}
