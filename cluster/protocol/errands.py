"""Errands: what a worker or a node does for a client beside its tasks, by way of the scheduler.

A client asks for an errand with the request `requests.ERRAND`. The scheduler sends it to those that are to do it
(`ERRAND`), each under a number of its own, and passes on what each of them says in the end: a value (`ERRAND_DONE`), or
that the value lies in the store of its host (`ERRAND_STORED`). What an errand says and gives is defined here, like a
request: its name, its arguments, its answer. The scheduler holds both against the definition and looks no further, so
the bytes of a user stay closed.

An errand is done in a thread of its own, which no task waits for. So it may take as long as it likes.

A further errand is one definition here, and one handler in the table of those that do it: `cluster/worker/errands.py`,
`cluster/node/errands.py`, `cluster/assistant/errands.py`, `cluster/nanny/errands.py`. What is for a nanny goes to the
agent of its host, which passes it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from holdfast.cluster.protocol.kinds import (
    DATASET,
    DURABLE_OBJECT,
    DURABLE_PART,
    DURABLE_PLACE,
    ERROR_TEXT,
    INLINE,
    KEY,
    KEYS,
    NAME,
    NBYTES,
    NODES,
    OBJECT,
    PAYLOAD,
    REASON,
    TEXT,
)
from holdfast.cluster.protocol.limits import (
    MAX_DATASETS,
    MAX_ITEMS,
    MAX_NAMED,
    MAX_PACKAGES,
    MAX_PLAIN_ITEMS,
    MAX_TABLE_ENTRIES,
)
from holdfast.cluster.protocol.message import Message, Request
from holdfast.cluster.protocol.shapes import (
    Anything,
    Blob,
    Boolean,
    Entry,
    Fields,
    Integer,
    Listed,
    Mapped,
    Maybe,
    Nothing,
    Number,
    Plain,
    Shape,
)

#: What the scheduler passes on of the result of a function; a larger one lies in a store.
RESULT_NBYTES = 64 << 10
#: The same, of the process beside the scheduler, which has no store.
ASSISTANT_RESULT_NBYTES = 16 << 20
#: What a function has come to that was called for an errand.
CALLED = Fields({}, {"result": Blob(RESULT_NBYTES), "raised": PAYLOAD, "text": ERROR_TEXT})
#: The plugins that have failed, and how.
FAILED = Fields({"failed": Listed(Entry(name=NAME, raised=PAYLOAD, text=ERROR_TEXT), MAX_NAMED)})
#: What the references in a payload stand for.
DEPENDENCIES = Listed(Entry(key=KEY, object_id=OBJECT, inline=Maybe(INLINE), nodes=NODES), MAX_NAMED)
#: Plugins that are to be set up.
PLUGINS = Listed(Entry(name=NAME, call=PAYLOAD, dependencies=DEPENDENCIES), MAX_NAMED)

#: The kinds of processes that do errands.
Doer: TypeAlias = Literal["worker", "node", "assistant", "nanny"]
#: The name of the process beside the scheduler, where that of a worker or node would be.
ASSISTANT = "assistant"


class Errand(Request):
    """One kind of errand.

    Parameters
    ----------
    operation
        Its name.
    meaning
        What is done, for the docs, in full sentences.
    by
        Who does it.
    answer
        What its value is. Its limits are those of the message that brings it: what may be larger goes into the store
        of the host.
    needed, known
        The arguments that have to be there, and those that may, by name.

    Examples
    --------
    >>> from holdfast.cluster.protocol.shapes import Nothing
    >>> NAP = Errand("nap", "Sleeps.", by="worker", answer=Nothing(), needed={"seconds": Integer()})
    >>> NAP(seconds=3)
    ('nap', {'seconds': 3})
    """

    __slots__ = ("by",)

    def __init__(
        self,
        operation: str,
        meaning: str,
        /,
        *,
        by: Doer,
        answer: Shape,
        needed: Mapping[str, Shape] | None = None,
        known: Mapping[str, Shape] | None = None,
    ) -> None:
        super().__init__(operation, meaning, answer=answer, needed=needed, known=known, waits=True)
        self.by = by


ERRAND = Message(
    "errand",
    "Something to do beside all tasks. `errand-done` or `errand-stored` of the same number answers.",
    number=Integer(1),
    operation=TEXT,
    arguments=Mapped(TEXT, Anything("what the errand says"), MAX_NAMED),
)
ERRAND_DONE = Message(
    "errand-done",
    "What an errand has come to. If it is not `ok`, its value is the name and the text of an error, one of "
    "`cluster/errors.py` or a built-in one.",
    number=Integer(1),
    ok=Boolean(),
    value=Anything("what the errand gives"),
)
ERRAND_STORED = Message(
    "errand-stored",
    "The value of an errand is this object, which is sealed in the store of the host.",
    number=Integer(1),
    object_id=OBJECT,
    nbytes=NBYTES,
    type=TEXT,
)

RUN = Errand(
    "run",
    "Calls a function of a user's. `call` is the pickle of the function with its arguments, in which references stand "
    "for `dependencies`. If it `waits`, the answer has what the function returns in its flat encoding, or what it "
    "raises, with a text. An answer in the store is what it returns.",
    by="worker",
    needed={"call": PAYLOAD},
    known={"dependencies": DEPENDENCIES, "waits": Boolean()},
    answer=CALLED,
)
RUN_ON_SCHEDULER = Errand(
    "run-on-scheduler",
    "As `run`, in the process beside the scheduler. There is no store for what it returns.",
    by="assistant",
    needed={"call": PAYLOAD},
    known={"dependencies": DEPENDENCIES, "waits": Boolean()},
    answer=Fields({}, {"result": Blob(ASSISTANT_RESULT_NBYTES), "raised": PAYLOAD, "text": ERROR_TEXT}),
)
SET_UP_PLUGINS = Errand(
    "set-up-plugins",
    "Sets up plugins, one after the other, each of which is the pickle of one. They are `first` on a worker that has "
    "just joined. It may have joined an earlier scheduler before: those that it has already stay as they are. The "
    "answer has those that have failed, with what they have raised.",
    by="worker",
    needed={"plugins": PLUGINS},
    known={"first": Boolean()},
    answer=FAILED,
)
TAKE_DOWN_PLUGIN = Errand(
    "take-down-plugin",
    "Takes down a plugin, if it is there.",
    by="worker",
    needed={"name": NAME},
    answer=FAILED,
)
SET_UP_SCHEDULER_PLUGINS = Errand(
    "set-up-scheduler-plugins",
    "As `set-up-plugins`, of plugins of the scheduler.",
    by="assistant",
    needed={"plugins": PLUGINS},
    answer=FAILED,
)
TAKE_DOWN_SCHEDULER_PLUGIN = Errand(
    "take-down-scheduler-plugin",
    "Closes a plugin of the scheduler, if it is there.",
    by="assistant",
    needed={"name": NAME},
    answer=FAILED,
)
RUN_ON_NANNY = Errand(
    "run-on-nanny",
    "As `run`, in the process beside the node's agent.",
    by="nanny",
    needed={"call": PAYLOAD},
    known={"dependencies": DEPENDENCIES, "waits": Boolean()},
    answer=CALLED,
)
SET_UP_NANNY_PLUGINS = Errand(
    "set-up-nanny-plugins",
    "As `set-up-plugins`, of plugins of hosts. They are `first` on a host that has just joined, where no worker has "
    "had a task if it is new, and set up `again` on a host whose nanny has died. If the answer says `restart`, the "
    "agent has started the workers of the host anew before it has passed the answer on.",
    by="nanny",
    needed={"plugins": PLUGINS},
    known={"first": Boolean(), "again": Boolean()},
    answer=Fields(FAILED.needed, {"restart": Boolean()}),
)
TAKE_DOWN_NANNY_PLUGIN = Errand(
    "take-down-nanny-plugin",
    "Takes down a plugin of hosts, if it is there.",
    by="nanny",
    needed={"name": NAME},
    answer=FAILED,
)
VERSIONS = Errand(
    "versions",
    "The versions of Python, of the libraries that matter to a cluster, and of these packages, as the worker has them.",
    by="worker",
    known={"packages": Listed(TEXT, MAX_PACKAGES)},
    answer=Fields({"host": Plain(), "packages": Plain()}),
)

# -- what clients look at

_LINES = Listed(Entry(level=TEXT, text=REASON), MAX_PLAIN_ITEMS)

CALL_STACKS = Errand(
    "call-stacks",
    "The tasks that run at the worker, and the frames of each as texts: the outermost first.",
    by="worker",
    answer=Listed(Entry(key=KEY, frames=Listed(REASON, MAX_PLAIN_ITEMS)), MAX_PLAIN_ITEMS),
)
WORKER_LOGS = Errand(
    "worker-logs",
    "The last lines that were logged in the worker's process, the newest first: so many, or of nil all that are kept.",
    by="worker",
    known={"n": Maybe(Integer())},
    answer=_LINES,
)
NODE_LOGS = Errand(
    "node-logs",
    "The last lines that were logged in the agent's process, the newest first: so many, or of nil all that are kept.",
    by="node",
    known={"n": Maybe(Integer())},
    answer=_LINES,
)
OBJECT_HERE = Errand(
    "object",
    "What the node's store has of an object: the state of it there, how old it is, and which processes look at it now. "
    "Nil: it isn't there.",
    by="node",
    needed={"object_id": OBJECT},
    answer=Maybe(Fields({"state": TEXT, "age": Number(), "pins": Integer(), "readers": Listed(TEXT, MAX_NAMED)})),
)
OBJECTS_HERE = Errand(
    "objects",
    "The states of these objects in the node's store, in their order; an empty text is one that isn't there.",
    by="node",
    needed={"object_ids": Listed(OBJECT, MAX_NAMED)},
    answer=Listed(TEXT, MAX_NAMED),
)
TASK_HERE = Errand(
    "task",
    "For how many seconds the worker has been running a task, and which line of a program is being run for it. Nil: "
    "it does not run the task.",
    by="worker",
    needed={"key": KEY},
    answer=Maybe(Fields({"seconds": Number(), "line": TEXT})),
)
PROFILE = Errand(
    "profile",
    "How often tasks of this prefix were seen in which functions, between two times: the pickle of a tree "
    "(`processes/profiling.py`). With `server`, in which functions the worker's loop was seen, since it was asked for "
    "first.",
    by="worker",
    known={"key": Maybe(TEXT), "start": Maybe(Number()), "stop": Maybe(Number()), "server": Boolean()},
    answer=PAYLOAD,
)
RECORD_TASKS = Errand(
    "record-tasks",
    "The worker records what each task takes, from now on and for this client, or no longer.",
    by="worker",
    needed={"client": NAME, "on": Boolean()},
    answer=Nothing(),
)
FORWARD_LOGS = Errand(
    "forward-logs",
    "The worker logs what this logger, or the root, logs from a level on as events of a topic, or does so no longer.",
    by="worker",
    needed={"topic": NAME, "logger": Maybe(TEXT), "level": Integer(), "on": Boolean()},
    answer=Nothing(),
)
TASK_STREAM = Errand(
    "task-stream",
    "What each task took that ran between two times: the pickle of a list of the last ones, so many. The worker "
    "records it for this client from now on.",
    by="worker",
    needed={"client": NAME},
    known={"start": Maybe(Number()), "stop": Maybe(Number()), "count": Maybe(Integer())},
    answer=PAYLOAD,
)

# -- durable datasets: what a node does with their files (`cluster/node/durable.py`). Each can be done twice.

SEE_PLACE = Errand(
    "see-place",
    "The id of a place for durable datasets, as this host sees it. Nil: it isn't there; with `create` it is made.",
    by="node",
    needed={"place": DURABLE_PLACE},
    known={"create": Boolean()},
    answer=Maybe(TEXT),
)
ENTER_WRITER = Errand(
    "enter-writer",
    "Enters a publication that begins, so that nothing is deleted that it finds there. `process` is that which sees to "
    "it: when it is known to be dead, so is the publication.",
    by="node",
    needed={"place": DURABLE_PLACE, "publication": TEXT, "process": Plain()},
    answer=Nothing(),
)
LEAVE_WRITER = Errand(
    "leave-writer",
    "A publication is given up.",
    by="node",
    needed={"place": DURABLE_PLACE, "publication": TEXT},
    answer=Nothing(),
)
WRITE_OBJECTS = Errand(
    "write-objects",
    "Writes objects as files, which are safe when it answers. Nil stands for one that is neither in the store of this "
    "host nor can be brought from these nodes.",
    by="node",
    needed={
        "place": DURABLE_PLACE,
        "objects": Listed(Entry(object_id=OBJECT, inline=Maybe(INLINE), nodes=NODES), MAX_ITEMS),
    },
    answer=Listed(Maybe(DURABLE_OBJECT), MAX_ITEMS),
)
WRITE_TABLE = Errand(
    "write-table",
    "Writes a list of keys with their objects, and the keys of the futures inside of these.",
    by="node",
    needed={
        "place": DURABLE_PLACE,
        "entries": Listed(Entry(key=KEY, stored=DURABLE_OBJECT, type=TEXT, inside=KEYS), MAX_TABLE_ENTRIES),
    },
    answer=DURABLE_PART,
)
PUBLISH_DURABLY = Errand(
    "publish-durably",
    "Writes the manifest of a publication, whose objects are safe. From then on these datasets are there, and the "
    "names that it `removes` mean nothing.",
    by="node",
    needed={
        "place": DURABLE_PLACE,
        "publication": TEXT,
        "datasets": Listed(
            Entry(
                name=DATASET,
                recipe=PAYLOAD,
                about=Plain(),
                tables=Listed(DURABLE_PART),
                count=Integer(),
                nbytes=NBYTES,
            ),
            MAX_DATASETS,
        ),
        "removes": Listed(DATASET, MAX_DATASETS),
    },
    answer=Nothing(),
)
DURABLE_DATASETS = Errand(
    "durable-datasets",
    "What datasets there are in a place, or those of them that have these names.",
    by="node",
    needed={"place": DURABLE_PLACE},
    known={"names": Listed(DATASET, MAX_DATASETS)},
    answer=Listed(Entry(name=DATASET, about=Plain(), count=Integer(), nbytes=NBYTES)),
)
LOAD_DATASET = Errand(
    "load-dataset",
    "A dataset in a place, but for its keys; nil if there is none of this name.",
    by="node",
    needed={"place": DURABLE_PLACE, "name": DATASET},
    answer=Maybe(Entry(recipe=PAYLOAD, about=Plain(), tables=Listed(DURABLE_PART), count=Integer(), nbytes=NBYTES)),
)
LOAD_TABLE = Errand(
    "load-table",
    "The keys in one list of a durable dataset. `object_id` is a new one for each.",
    by="node",
    needed={"place": DURABLE_PLACE, "table": DURABLE_PART},
    answer=Listed(Entry(object_id=OBJECT, key=KEY, stored=DURABLE_OBJECT, type=TEXT, inside=KEYS), MAX_TABLE_ENTRIES),
)
SWEEP_PLACE = Errand(
    "sweep-place",
    "Deletes what no dataset in a place refers to, unless somebody is writing there. Whether nothing is left to "
    "delete.",
    by="node",
    needed={"place": DURABLE_PLACE},
    answer=Boolean(),
)

#: Those that workers may be told to do as long as a client is there.
STANDING = (RECORD_TASKS, FORWARD_LOGS)

ERRANDS = (
    RUN,
    RUN_ON_SCHEDULER,
    SET_UP_SCHEDULER_PLUGINS,
    TAKE_DOWN_SCHEDULER_PLUGIN,
    RUN_ON_NANNY,
    SET_UP_NANNY_PLUGINS,
    TAKE_DOWN_NANNY_PLUGIN,
    SET_UP_PLUGINS,
    TAKE_DOWN_PLUGIN,
    VERSIONS,
    CALL_STACKS,
    WORKER_LOGS,
    NODE_LOGS,
    OBJECT_HERE,
    OBJECTS_HERE,
    TASK_HERE,
    PROFILE,
    TASK_STREAM,
    RECORD_TASKS,
    FORWARD_LOGS,
    SEE_PLACE,
    ENTER_WRITER,
    LEAVE_WRITER,
    WRITE_OBJECTS,
    WRITE_TABLE,
    PUBLISH_DURABLY,
    DURABLE_DATASETS,
    LOAD_DATASET,
    LOAD_TABLE,
    SWEEP_PLACE,
)


def done_by(doer: Doer) -> tuple[Errand, ...]:
    """The errands that such a process does."""
    return tuple([errand for errand in ERRANDS if errand.by == doer])
