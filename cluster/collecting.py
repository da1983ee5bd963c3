"""Which futures are pickled in this thread.

What pickles something that is to be sent or stored collects the futures in it, and tells the scheduler their keys. So
they are kept for as long as what they are in. A future that is pickled and not collected is one that a user pickles.

Nothing is collected in a process that never had a client: there are no futures in it. So a task that has no use for
futures pays nothing for this.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Protocol


class Collected(Protocol):
    """A future."""

    @property
    def key(self) -> Any:
        """The key of the result that it stands for."""


class _Collector(threading.local):
    found: list[Any] | None = None


collector = _Collector()


class _Process:
    """Whether there may be futures in this process."""

    has_futures = False


process = _Process()


class Values(list[Collected]):
    """A list for futures that are pickled. Some of them, by their identity, are pickled as references."""

    def __init__(self, references: Mapping[int, Collected]) -> None:
        super().__init__()
        self.references = references


@contextlib.contextmanager
def collecting(found: list[Collected] | None = None) -> Iterator[list[Any]]:
    """Within it, in this thread, every future that is pickled is added to the list: a new one, or `Values`."""
    outer = collector.found
    if found is None:
        found = []
    collector.found = found
    try:
        yield found
    finally:
        collector.found = outer


def pickled(future: Collected) -> bool:
    """A future is being pickled; its ``__reduce__`` says so. Whether it is collected, and its key so held."""
    if collector.found is None:
        return False
    collector.found.append(future)
    return True


def stands_for_value(future: Collected) -> bool:
    """Whether a reference is to be pickled in the place of a future that is collected."""
    return id(future) in getattr(collector.found, "references", ())
