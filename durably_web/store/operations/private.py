"""Which parameters of which statement are values of users: inputs, outputs, results, errors, logs, progress, signals.

A statement that writes one of them and is not in this table is found by a test.
"""

from __future__ import annotations

from durably_web.store.operations import executing, queueing, refusing, scheduling, taking, triggering

USER_DATA: dict[str, tuple[int, ...]] = {
    triggering.INSERT_RUN: (2,),
    triggering.INSERT_KEYED_RUN: (2,),
    triggering.INSERT_TRIGGER_ENTRY: (0,),
    triggering.INSERT_ASKED_ENTRY: (0,),
    triggering.INSERT_COALESCED_ENTRY: (0,),
    triggering.REPLACE_INPUT: (0,),
    triggering.PUT_OFF: (0,),
    refusing.INSERT_REFUSED_RUN: (2, 3),
    refusing.INSERT_FAILURE: (0,),
    executing.INSERT_CHILD: (2,),
    executing.INSERT_ENTRY: (3,),
    executing.UPDATE_PROGRESS: (0,),
    executing.FINISH_RUN: (1, 2),
    queueing.INSERT_SIGNAL: (1,),
    taking.INSERT_TAKEN_RUN: (3, 5),
    taking.REVIVE_RUN: (1, 2),
    taking.INSERT_TAKEN_ENTRY: (5,),
    taking.INSERT_TAKEN_SIGNAL: (3,),
    scheduling.INSERT_SCHEDULE: (5,),
    scheduling.UPDATE_SCHEDULE: (4,),
}
"""Statement → positions of the parameters that a sealing executor seals."""
