"""Which futures are pickled in this thread: the code that pickles what is to be sent collects them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping

from holdfast.client.packing.futures import FutureLike

collector = threading.local()


class Values(list[FutureLike]):
    """A list for futures that are pickled. Some of them, by their identity, are pickled as references."""

    def __init__(self, references: Mapping[int, FutureLike]) -> None:
        super().__init__()
        self.references = references


@contextlib.contextmanager
def collecting(found: list[FutureLike] | None = None) -> Iterator[list[FutureLike]]:
    """Within it, in this thread, every future that is pickled is added to the list: a new one, or `Values`."""
    outer = getattr(collector, "found", None)
    if found is None:
        found = []
    collector.found = found
    try:
        yield found
    finally:
        collector.found = outer


def pickled(future: FutureLike) -> bool:
    """A future is being pickled; its ``__reduce__`` says so. Whether it is collected, and its key so held."""
    found = getattr(collector, "found", None)
    if found is None:
        return False
    found.append(future)
    return True


def is_collected() -> bool:
    """Whether the futures are collected that are pickled in this thread."""
    return getattr(collector, "found", None) is not None


def stands_for_value(future: FutureLike) -> bool:
    """Whether a reference is to be pickled in the place of a future that is collected."""
    return id(future) in getattr(collector.found, "references", ())
