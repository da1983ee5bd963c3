"""A session: what two ends say to each other over connections that come and go, each frame once and in order.

A connection breaks for reasons that concern neither end: a proxy is restarted, a link is gone for some seconds, a
firewall forgets. What both ends have to say goes on over the next one. It goes on also where the listener has died and
another one has come in its place, if that has the journal of the one before. Nothing here does I/O or looks at a clock:
`ResumableConnection` drives it, and the tests simulate it.

Terms
-----
frame
    What one write consists of (`frames`). The frames of each direction have numbers, from 1, which are not sent: they
    follow from the order. The messages of the opening, and controls, have none.
taken
    How many frames an end has received whole (`FrameReader.taken`). What it has taken it handles, however its
    connections fare.
handled
    How many frames of the connecting end's a listener has handled that keeps a journal, and whose effects are written
    there (`ResumableConnection.handled`).
acknowledged
    How many frames of its own an end knows to be safe at the other end: taken; or handled, where a journal is kept. A
    listener may die, and what it has only taken dies with it. A connecting end takes its session with it when it dies.
recorded
    How many frames of a connecting end's the journal has that a listener has found.
kept
    What an end has sent and does not know to be safe: the packed chunks themselves, no copies.
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
6. What is resent to another listener is exactly what lies beyond the larger one of ``recorded`` and ``acknowledged``.
   Frames are numbered on from there, at both ends. So a frame whose effects are recorded is never handled again; one
   that had none may be.

States
------
==========  ===================================  ===============================================================
in state    on                                   it goes to
==========  ===================================  ===============================================================
open        its connection ends, no goodbye      broken
open        a goodbye, or its end by this end    ended
open        the other end resumes                open: the new connection supersedes, the old one is dead already
any         an older attempt to resume           as it was: the attempt is refused
broken      the other end resumes                open
broken      a refusal: `restarted`               broken: the connecting end rejoins
broken      it has rejoined                      open, under new terms; frames are numbered on
broken      the grace is over                    ended
broken      its end by this end, or a refusal    ended
==========  ===================================  ===============================================================

The connecting end comes back; the listening end waits for it, for `Terms.seconds`. A session is known by an id, and
the end that takes it up again proves a secret that it got in its first welcome, over the nonces of both ends, so that a
recorded opening is of no use. It also names the listener's *epoch*: that of a listener which is another one by now
says so. The attempts to come back are numbered: a proxy may hold back what one of them has said, and deliver it when a
later one has succeeded.

A listener that keeps a journal has an epoch of two parts, ``CLUSTER/NUMBER``. One of the same cluster and another
number has the journal of the one before, but not its sessions: it refuses with `restarted`. The connecting end says
hello anew then, and what it *was* (`Was`): that is to *rejoin*. The listener begins another session for it, and says
how many of its frames are recorded. Where no such listener listens any more the connecting end looks for one, for
`Terms.restart` seconds. That is also why there is a session over a `shortcut` then, which can't break otherwise:
its ``seconds`` are none.

A connecting end says in its hello whether it comes back; a command that asks one thing does not. One whose welcome was
lost knows no secret. It joins anew, or rejoins, and takes its own place.

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
    """What the two ends of a session agree on: the listener chooses, and says it in the welcome.

    Attributes
    ----------
    seconds
        How long the listener waits for an end that is broken.
    restart
        How long the connecting end looks for another listener that has the journal of this one; zero: it has none.
    """

    id: bytes
    secret: bytes
    epoch: str
    seconds: float
    restart: float

    @classmethod
    def new(cls, epoch: str, seconds: float, restart: float = 0.0) -> Terms:
        id, secret = secrets.token_bytes(SESSION_NBYTES), secrets.token_bytes(SECRET_NBYTES)
        return cls(id, secret, epoch, seconds, restart)

    @classmethod
    def none(cls) -> Terms:
        """Of an end that has left, and keeps no secret."""
        return cls(b"", b"", "", 0.0, 0.0)

    def proof(self, side: str, listener_nonce: bytes, connector_nonce: bytes, attempt: int, taken: int) -> bytes:
        """That ``side`` knows the secret, and has taken so many frames, for this opening only."""
        numbers = b"%d %d" % (attempt, taken)
        message = b"\0".join((b"session", side.encode(), self.id, listener_nonce, connector_nonce, numbers))
        return hmac.digest(self.secret, message, hashlib.sha256)


class Was(NamedTuple):
    """What a connecting end was to a listener that is gone.

    Attributes
    ----------
    session
        The id of its first session, since which its frames are numbered. It stands for these numbers.
    cluster
        The first part of the epoch.
    acknowledged
        How many of its frames it knows to be safe.
    attempt
        How often it has tried to come back.
    """

    session: bytes
    cluster: str
    acknowledged: int
    attempt: int


def cluster_of(epoch: str) -> str:
    """What a listener's epoch has in common with those of the listeners that have its journal; empty: there is none.

    Examples
    --------
    >>> cluster_of("f3a0/17")
    'f3a0'
    """
    return epoch.rpartition("/")[0]


class Resumption:
    """What one end of a session keeps to take it up again.

    Parameters
    ----------
    terms
        What both ends agree on.
    is_safe_when_taken
        Whether the other end needs a frame no more that it has taken. Else it acknowledges what it has handled.

    Attributes
    ----------
    kept, kept_sizes : list
        The frames that are kept, each a list of chunks, and the bytes of each.
    kept_nbytes : int
        All of them.
    acknowledged : int
        How many frames of this end's are safe at the other one, as far as is known.
    attempt : int
        How often the connecting end has tried to take it up again, as far as is known.
    told, told_nbytes : int
        How many frames were safe here when the other end was told last, and how many bytes were taken then.
    """

    __slots__ = (
        "_first",
        "_is_safe_when_taken",
        "acknowledged",
        "attempt",
        "kept",
        "kept_nbytes",
        "kept_sizes",
        "terms",
        "told",
        "told_nbytes",
    )

    def __init__(self, terms: Terms, *, is_safe_when_taken: bool = True) -> None:
        self._is_safe_when_taken = is_safe_when_taken
        self._first = terms.id
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
        """So many frames are safe at the other end. Cut short by an interrupt, nothing is done.

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
        count = taken - self.acknowledged
        if count < 0:
            raise ProtocolError(f"{taken:,} frames are said to be taken, {self.acknowledged:,} were acknowledged")
        if self._is_safe_when_taken:
            self.acknowledge(taken)
            count = 0
        elif count > len(self.kept):
            raise ProtocolError(f"{taken:,} frames are said to be taken, {self.sent:,} were sent")
        self.told = own_taken
        return self.kept[count:]

    @property
    def was(self) -> Was:
        """What the connecting end says about this session when it rejoins."""
        return Was(self._first, cluster_of(self.terms.epoch), self.acknowledged, self.attempt)

    def rejoined(self, terms: Terms, recorded: int) -> list[list[Any]]:
        """Another listener has welcomed this end, which has found so many of its frames in the journal.

        Returns
        -------
        list
            The frames to send again, in order.

        Raises
        ------
        ProtocolError
            More are recorded than were sent.
        """
        self.acknowledge(recorded)
        self.terms = terms
        self.attempt = self.told = self.told_nbytes = 0
        return list(self.kept)


def frame_nbytes(frame: list[Any]) -> int:
    """The bytes of a frame's chunks, each of which is bytes or a view of bytes."""
    return len(frame[0]) if len(frame) == 1 else sum(map(len, frame))
