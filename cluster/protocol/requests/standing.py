"""What clients leave with the scheduler for workers that come later."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import NAME, TEXT
from holdfast.cluster.protocol.limits import MAX_NAMED
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Anything, Mapped, Nothing

_ARGUMENTS = Mapped(TEXT, Anything("what the errand says"), MAX_NAMED)

STAND = Request(
    "stand",
    "Has all workers that join from now on do this errand, until the client withdraws it by its name, or leaves: then "
    "all workers do the same errand with the arguments `undo`.",
    needed={"name": NAME, "operation": TEXT, "arguments": _ARGUMENTS, "undo": _ARGUMENTS},
    answer=Nothing(),
)
WITHDRAW = Request("withdraw", "Ends what `stand` has begun.", needed={"name": NAME}, answer=Nothing())

REQUESTS = (STAND, WITHDRAW)
