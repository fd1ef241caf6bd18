"""Every operation of the engine: arguments in, one batch and the reading of its outcome out.

No operation reads a clock, makes an id, or decides in Python what the next statement is. Fences and
conditions are in the SQL, beside the operation that uses it; the last statement tells what happened. Each is
atomic and safe to send twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durably_web.store.operations.claiming import (
    Claimed,
    JobLimits,
    Ownership,
    claim,
    free_leases_of,
    next_tick,
    other_owners,
    renew_leases,
)
from durably_web.store.operations.executing import (
    ChildOutcome,
    Entry,
    OpenSignal,
    child_outcome,
    create_child,
    finish_run,
    holders_among_ancestors,
    open_signals,
    release_run,
    restart,
    set_code,
    suspend_run,
    take_signal,
    wake_for_network,
    write_entries,
)
from durably_web.store.operations.queueing import Signalled, Switched, pause, pause_job, resume, resume_job, signal
from durably_web.store.operations.reading import (
    EventPage,
    Filter,
    Whole,
    find_runs,
    get_logs,
    get_run,
    get_runs,
    get_steps,
    get_whole,
    last_seq,
    read_events,
    stats,
)
from durably_web.store.operations.refusing import Refusal, store_refusals
from durably_web.store.operations.repeating import Answered, find_answer, store_answer
from durably_web.store.operations.requests import Copied, Outcome, cancel, delete_runs, fork, retrigger, retry
from durably_web.store.operations.schema import apply_migration, create_schema_table, has_schema, schema_version
from durably_web.store.operations.triggering import (
    Coalesce,
    Trigger,
    Triggered,
    pending_of,
    trigger,
    trigger_many,
)

if TYPE_CHECKING:
    from durably_web.store.operations.counting import due_since, queue_state, waiting_page
    from durably_web.store.operations.firing import (
        correct_schedule,
        fire_schedule,
        next_schedules,
        trigger_schedule,
    )
    from durably_web.store.operations.handing import offer_run, settle_handover
    from durably_web.store.operations.looking_ahead import outlook
    from durably_web.store.operations.paging import (
        get_head,
        get_input,
        journal_page,
        payloads_page,
        schedule_names,
    )
    from durably_web.store.operations.scheduling import (
        get_schedules,
        pause_schedule,
        put_schedule,
        remove_schedule,
        resume_schedule,
    )
    from durably_web.store.operations.taking import decline_handover, import_run
    from durably_web.store.operations.undoing import undos_of

__all__ = [
    "Answered",
    "ChildOutcome",
    "Claimed",
    "Coalesce",
    "Copied",
    "Entry",
    "EventPage",
    "Filter",
    "JobLimits",
    "OpenSignal",
    "Outcome",
    "Ownership",
    "Refusal",
    "Signalled",
    "Switched",
    "Trigger",
    "Triggered",
    "Whole",
    "apply_migration",
    "cancel",
    "child_outcome",
    "claim",
    "correct_schedule",
    "create_child",
    "create_schema_table",
    "decline_handover",
    "delete_runs",
    "due_since",
    "find_answer",
    "find_runs",
    "finish_run",
    "fire_schedule",
    "fork",
    "free_leases_of",
    "get_head",
    "get_input",
    "get_logs",
    "get_run",
    "get_runs",
    "get_schedules",
    "get_steps",
    "get_whole",
    "has_schema",
    "holders_among_ancestors",
    "import_run",
    "journal_page",
    "last_seq",
    "next_schedules",
    "next_tick",
    "offer_run",
    "open_signals",
    "other_owners",
    "outlook",
    "pause",
    "pause_job",
    "pause_schedule",
    "payloads_page",
    "pending_of",
    "put_schedule",
    "queue_state",
    "read_events",
    "release_run",
    "remove_schedule",
    "renew_leases",
    "restart",
    "resume",
    "resume_job",
    "resume_schedule",
    "retrigger",
    "retry",
    "schedule_names",
    "schema_version",
    "set_code",
    "settle_handover",
    "signal",
    "stats",
    "store_answer",
    "store_refusals",
    "suspend_run",
    "take_signal",
    "trigger",
    "trigger_many",
    "trigger_schedule",
    "undos_of",
    "waiting_page",
    "wake_for_network",
    "write_entries",
]


def __getattr__(name: str) -> Any:
    # Few need these, and in a browser each module costs a millisecond at the start.
    if name == "undos_of":
        from durably_web.store.operations.undoing import undos_of

        return undos_of
    if name == "outlook":
        from durably_web.store.operations.looking_ahead import outlook

        return outlook
    if name in ("due_since", "queue_state", "waiting_page"):
        from durably_web.store.operations import counting

        return getattr(counting, name)
    if name in __all__:
        from durably_web.store.operations import firing, handing, paging, scheduling, taking

        modules = (firing, handing, paging, scheduling, taking)
        return next(getattr(module, name) for module in modules if hasattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
