"""What the scheduler and its assistant say to each other, over a socket that only these two have."""

from __future__ import annotations

from holdfast.cluster.protocol.errands import ERRAND, ERRAND_DONE, ERRAND_STORED
from holdfast.cluster.protocol.kinds import KEY, TEXT
from holdfast.cluster.protocol.message import Message, Vocabulary
from holdfast.cluster.protocol.shapes import Boolean, Entry, Integer, Listed, Maybe, OneOf

LISTEN = Message("listen", "Whether the assistant wants to be told of what happens, from now on.", listens=Boolean())
ENDED = Message("ended", "All has been taken down, and the assistant ends.")

FROM_ASSISTANT = Vocabulary("the assistant", "the scheduler", ERRAND_DONE, ERRAND_STORED, LISTEN, ENDED)

TELL = Message(
    "tell",
    "What has happened: tasks have moved, and workers and clients have come or gone. So many changes before were left "
    "out, because the assistant is too slow.",
    missed=Integer(),
    changes=Listed(
        OneOf(
            "a transition, or a peer that has come or gone",
            Entry(what=TEXT, key=KEY, start=Maybe(TEXT), finish=TEXT),
            Entry(what=TEXT, peer=TEXT),
        )
    ),
)

TO_ASSISTANT = Vocabulary("the scheduler", "the assistant", ERRAND, TELL)
