"""The topics that a client is subscribed to, and what is called with the events that the scheduler tells of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

#: The time of an event, and its record (`holdfast.cluster.protocol.records`).
Event: TypeAlias = tuple[float, Any]


class Told(NamedTuple):
    """Events of a topic, up to the one of this number; so many before these were missed."""

    topic: str
    number: int
    missed: int
    events: Sequence[Event]


class Subscriptions:
    """What is called with the events of each topic. Used in any thread."""

    def __init__(self) -> None:
        self._hear: dict[str, Callable[[Told], object]] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._hear

    @property
    def topics(self) -> list[str]:
        """Those of which something is called with the events."""
        return list(self._hear)

    def put(self, topic: str, hear: Callable[[Told], object]) -> Callable[[Told], object] | None:
        """From now on this is called; what was called before, if there was something."""
        before = self._hear.get(topic)
        self._hear[topic] = hear
        return before

    def is_called(self, topic: str, hear: Callable[[Told], object]) -> bool:
        """Whether this is what is called."""
        return self._hear.get(topic) == hear

    def drop(self, topic: str) -> None:
        """From now on nothing is called; no error if nothing was."""
        self._hear.pop(topic, None)

    def tell(self, topic: str, number: int, missed: int, events: Sequence[Event]) -> None:
        """The scheduler tells of events; of a topic that isn't subscribed to any more, nobody hears."""
        hear = self._hear.get(topic)
        if hear is not None:
            hear(Told(topic, number, missed, events))
