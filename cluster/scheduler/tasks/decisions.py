"""What the scheduler has decided and another one has to know, on its way into the journal (`cluster/journal`).

The machine and its parts note what they decide while they handle an event. All of it is written as one, before anything
that follows from the event leaves the scheduler. Nothing is noted where no journal is kept.

Noted is what can't be found out from others: tasks and what keeps them, errors, and what parts have granted. Not noted
is what workers, hosts and clients know: results, runs, what waits. With what is noted goes how far the peer was heard
that it follows from, so that nothing has its effects twice (`scheduler/io/progress.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.cluster.journal import records
from holdfast.cluster.journal.batches import Record


class Decisions:
    """Takes decisions, until they are written.

    Parameters
    ----------
    is_kept
        Whether there is a journal.

    Attributes
    ----------
    is_kept : bool
        Look at it before what costs something to note.
    heard : tuple or None
        What is noted from here on follows from what a peer has said up to a position: its name, and the position.
    """

    __slots__ = ("_client", "_held", "_is_hold", "_noted", "heard", "is_kept")

    def __init__(self, is_kept: bool = False) -> None:
        self.is_kept = is_kept
        self._noted: list[Record] = []
        #: The tasks that a client has begun to hold, or let go of, one after the other.
        self._held: list[int] = []
        self._client = ""
        self._is_hold = False
        self.heard: tuple[str, Sequence[Any]] | None = None

    def forget_peer(self, peer: str) -> None:
        """A peer has left, and says no more."""
        self.heard = None
        self.note(records.remove("positions", peer))

    def note(self, record: Record) -> None:
        """Something was decided."""
        if self.is_kept:
            if self._held:
                self._close()
            self._noted.append(record)

    @property
    def has_some(self) -> bool:
        """Whether something was noted since `take`."""
        return bool(self._noted or self._held)

    def hold(self, client: str, serial: int) -> None:
        """A client holds a task. Only where a journal is kept."""
        if not self._is_hold or client != self._client:
            self._close()
            self._client, self._is_hold = client, True
        self._held.append(serial)

    def unhold(self, client: str, serial: int) -> None:
        """A client lets go of a task. Only where a journal is kept."""
        if self._is_hold or client != self._client:
            self._close()
            self._client, self._is_hold = client, False
        self._held.append(serial)

    def _close(self) -> None:
        if self._held:
            make = records.hold if self._is_hold else records.unhold
            self._noted.append(make(self._client, self._held))
            self._held = []

    def take(self) -> list[Record]:
        """All that was noted since the last time."""
        if self._held:
            self._close()
        elif not self._noted:
            return []
        noted, self._noted = self._noted, []
        if self.heard is not None:
            noted.append(records.put("positions", *self.heard))
            self.heard = None
        return noted
