"""What clients ask of events: flags that are set or not."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import KEY
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.requests.locks import LEASE, TIMEOUT
from holdfast.cluster.protocol.shapes import Boolean, Nothing

SET_EVENT = Request("set-event", "Sets the flag.", needed={"name": KEY}, answer=Nothing())
CLEAR_EVENT = Request("clear-event", "Clears the flag.", needed={"name": KEY}, answer=Nothing())
IS_EVENT_SET = Request("is-event-set", "Whether the flag is set.", needed={"name": KEY}, answer=Boolean())
WAIT_FOR_EVENT = Request(
    "wait-for-event",
    "Answers true as soon as the flag is set; false after `timeout` seconds. The client calls the wait by a number.",
    needed={"name": KEY, "wait": LEASE},
    known={"timeout": TIMEOUT},
    answer=Boolean(),
    waits=True,
)
STOP_WAITING = Request(
    "stop-waiting",
    "The client does not wait for an event any more, which may be set already.",
    needed={"wait": LEASE},
    answer=Nothing(),
    quiet=True,
)

REQUESTS = (SET_EVENT, CLEAR_EVENT, IS_EVENT_SET, WAIT_FOR_EVENT, STOP_WAITING)
