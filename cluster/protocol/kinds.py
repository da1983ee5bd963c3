"""The kinds of things that messages name and carry: keys, objects, runs, names, payloads."""

from __future__ import annotations

from holdfast.cluster.protocol import quick
from holdfast.cluster.protocol.limits import (
    CALL_INLINE_NBYTES,
    ERROR_INLINE_NBYTES,
    ERROR_TEXT_LENGTH,
    INLINE_LIMIT_NBYTES,
    MAX_DATASET_NAME_NBYTES,
    MAX_INTEGER,
    MAX_NAME_LENGTH,
    MAX_NAMED,
    MAX_OBJECT_NBYTES,
    MAX_PAYLOAD_NBYTES,
    MAX_REASON_LENGTH,
    MAX_RECORD_DEPTH,
    MAX_RECORD_LEAVES,
    MAX_THREADS,
)
from holdfast.cluster.protocol.shapes import (
    Blob,
    Boolean,
    Either,
    Entry,
    Fields,
    Identity,
    Integer,
    KeyShape,
    Listed,
    Mapped,
    Maybe,
    Nothing,
    Number,
    OneOf,
    Plain,
    Shape,
    Text,
)

KEY = KeyShape()
DATASET = KeyShape(MAX_DATASET_NAME_NBYTES)
OBJECT = Identity(16)
DIGEST = Identity(16)
NAME = Text(MAX_NAME_LENGTH, 1)
TEXT = Text(MAX_NAME_LENGTH)
ADDRESS = Text(MAX_NAME_LENGTH, 1)
REASON = Text(MAX_REASON_LENGTH)
RUN = Integer(-MAX_INTEGER - 1)  # those of a warm-up aren't positive
SERIAL = Integer(0)
NBYTES = Integer(0, MAX_OBJECT_NBYTES)
SECONDS = Number(0.0, 1e12)
PAYLOAD = Blob(MAX_PAYLOAD_NBYTES)
INLINE = Blob(INLINE_LIMIT_NBYTES)
TURN = Integer()
INCARNATION = Integer(1)
ERROR = Blob(ERROR_INLINE_NBYTES)
CALLED_VALUE = Blob(CALL_INLINE_NBYTES)
ERROR_TEXT = Text(ERROR_TEXT_LENGTH)
RESOURCES = Mapped(TEXT, Number(), MAX_NAMED)

ACTOR = Integer(1)
METHOD = Text(MAX_NAME_LENGTH, 1)
KEYS = Listed(KEY, quick=quick.are_keys)
NODES = Listed(ADDRESS)
OBJECTS = Listed(OBJECT)
DIGESTS = Listed(DIGEST)
RUNS = Listed(RUN)
FUNCTIONS = Listed(Entry(digest=DIGEST, blob=PAYLOAD))
#: A small exception itself, or where a large one lies as an object.
RAISED = Either(Entry(object_id=OBJECT, nbytes=NBYTES), ERROR)
#: The same, or the class of an error of the scheduler's own, of which the text says all.
REPORTED_RAISED = Either(
    Entry(object_id=OBJECT, nbytes=NBYTES, nodes=NODES), OneOf("an exception or its class", ERROR, NAME)
)

_OPTIONS: dict[str, Shape] = {
    "priority": Number(float("-inf"), float("inf")),
    "retries": Integer(0, (1 << 64) - 1),
    "workers": Listed(TEXT, MAX_NAMED),
    "allow_other_workers": Boolean(),
    "resources": RESOURCES,
    "writable": Boolean(),
    "run_timeout": SECONDS,
    "actor": Boolean(),
}
TASK_OPTIONS = Fields({}, _OPTIONS)
#: Of a client that is the tasks of a worker, ``parent`` is the run in which they are submitted.
OPTIONS = Fields({}, {**_OPTIONS, "parent": RUN, "per_key": Mapped(KEY, TASK_OPTIONS, 1 << 26)})

#: Where a node keeps a worker.
PLACE = Entry(address=ADDRESS, name=NAME, nthreads=Integer(1, MAX_THREADS), resources=RESOURCES)
PLACES = Listed(PLACE, MAX_NAMED)
#: What a node says about itself, and the scheduler passes on. Later versions may add fields.
NODE_DESCRIPTION = Fields(
    {"address": ADDRESS, "incarnation": NAME, "hostname": TEXT, "capacity": NBYTES},
    {
        "host_id": TEXT,
        "store_socket": TEXT,
        "pid": Integer(),
        "nthreads": Integer(0, MAX_THREADS),
        "places": PLACES,
        "deaths": Plain(),
        "last_death": Plain(),
    },
    others=Plain(),
)
#: The same, where all but the address may be unknown.
NODE_KNOWN = Fields({"address": ADDRESS}, NODE_DESCRIPTION.known, others=Plain())

