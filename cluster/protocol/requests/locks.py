"""What clients ask of locks. A lease is what a client has, or waits for, under a number of its own."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import KEY
from holdfast.cluster.protocol.limits import LONGEST_WAIT_SECONDS, MAX_NAMED
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Boolean, Integer, Listed, Maybe, Nothing, Number

#: How long a client waits; nil: as long as it takes.
TIMEOUT = Maybe(Number(0.0, LONGEST_WAIT_SECONDS))
LEASE = Integer()

ACQUIRE_LOCKS = Request(
    "acquire-locks",
    "Answers true when the client has these locks, or `count` of them; false after `timeout` seconds.",
    needed={"names": Listed(KEY, MAX_NAMED), "lease": LEASE},
    known={"count": Maybe(Integer(1, MAX_NAMED)), "timeout": TIMEOUT},
    answer=Boolean(),
    waits=True,
)
RELEASE_LOCKS = Request(
    "release-locks",
    "The client does not want this lease any more, whether it was granted or not.",
    needed={"lease": LEASE},
    answer=Nothing(),
    quiet=True,
)
IS_LOCKED = Request("is-locked", "Whether a client has this lock.", needed={"name": KEY}, answer=Boolean())

REQUESTS = (ACQUIRE_LOCKS, RELEASE_LOCKS, IS_LOCKED)
