"""What happens in the scheduler, as lines of its log: for ``holdfast start --log-level debug``."""

from __future__ import annotations

import logging
from collections.abc import Callable

from holdfast.cluster.scheduler.tasks.feed import Change, Feed, Joined, Left, Restarted, Submitted, TopicEvent

logger = logging.getLogger(__name__)


class FeedLog:
    """Listens, and logs what it hears.

    Parameters
    ----------
    feed
        What it listens to.
    soon
        ``soon(call)``: makes a call once the scheduler has done what it is doing.
    """

    def __init__(self, feed: Feed, soon: Callable[[Callable[[], None]], object]) -> None:
        self._feed = feed
        self._soon = soon
        self._subscription = feed.subscribe(self._wake)

    def close(self) -> None:
        """Log what has happened until now, and listen no longer."""
        self._write()
        self._feed.unsubscribe(self._subscription)

    def _wake(self) -> None:
        self._soon(self._write)

    def _write(self) -> None:
        missed, batches = self._subscription.take()
        if missed:
            logger.debug("%d changes are missing here: they came faster than they were logged", missed)
        for batch in batches:
            for change in batch.changes:
                logger.debug("%s", _line(change))


def _line(change: Change) -> str:
    if isinstance(change, Joined):
        return f"{change.kind} {change.address} ({change.name}) has joined"
    if isinstance(change, Left):
        return f"{change.kind} {change.address} has left: {change.reason or 'it said so'}"
    if isinstance(change, Submitted):
        return f"client {change.client} has submitted {len(change.tasks):,} tasks"
    if isinstance(change, TopicEvent):
        return f"an event was logged to {', '.join(change.topics):.200}"
    if isinstance(change, Restarted):
        return "all workers are restarted"
    where = f" at {change.where}" if change.where else ""
    return f"{change.key!r:.200} {change.before or 'nothing'} → {change.after}{where}"
