"""What clients ask about what there is: the arguments of each request, and what its answer is."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import ADDRESS, DATASET, KEY, KEYS, NAME, NBYTES, NODES, REASON, TEXT
from holdfast.cluster.protocol.limits import MAX_DATASETS, MAX_NAMED, MAX_PACKAGES, MAX_THREADS
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import (
    Anything,
    Boolean,
    Entry,
    Fields,
    Integer,
    Listed,
    Mapped,
    Maybe,
    Number,
    Plain,
)

_NAMES = Maybe(Listed(TEXT, MAX_NAMED))
_ANY_NUMBER = 1 << 26

WHO_HAS = Request(
    "who-has",
    "At which nodes each of these keys has its result; nil stands for all keys that have one. With `workers` the "
    "answer names all workers of these nodes instead.",
    known={"keys": Maybe(KEYS), "workers": Boolean()},
    answer=Mapped(KEY, NODES, _ANY_NUMBER),
)
HAS_WHAT = Request(
    "has-what",
    "Of which keys each of these nodes has the results; nil stands for all nodes. With `workers` the same by worker.",
    known={"nodes": _NAMES, "workers": Boolean()},
    answer=Mapped(ADDRESS, Listed(KEY), _ANY_NUMBER),
)
NTHREADS = Request(
    "nthreads",
    "How many threads each of these workers has; nil stands for all workers.",
    known={"workers": _NAMES},
    answer=Mapped(ADDRESS, Integer(1, MAX_THREADS), _ANY_NUMBER),
)
INFO = Request(
    "info",
    "What `Client.scheduler_info` gives, with `n` of the workers; nil stands for all.",
    known={"n": Maybe(Integer())},
    answer=Fields(
        {"address": ADDRESS, "id": NAME, "workers": Mapped(ADDRESS, Plain(), _ANY_NUMBER)},
        others=Anything("for people"),
    ),
)
PROCESSING = Request(
    "processing",
    "The keys of the tasks that each of these workers has been sent; nil stands for all workers.",
    known={"workers": _NAMES},
    answer=Mapped(ADDRESS, Listed(KEY), _ANY_NUMBER),
)
SIZES = Request(
    "nbytes",
    "The sizes of the results of these keys; nil stands for all. With `summary`, of those of each prefix together.",
    known={"keys": Maybe(KEYS), "summary": Boolean()},
    answer=Mapped(KEY, Integer(), _ANY_NUMBER),
)
PREFIX_STATES = Request(
    "prefix-states",
    "How many tasks of each prefix are in each state.",
    answer=Mapped(TEXT, Mapped(TEXT, Integer(), MAX_NAMED), _ANY_NUMBER),
)
STATUS = Request(
    "status",
    "What `holdfast status` shows. The scheduler asks all nodes for a heartbeat before it answers.",
    answer=Fields(
        {
            "scheduler": Plain(),
            "nodes": Mapped(ADDRESS, Plain(), _ANY_NUMBER),
            "absent": Listed(Plain()),
            "tasks": Mapped(TEXT, Integer(), MAX_NAMED),
            "clients": Integer(),
            "datasets": Listed(DATASET, MAX_DATASETS),
            "durable": Listed(DATASET, MAX_DATASETS),
            "one_copy": Mapped(TEXT, Plain(), MAX_DATASETS),
        },
        others=Anything("for people"),
    ),
)
#: By what objects can be grouped.
GROUPINGS = ("owner", "holder", "dataset", "collection", "prefix", "line", "type", "host")
#: So many objects are told in detail, the largest first, and so many where a client does not say how many.
MAX_OBJECTS_LISTED = 10_000
OBJECTS_LISTED = 1_000

#: A client, a dataset, another holder: by its kind and name, and of a client what it has said about itself.
_HOLDER = Fields({"kind": TEXT, "name": TEXT}, others=Plain())
_HOST = Fields({"node": ADDRESS, "name": TEXT})
_TASKS = Listed(Entry(key=KEY, state=TEXT))

MEMORY = Request(
    "memory",
    "What lies in the stores: the largest objects, as many as `limit` says; groups of all objects by what `by` names; "
    "and which objects may be there for nobody. The scheduler asks all nodes for a heartbeat before it answers.",
    known={"by": Listed(TEXT, MAX_NAMED), "limit": Maybe(Integer())},
    answer=Fields(
        {
            "objects": Listed(
                Fields(
                    {
                        "key": KEY,
                        "object_id": TEXT,
                        "nbytes": NBYTES,
                        "type": TEXT,
                        "owner": TEXT,
                        "holders": Listed(_HOLDER),
                        "n_holders": Integer(),
                        "where": NODES,
                        "age": Maybe(Number()),
                    },
                    others=Plain(),
                )
            ),
            "count": Integer(),
            "nbytes": Integer(),
            "groups": Mapped(
                TEXT,
                Mapped(TEXT, Entry(objects=Integer(), nbytes=Integer(), oldest=Number(), newest=Number()), MAX_NAMED),
                MAX_NAMED,
            ),
            "left_out": Mapped(TEXT, Entry(objects=Integer(), nbytes=Integer()), MAX_NAMED),
            "suspects": Listed(
                Fields(
                    {"suspicion": TEXT, "objects": Integer(), "nbytes": Integer(), "holders": Listed(_HOLDER)},
                    {"keys": KEYS},
                    others=Anything("for people"),
                )
            ),
            "stores": Mapped(ADDRESS, Plain(), MAX_NAMED),
            "hosts": Mapped(ADDRESS, TEXT, MAX_NAMED),
        },
        others=Anything("for people"),
    ),
)

EXPLAIN = Request(
    "explain",
    "What the scheduler knows of a key: its state, what holds it, what it waits for, where it is. A text that is no "
    "key may be the id of an object in hexadecimal digits. Of what is neither there are only keys that it may mean, in "
    "`near`: those that begin with it, or, if it has an ellipsis, that begin and end like it.",
    needed={"key": KEY},
    answer=Fields(
        {"near": KEYS, "n_near": Integer()},
        {
            "key": KEY,
            "state": TEXT,
            "owner": TEXT,
            "holders": Listed(_HOLDER),
            "waiters": _TASKS,
            "waits_for": _TASKS,
            "where": Listed(_HOST),
        },
        others=Anything("for people"),
    ),
)
STORY = Request(
    "story",
    "The moves of the tasks of these keys, the oldest first. They are remembered from the first request on.",
    needed={"keys": KEYS},
    answer=Fields(
        {"moves": Listed(Entry(key=KEY, before=Maybe(TEXT), after=TEXT, where=TEXT, time=Number()))},
    ),
)
DUMP = Request(
    "dump",
    "All that the scheduler knows of tasks and clients; with `run_spec` also what tasks were submitted as.",
    known={"run_spec": Boolean()},
    answer=Anything("for people"),
)
SCHEDULER_LOGS = Request(
    "scheduler-logs",
    "The last lines that were logged in the scheduler's process, the newest first: so many, or all that are kept.",
    known={"n": Maybe(Integer())},
    answer=Fields({"lines": Listed(Entry(level=TEXT, text=REASON))}),
)
SCHEDULER_PROFILE = Request(
    "scheduler-profile",
    "How often the scheduler's loop was seen in which functions, between two times: a tree (`processes/profiling.py`). "
    "It is looked at from the first request on.",
    known={"start": Maybe(Number()), "stop": Maybe(Number())},
    answer=Fields({"profile": Anything("a tree of functions")}),
)

VERSIONS = Request(
    "versions",
    "The versions of Python, of the libraries that matter to a cluster, and of these packages, as the scheduler has "
    "them.",
    known={"packages": Listed(TEXT, MAX_PACKAGES)},
    answer=Fields({"host": Plain(), "packages": Plain()}),
)

LIST_TASKS = Request(
    "list-tasks",
    "All tasks: the state of each, the nodes that have its result, the worker that runs it (or an empty text), and the "
    "size of its result.",
    answer=Fields({"tasks": Listed(Entry(key=KEY, state=TEXT, nodes=NODES, worker=TEXT, nbytes=NBYTES), _ANY_NUMBER)}),
)
LIST_CLIENTS = Request("list-clients", "The names of all clients, by id.", answer=Mapped(TEXT, TEXT, _ANY_NUMBER))

REQUESTS = (
    LIST_CLIENTS,
    LIST_TASKS,
    VERSIONS,
    WHO_HAS,
    HAS_WHAT,
    NTHREADS,
    PROCESSING,
    SIZES,
    PREFIX_STATES,
    INFO,
    STATUS,
    MEMORY,
    EXPLAIN,
    STORY,
    DUMP,
    SCHEDULER_LOGS,
    SCHEDULER_PROFILE,
)
