"""What the two ends of a new connection say about themselves.

These are dictionaries. Fields that one end doesn't know are plain data to it: a later version may add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.kinds import INCARNATION, NAME, NBYTES, RESOURCES, TEXT
from holdfast.cluster.protocol.limits import MAX_NAMED, MAX_THREADS
from holdfast.cluster.protocol.shapes import Entry, Fields, Integer, Listed, Maybe, Plain

_SCHEME = "tcp://"

#: What a node says about itself, and the scheduler passes on.
NODE_DESCRIPTION = Fields(
    {"address": NAME, "incarnation": NAME, "hostname": TEXT, "capacity": NBYTES},
    {
        "host_id": TEXT,
        "store_socket": TEXT,
        "pid": Integer(),
        "nthreads": Integer(0, MAX_THREADS),
        "places": Listed(Entry(address=NAME, name=NAME), MAX_NAMED),
        "resources": RESOURCES,
    },
    others=Plain(),
)

#: What the scheduler passes on of a node: later versions of nodes may say less.
NODE_KNOWN = Fields({"address": NAME}, NODE_DESCRIPTION.known, others=Plain())

#: By role, what the connecting end says about itself.
OPENINGS: Mapping[str, Fields] = {
    "client": Fields({"id": NAME}, {"name": Maybe(TEXT), "pid": Integer(), "hostname": TEXT}, others=Plain()),
    "node": NODE_DESCRIPTION,
    "worker": Fields(
        {"address": NAME, "name": NAME, "node": NAME, "nthreads": Integer(1, MAX_THREADS)},
        {
            "resources": Maybe(RESOURCES),
            "memory_limit": Maybe(NBYTES),
            "pid": Integer(),
            "incarnation": Maybe(INCARNATION),
        },
        others=Plain(),
    ),
}


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
