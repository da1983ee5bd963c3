"""Who waits for room, in the order in which they came.

Strictly first come, first served: a request that would fit doesn't overtake one that doesn't, so a
large object is never starved by a stream of small ones. Each waits until its own deadline.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable


@dataclasses.dataclass(slots=True, eq=False)
class CreateWait:
    """A request for bytes.

    Attributes
    ----------
    client, request : int
        Whose, and which of its requests.
    nbytes : int
        What it needs at the least.
    want_nbytes : int
        What it would rather have: more than ``nbytes`` for a lease only.
    lease : bool
        Whether small objects will be laid into it, or one object will take all of it.
    """

    client: int
    request: int
    nbytes: int
    want_nbytes: int
    lease: bool
    done: bool = False


class CreateQueue:
    """The waiting requests.

    Parameters
    ----------
    grant : callable
        Tries to satisfy one request, and says whether it did.
    """

    def __init__(self, grant: Callable[[CreateWait], bool]) -> None:
        self._grant = grant
        self._waiting: deque[CreateWait] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, wait: CreateWait) -> bool:
        """Grants it now, if nobody is before it and there's room; else it waits. Whether it was granted."""
        if not self._waiting and self._grant(wait):
            wait.done = True
            return True
        self._waiting.append(wait)
        return False

    def serve(self) -> None:
        """Grants from the front while there's room. To be called after bytes were freed."""
        while self._waiting and self._grant(self._waiting[0]):
            self._waiting.popleft().done = True

    def remove(self, wait: CreateWait) -> None:
        """It waits no longer. Those behind it are served by the next ``serve``."""
        wait.done = True
        self._waiting.remove(wait)

    def of_client(self, client: int) -> list[CreateWait]:
        """What one client waits for."""
        return [wait for wait in self._waiting if wait.client == client]
