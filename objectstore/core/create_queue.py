"""The requests that wait for room, in the order in which they came.

First come, first served, so that a large object is never starved by a stream of small ones, with one
exception, so that small ones aren't held up by a large one either: while the first in line can't be
satisfied, requests behind it may overtake it, all of them together for at most an eighth of the bytes
that it asks for. After that they wait like all others. Each waits until its own deadline.

The bound is one of bytes, not of places: what overtook may lie in the middle of the piece that the first is
waiting for, as any other object may.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable

from holdfast.objectstore.shared.ids import ObjectID

OVERTAKERS_SHARE = 8
_LOOKED_AT = 64


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
    object_id : ObjectID or None
        The object that they're for, if it's known.
    lease : bool
        Whether small objects will be laid into it, or one object will take all of it.
    """

    client: int
    request: int
    nbytes: int
    want_nbytes: int
    object_id: ObjectID | None = None
    lease: bool = False
    done: bool = False
    overtaken_nbytes: int = 0


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
        """Grants it now, if no request is before it that it may not overtake and there's room; else it waits.

        Whether it was granted.
        """
        if self._overtakes(wait) if self._waiting else self._grant(wait):
            wait.done = True
            return True
        self._waiting.append(wait)
        return False

    def serve(self) -> None:
        """Grants from the front while there's room, then those that may overtake. After bytes were freed."""
        while self._waiting and self._grant(self._waiting[0]):
            self._waiting.popleft().done = True
        for wait in list(itertools.islice(self._waiting, 1, _LOOKED_AT)):
            if self._overtakes(wait):
                self.remove(wait)

    def remove(self, wait: CreateWait) -> None:
        """The request waits no longer. The requests behind it are served by the next ``serve``."""
        wait.done = True
        self._waiting.remove(wait)

    def of_client(self, client: int) -> list[CreateWait]:
        """What one client waits for."""
        return [wait for wait in self._waiting if wait.client == client]

    def _overtakes(self, wait: CreateWait) -> bool:
        first = self._waiting[0]
        left = first.nbytes // OVERTAKERS_SHARE - first.overtaken_nbytes
        if wait.nbytes > left:
            return False
        wanted, wait.want_nbytes = wait.want_nbytes, min(wait.want_nbytes, left)
        if not self._grant(wait):
            wait.want_nbytes = wanted
            return False
        first.overtaken_nbytes += wait.want_nbytes
        return True
