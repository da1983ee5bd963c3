"""What clients ask of queues. A `lease` is what a client calls a put or a get of its own that is not over yet."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import KEY, KEYS, PAYLOAD
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.requests.locks import LEASE, TIMEOUT
from holdfast.cluster.protocol.shapes import Boolean, Entry, Fields, Integer, Listed, Nothing

#: How many items a queue has room for; 0: any number.
_MAXSIZE = Integer()

OPEN_QUEUE = Request(
    "open-queue",
    "From now on there is a queue of this name. An error if there is one already that has room for another number of "
    "items.",
    needed={"name": KEY, "maxsize": _MAXSIZE},
    answer=Nothing(),
)
PUT = Request(
    "put",
    "Puts an item into a queue, as soon as there is room for it; an error after `timeout` seconds. Answers the queue's "
    "`maxsize`.",
    needed={"name": KEY, "data": PAYLOAD, "keys": KEYS, "lease": LEASE},
    known={"maxsize": _MAXSIZE, "timeout": TIMEOUT},
    answer=_MAXSIZE,
    waits=True,
)
PUT_QUIETLY = Request(
    "put-quietly",
    "Puts an item into a queue at once.",
    needed={"name": KEY, "data": PAYLOAD, "keys": KEYS},
    answer=Nothing(),
    quiet=True,
)
GET = Request(
    "get",
    "Takes the first `count` items out of a queue, as soon as there are so many; an error after `timeout` seconds. "
    "There may be fewer: if they are a megabyte together, or with `at_once`. `left` is how many are in the queue "
    "still. The items belong to the client when it has confirmed the lease.",
    needed={"name": KEY, "lease": LEASE},
    known={"count": Integer(1, MAX_ITEMS), "at_once": Boolean(), "maxsize": _MAXSIZE, "timeout": TIMEOUT},
    answer=Fields({"items": Listed(Entry(data=PAYLOAD, keys=KEYS), MAX_ITEMS), "left": Integer()}),
    waits=True,
)
CONFIRM_ITEMS = Request(
    "confirm-items",
    "The client has these items, and holds their keys.",
    needed={"lease": LEASE},
    answer=Nothing(),
    quiet=True,
)
GIVE_UP_ITEMS = Request(
    "give-up-items",
    "The client does not put or get this any more, whatever has become of it. What it has got comes to the front of "
    "the queue again.",
    needed={"lease": LEASE},
    answer=Nothing(),
    quiet=True,
)
QUEUE_SIZE = Request("queue-size", "How many items are in a queue.", needed={"name": KEY}, answer=Integer())
CLOSE_QUEUE = Request(
    "close-queue",
    "Forgets a queue and all that is in it. Clients that wait for it get an error.",
    needed={"name": KEY},
    answer=Nothing(),
)

REQUESTS = (OPEN_QUEUE, PUT, PUT_QUIETLY, GET, CONFIRM_ITEMS, GIVE_UP_ITEMS, QUEUE_SIZE, CLOSE_QUEUE)
