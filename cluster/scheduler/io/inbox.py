"""Whose message is handled next, and when the event loop goes on to something else.

A peer may send more at once than is handled in a moment: a graph of a million tasks, the release of as many results.
So what arrives waits in the peer's `Inbox`, cut into pieces that are handled in milliseconds (`protocol.cutting`), and
`Inboxes` gives each turn of the event loop some time. Within it the peers come one after the other, each with a share
of that time, and what is left goes on in the next turn, after the sockets and timers have been looked at. What comes
while there is time is handled as it comes, without having waited.

A share is time and not a piece, since peers say much and little in very different numbers of pieces. A client that asks
one thing says it in a few short messages; if it got one of them handled in each turn, it would wait for as many turns
of those that have the scheduler do much. So it waits for one turn of each peer that was in line before, whatever that
has brought, and for what the state machine does beside (`FollowUp`), once or twice.

Kept is the order of what one peer sends, its leaving included; between peers there is none, as there is none on the
network. The scheduler reads no more from a peer that has something waiting here: what the peer has to say waits on its
own side, and memory here stays bounded.

To answer a question may take long, too. So what handles a message may return a *job*, an iterator that does a piece of
the work in each step: it goes on step by step, like further messages of that peer, before the next one of them. And a
peer that asks more than it reads waits for itself: while its connection is full, nothing that it says is handled. The
same goes for a client while the state machine has something left over that must come before what it says now
(`SchedulerState.holds_back`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.cutting import pieces, where_cut
from holdfast.cluster.protocol.limits import MAX_ITEMS
from holdfast.cluster.scheduler.io.progress import Progress

logger = logging.getLogger(__name__)

#: How long messages are handled in one turn of the event loop; the last piece that is begun may take longer.
TURN_SECONDS = 0.005
#: How long those of one peer are, while others wait; so may the last piece of these.
SHARE_SECONDS = 0.001


class Inbox:
    """What one peer has sent and was not looked at yet.

    Parameters
    ----------
    connection
        Where it comes from: paused while something waits here, aborted when something can't be handled.
    handle
        Takes one message; may return a job. May raise anything, `ProtocolError` for what can't be right.
    ended
        Called after the last message, with the error that ended the connection, if any.
    needs_room
        Whether nothing is handled while the connection is full.
    passes
        Which messages are handled although the inbox is held.
    progress
        Counts what is handled, if a journal is kept.

    Attributes
    ----------
    is_held : bool
        Nothing else is handled, not even the end, until this is false again and `Inboxes.go_on` was called.
    heard : float
        When something of it was last handled, by `time.monotonic`, give or take the length of a turn.
    """

    def __init__(
        self,
        connection: Connection,
        handle: Callable[[tuple[Any, ...]], Iterator[None] | None],
        ended: Callable[[Exception | None], None],
        *,
        needs_room: bool = False,
        passes: Callable[[tuple[Any, ...]], bool] = lambda message: False,
        progress: Progress | None = None,
    ) -> None:
        self._connection = connection
        self._handle = handle
        self._ended = ended
        self._needs_room = needs_room
        self.progress = progress
        self._messages: deque[tuple[Any, ...]] = deque()
        self._jobs: deque[Iterator[None]] = deque()
        self._end: tuple[Exception | None] | None = None
        self._paused = False
        self._passes = passes
        self.is_held = False
        self.heard = time.monotonic()

    def add(self, messages: Iterable[tuple[Any, ...]]) -> None:
        """Take the messages of a frame."""
        before = len(self._messages)
        for message in messages:
            if where_cut(message, MAX_ITEMS):
                self._messages.extend(pieces(message))
            else:
                self._messages.append(message)
        if self.progress is not None:
            self.progress.came(len(self._messages) - before)

    def end(self, error: Exception | None) -> None:
        """Nothing more will come."""
        self._end = (error,)
        self._jobs.clear()  # the peer is gone, and can't be told

    def begin(self, job: Iterator[None]) -> None:
        """Do this before the next message is handled."""
        if self._end is None:
            self._jobs.append(job)

    @property
    def waits(self) -> bool:
        """Whether there is something to handle."""
        return bool(self._messages or self._jobs or self._end)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing may be handled now: it is held, or has to wait for room in the connection."""
        if self.is_held and not self._jobs and not (self._messages and self._passes(self._messages[0])):
            return True
        return self._needs_room and self._end is None and self._connection.is_full

    def pause(self) -> None:
        """Have nothing more read until `resume`."""
        if not self._paused:
            self._paused = True
            self._connection.pause()

    def resume(self) -> None:
        """Have more read."""
        if self._paused:
            self._paused = False
            self._connection.resume()

    def handle_one(self) -> None:
        """Do a step of a job, or handle a message, or the end if there is nothing else."""
        try:
            if self._jobs:
                if next(self._jobs[0], self) is self:
                    self._jobs.popleft()
            elif self._messages:
                message = self._messages.popleft()
                job = self._handle(message) if self.progress is None else self._handle_and_count(message, self.progress)
                if job is not None:
                    self._jobs.append(job)
            else:
                self._leave()
        except ProtocolError as error:
            self._give_up(error)
        except Exception as error:  # a fault of the scheduler's own
            logger.exception("handling a message of %s failed", self._connection.peer)
            self._give_up(error)

    def _handle_and_count(self, message: tuple[Any, ...], progress: Progress) -> Iterator[None] | None:
        job = None if progress.begin() else self._handle(message)
        progress.end()
        return job

    def _leave(self) -> None:
        assert self._end is not None
        (error,), self._end = self._end, None
        try:
            self._ended(error)
        except Exception:  # a fault of the scheduler's own, from which others should not suffer
            logger.exception("taking leave of %s failed", self._connection.peer)

    def _give_up(self, error: Exception) -> None:
        self._messages.clear()
        self._jobs.clear()
        self._connection.abort(error)


