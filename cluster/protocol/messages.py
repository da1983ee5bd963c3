"""Every message between clients, workers, node agents and the scheduler: its fields, in order, and their limits.

`docs/architecture.md` tells what each of them means. A list of tasks, keys or objects stands first in its message: such
a message may be cut into several (`holdfast.cluster.protocol.cutting`).
"""

from __future__ import annotations

from typing import Any

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.limits import (
    ERROR_INLINE_NBYTES,
    ERROR_TEXT_LENGTH,
    INLINE_LIMIT_NBYTES,
    MAX_DATASETS,
    MAX_KEY_NBYTES,
    MAX_NAME_LENGTH,
    MAX_NAMED,
    MAX_OBJECT_NBYTES,
    MAX_PAYLOAD_NBYTES,
    MAX_REASON_LENGTH,
    MAX_THREADS,
)
from holdfast.cluster.protocol.shapes import (
    MAX_INTEGER,
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
    Message,
    Number,
    OneOf,
    Plain,
    Shape,
    Text,
    Vocabulary,
)

KEY = KeyShape()
OBJECT = Identity(16)
DIGEST = Identity(16)
NAME = Text(MAX_NAME_LENGTH, 1)
TEXT = Text(MAX_NAME_LENGTH)
REASON = Text(MAX_REASON_LENGTH)
RUN = Integer(-MAX_INTEGER - 1, (1 << 64) - 1)  # those of a warm-up aren't positive
OBJECT_NBYTES = Integer(0, MAX_OBJECT_NBYTES)
SECONDS = Number(0.0, 1e12)
PAYLOAD = Blob(MAX_PAYLOAD_NBYTES)
INLINE = Maybe(Blob(INLINE_LIMIT_NBYTES))
TURN = Integer()
RESOURCES = Mapped(TEXT, Number(), MAX_NAMED)

# -- what every task needs: checked without a call for each entry

_KEY_LENGTH = MAX_KEY_NBYTES // 4  # of a text, whatever its characters are
_KEY_PARTS = 8


