"""How much memory processes use together.

The proportional set size counts a page that is shared by n processes as an n-th of it in each, so that the
sum over all processes counts every page once, however many map it.
"""

from __future__ import annotations

import contextlib
import time

import psutil

_PAUSE_SECONDS = 0.3
_LOOKS = 7  # the store, which maps pages ahead of use, looks again after 1.6 s at most
_SETTLED_NBYTES = 2_000_000
SETTLING_SECONDS = 15.0


def tree_pss(pid: int | None = None, *, without: int | None = None) -> int:
    """The bytes that a process (this one) and all its descendants, but for one, use; each page counted once."""
    root = psutil.Process(pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        if process.pid != without:
            with contextlib.suppress(psutil.Error):  # one that has just ended
                total += process.memory_full_info().pss
    return total


def settled_pss(most_seconds: float = SETTLING_SECONDS) -> int:
    """``tree_pss`` once what works in the background has done its work and it has come to rest, or after so long."""
    deadline = time.monotonic() + most_seconds
    seen = [tree_pss()]
    while True:
        time.sleep(_PAUSE_SECONDS)
        seen = [*seen[-_LOOKS:], tree_pss()]
        at_rest = len(seen) > _LOOKS and max(seen) - min(seen) <= _SETTLED_NBYTES
        if at_rest or time.monotonic() > deadline:
            return seen[-1]