class Inboxes:
    """The inboxes of all peers; used in the thread of the event loop in which it was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[Inbox, None] = OrderedDict()  # the next one first
        self._scheduled = False
        self._in_turn = False  # something has been handled in this one
        self._left = 0.0  # of its time

    def received(self, inbox: Inbox, messages: Iterable[tuple[Any, ...]]) -> None:
        """Handle what a peer has sent: now as far as there is time, and soon what is left."""
        inbox.add(messages)
        self._wait(inbox)

    def ended(self, inbox: Inbox, error: Exception | None) -> None:
        """A peer's connection has ended: it leaves when all has been handled that it had sent."""
        inbox.end(error)
        self._wait(inbox)

    def begin(self, inbox: Inbox, job: Iterator[None]) -> None:
        """Do something for a peer in pieces, from the next turn of the loop on."""
        inbox.begin(job)
        self.go_on(inbox)

    def go_on(self, inbox: Inbox) -> None:
        """There is something to do for a peer, or there is room in its connection again: soon."""
        if not inbox.waits:
            inbox.resume()
            return
        inbox.pause()
        if inbox.is_blocked:
            return
        self._waiting[inbox] = None
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._work)

    def _wait(self, inbox: Inbox) -> None:
        if inbox.waits:
            self._waiting[inbox] = None
        if not self._scheduled:
            self._work()
        if inbox in self._waiting:
            inbox.pause()

    def _work(self) -> None:
        self._scheduled = False
        is_new = not self._in_turn
        if is_new:
            self._in_turn = True
            self._left = TURN_SECONDS
            self._loop.call_soon(self._end_turn)
        now = time.monotonic()
        until = now + self._left  # what else the loop does in this turn counts for nothing
        waiting = self._waiting
        while waiting:
            if is_new:
                is_new = False  # whatever time there is, each turn gets something done
            elif now >= until:
                self._scheduled = True
                self._loop.call_soon(self._work)
                break
            inbox, _ = waiting.popitem(last=False)
            now = self._give_share(inbox, now, until)
        self._left = until - now

    def _give_share(self, inbox: Inbox, now: float, until: float) -> float:
        """Handle what a peer has sent, as long as its share of the turn lasts; the time then."""
        until = min(until, now + SHARE_SECONDS)
        inbox.heard = now
        while True:
            if inbox.is_blocked:
                inbox.pause()  # until `go_on`
                return now
            inbox.handle_one()
            now = time.monotonic()
            if not inbox.waits:
                self._waiting.pop(inbox, None)  # where `go_on` may have put it meanwhile
                inbox.resume()
                return now
            if now >= until:
                self._waiting[inbox] = None
                return now

    def _end_turn(self) -> None:
        self._in_turn = False
