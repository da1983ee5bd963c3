"""What clients and the scheduler say to each other."""

from __future__ import annotations

from holdfast.cluster.protocol import quick
from holdfast.cluster.protocol.kinds import (
    ACTOR,
    ADDRESS,
    CALLED_VALUE,
    DIGEST,
    DIGESTS,
    ERROR_TEXT,
    EVENT,
    FUNCTIONS,
    INLINE,
    KEY,
    KEYS,
    METHOD,
    NAME,
    NBYTES,
    NODE_KNOWN,
    NODES,
    OBJECT,
    OPTIONS,
    PAYLOAD,
    REASON,
    REPORTED_RAISED,
    TEXT,
    TURN,
)
from holdfast.cluster.protocol.limits import MAX_LEASE_SECONDS, MAX_NAMED
from holdfast.cluster.protocol.message import Message, QuicklyChecked, Vocabulary
from holdfast.cluster.protocol.shapes import (
    Anything,
    Boolean,
    Entry,
    Integer,
    Listed,
    Mapped,
    Maybe,
    Number,
)

# -- to the scheduler

TURN_BEGINS = Message(
    "turn",
    "The number grows. The client sends it at least before the first message about keys that follows a release; a "
    "request is none. The scheduler's reports carry the number of the last turn that the scheduler has read. So the "
    "client can tell that a report is stale: the report was under way when the client released the key and held it "
    "again.",
    number=TURN,
)
FUNCTIONS_SENT = Message(
    "functions", "Functions that later tasks name by their digest.", cut="functions", functions=FUNCTIONS
)
FUNCTIONS_FORGOTTEN = Message(
    "forget",
    "This client doesn't name these functions any more, unless it sends them again. So the functions that the "
    "scheduler keeps have a limit. If a function has futures or much data in it, the client sends this right after the "
    "tasks that name the function, and the function goes with these tasks.",
    cut="digests",
    digests=DIGESTS,
)
SUBMIT = Message(
    "submit",
    "Tasks to be run. Each task stands behind those that it depends on, and otherwise they stand in the order of "
    "their priority. `wants` are the keys of them that this client holds; nil stands for all. A message with `wants` "
    "has at most 500 tasks: the scheduler forgets a task that is not wanted, so no task may come later than the "
    "message that wants it. The `call_site` is the line of the user's code that has submitted them, for people.",
    cut="tasks",
    unless="wants",
    tasks=Listed(Entry(key=KEY, digest=Maybe(DIGEST), payload=PAYLOAD, dependencies=KEYS), quick=quick.are_tasks),
    wants=Maybe(KEYS),
    options=OPTIONS,
    call_site=TEXT,
)
SCATTERED = Message(
    "scattered",
    "Objects that the client has put into a store. It holds their keys. If the user has `chosen` the keys, and they "
    "are not made of the data, then an object that comes under a free key is other data than the object before it. "
    "The `call_site` is as of `submit`.",
    cut="objects",
    objects=Listed(Entry(key=KEY, object_id=OBJECT, nbytes=NBYTES, type=TEXT, node=ADDRESS, inline=Maybe(INLINE))),
    chosen=Boolean(),
    call_site=TEXT,
)
CONTAINS = Message(
    "contains",
    "Objects that the client has put into a store, each with the keys of the futures inside it. The object holds "
    "these keys as long as the object is needed.",
    cut="objects",
    objects=Listed(Entry(key=KEY, keys=KEYS)),
)
WANT = Message("want", "The client holds these keys too.", cut="keys", keys=KEYS)
EXPECT = Message(
    "expect",
    "The client holds these keys too. Those of them that are unknown it holds as soon as they are submitted or "
    "scattered.",
    cut="keys",
    keys=KEYS,
)
PICKLED = Message(
    "pickled",
    "A user has pickled futures that the client holds, and nobody knows where to. The scheduler keeps the results for "
    "so many seconds, and as long as the client holds them itself. Each lease has a name; pickled again, it begins "
    "anew. The time `until` which it lasts, in seconds since 1970, and the `call_site`, as of `submit`, are for "
    "people.",
    cut="futures",
    futures=Listed(Entry(key=KEY, lease=NAME, seconds=Number(0.0, MAX_LEASE_SECONDS))),
    until=Number(),
    call_site=TEXT,
)
UNPICKLED = Message(
    "unpickled",
    "The client holds these keys too, of futures that were pickled: the lease, the client that has it, for how long it "
    "was taken out, and how much of that is left. A lease that is not known is awaited, if it is to last still and its "
    "client is there: it is on its way.",
    cut="futures",
    futures=Listed(
        Entry(
            key=KEY,
            lease=NAME,
            client=NAME,
            seconds=Number(0.0, MAX_LEASE_SECONDS),
            left=Number(0.0, MAX_LEASE_SECONDS),
        )
    ),
)
RETRY = Message(
    "retry",
    "The client wants these to be computed again, which have failed, and what they have failed for. In any case it is "
    "told what becomes of each.",
    cut="keys",
    keys=KEYS,
)
RUN_UNATTENDED = Message(
    "run-unattended",
    "The scheduler has these computed even if no client holds them any more. A failure is logged.",
    cut="keys",
    keys=KEYS,
)
RELEASE = Message("release", "The client holds these keys no longer.", cut="keys", keys=KEYS)
CANCEL = Message(
    "cancel",
    "The scheduler forgets these keys and all that depends on them; with `force`, also what other clients hold. What "
    "is published stays. With a `kill`, a number of the client's, the processes of the workers end that run "
    "what is not needed any more by that (`await-kills`). The `reason` is the user's, and may be empty.",
    cut="keys",
    keys=KEYS,
    force=Boolean(),
    kill=Maybe(Integer()),
    reason=TEXT,
)
RESULTS_MISSING = Message(
    "missing",
    "The client could not read these results at these nodes.",
    cut="results",
    results=Listed(Entry(key=KEY, object_id=OBJECT, node=TEXT)),
)
EVENTS_HEARD = Message(
    "heard",
    "The client has handled the events of this topic up to this number. It is sent no more of them before.",
    topic=NAME,
    number=Integer(),
)
CALL = Message(
    "call",
    "Calls of actors' methods, by numbers that this client has not used. The calls of one actor begin in the order in "
    "which they are sent. A call waits until its dependencies are there, and the later calls of this client to this "
    "actor wait behind it. Without a payload it asks for an attribute. `called` answers each, also with an error.",
    cut="calls",
    calls=Listed(
        Entry(number=Integer(), actor=ACTOR, method=METHOD, payload=Maybe(PAYLOAD), dependencies=KEYS),
    ),
)
REQUEST = QuicklyChecked(
    "request",
    "Asks the scheduler something. A `reply` of the same number answers, perhaps after some `part` messages.",
    number=Integer(),
    operation=TEXT,
    arguments=Mapped(TEXT, Anything("what the request says"), MAX_NAMED),
    quick=quick.is_request,
)

