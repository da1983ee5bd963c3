"""A session: what two ends say to each other over connections that come and go, each frame once and in order.

A connection breaks for reasons that concern neither end: a proxy is restarted, a link is gone for some seconds, a
firewall forgets. What both ends have to say goes on over the next one. Nothing here does I/O or looks at a clock:
`ResumableConnection` drives it, and the tests simulate it.

Terms
-----
frame
    What one write consists of (`frames`). The frames of each direction have numbers, from 1, which are not sent: they
    follow from the order. The messages of the opening, and controls, have none.
taken
    How many frames an end has received whole (`FrameReader.taken`). What it has taken it handles, however its
    connections fare.
acknowledged
    How many frames of its own an end knows to be taken at the other end.
kept
    What an end has sent and does not know to be taken: the packed chunks themselves, no copies.
control
    An acknowledgement (`frames.acknowledgement`) or a goodbye (`frames.GOODBYE`), 16 bytes. It has no number, and is
    not kept: one that is lost is made up for by the next one, or by the next opening.

Invariants
----------
1. ``acknowledged + len(kept)`` is the number of frames that were sent.
2. ``acknowledged`` ≤ what the other end has taken ≤ what was sent. An end that claims otherwise is no end of ours.
3. What is resent after a break is exactly what the other end has not taken: it says how much it has in the opening, and
   takes nothing from an earlier connection from then on.
4. ``kept`` is bounded: from `KEPT_NBYTES` or `KEPT_FRAMES` on the session is full, and its owner sends nothing more
   that can wait (`Connection.is_full`).
5. An end that is full goes on to take what comes, or it would never learn that there is room again. If it has no use
   for that yet, it does not say that it has taken it: then the other end's limit is this one's, too.

States
------
=========  =================================  ==================================================================
in state   on                                 it goes to
=========  =================================  ==================================================================
open       its connection ends, no goodbye    broken
open       a goodbye, or its end by this end  ended
open       the other end resumes              open: the new connection supersedes, the old one is dead already
any        an older attempt to resume         as it was: the attempt is refused
broken     the other end resumes              open
broken     the grace is over                  ended
broken     its end by this end, or a refusal  ended
=========  =================================  ==================================================================

The connecting end comes back; the listening end waits for it, for `Terms.seconds`. A session is known by an id, and
the end that takes it up again proves a secret that it got in its first welcome, over the nonces of both ends, so that a
recorded opening is of no use. It also names the listener's *epoch*: that of a listener which is another one by now
says so. The attempts to come back are numbered: a proxy may hold back what one of them has said, and deliver it when a
later one has succeeded.

A connecting end says in its hello whether it comes back; a command that asks one thing does not. One whose welcome was
lost knows no secret. It joins anew, and takes its own place.

Acknowledging costs a round trip nothing: a control rides along with a frame when `RIDE_FRAMES` have come since the last
one, leaves by itself when `TELL_FRAMES` or `TELL_NBYTES` have, and otherwise a moment after the last frame.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any, NamedTuple

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.opening import SECRET_NBYTES, SESSION_NBYTES

#: What an end keeps before it is full.
KEPT_NBYTES = 32 << 20
KEPT_FRAMES = 1 << 14
#: After this much an end says at once what it has taken, or with the next frame that it sends.
TELL_FRAMES = 64
TELL_NBYTES = 1 << 20
RIDE_FRAMES = 16
#: And this long after a frame in any case.
TELL_SECONDS = 0.2


class Terms(NamedTuple):
    """What the two ends of a session agree on: the listener chooses, and says it in the welcome."""

    id: bytes
    secret: bytes
    epoch: str
    seconds: float

    @classmethod
    def new(cls, epoch: str, seconds: float) -> Terms:
        return cls(secrets.token_bytes(SESSION_NBYTES), secrets.token_bytes(SECRET_NBYTES), epoch, seconds)

    @classmethod
    def none(cls) -> Terms:
        """Of an end that has left, and keeps no secret."""
        return cls(b"", b"", "", 0.0)

    def proof(self, side: str, listener_nonce: bytes, connector_nonce: bytes, attempt: int, taken: int) -> bytes:
        """That ``side`` knows the secret, and has taken so many frames, for this opening only."""
        numbers = b"%d %d" % (attempt, taken)
        message = b"\0".join((b"session", side.encode(), self.id, listener_nonce, connector_nonce, numbers))
        return hmac.digest(self.secret, message, hashlib.sha256)


class Resumption:
    """What one end of a session keeps to take it up again.

    Parameters
    ----------
    terms
        What both ends agree on.

    Attributes
    ----------
    kept, kept_sizes : list
        The frames that are kept, each a list of chunks, and the bytes of each.
    kept_nbytes : int
        All of them.
    acknowledged : int
        How many frames of this end's the other one has taken, as far as is known.
    attempt : int
        How often the connecting end has tried to take it up again, as far as is known.
    told, told_nbytes : int
        How many frames, and bytes, the other end was told last that this one has taken.
    """

    __slots__ = ("acknowledged", "attempt", "kept", "kept_nbytes", "kept_sizes", "terms", "told", "told_nbytes")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.kept: list[list[Any]] = []
        self.kept_sizes: list[int] = []
        self.kept_nbytes = 0
        self.acknowledged = 0
        self.attempt = 0
        self.told = 0
        self.told_nbytes = 0

    @property
    def sent(self) -> int:
        """How many frames this end has sent."""
        return self.acknowledged + len(self.kept)

    @property
    def is_full(self) -> bool:
        """Whether this end has to wait until the other one has taken more."""
        return self.kept_nbytes > KEPT_NBYTES or len(self.kept) > KEPT_FRAMES

    def keep(self, frame: list[Any], nbytes: int) -> None:
        """Keep a frame that is sent."""
        self.kept.append(frame)
        self.kept_sizes.append(nbytes)
        self.kept_nbytes += nbytes

    def acknowledge(self, taken: int) -> None:
        """The other end has taken so many frames. Cut short by an interrupt, nothing is done.

        Raises
        ------
        ProtocolError
            That can't be.
        """
        count = taken - self.acknowledged
        if count <= 0:
            return  # it was known already
        if count > len(self.kept):
            raise ProtocolError(f"{taken:,} frames are acknowledged, {self.sent:,} were sent")
        freed = sum(self.kept_sizes[:count])
        gone = self.kept[:count]
        # No call in between: all of it is done, or nothing.
        del self.kept[:count]
        del self.kept_sizes[:count]
        self.kept_nbytes -= freed
        self.acknowledged = taken
        del gone  # not before: what goes with the frames may run code

    def resumed(self, taken: int, own_taken: int) -> list[list[Any]]:
        """The other end is there again, and has taken so many frames; it was told how many this one has.

        Returns
        -------
        list
            The frames to send again, in order.

        Raises
        ------
        ProtocolError
            It has taken more than was sent, or less than it had acknowledged: it is no end of this session.
        """
        if taken < self.acknowledged:
            raise ProtocolError(f"{taken:,} frames are said to be taken, {self.acknowledged:,} were acknowledged")
        self.acknowledge(taken)
        self.told = own_taken
        return list(self.kept)


def frame_nbytes(frame: list[Any]) -> int:
    """The bytes of a frame's chunks, each of which is bytes or a view of bytes."""
    return len(frame[0]) if len(frame) == 1 else sum(map(len, frame))
