"""What clients ask of the cluster as a whole."""

from __future__ import annotations

from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Integer, Maybe, Nothing, Number

WAIT_FOR_WORKERS = Request(
    "wait-for-workers",
    "Answers as soon as there are so many workers, with their number; an error after `timeout` seconds.",
    needed={"n": Integer(0, (1 << 64) - 1)},
    known={"timeout": Maybe(Number(0.0, 1e9))},
    answer=Integer(),
    waits=True,
)
SHUTDOWN = Request("shutdown", "Shuts the cluster down.", answer=Nothing())

REQUESTS = (WAIT_FOR_WORKERS, SHUTDOWN)
