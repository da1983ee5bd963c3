"""What clients ask about what is published."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import DATASET, KEYS, PAYLOAD
from holdfast.cluster.protocol.limits import MAX_DATASETS
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Boolean, Entry, Fields, Listed, Nothing

LIST_DATASETS = Request("list-datasets", "The names of what is published.", answer=Listed(DATASET, MAX_DATASETS))
PUBLISH = Request(
    "publish",
    "Keeps these under their names, with the keys that they hold: all of them, or none.",
    needed={"datasets": Listed(Entry(name=DATASET, data=PAYLOAD, keys=KEYS), MAX_DATASETS)},
    known={"override": Boolean()},
    answer=Nothing(),
    waits=True,
)
UNPUBLISH = Request("unpublish", "Forgets a name, if there is one.", needed={"name": DATASET}, answer=Nothing())
GET_DATASET = Request(
    "get-dataset",
    "What was published under a name. The client holds its keys from then on.",
    needed={"name": DATASET},
    answer=Fields({"data": PAYLOAD, "keys": KEYS}),
)

REQUESTS = (LIST_DATASETS, PUBLISH, UNPUBLISH, GET_DATASET)
