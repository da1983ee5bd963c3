"""All that the processes of a cluster may say to each other once a connection is open."""

from __future__ import annotations

from holdfast.cluster.protocol.assistant import FROM_ASSISTANT, TO_ASSISTANT
from holdfast.cluster.protocol.client import FROM_CLIENT, TO_CLIENT
from holdfast.cluster.protocol.message import Vocabulary
from holdfast.cluster.protocol.nanny import FROM_NANNY, TO_NANNY
from holdfast.cluster.protocol.node import FROM_NODE, TO_NODE
from holdfast.cluster.protocol.worker import FROM_WORKER, TO_WORKER

VOCABULARIES: tuple[Vocabulary, ...] = (
    FROM_CLIENT,
    TO_CLIENT,
    FROM_WORKER,
    TO_WORKER,
    FROM_NODE,
    TO_NODE,
    FROM_ASSISTANT,
    TO_ASSISTANT,
    FROM_NANNY,
    TO_NANNY,
)
