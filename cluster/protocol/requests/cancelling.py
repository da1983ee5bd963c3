"""What clients ask about what they have cancelled."""

from __future__ import annotations

from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Integer, Nothing

AWAIT_KILLS = Request(
    "await-kills",
    "Answers when the processes have ended that were at what this client has cancelled with this number as its "
    "`kill`; an error if one of them can't be ended, or is late.",
    needed={"kill": Integer()},
    answer=Nothing(),
    waits=True,
)

REQUESTS = (AWAIT_KILLS,)
