"""What is asked of a cluster that grows and shrinks."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import ADDRESS
from holdfast.cluster.protocol.limits import MAX_INDEX, MAX_INTEGER, MAX_ITEMS
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Boolean, Integer, Listed, Nothing, Number

ADD_WORKERS = Request(
    "add-workers",
    "The node keeps a worker of each of these numbers, too, like those that it has begun with. The answer does not "
    "wait for them.",
    needed={"node": ADDRESS, "indices": Listed(Integer(0, MAX_INDEX), MAX_ITEMS)},
    answer=Nothing(),
)
REMOVE_WORKERS = Request(
    "remove-workers",
    "The node closes these workers, and keeps none in their places. Those that it has not are no error. What "
    "they run is not waited for: see `retire-workers`.",
    needed={"node": ADDRESS, "workers": Listed(ADDRESS, MAX_ITEMS)},
    answer=Nothing(),
)
ADAPTIVE_TARGET = Request(
    "adaptive-target",
    "How many workers the cluster should have, so that what it has to do is done in about `target_duration` seconds. "
    "`brings_memory` says whether more workers come with more room for results.",
    known={"target_duration": Number(0.0, 1e9), "brings_memory": Boolean()},
    answer=Integer(0, MAX_INTEGER),
)

REQUESTS = (ADD_WORKERS, REMOVE_WORKERS, ADAPTIVE_TARGET)
