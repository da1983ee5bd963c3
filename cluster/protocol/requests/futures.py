"""What clients ask about the tasks of futures: how far they are, and how they are computed."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import ERROR_TEXT, KEY, KEYS, PAYLOAD, TEXT
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Boolean, Entry, Fields, Integer, Listed, Mapped, Maybe

#: So many failures are told of.
MAX_FAILURES = 10

BEGUN = Request(
    "begun",
    "Which of these keys have been sent to a worker that has not said how they ended.",
    needed={"keys": KEYS},
    answer=KEYS,
)
CANCEL_UNSTARTED = Request(
    "cancel-unstarted",
    "Cancels those of these keys that have no result and that no worker was sent, for this client. Answers with them.",
    needed={"keys": KEYS},
    answer=KEYS,
)
RECIPE = Request(
    "recipe",
    "How a key is computed; with `blamed`, how the task is computed that has failed first of all that the key needs. "
    "Its `function` is nil for a node of a dask graph. Nil, if there is none.",
    needed={"key": KEY, "blamed": Boolean()},
    answer=Maybe(Fields({"key": KEY, "function": Maybe(PAYLOAD), "payload": PAYLOAD, "dependencies": KEYS})),
)
PROGRESS = Request(
    "progress",
    "How many of these keys, and of all that they still need, are in which state, by the prefix of their keys; and "
    "some of these keys that have failed.",
    needed={"keys": KEYS},
    answer=Fields(
        {
            "counts": Mapped(
                TEXT,
                Fields({"memory": Integer(), "erred": Integer(), "waiting": Integer(), "processing": Integer()}),
                1 << 26,
            ),
            "failures": Listed(Entry(key=KEY, text=ERROR_TEXT), MAX_FAILURES),
            "gone": Integer(),
        }
    ),
)

REQUESTS = (BEGUN, CANCEL_UNSTARTED, RECIPE, PROGRESS)
