"""What clients say of plugins."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import KEYS, NAME, PAYLOAD, TEXT
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.requests.errands import ERRAND
from holdfast.cluster.protocol.shapes import Boolean

REGISTER_PLUGIN = Request(
    "register-plugin",
    "Keeps a plugin for those of its `kind` that come later, and has it set up on those that are there; they answer as "
    "to an errand. `call` is its pickle, and `keys` are held of the data that references in it stand for. One of this "
    "name is replaced; if it is `idempotent`, nothing is done instead.",
    needed={"kind": TEXT, "name": NAME, "call": PAYLOAD},
    known={"keys": KEYS, "idempotent": Boolean()},
    answer=ERRAND.answer,
    waits=True,
)
UNREGISTER_PLUGIN = Request(
    "unregister-plugin",
    "Forgets a plugin, and has it taken down where it is; they answer as to an errand.",
    needed={"kind": TEXT, "name": NAME},
    answer=ERRAND.answer,
    waits=True,
)

REQUESTS = (REGISTER_PLUGIN, UNREGISTER_PLUGIN)
