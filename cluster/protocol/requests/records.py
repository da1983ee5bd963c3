"""What clients ask about what users leave with the scheduler: metadata, and events by topic."""

from __future__ import annotations

from holdfast.cluster.protocol.kinds import EVENT, NAME, PATH, RECORD, TOPICS
from holdfast.cluster.protocol.limits import MAX_TOPICS
from holdfast.cluster.protocol.message import Request
from holdfast.cluster.protocol.shapes import Boolean, Fields, Listed, Mapped, Maybe, Nothing

SET_METADATA = Request(
    "set-metadata",
    "Keeps a value at a path in the metadata, in the place of what was there.",
    needed={"path": PATH, "record": RECORD},
    answer=Nothing(),
)
GET_METADATA = Request(
    "get-metadata",
    "What is kept at a path in the metadata, and below it.",
    needed={"path": PATH},
    answer=Fields({"found": Boolean(), "record": RECORD}),
)
LOG_EVENT = Request(
    "log-event",
    "Adds an event to these topics, and tells it to all clients that are subscribed to one of them.",
    needed={"topics": TOPICS, "record": RECORD},
    answer=Nothing(),
)
GET_EVENTS = Request(
    "get-events",
    "The events of a topic that are kept, the oldest first; nil stands for all topics.",
    known={"topic": Maybe(NAME)},
    answer=Mapped(NAME, Listed(EVENT), MAX_TOPICS),
)
SUBSCRIBE = Request(
    "subscribe",
    "From now on the client is told of the events of this topic with `events`.",
    needed={"topic": NAME},
    answer=Nothing(),
)
UNSUBSCRIBE = Request(
    "unsubscribe", "The client is told of the events of this topic no longer.", needed={"topic": NAME}, answer=Nothing()
)

REQUESTS = (SET_METADATA, GET_METADATA, LOG_EVENT, GET_EVENTS, SUBSCRIBE, UNSUBSCRIBE)
