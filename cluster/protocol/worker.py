"""What workers and the scheduler say to each other."""

from __future__ import annotations

from holdfast.cluster.protocol import quick
from holdfast.cluster.protocol.client import FROM_CLIENT, TO_CLIENT
from holdfast.cluster.protocol.errands import ERRAND, ERRAND_DONE, ERRAND_STORED
from holdfast.cluster.protocol.kinds import (
    ACTOR,
    CALLED_VALUE,
    DIGEST,
    DIGESTS,
    ERROR_TEXT,
    FUNCTIONS,
    INLINE,
    KEY,
    KEYS,
    METHOD,
    NAME,
    NBYTES,
    NODES,
    OBJECT,
    OBJECTS,
    PAYLOAD,
    RAISED,
    REASON,
    RECORD,
    RUN,
    RUNS,
    SECONDS,
    SERIAL,
    TEXT,
    TOPICS,
)
from holdfast.cluster.protocol.message import Carrier, Message, Vocabulary
from holdfast.cluster.protocol.shapes import Boolean, Entry, Identity, Integer, Listed, Maybe, OneOf

# -- to the scheduler

FINISHED = Message(
    "finished",
    "Results. Each is sealed in the store of the worker's host. Or it is small and rides along; then it will be "
    "there in a second, unless the scheduler says `discard` before.",
    cut="results",
    results=Listed(
        Entry(
            serial=SERIAL,
            run_id=RUN,
            object_id=OBJECT,
            nbytes=NBYTES,
            inline=Maybe(INLINE),
            type=TEXT,
            seconds=SECONDS,
        ),
        quick=quick.are_results,
    ),
)
ERRED = Message(
    "erred",
    "These tasks raised an exception. A large one is an object that is sealed in the store of the worker's host.",
    cut="errors",
    errors=Listed(Entry(serial=SERIAL, run_id=RUN, raised=RAISED, text=ERROR_TEXT, seconds=SECONDS)),
)
FUTURES_INSIDE = Message(
    "contains",
    "Keys of the futures in the results or exceptions of these runs, which follow. What is contained is kept as long "
    "as what contains it. A run with very many stands here several times.",
    cut="runs",
    runs=Listed(Entry(run_id=RUN, keys=KEYS)),
)
DEPENDENCIES_MISSING = Message(
    "missing",
    "These tasks could not read a dependency anywhere. The object id is empty if the dependency was a run that has no "
    "result.",
    cut="missing",
    missing=Listed(Entry(serial=SERIAL, run_id=RUN, dependency=KEY, object_id=Identity(16, or_empty=True))),
)
RESCHEDULED = Message(
    "rescheduled",
    "These tasks want to be run again, on other workers if there are some that may run them.",
    cut="runs",
    runs=Listed(Entry(serial=SERIAL, run_id=RUN)),
)
WROTE = Message(
    "wrote",
    "The functions of these tasks write into what they read, as was just found out.",
    tasks=Listed(Entry(key=KEY, digest=Maybe(DIGEST))),
)
DROPPED = Message(
    "dropped",
    "Of the runs that the worker was told to drop, these had not started and now never will. The others end as ever, "
    "with `finished`, `erred` or `missing`.",
    cut="run_ids",
    run_ids=RUNS,
)
CONFIRMED = Message("confirmed", "The worker knows of the revocation of this number.", number=Integer(1))

BEGUN = Message("begun", "These runs, whose time is limited, begin.", cut="run_ids", run_ids=RUNS)
RUNS_KEPT = Message(
    "runs-kept",
    "To a scheduler that goes on where another one has ended, from each worker that joins while it is `recovering` and "
    "from each that rejoins: the runs of earlier schedulers that the worker has begun, and whether each waits for "
    "others (`blocked`). The worker has forgotten those that it had not begun. What has ended it has said before. The "
    "epoch is that of the scheduler that is meant; to another one this says nothing.",
    epoch=TEXT,
    runs=Listed(Entry(run_id=RUN, serial=SERIAL, blocked=Boolean())),
)
ACTORS_MADE = Message(
    "actors-made",
    "These runs have made actors, which stay with the worker, and their results, which follow, are handles of these.",
    cut="actors",
    actors=Listed(Entry(actor=ACTOR, name=TEXT)),
)
CALLS_DONE = Message(
    "calls-done",
    "What calls of actors came to; see the client's `called`. What is `stored` is sealed in the store of the worker's "
    "host.",
    cut="results",
    results=Listed(
        Entry(
            call=Integer(1),
            ok=Boolean(),
            value=Maybe(CALLED_VALUE),
            stored=Maybe(Entry(object_id=OBJECT, nbytes=NBYTES, type=TEXT)),
            text=ERROR_TEXT,
            keys=KEYS,
        )
    ),
)
CALLS_MISSING = Message(
    "calls-missing",
    "These calls could not read a dependency anywhere, and have not begun. The worker begins no later call of their "
    "callers to these actors before each has come once more, or is dropped.",
    cut="calls",
    calls=Listed(Entry(call=Integer(1), dependency=KEY, object_id=OBJECT)),
)

