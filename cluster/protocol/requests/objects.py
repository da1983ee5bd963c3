"""What clients ask about objects by their ids."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import KEY, OBJECT
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Fields

FIND_OBJECT = Request(
    "find-object",
    "The key whose result is this object. The client holds it from then on.",
    needed={"object_id": OBJECT},
    answer=Fields({"key": KEY}),
)

REQUESTS = (FIND_OBJECT,)
