"""What clients ask the scheduler: the arguments of each request, and what its answer is."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import ADDRESS, KEY, KEYS, NAME, NBYTES, NODES, PAYLOAD, TEXT
from holdfast.cluster.protocol.limits import MAX_DATASETS, MAX_NAMED, MAX_THREADS
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
    Nothing,
    Number,
    Plain,
)

_NAMES = Maybe(Listed(TEXT, MAX_NAMED))
_ANY_NUMBER = 1 << 26

WHO_HAS = Request(
    "who-has",
    "At which nodes each of these keys has its result; nil stands for all keys that have one.",
    known={"keys": Maybe(KEYS)},
    answer=Mapped(KEY, NODES, _ANY_NUMBER),
)
HAS_WHAT = Request(
    "has-what",
    "Of which keys each of these nodes has the results; nil stands for all nodes.",
    known={"nodes": _NAMES},
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
    "What `Client.scheduler_info` gives.",
    answer=Fields(
        {"address": ADDRESS, "id": NAME, "workers": Mapped(ADDRESS, Plain(), _ANY_NUMBER)},
        others=Anything("for people"),
    ),
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
            "datasets": Listed(NAME, MAX_DATASETS),
            "one_copy": Mapped(NAME, Plain(), MAX_DATASETS),
        },
        others=Anything("for people"),
    ),
)
MEMORY = Request(
    "memory",
    "What `holdfast memory` shows. The scheduler asks all nodes for a heartbeat before it answers.",
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
                        "holders": Listed(Plain()),
                        "where": NODES,
                        "age": Maybe(Number()),
                    },
                    others=Plain(),
                )
            ),
            "count": Integer(),
            "nbytes": Integer(),
            "stores": Mapped(ADDRESS, Plain(), MAX_NAMED),
        },
        others=Anything("for people"),
    ),
)
LIST_DATASETS = Request("list-datasets", "The names of what is published.", answer=Listed(NAME, MAX_DATASETS))
PUBLISH = Request(
    "publish",
    "Keeps these under their names, with the keys that they hold: all of them, or none.",
    needed={"datasets": Listed(Entry(name=NAME, data=PAYLOAD, keys=KEYS), MAX_DATASETS)},
    known={"override": Boolean()},
    answer=Nothing(),
    waits=True,
)
UNPUBLISH = Request("unpublish", "Forgets a name.", needed={"name": TEXT}, answer=Nothing())
GET_DATASET = Request(
    "get-dataset",
    "What was published under a name. The client holds its keys from then on.",
    needed={"name": TEXT},
    answer=Fields({"data": PAYLOAD, "keys": KEYS}),
)
WAIT_FOR_WORKERS = Request(
    "wait-for-workers",
    "Answers as soon as there are so many workers, with their number; an error after `timeout` seconds.",
    needed={"n": Integer(0, (1 << 64) - 1)},
    known={"timeout": Maybe(Number(0.0, 1e9))},
    answer=Integer(),
    waits=True,
)
SHUTDOWN = Request("shutdown", "Shuts the cluster down.", answer=Nothing())

REQUESTS = (
    WHO_HAS,
    HAS_WHAT,
    NTHREADS,
    INFO,
    STATUS,
    MEMORY,
    LIST_DATASETS,
    PUBLISH,
    UNPUBLISH,
    GET_DATASET,
    WAIT_FOR_WORKERS,
    SHUTDOWN,
)