REJOINED = Message(
    "rejoined",
    "The scheduler was started again, and the client was connected with the one before. It holds these keys. With the "
    "last such message it also says which calls of actors it has no answer to. The scheduler compares that with what "
    "the journal says: it tells of each key what has become of it, cancels those that it does not know, and lets go of "
    "those that the client does not hold. After that the client poses the requests again that were not answered, and "
    "the calls, all with the numbers that they had. The epoch is that of the scheduler, as it was said in the welcome: "
    "frames that are sent again may have such messages for one that has died, too.",
    epoch=TEXT,
    keys=KEYS,
    is_last=Boolean(),
    calls=Listed(Integer()),
)

FROM_CLIENT = Vocabulary(
    "a client",
    "the scheduler",
    TURN_BEGINS,
    FUNCTIONS_SENT,
    FUNCTIONS_FORGOTTEN,
    SUBMIT,
    SCATTERED,
    CONTAINS,
    WANT,
    EXPECT,
    PICKLED,
    UNPICKLED,
    RETRY,
    RUN_UNATTENDED,
    RELEASE,
    CANCEL,
    RESULTS_MISSING,
    EVENTS_HEARD,
    CALL,
    REQUEST,
    REJOINED,
)

# -- from the scheduler

MEMORY = Message(
    "memory",
    "These results can be read: at these nodes, or where they are small, in this message.",
    cut="results",
    results=Listed(
        Entry(key=KEY, object_id=OBJECT, nbytes=NBYTES, inline=Maybe(INLINE), nodes=NODES), quick=quick.are_places
    ),
    turn=TURN,
)
ERRED = Message(
    "erred",
    "These tasks failed. A large exception lies in a store, and the message has its object. An error of the "
    "scheduler's own is its text, and the message names its class.",
    cut="errors",
    errors=Listed(Entry(key=KEY, raised=REPORTED_RAISED, text=ERROR_TEXT)),
    turn=TURN,
)
PENDING = Message(
    "pending",
    "These went back from `memory`: all their copies are gone, and they are being computed again.",
    cut="keys",
    keys=KEYS,
    turn=TURN,
)
CANCELLED = Message("cancelled", "These are gone.", cut="keys", keys=KEYS, reason=REASON, turn=TURN)
KEPT = Message(
    "kept",
    "Others hold these keys, so the keys mean what they meant before, and not what this client has just submitted or "
    "scattered under them.",
    cut="keys",
    keys=KEYS,
)
CALLED = Message(
    "called",
    "What calls of actors came to. If one is not `ok`, its value is an exception, and the text says it in words. The "
    "value rides along, or it is `stored` as an object, under a key that the client holds from then on; an exception "
    "without a key is another task's. The client holds `keys` as well, whose futures are in the value.",
    cut="results",
    results=Listed(
        Entry(
            number=Integer(),
            ok=Boolean(),
            value=Maybe(CALLED_VALUE),
            stored=Maybe(Entry(key=Maybe(KEY), object_id=OBJECT, nbytes=NBYTES, nodes=NODES)),
            text=ERROR_TEXT,
            keys=KEYS,
        )
    ),
)
NODES_CHANGED = Message(
    "nodes",
    "The descriptions of nodes that came, and the addresses of nodes that went.",
    added=Listed(NODE_KNOWN),
    removed=NODES,
)
WARNING = Message(
    "warning",
    "Tasks of this client wait for a worker that there is not. The scheduler says so once for each thing that is "
    "lacking, some seconds before such tasks fail.",
    text=REASON,
)
EVENTS = Message(
    "events",
    "Events of a topic that the client is subscribed to. The client says `heard` with this number when it has handled "
    "them. Before these, it has missed so many that were not kept for so long.",
    topic=NAME,
    number=Integer(),
    missed=Integer(),
    events=Listed(EVENT),
)
PART = Message(
    "part",
    "The beginning of a long answer, or a further part of it. The reply has the last one. Of fragments that are "
    "dictionaries the entries belong together, and of arrays under one name the items.",
    number=Integer(),
    fragment=Anything("part of what the request gives"),
)
REPLY = QuicklyChecked(
    "reply",
    "The answer to a request. If it is not `ok`, its value is the name and the text of an error, one of "
    "`cluster/errors.py` or a built-in one.",
    number=Integer(),
    ok=Boolean(),
    value=Anything("what the request gives"),
    quick=quick.is_reply,
)
CLOSING = Message("closing", "The cluster shuts down.", reason=REASON)

TO_CLIENT = Vocabulary(
    "the scheduler",
    "a client",
    MEMORY,
    ERRED,
    PENDING,
    CANCELLED,
    KEPT,
    CALLED,
    NODES_CHANGED,
    WARNING,
    EVENTS,
    PART,
    REPLY,
    CLOSING,
)
