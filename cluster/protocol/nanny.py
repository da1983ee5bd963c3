"""What a node agent and the nanny beside it say to each other, over a socket that only these two have."""

from __future__ import annotations

from holdfast.cluster.protocol.errands import ERRAND, ERRAND_DONE, ERRAND_STORED
from holdfast.cluster.protocol.kinds import NAME
from holdfast.cluster.protocol.limits import MAX_ENVIRONMENT, MAX_ENVIRONMENT_NBYTES
from holdfast.cluster.protocol.message import Message, Vocabulary
from holdfast.cluster.protocol.shapes import Mapped, Maybe, Text

ENVIRONMENT = Message(
    "environment",
    "What the nanny sets in the environment of the worker processes that start from now on; nil takes a variable away. "
    "It replaces what was said before.",
    variables=Mapped(NAME, Maybe(Text(MAX_ENVIRONMENT_NBYTES)), MAX_ENVIRONMENT),
)
ENDED = Message("ended", "All has been taken down, and the nanny ends.")

FROM_NANNY = Vocabulary("the nanny", "its node", ERRAND_DONE, ERRAND_STORED, ENVIRONMENT, ENDED)
TO_NANNY = Vocabulary("a node", "its nanny", ERRAND)