def _is_key(key: Any) -> bool:
    """Whether it surely is a key: one of dask's."""
    if type(key) is not tuple or len(key) > _KEY_PARTS:
        return False
    for part in key:
        kind = type(part)
        if kind is not int and (kind is not str or len(part) > _KEY_LENGTH // _KEY_PARTS):
            return False
    return True


def _are_keys(keys: Any) -> bool:
    for key in keys:  # noqa: SIM110 (a generator would cost as much as all the rest)
        if (type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key):
            return False
    return True


def _are_tasks(tasks: Any) -> bool:
    try:
        for task in tasks:
            key, digest, payload, dependencies = task
            if type(task) is not tuple or ((type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key)):
                return False
            if digest is not None and (type(digest) is not bytes or len(digest) != 16):
                return False
            if (type(payload) is not bytes and type(payload) is not memoryview) or len(payload) > MAX_PAYLOAD_NBYTES:
                return False
            if type(dependencies) is not tuple or (dependencies and not _are_keys(dependencies)):
                return False
    except (TypeError, ValueError):  # no array of four
        return False
    return True


def _are_results(results: Any) -> bool:
    try:
        for result in results:
            key, run_id, object_id, nbytes, inline, type_name, seconds = result
            if type(result) is not tuple or ((type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key)):
                return False
            if type(run_id) is not int or type(object_id) is not bytes or len(object_id) != 16:
                return False
            if type(nbytes) is not int or not 0 <= nbytes <= MAX_OBJECT_NBYTES:
                return False
            if inline is not None and (type(inline) is not bytes or len(inline) > INLINE_LIMIT_NBYTES):
                return False
            if type(type_name) is not str or len(type_name) > MAX_NAME_LENGTH:
                return False
            if type(seconds) is not float or not 0.0 <= seconds <= 1e12:
                return False
    except (TypeError, ValueError):
        return False
    return True


def _are_places(places: Any) -> bool:
    try:
        for place in places:
            key, object_id, nbytes, inline, nodes = place
            if type(place) is not tuple or ((type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key)):
                return False
            if type(object_id) is not bytes or len(object_id) != 16:
                return False
            if type(nbytes) is not int or not 0 <= nbytes <= MAX_OBJECT_NBYTES:
                return False
            if inline is not None and (type(inline) is not bytes or len(inline) > INLINE_LIMIT_NBYTES):
                return False
            if type(nodes) is not tuple:
                return False
            for node in nodes:
                if type(node) is not str or not 0 < len(node) <= MAX_NAME_LENGTH:
                    return False
    except (TypeError, ValueError):
        return False
    return True


def _are_read(dependencies: Any) -> bool:
    for dependency in dependencies:
        key, result, inline, nodes = dependency
        if type(dependency) is not tuple or ((type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key)):
            return False
        if (type(result) is not bytes or len(result) != 16) and (type(result) is not int or not 0 < result < 1 << 63):
            return False
        if inline is not None and (type(inline) is not bytes or len(inline) > INLINE_LIMIT_NBYTES):
            return False
        if type(nodes) is not tuple:
            return False
        for node in nodes:
            if type(node) is not str or not 0 < len(node) <= MAX_NAME_LENGTH:
                return False
    return True


def _are_runs(runs: Any) -> bool:
    try:
        for run in runs:
            key, run_id, digest, payload, dependencies, private = run
            if type(run) is not tuple or ((type(key) is not str or len(key) > _KEY_LENGTH) and not _is_key(key)):
                return False
            if type(run_id) is not int or (digest is not None and (type(digest) is not bytes or len(digest) != 16)):
                return False
            if type(payload) is not bytes and type(payload) is not memoryview:
                return False
            if type(dependencies) is not tuple or (dependencies and not _are_read(dependencies)):
                return False
            if private is not False and private is not True:
                return False
    except (TypeError, ValueError):
        return False
    return True


KEYS = Listed(KEY, quick=_are_keys)
NODES = Listed(NAME)
OBJECTS = Listed(OBJECT)
DIGESTS = Listed(DIGEST)
FUNCTIONS = Listed(Entry(digest=DIGEST, blob=PAYLOAD))
#: A small exception itself, or where a large one lies as an object.
RAISED = Either(Entry(object_id=OBJECT, nbytes=OBJECT_NBYTES), Blob(ERROR_INLINE_NBYTES))
REPORTED_RAISED = Either(Entry(object_id=OBJECT, nbytes=OBJECT_NBYTES, nodes=NODES), Blob(ERROR_INLINE_NBYTES))
ERROR_TEXT = Text(ERROR_TEXT_LENGTH)

_OPTIONS: dict[str, Shape] = {
    "priority": Number(float("-inf"), float("inf")),
    "retries": Integer(0, (1 << 64) - 1),
    "workers": Listed(TEXT, MAX_NAMED),
    "allow_other_workers": Boolean(),
    "resources": RESOURCES,
    "writable": Boolean(),
}
OPTIONS = Fields({}, {**_OPTIONS, "per_key": Mapped(KEY, Fields({}, _OPTIONS), 1 << 26)})

# -- to the scheduler

FROM_CLIENT = Vocabulary(
    "a client",
    Message("turn", number=TURN),
    Message("functions", functions=FUNCTIONS),
    Message("forget", digests=DIGESTS),
    Message(
        "submit",
        tasks=Listed(Entry(key=KEY, digest=Maybe(DIGEST), payload=PAYLOAD, dependencies=KEYS), quick=_are_tasks),
        wants=Maybe(KEYS),
        options=OPTIONS,
    ),
    Message(
        "scattered",
        objects=Listed(
            Entry(key=KEY, object_id=OBJECT, nbytes=OBJECT_NBYTES, type=TEXT, node=NAME, inline=INLINE),
        ),
        chosen=Boolean(),
    ),
    Message("contains", objects=Listed(Entry(key=KEY, keys=KEYS))),
    Message("want", keys=KEYS),
    Message("release", keys=KEYS),
    Message("cancel", keys=KEYS, force=Boolean()),
    Message("missing", results=Listed(Entry(key=KEY, object_id=OBJECT, node=TEXT))),
    Message("request", number=Integer(), operation=TEXT, arguments=Mapped(TEXT, Shape(), MAX_NAMED)),
)

#: The arguments of each request.
REQUESTS: dict[str, Fields] = {
    "who-has": Fields({}, {"keys": Maybe(KEYS)}),
    "has-what": Fields({}, {"nodes": Maybe(Listed(TEXT, MAX_NAMED))}),
    "nthreads": Fields({}, {"workers": Maybe(Listed(TEXT, MAX_NAMED))}),
    "info": Fields({}),
    "status": Fields({}),
    "memory": Fields({}),
    "list-datasets": Fields({}),
    "publish": Fields(
        {"datasets": Listed(Entry(name=NAME, data=PAYLOAD, keys=KEYS), MAX_DATASETS)}, {"override": Boolean()}
    ),
    "unpublish": Fields({"name": TEXT}),
    "get-dataset": Fields({"name": TEXT}),
    "wait-for-workers": Fields({"n": Integer(0, (1 << 64) - 1)}, {"timeout": Maybe(Number(0.0, 1e9))}),
    "shutdown": Fields({}),
}

FROM_WORKER = Vocabulary(
    "a worker",
    Message(
        "finished",
        results=Listed(
            Entry(
                key=KEY,
                run_id=RUN,
                object_id=OBJECT,
                nbytes=OBJECT_NBYTES,
                inline=INLINE,
                type=TEXT,
                seconds=SECONDS,
            ),
            quick=_are_results,
        ),
    ),
    Message("erred", errors=Listed(Entry(key=KEY, run_id=RUN, raised=RAISED, text=ERROR_TEXT, seconds=SECONDS))),
    Message(
        "missing", missing=Listed(Entry(key=KEY, run_id=RUN, dependency=KEY, object_id=Identity(16, or_empty=True)))
    ),
    Message("wrote", tasks=Listed(Entry(key=KEY, digest=Maybe(DIGEST)))),
    Message("dropped", run_ids=Listed(RUN)),
    Message("confirmed", number=Integer(1)),
)

FROM_NODE = Vocabulary(
    "a node",
    Message("copied", object_ids=OBJECTS),
    Message("not-copied", failures=Listed(Entry(object_id=OBJECT, reason=REASON))),
    Message("exited", worker=NAME, reason=REASON, running=Listed(RUN), crashed=Maybe(RUN), fault=Boolean()),
    Message("left", object_ids=OBJECTS, name=TEXT),
    Message(
        "revoked",
        worker=NAME,
        incarnation=Integer(1),
        number=Integer(),
        revoked=Listed(RUN),
        begun=Listed(RUN),
    ),
    Message(
        "inventory",
        objects=Listed(
            Entry(object_id=OBJECT, key=Maybe(TEXT), nbytes=OBJECT_NBYTES, type=Maybe(TEXT), owner=Maybe(TEXT))
        ),
    ),
    Message("ready"),
    Message(
        "heartbeat",
        report=Fields(
            {},
            {
                "store": Fields(
                    {},
                    dict.fromkeys(("capacity", "used", "objects", "spilled_nbytes"), OBJECT_NBYTES),
                    others=Plain(),
                ),
                "places": Mapped(NAME, Fields({}, {"name": TEXT}, others=Plain()), MAX_NAMED),
                "workers": Mapped(
                    NAME,
                    Fields(
                        {},
                        {"memory": Maybe(OBJECT_NBYTES), "cpu": Maybe(Number()), "condition": TEXT, "seconds": SECONDS},
                        others=Plain(),
                    ),
                    MAX_NAMED,
                ),
            },
            others=Plain(),
        ),
    ),
)

# -- from the scheduler

TO_CLIENT = Vocabulary(
    "the scheduler",
    Message(
        "memory",
        results=Listed(
            Entry(key=KEY, object_id=OBJECT, nbytes=OBJECT_NBYTES, inline=INLINE, nodes=NODES), quick=_are_places
        ),
        turn=TURN,
    ),
    Message("erred", errors=Listed(Entry(key=KEY, raised=REPORTED_RAISED, text=ERROR_TEXT)), turn=TURN),
    Message("pending", keys=KEYS, turn=TURN),
    Message("cancelled", keys=KEYS, reason=REASON, turn=TURN),
    Message("kept", keys=KEYS),
    Message("nodes", added=Listed(Fields({"address": NAME}, others=Plain())), removed=NODES),
    Message("warning", text=REASON),
    Message("part", number=Integer(), items=Shape()),
    Message("reply", number=Integer(), ok=Boolean(), value=Shape()),
    Message("closing", reason=REASON),
)

_READ = Entry(key=KEY, object=OneOf("an object or a run", OBJECT, RUN), inline=INLINE, nodes=NODES)

TO_WORKER = Vocabulary(
    "the scheduler",
    Message("functions", functions=FUNCTIONS),
    Message("forget", digests=DIGESTS),
    Message(
        "run",
        runs=Listed(
            Entry(
                key=KEY,
                run_id=RUN,
                digest=Maybe(DIGEST),
                payload=PAYLOAD,
                dependencies=Listed(_READ),
                private=Boolean(),
            ),
            quick=_are_runs,
        ),
    ),
    Message("discard", object_ids=OBJECTS),
    Message("drop", run_ids=Listed(RUN)),
    Message("revoked", number=Integer(1), run_ids=Listed(RUN)),
    Message("close"),
)

TO_NODE = Vocabulary(
    "the scheduler",
    Message("delete", object_ids=OBJECTS),
    Message("copy", objects=Listed(Entry(object_id=OBJECT, nodes=NODES))),
    Message("report"),
    Message("revoke", worker=NAME, incarnation=Integer(1), run_ids=Listed(RUN)),
    Message("parted", worker=NAME, pid=Integer()),
    Message("close"),
)

# -- what a peer says about itself in the opening

OPENINGS: dict[str, Fields] = {
    "client": Fields({"id": NAME}, {"name": Maybe(TEXT), "pid": Integer(), "hostname": TEXT}, others=Plain()),
    "node": Fields(
        {"address": NAME, "incarnation": NAME, "hostname": TEXT, "capacity": OBJECT_NBYTES},
        {
            "host_id": TEXT,
            "store_socket": TEXT,
            "pid": Integer(),
            "nthreads": Integer(0, MAX_THREADS),
            "places": Listed(Entry(address=NAME, name=NAME), MAX_NAMED),
            "resources": RESOURCES,
        },
        others=Plain(),
    ),
    "worker": Fields(
        {"address": NAME, "name": NAME, "node": NAME, "nthreads": Integer(1, MAX_THREADS)},
        {
            "resources": Maybe(RESOURCES),
            "memory_limit": Maybe(OBJECT_NBYTES),
            "pid": Integer(),
            "incarnation": Maybe(Integer(1)),
        },
        others=Plain(),
    ),
}

_SCHEME = "tcp://"


def check_opening(role: str, info: dict[str, Any]) -> None:
    """Check what a peer says about itself.

    No two peers of different kinds can ever have the same name: a node's is the address of its port, a worker's lies
    below its node's, and a client's is no address.

    Raises
    ------
    ProtocolError
        It can't be right; names the field.
    """
    OPENINGS[role].check(info, role)
    if role == "client":
        if _SCHEME in info["id"]:
            raise ProtocolError("client.id: something that is no address expected, one is found")
    elif role == "node":
        host, _, port = info["address"].removeprefix(_SCHEME).rpartition(":")
        if not info["address"].startswith(_SCHEME) or not host or not port.isdecimal():
            raise ProtocolError(f"node.address: {_SCHEME}HOST:PORT expected, {info['address']!r:.80} found")
    elif not info["address"].startswith(f"{info['node']}/"):
        raise ProtocolError(f"worker.address: one below its node's expected, {info['address']!r:.80} found")