_DESCRIPTION: dict[str, Shape] = {
    "key": Maybe(TEXT),
    "type": Maybe(TEXT),
    "owner": Maybe(TEXT),
    "label": SERIAL,
    "contains": Maybe(KEYS),
}
#: What a store says of an object that it has. Later versions may add fields.
OBJECT_DESCRIPTION = Fields({"id": OBJECT, "nbytes": NBYTES}, _DESCRIPTION, others=Plain())
#: The same, of an object whose size need not be known.
OBJECT_NAMED = Fields({"id": OBJECT}, {"nbytes": NBYTES, **_DESCRIPTION}, others=Plain())

#: Where durable datasets lie: a path or a URL. And an object there: the hexadecimal digits of its SHA-256, its size,
#: and those of its XXH3.
DURABLE_PLACE = Text(MAX_NAME_LENGTH, 1)
DURABLE_PART = Entry(digest=TEXT, nbytes=NBYTES)
DURABLE_OBJECT = Entry(digest=TEXT, nbytes=NBYTES, checksum=TEXT)

#: What users leave with the scheduler (`records.py`).
PATH = Listed(KEY, MAX_RECORD_DEPTH)
LEAF = OneOf(
    "nothing, a number, a text, pickled bytes, or an empty array for an empty dictionary",
    Nothing(),
    Boolean(),
    Integer(-MAX_INTEGER - 1),
    Number(-float("inf"), float("inf")),
    Text(MAX_PAYLOAD_NBYTES),
    PAYLOAD,
    Entry(),
)
RECORD = Listed(Entry(path=PATH, leaf=LEAF), MAX_RECORD_LEAVES)
EVENT = Entry(time=Number(), record=RECORD)
TOPICS = Listed(NAME, MAX_RECORD_LEAVES)


#: What the docs call those of them that stand in many messages, and what is said of each there.
GLOSSARY: dict[str, tuple[Shape, str]] = {
    "key": (KEY, "The name of a computation."),
    "dataset name": (DATASET, f"As a key, of at most {MAX_DATASET_NAME_NBYTES:,} bytes."),
    "object id": (OBJECT, "The name of bytes in a store. None is used twice."),
    "run": (RUN, "The number of one run of a task. It grows; those of a worker's warm-up are not positive."),
    "serial": (
        SERIAL,
        "The number of a task. No other has it, also of the same key; zero stands for none. The result of a task is "
        "*labelled* with it in stores.",
    ),
    "name": (NAME, "The name of a worker or the like."),
    "short text": (TEXT, "A name where it may be empty, and the like."),
    "address": (ADDRESS, "Of a node, `tcp://host:port`; or of a worker, `<its node's address>/<its number there>`."),
    "reason": (REASON, "Why something happened, for people."),
    "size": (NBYTES, "Of an object, in bytes."),
    "seconds": (SECONDS, "A time."),
    "payload": (PAYLOAD, "What the scheduler passes on and never looks into: arguments, a function, a recipe."),
    "inline": (INLINE, "A small object, in its flat encoding."),
    "actor": (ACTOR, "An actor: the number of the run that made it."),
    "method": (METHOD, "The name of an actor's method, or of another of its attributes."),
    "digest": (DIGEST, "The BLAKE2b digest of a function's pickle."),
    "turn": (TURN, "Counts what a client says: see `turn`."),
    "incarnation": (INCARNATION, "The number of a worker's process among those that its agent has started."),
    "error": (ERROR, "An exception, pickled value by value."),
    "called value": (CALLED_VALUE, "What a call of an actor gave, in its flat encoding; or an exception."),
    "error text": (ERROR_TEXT, "An exception as text. Of a longer one, the middle is left out."),
    "resources": (RESOURCES, "Names of what a worker has or a task takes, and how much of each."),
    "options": (
        OPTIONS,
        "Of all tasks of a message, and of some of them by key (`per_key`). In a task, with its run (`parent`).",
    ),
    "task options": (TASK_OPTIONS, "Where a task may run, how often, how long, and before which others."),
    "places": (PLACES, "Where a node keeps workers, and what each of these has."),
    "object": (OBJECT_DESCRIPTION, "What a store says of an object that it has."),
    "named object": (OBJECT_NAMED, "The same, where all but its id may be unknown."),
    "node": (
        NODE_DESCRIPTION,
        "What a node says about itself. Two processes with the same `host_id` can reach each other's Unix sockets: it "
        "is the kernel's boot id and the ids of the network and mount namespaces. `nthreads` counts those of all its "
        "workers, `places` are those where it keeps workers. `deaths` and `last_death` are of agents that were in its "
        "place before.",
    ),
    "path": (PATH, "The keys that lead to a place in dictionaries inside of dictionaries."),
    "record": (RECORD, "A value that a user has left with the scheduler: what is at each place in it (`records.py`)."),
    "event": (EVENT, "What was logged, and when: in seconds since 1970."),
    "known node": (NODE_KNOWN, "The same, where all but its address may be unknown."),
}
