"""What clients ask about what is published."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import KEYS, NAME, PAYLOAD, TEXT
from holdfast.cluster.protocol.limits import MAX_DATASETS
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Boolean, Entry, Fields, Listed, Nothing

LIST_DATASETS = Request("list-datasets", "The names of what is published.", answer=Listed(NAME, MAX_DATASETS))
PUBLISH = Request(
    "publish",
    "Keeps these under their names, with the keys that they hold: all of them, or none.",
    needed={"datasets": Listed(Entry(name=NAME, data=PAYLOAD, keys=KEYS), MAX_DATASETS)},
    known={"override": Boolean()},
    answer=Nothing(),
    waits=True,
)
UNPUBLISH = Request("unpublish", "Forgets a name.", needed={"name": TEXT}, answer=Nothing())
GET_DATASET = Request(
    "get-dataset",
    "What was published under a name. The client holds its keys from then on.",
    needed={"name": TEXT},
    answer=Fields({"data": PAYLOAD, "keys": KEYS}),
)

REQUESTS = (LIST_DATASETS, PUBLISH, UNPUBLISH, GET_DATASET)
