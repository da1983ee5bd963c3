"""What clients ask about what is published."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import DATASET, KEY, KEYS, PAYLOAD
from holdfast.cluster.protocol.limits import MAX_DATASETS, MAX_NAME_LENGTH, MAX_REPLICAS
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Boolean, Entry, Fields, Integer, Listed, Maybe, Nothing, Plain, Text

_ABOUT = Plain()
#: A place for durable datasets; an empty text stands for the cluster's.
_PLACE = Maybe(Text(MAX_NAME_LENGTH))

LIST_DATASETS = Request(
    "list-datasets",
    "The names of what is published, here or in the cluster's place for durable datasets. With `durable` of what is in "
    "this place; an empty text stands for the cluster's.",
    known={"durable": _PLACE},
    answer=Listed(DATASET, MAX_DATASETS),
    waits=True,
)
DESCRIBE_DATASETS = Request(
    "describe-datasets",
    "What is known of each of these datasets; without names of all. With `durable` of those in this place.",
    known={"names": Listed(DATASET, MAX_DATASETS), "durable": _PLACE},
    answer=Listed(Entry(name=DATASET, about=_ABOUT), MAX_DATASETS),
    waits=True,
)
PUBLISH = Request(
    "publish",
    "Keeps these under their names, with the keys that they hold: all of them, or none. With `durable` they are in "
    "this place when it answers; an empty text stands for the cluster's. `copies` is on how many hosts all that they "
    "hold is to lie.",
    needed={"datasets": Listed(Entry(name=DATASET, data=PAYLOAD, keys=KEYS, about=_ABOUT), MAX_DATASETS)},
    known={"override": Boolean(), "durable": _PLACE, "copies": Integer(1, MAX_REPLICAS)},
    answer=Nothing(),
    waits=True,
)
UNPUBLISH = Request(
    "unpublish",
    "Forgets a name, if there is one, here and in the place where it is durable. With `durable` only what it means in "
    "this place.",
    needed={"name": DATASET},
    known={"durable": _PLACE},
    answer=Nothing(),
    waits=True,
)
GET_DATASET = Request(
    "get-dataset",
    "What was published under a name; with `durable` in this place. The client holds its keys from then on. `renamed` "
    "are those that stand for others in the data: their keys meant something else here when the dataset was loaded.",
    needed={"name": DATASET},
    known={"durable": _PLACE},
    answer=Fields({"data": PAYLOAD, "keys": KEYS, "about": _ABOUT}, {"renamed": Listed(Entry(key=KEY, here=KEY))}),
    waits=True,
)

REQUESTS = (LIST_DATASETS, DESCRIBE_DATASETS, PUBLISH, UNPUBLISH, GET_DATASET)
