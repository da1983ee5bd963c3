"""What the hosts' node agents and the scheduler say to each other."""

from __future__ import annotations

from holdfast.cluster.protocol.errands import ERRAND, ERRAND_DONE, ERRAND_STORED
from holdfast.cluster.protocol.kinds import (
    ADDRESS,
    INCARNATION,
    NBYTES,
    NODES,
    OBJECT,
    OBJECT_DESCRIPTION,
    OBJECT_NAMED,
    OBJECTS,
    PLACES,
    REASON,
    RUN,
    RUNS,
    SECONDS,
    TEXT,
)
from holdfast.cluster.protocol.limits import MAX_INDEX, MAX_NAMED
from holdfast.cluster.protocol.message import Message, Vocabulary
from holdfast.cluster.protocol.shapes import Boolean, Entry, Fields, Integer, Listed, Mapped, Maybe, Number, Plain

# -- to the scheduler

_PLACE = dict.fromkeys(("state", "deaths", "last_death", "last_death_seconds", "next_start_seconds"), Plain())


INVENTORY = Message(
    "inventory",
    "Objects that the node's store has. After each opening the node says what its store has, in several of these.",
    cut="objects",
    objects=Listed(OBJECT_DESCRIPTION),
)
READY = Message("ready", "That was all that the store has. Workers of this node may join from now on.")
PLACES_CHANGED = Message("places", "Where the node keeps workers from now on.", places=PLACES)
COPIED = Message("copied", "The node's store has a copy of these now.", cut="object_ids", object_ids=OBJECTS)
FORGOT = Message(
    "forgot",
    "The node has forgotten these, as it was told. What it has said of them before does not count any more. If one is "
    "in use, and stays, it says so by `copied`.",
    cut="object_ids",
    object_ids=OBJECTS,
)
NOT_COPIED = Message(
    "not-copied",
    "The node could not bring copies of these.",
    cut="failures",
    failures=Listed(Entry(object_id=OBJECT, reason=REASON)),
)
EXITED = Message(
    "exited",
    "A worker process ended. Its threads had taken the `running` ones last; `crashed` is the one of them that has "
    "crashed it, if that is known. `fault` says whether it was killed as a process is that writes where it can't; "
    "`asked`, whether the node has ended it since the scheduler wanted that (`kill`). What is said of another process "
    "than the one that is connected comes too late. A worker without a process of its own has no incarnation. `log` is "
    "the end of what it has logged.",
    worker=ADDRESS,
    reason=REASON,
    running=RUNS,
    crashed=Maybe(RUN),
    fault=Boolean(),
    asked=Boolean(),
    incarnation=Maybe(INCARNATION),
    log=REASON,
)
LEFT = Message(
    "left",
    "A client or worker of this name has left the store, and has put these objects there. The scheduler "
    "deletes those of them that it had not heard of. The incarnation is that of a worker's process, nil for others.",
    cut="objects",
    objects=Listed(OBJECT_NAMED),
    name=TEXT,
    incarnation=Maybe(INCARNATION),
)
REVOKED = Message(
    "revoked",
    "The answer to `revoke`, and to `kill` if the process goes on: the `revoked` runs will never begin there, the "
    "others have begun. The number is zero if none was revoked. There is no answer if there is no such process any "
    "more.",
    worker=ADDRESS,
    incarnation=INCARNATION,
    number=Integer(),
    revoked=RUNS,
    begun=RUNS,
)
HEARTBEAT = Message(
    "heartbeat",
    "How the node, its store and its workers are: every two seconds, or as often as the welcome said; and at once when "
    "a worker's condition is another one, or when the scheduler asks. A worker has been `running`, `computing`, "
    "`blocked` or `stopped` for so many seconds (`node/conditions.py`), and is `paused` if it has come near to its "
    "memory limit. `places` are those where the node keeps "
    "workers. `last_death_seconds` says how long ago the last worker of a place died, or the last agent in this one's "
    "place. `memory` is the least limit of memory of the node's control groups, and the file that it is from.",
    report=Fields(
        {},
        {
            "store": Fields(
                {}, dict.fromkeys(("capacity", "used", "objects", "spilled_nbytes"), NBYTES), others=Plain()
            ),
            "places": Mapped(ADDRESS, Fields({}, {"name": TEXT, **_PLACE}, others=Plain()), MAX_NAMED),
            "workers": Mapped(
                ADDRESS,
                Fields(
                    {},
                    {
                        "memory": Maybe(NBYTES),
                        "cpu": Maybe(Number()),
                        "condition": TEXT,
                        "seconds": SECONDS,
                        "paused": Boolean(),
                    },
                    others=Plain(),
                ),
                MAX_NAMED,
            ),
            "last_death_seconds": Plain(),
            "memory": Fields({}, {"nbytes": NBYTES, "file": TEXT}),
        },
        others=Plain(),
    ),
)

