"""What clients ask about where data lies."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import KEY, KEYS, SECONDS, TEXT
from holdfast.cluster.protocol.limits import MAX_NAMED
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Fields, Integer, Listed, Maybe

_NAMES = Listed(TEXT, MAX_NAMED)

REPLICATE = Request(
    "replicate",
    "Sees to it that the result of each of these keys lies on `n` of these hosts, or on all of them: copies are made, "
    "and those above `n` forgotten. Each host gives an object to `branching` others at a time. The answer has the keys "
    "of which there are fewer copies, and why.",
    needed={"keys": KEYS},
    known={"n": Maybe(Integer(1)), "workers": Maybe(_NAMES), "branching": Integer(1, 1 << 16), "timeout": SECONDS},
    answer=Fields({"short": Listed(Fields({"key": KEY, "copies": Integer(0), "wanted": Integer(0), "reason": TEXT}))}),
    waits=True,
)
REBALANCE = Request(
    "rebalance",
    "Moves objects, of these keys or of all, between the stores of these hosts, until all of them are about equally "
    "full. An object is forgotten where it was when it has arrived. The answer says how much has moved.",
    known={"keys": Maybe(KEYS), "workers": Maybe(_NAMES), "timeout": SECONDS},
    answer=Fields({"objects": Integer(0), "nbytes": Integer(0), "failed": Integer(0), "reason": TEXT}),
    waits=True,
)
REQUESTS = (REPLICATE, REBALANCE)