BLOCKED = Message(
    "blocked",
    "These runs wait for other runs. Their slots and resources are lent meanwhile.",
    cut="run_ids",
    run_ids=RUNS,
)
RECLAIM = Message(
    "reclaim",
    "These runs, which are blocked, want the resources back that they hold. The scheduler answers with `granted`.",
    cut="run_ids",
    run_ids=RUNS,
)
RETURNED = Message("returned", "These runs, which were blocked, go on.", cut="run_ids", run_ids=RUNS)
TASKS_OPENED = Message(
    "tasks-opened",
    "The worker's tasks share a client from now on, which lives and dies with the worker's connection; one that there "
    "was before has ended. The scheduler answers with `tasks`, and in that with `nodes`: all that there are.",
)
EVENT_LOGGED = Message(
    "event",
    "A task, or what else goes on in the worker, adds an event to these topics.",
    topics=TOPICS,
    record=RECORD,
)
RESTART_WANTED = Message(
    "restart-wanted", "A plugin wants another process in the place of this worker's.", reason=REASON
)
FROM_TASKS = Carrier(
    "tasks",
    "What follows is a message of the client that the worker's tasks share, with its operation first.",
    FROM_CLIENT,
)

FROM_WORKER = Vocabulary(
    "a worker",
    "the scheduler",
    FUTURES_INSIDE,
    FINISHED,
    ERRED,
    DEPENDENCIES_MISSING,
    RESCHEDULED,
    WROTE,
    DROPPED,
    CONFIRMED,
    BEGUN,
    RUNS_KEPT,
    ACTORS_MADE,
    CALLS_DONE,
    CALLS_MISSING,
    BLOCKED,
    RECLAIM,
    RETURNED,
    TASKS_OPENED,
    EVENT_LOGGED,
    RESTART_WANTED,
    FROM_TASKS,
    ERRAND_DONE,
    ERRAND_STORED,
)

# -- from the scheduler

FUNCTIONS_SENT = Message(
    "functions",
    "Functions, before the first task that names them by their digest.",
    cut="functions",
    functions=FUNCTIONS,
)
FUNCTIONS_FORGOTTEN = Message(
    "forget", "Functions that no task refers to, and no client may name.", cut="digests", digests=DIGESTS
)
_DEPENDENCIES = Listed(
    Entry(key=KEY, object=OneOf("an object or a run", OBJECT, RUN), inline=Maybe(INLINE), nodes=NODES)
)
RUN_TASKS = Message(
    "run",
    "Tasks to run, in this order. A `private` run gets views of its own of what it reads, which it may write to. In "
    "the place of an object that a task reads may stand a run which was sent to this worker before: its result is "
    "meant, as soon as it is there.",
    cut="runs",
    runs=Listed(
        Entry(
            key=KEY,
            run_id=RUN,
            digest=Maybe(DIGEST),
            payload=PAYLOAD,
            dependencies=_DEPENDENCIES,
            private=Boolean(),
            serial=SERIAL,
        ),
        quick=quick.are_runs,
    ),
)
HOLDING = Message(
    "holding",
    "Of the runs that follow these take resources. When they have been blocked, they don't go on before these are "
    "`granted`.",
    cut="run_ids",
    run_ids=RUNS,
)
TIMED = Message(
    "timed",
    "Of the runs that follow these have a limited time. The worker says when each of them has `begun`.",
    cut="run_ids",
    run_ids=RUNS,
)
GRANTED = Message("granted", "These runs have the resources back that they hold.", cut="run_ids", run_ids=RUNS)
DISCARD = Message(
    "discard",
    "No task and no client needs these results, which the worker has sent in `finished`. The worker deletes those that "
    "it has put into the store already, and stores none of the others.",
    cut="object_ids",
    object_ids=OBJECTS,
)
DROP = Message(
    "drop",
    "The worker does not start these runs: their results aren't needed, or another worker is to run them.",
    cut="run_ids",
    run_ids=RUNS,
)
REVOKED = Message(
    "revoked",
    "The worker's node has taken these runs away (`cluster/ledger.py`), and the worker forgets them. It may begin "
    "others again if there was no later revocation.",
    number=Integer(1),
    run_ids=RUNS,
)
CALLS = Message(
    "calls",
    "Calls of actors' methods. Those of one caller to one actor begin in this order, and in this order among all that "
    "is sent. An actor begins one call at a time.",
    cut="calls",
    calls=Listed(
        Entry(
            call=Integer(1),
            actor=ACTOR,
            caller=NAME,
            method=METHOD,
            payload=Maybe(PAYLOAD),
            dependencies=_DEPENDENCIES,
        )
    ),
)
DROP_CALLS = Message(
    "drop-calls",
    "The worker does not begin these calls: their caller has left, or what they depend on has failed. No word is due "
    "on them.",
    cut="calls",
    calls=Listed(Integer(1)),
)
DROP_ACTORS = Message("drop-actors", "Nothing refers to these actors.", cut="actors", actors=Listed(ACTOR))
TO_TASKS = Carrier(
    "tasks",
    "What follows is a message to the client that the worker's tasks share, with its operation first.",
    TO_CLIENT,
)
CLOSE = Message("close", "The worker finishes and exits.")

TO_WORKER = Vocabulary(
    "the scheduler",
    "a worker",
    FUNCTIONS_SENT,
    FUNCTIONS_FORGOTTEN,
    HOLDING,
    TIMED,
    RUN_TASKS,
    GRANTED,
    DISCARD,
    DROP,
    REVOKED,
    CALLS,
    DROP_CALLS,
    DROP_ACTORS,
    TO_TASKS,
    ERRAND,
    CLOSE,
)
