"""What clients ask of variables. A `lease` is what a client calls a reading of its own that is not over yet."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import KEY, KEYS, PAYLOAD
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.requests.locks import LEASE, TIMEOUT
from holdfast.cluster.protocol.shapes import Fields, Nothing

SET_VARIABLE = Request(
    "set-variable",
    "Gives a variable a value, with the keys that it holds.",
    needed={"name": KEY, "data": PAYLOAD, "keys": KEYS},
    answer=Nothing(),
)
GET_VARIABLE = Request(
    "get-variable",
    "The value of a variable, as soon as it has one; an error after `timeout` seconds. If there are keys, they are "
    "held until the client has ended the reading.",
    needed={"name": KEY, "lease": LEASE},
    known={"timeout": TIMEOUT},
    answer=Fields({"data": PAYLOAD, "keys": KEYS}),
    waits=True,
)
END_READING = Request(
    "end-reading",
    "The client has what it wants of a reading, or does not want it any more.",
    needed={"lease": LEASE},
    answer=Nothing(),
    quiet=True,
)
DELETE_VARIABLE = Request(
    "delete-variable", "The variable has no value any more.", needed={"name": KEY}, answer=Nothing()
)

REQUESTS = (SET_VARIABLE, GET_VARIABLE, END_READING, DELETE_VARIABLE)