NANNY_LEFT = Message(
    "nanny-left",
    "The process beside the node's agent is gone, and its plugins with it. What it was doing has come to an error.",
    reason=REASON,
)

FROM_NODE = Vocabulary(
    "a node",
    "the scheduler",
    INVENTORY,
    READY,
    COPIED,
    FORGOT,
    NOT_COPIED,
    EXITED,
    LEFT,
    REVOKED,
    HEARTBEAT,
    PLACES_CHANGED,
    NANNY_LEFT,
    ERRAND_DONE,
    ERRAND_STORED,
)

# -- from the scheduler

DELETE = Message("delete", "The store forgets these objects.", cut="object_ids", object_ids=OBJECTS)
FORGET = Message(
    "forget",
    "The store forgets these objects, of which others have copies. `forgot` answers for each.",
    cut="object_ids",
    object_ids=OBJECTS,
)
COPY = Message(
    "copy",
    "The node brings copies of these objects, each from one of the nodes that have it. `copied` or `not-copied` "
    "answers for each.",
    cut="objects",
    objects=Listed(Entry(object_id=OBJECT, nodes=NODES)),
)
REPORT = Message("report", "The node sends a heartbeat now, since a client has asked how things are.")
REVOKE = Message(
    "revoke",
    "The node sees to it that this process of a worker never begins these runs, if it has not begun them yet.",
    worker=ADDRESS,
    incarnation=INCARNATION,
    run_ids=RUNS,
)
KILL = Message(
    "kill",
    "The node ends this process of a worker if it is at one of these runs; if it is at none, the node revokes them as "
    "`revoke` does. The reason is for people.",
    worker=ADDRESS,
    incarnation=INCARNATION,
    run_ids=RUNS,
    reason=REASON,
)
PARTED = Message(
    "parted",
    "The connection between the scheduler and this worker has ended. Its process is to end too, and the node lets it "
    "live for some seconds only. A pid of 0: no process is to end, or the scheduler does not know which one.",
    worker=ADDRESS,
    pid=Integer(),
)
ADD_WORKERS = Message(
    "add-workers",
    "The node keeps a worker of each of these numbers, too, like those that it has begun with. `places` says where.",
    indices=Listed(Integer(0, MAX_INDEX)),
)
REMOVE_WORKERS = Message(
    "remove-workers",
    "The node closes these workers, and keeps none in their places.",
    workers=Listed(ADDRESS),
)
RESTART_WORKERS = Message(
    "restart-workers",
    "The node has new processes take the places of these workers.",
    workers=Listed(ADDRESS),
)
CLOSE = Message("close", "The node stops its workers and its store, and exits.")

TO_NODE = Vocabulary(
    "the scheduler",
    "a node",
    DELETE,
    FORGET,
    COPY,
    REPORT,
    REVOKE,
    KILL,
    PARTED,
    ADD_WORKERS,
    REMOVE_WORKERS,
    RESTART_WORKERS,
    ERRAND,
    CLOSE,
)
