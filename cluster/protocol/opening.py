"""What the two ends of a new connection say: that they know the cluster's token, and what they are.

::

    connecting → the greeting (`comm.strangers.GREETING`)
    listener   → hello: magic, protocol, nonce
    connecting → hello: magic, protocol, role, nonce, proof, info, whether it comes back, what it was
    listener   → welcome: proof, info, session, recorded      or      refused: code, text

The connecting end of a connection that has broken says in the place of its hello that it takes up the session again
that it got in its first welcome::

    connecting → resume: magic, protocol, role, nonce, proof, session, its proof
    listener   → resumed: proof, the session's proof, taken      or      refused: code, text

An `info` is a dictionary. Fields that one end doesn't know are plain data to it: a later version may add some. How a
proof is made is told in `comm/opening.py`, what a session is in `comm/resume.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.kinds import (
    ADDRESS,
    INCARNATION,
    NAME,
    NBYTES,
    NODE_DESCRIPTION,
    NODE_KNOWN,
    REASON,
    RESOURCES,
    TEXT,
)
from holdfast.cluster.protocol.limits import MAX_NAMED, MAX_THREADS
from holdfast.cluster.protocol.message import Message, Vocabulary
from holdfast.cluster.protocol.shapes import (
    Anything,
    Boolean,
    Fields,
    Identity,
    Integer,
    Listed,
    Mapped,
    Maybe,
    Number,
    Plain,
    Shape,
    Text,
)

MAGIC = "holdfast"
#: Both ends must speak the same one: a change of a message changes it.
PROTOCOL_VERSION = 7
NONCE_NBYTES = 32
PROOF_NBYTES = 32
SESSION_NBYTES = 16
SECRET_NBYTES = 32
MAX_RESUME_SECONDS = 1e6
#: No end sends more.
MAX_FRAMES = 1 << 60

_SCHEME = "tcp://"

#: Each role has fields of its own, which are checked when the role is known.
_INFO = Fields({}, others=Anything("what the role says"))

LISTENER_HELLO = Message(
    "hello",
    "The listener's first word. Each end refuses another version than its own.",
    magic=Text(),
    protocol=Integer(),
    nonce=Identity(NONCE_NBYTES),
)
HELLO = Message(
    "hello",
    "The connecting end's answer: what it is, the proof that it knows the token, and whether it comes back if the "
    "connection breaks. If it was connected with a listener that is gone and whose journal this one may have, it says "
    "so: which session it had first, of which cluster, how many of its frames since then were acknowledged, and how "
    "often it has tried to come back.",
    magic=Text(),
    protocol=Integer(),
    role=TEXT,
    nonce=Identity(NONCE_NBYTES),
    proof=Identity(PROOF_NBYTES),
    info=_INFO,
    comes_back=Boolean(),
    was=Maybe(
        Fields(
            {
                "session": Identity(SESSION_NBYTES),
                "cluster": TEXT,
                "acknowledged": Integer(0, MAX_FRAMES),
                "attempt": Integer(1, MAX_FRAMES),
            },
            others=Plain(),
        )
    ),
)
RESUME = Message(
    "resume",
    "In the place of the hello: the connecting end comes back to a session. The epoch is that of the listener which "
    "began it. Attempts are numbered: one that arrives after a later one is refused. The connecting end has taken so "
    "many of the listener's frames.",
    magic=Text(),
    protocol=Integer(),
    role=TEXT,
    nonce=Identity(NONCE_NBYTES),
    proof=Identity(PROOF_NBYTES),
    session=Fields(
        {"id": Identity(SESSION_NBYTES), "epoch": TEXT, "attempt": Integer(1), "taken": Integer(0)}, others=Plain()
    ),
    session_proof=Identity(PROOF_NBYTES),
)
WELCOME = Message(
    "welcome",
    "The connection is open, and the listener knows the token too. If it may break and be taken up again, the session "
    "says how: for so many seconds after a break the listener waits. If the listener keeps a journal, the connecting "
    "end looks for so many seconds for another one when this one is gone (`restart`). The listener acknowledges the "
    "frames that it has handled then, not those that it has received. A connecting end that does not get the welcome "
    "joins anew. One that said what it `was` learns how many of its frames are recorded: it sends those again that lie "
    "beyond these and beyond those that were acknowledged, and all that follow are counted from there.",
    proof=Identity(PROOF_NBYTES),
    info=_INFO,
    session=Maybe(
        Fields(
            {
                "id": Identity(SESSION_NBYTES),
                "secret": Identity(SECRET_NBYTES),
                "epoch": TEXT,
                "seconds": Number(0.0, MAX_RESUME_SECONDS),
                "restart": Number(0.0, MAX_RESUME_SECONDS),
            },
            others=Plain(),
        )
    ),
    recorded=Maybe(Integer(0, MAX_FRAMES)),
)
RESUMED = Message(
    "resumed",
    "The session goes on over this connection only. The listener has taken so many frames of the connecting end. Each "
    "end sends the frames again that the other one has not taken.",
    proof=Identity(PROOF_NBYTES),
    session_proof=Identity(PROOF_NBYTES),
    taken=Integer(0),
)
REFUSED = Message(
    "refused",
    "The listener doesn't take this connection. The code is `later` (the connecting end may try again), `token`, "
    "`version`, `role`, `resume`: the session can't be taken up again, or `restarted`: nor can it, but this listener "
    "has the journal of the one that began it, and the connecting end may say hello and what it was.",
    code=TEXT,
    text=REASON,
)

FROM_LISTENER = Vocabulary("the listener", "the connecting end", LISTENER_HELLO, WELCOME, RESUMED, REFUSED)
FROM_CONNECTOR = Vocabulary("the connecting end", "the listener", HELLO, RESUME)


class Role(NamedTuple):
    """What connects: what it says about itself, and what it is told."""

    meaning: str
    info: Fields
    welcome: Fields


_SCHEDULER: dict[str, Shape] = {"scheduler": Plain()}
#: The versions of Python and of libraries, by name.
_VERSIONS = Mapped(TEXT, Maybe(TEXT), MAX_NAMED)

ROLES: Mapping[str, Role] = {
    "client": Role(
        "A client, to the scheduler.",
        Fields(
            {"id": NAME},
            {"name": Maybe(TEXT), "pid": Integer(), "hostname": TEXT, "user": TEXT, "versions": _VERSIONS},
            others=Plain(),
        ),
        Fields(
            {},
            {
                **_SCHEDULER,
                "nodes": Listed(NODE_KNOWN),
                "versions": Fields({"scheduler": _VERSIONS, "workers": Mapped(ADDRESS, _VERSIONS, MAX_NAMED)}),
            },
            others=Plain(),
        ),
    ),
    "node": Role(
        "A host's agent, to the scheduler. The welcome says how many seconds lie between two heartbeats.",
        NODE_DESCRIPTION,
        Fields({}, {**_SCHEDULER, "heartbeat": Number(0.0, 1e6)}, others=Plain()),
    ),
    "worker": Role(
        "A worker, to the scheduler. One without an incarnation has no process of its own: its runs can't be revoked, "
        "and it can't be ended alone.",
        Fields(
            {"address": ADDRESS, "name": NAME, "node": ADDRESS, "nthreads": Integer(1, MAX_THREADS)},
            {
                "resources": Maybe(RESOURCES),
                "memory_limit": Maybe(NBYTES),
                "pid": Integer(),
                "hostname": TEXT,
                "user": TEXT,
                "incarnation": Maybe(INCARNATION),
                "versions": _VERSIONS,
            },
            others=Plain(),
        ),
        Fields({}, _SCHEDULER, others=Plain()),
    ),
    "peer": Role(
        "A process that reads objects from a host's agent, or brings objects to it: see the transfer protocol.",
        Fields({}, {"id": TEXT}, others=Plain()),
        Fields({}, {"id": TEXT}, others=Plain()),
    ),
}


def check_welcome(role: str, info: dict[str, Any]) -> None:
    """Check what a peer is told. Raises a `ProtocolError` that names the field."""
    ROLES[role].welcome.check(info, "welcome")


def check_opening(role: str, info: dict[str, Any]) -> None:
    """Check what a peer says about itself.

    No two peers of different kinds can ever have the same name: a node's is the address of its port, a worker's lies
    below its node's, and a client's is no address.

    Raises
    ------
    ProtocolError
        It can't be right; names the field.
    """
    ROLES[role].info.check(info, role)
    if role == "client":
        if _SCHEME in info["id"]:
            raise ProtocolError("client.id: something that is no address expected, one is found")
    elif role == "node":
        host, _, port = info["address"].removeprefix(_SCHEME).rpartition(":")
        if not info["address"].startswith(_SCHEME) or not host or not port.isdecimal():
            raise ProtocolError(f"node.address: {_SCHEME}HOST:PORT expected, {info['address']!r:.80} found")
    elif role == "worker" and not info["address"].startswith(f"{info['node']}/"):
        raise ProtocolError(f"worker.address: one below its node's expected, {info['address']!r:.80} found")
