"""What clients ask of semaphores."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import KEY
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.requests.locks import LEASE, TIMEOUT
from holdfast.cluster.protocol.shapes import Boolean, Integer, Maybe, Nothing

_MAX_LEASES = Integer(1)

OPEN_SEMAPHORE = Request(
    "open-semaphore",
    "From now on there is a semaphore of this name. An error if there is one already that grants another number.",
    needed={"name": KEY, "max_leases": _MAX_LEASES},
    answer=Nothing(),
)
ACQUIRE_SEMAPHORE = Request(
    "acquire-semaphore",
    "Answers true when the client has a lease of it; false after `timeout` seconds. With `max_leases`, the semaphore "
    "is opened before.",
    needed={"name": KEY, "lease": LEASE},
    known={"timeout": TIMEOUT, "max_leases": Maybe(_MAX_LEASES)},
    answer=Boolean(),
    waits=True,
)
RELEASE_SEMAPHORE = Request(
    "release-semaphore",
    "The client does not want this lease any more, whether it was granted or not.",
    needed={"lease": LEASE},
    answer=Nothing(),
    quiet=True,
)
SEMAPHORE_VALUE = Request(
    "semaphore-value", "How many leases of it are granted.", needed={"name": KEY}, answer=Integer()
)
CLOSE_SEMAPHORE = Request(
    "close-semaphore",
    "There is no semaphore of this name any more, and clients that wait for one get an error. Answers how many leases "
    "of it were granted.",
    needed={"name": KEY},
    answer=Integer(),
)

REQUESTS = (OPEN_SEMAPHORE, ACQUIRE_SEMAPHORE, RELEASE_SEMAPHORE, SEMAPHORE_VALUE, CLOSE_SEMAPHORE)
