"""How far what a peer has sent is handled: what the journal says of it, and what the peer is told.

Where a journal is kept, a frame of a peer's is safe when all its messages are handled and what follows from them is
written (`comm/resume.py`). So with each batch of decisions goes how far its peer was heard by then (`Position`): how
many frames wholly, and how many messages of the next one. Another scheduler goes on exactly there. It counts the
messages as this one does, since the pieces of a long message are messages, too (`inbox`).

A position belongs to the *line* of a peer's frames, the session since which they are numbered. Another process that
joins under the same name begins another line.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from holdfast.cluster.comm.resumable import ResumableConnection
from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.journal.tables import Tables
from holdfast.cluster.scheduler.tasks.decisions import Decisions

#: The table of the journal.
TABLE = "positions"


class Position(NamedTuple):
    """How far a peer was heard."""

    line: bytes
    frames: int
    messages: int


def positions(tables: Tables) -> dict[str, Position]:
    """How far an earlier scheduler has heard each peer, by name."""
    return {peer: Position(*entry.value) for peer, entry in tables.entries.get(TABLE, {}).items()}


class Progress:
    """How far one peer is heard.

    Parameters
    ----------
    peer
        Its name.
    connection
        The one that it speaks by.
    decisions
        Where positions go; None: the peer says all anew to another scheduler.
    recorded
        The position that an earlier scheduler has written, if there is one.

    Attributes
    ----------
    counts : bool
        Whether what is handled is safe. Not while nothing can be written, or while it is only put off.
    """

    __slots__ = (
        "_connection",
        "_decisions",
        "_frames",
        "_lengths",
        "_line",
        "_messages",
        "_peer",
        "_skipped",
        "counts",
    )

    def __init__(
        self, peer: str, connection: ResumableConnection, decisions: Decisions | None, recorded: Position | None
    ) -> None:
        self.counts = True
        self._peer = peer
        self._connection = connection
        self._decisions = decisions
        self._line = connection.numbered_since
        self._frames = connection.taken - len(connection.batches)
        self._messages = 0
        self._lengths: deque[int] = deque()  # of the frames that are not handled wholly, in messages
        #: Messages of the first frame that comes that have had their effects.
        self._skipped = 0
        if recorded is not None and recorded[:2] == (self._line, self._frames):
            self._skipped = recorded.messages

    @property
    def position(self) -> Position:
        """How far the peer is heard, with the message that is being handled."""
        return Position(self._line, self._frames, self._messages)

    def came(self, length: int) -> None:
        """A frame of so many messages has come."""
        if not length:
            raise ProtocolError("a frame without a message")
        self._lengths.append(length)

    def begin(self) -> bool:
        """A message is about to be handled. Whether it had its effects before."""
        self._messages += 1
        if self._messages == self._lengths[0]:
            self._lengths.popleft()
            self._frames += 1
            self._messages = 0
        if self._skipped:
            self._skipped -= 1
            return True
        if self.counts and self._decisions is not None:
            self._decisions.heard = self._peer, (self._line, self._frames, self._messages)
        return False

    def note(self, position: Position) -> None:
        """What is decided from here on follows from what the peer has said up to there."""
        if self._decisions is not None:
            self._decisions.heard = self._peer, position

    def forget(self) -> None:
        """The peer has left, and says no more."""
        if self._decisions is not None:
            self._decisions.forget_peer(self._peer)

    def end(self) -> None:
        """The message is handled."""
        if self.counts and not self._messages:
            self._connection.handled(self._frames)

    def tell(self) -> None:
        """Tell the peer how far it is heard, if that counts: it was not told before."""
        if self.counts:
            self._connection.handled(self._frames)
