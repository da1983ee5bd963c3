"""The states of a task, and the legal moves between them, as data.

`moves` has the one method that changes a state. In tests every move is held against `TRANSITIONS`. `diagram` draws both
tables, in ``docs/scheduler-states.md``.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

State: TypeAlias = Literal[
    "released", "waiting", "no-worker", "ready", "processing", "memory", "lost", "erred", "forgotten"
]

#: What each state means.
STATES: dict[State, str] = {
    "released": "known, but nothing is done about it; kept as lineage of the tasks that depend on it",
    "waiting": "wanted; a dependency has no result yet",
    "no-worker": "could run, but no worker that there is, or is to come, may run it; fails after a time",
    "ready": "in a queue; goes to the next worker with room",
    "processing": (
        "sent to a worker; there it may have to wait for the run of a dependency that was sent to it before"
    ),
    "memory": "its result is in a store (or at least here, when it is small)",
    "lost": "wanted, and can't be made again: its host is gone, and may come back with it; fails after a time",
    "erred": "it failed, or something that it depends on did",
    "forgotten": "the scheduler has forgotten it",
}

#: The state of a task that has just come to be.
FIRST: State = "released"

#: The states in which a task needs the results of its dependencies.
ACTIVE: frozenset[State] = frozenset({"waiting", "no-worker", "ready", "processing"})

#: The legal moves, each with what brings it about. Nothing else ever happens.
TRANSITIONS: dict[tuple[State, State], str] = {
    ("released", "waiting"): "its result is needed, and a dependency has none yet",
    ("released", "ready"): "its result is needed, and its dependencies have theirs; a worker may run it",
    ("released", "no-worker"): "the same, but no worker may run it",
    ("released", "memory"): "a client has put its data into a store",
    ("released", "lost"): "its data is needed, can't be computed, and went with a host that may come back",
    ("released", "erred"): (
        "its data is needed, and is lost for good; or it was an actor's, whose worker is gone; or something that it "
        "depends on was unknown"
    ),
    ("released", "forgotten"): "neither a task nor a client can ask for it",
    ("waiting", "processing"): "it is lined up on a worker, behind the run of the one task that it waits for",
    ("waiting", "ready"): "the last dependency that it waited for has its result; a worker may run it",
    ("waiting", "no-worker"): "the same, but no worker may run it",
    ("waiting", "memory"): "its result was found: its host is back, or a run that was given up has ended",
    ("waiting", "erred"): "a dependency has failed",
    ("waiting", "released"): "nothing needs it",
    ("no-worker", "ready"): "a worker has come that may run it",
    ("no-worker", "waiting"): "a dependency has lost its result",
    ("no-worker", "memory"): "its result was found",
    ("no-worker", "erred"): "no such worker has come in time",
    ("no-worker", "released"): "nothing needs it",
    ("ready", "processing"): "a worker has room for it",
    ("ready", "no-worker"): "the last worker that may run it is gone",
    ("ready", "waiting"): "a dependency has lost its result",
    ("ready", "memory"): "its result was found",
    ("ready", "released"): "nothing needs it",
    ("processing", "memory"): "its run has ended, with a result",
    ("processing", "erred"): "its run has ended, with an exception, or killed too many workers",
    ("processing", "ready"): "its run was dropped, or lost with a worker, or is to be retried; a worker may run it",
    ("processing", "no-worker"): "the same, but no worker may run it",
    ("processing", "waiting"): "the same, but a dependency has no result, or has lost it",
    ("processing", "released"): "nothing needs it; its worker is told to drop the run",
    ("memory", "released"): "nothing needs it, and it is deleted; or its last copy is lost",
    ("lost", "memory"): "its host is back, or a client has put the data into a store again",
    ("lost", "erred"): "its host has not come back in time",
    ("lost", "released"): "nothing needs it, or a client has said how it is computed",
    ("erred", "released"): "nothing needs it, what it failed for is there again, or a client wants another try",
}
