"""Whose message is handled next, and when the event loop goes on to something else.

A peer may send more at once than is handled in a moment: a graph of a million tasks, the release of as many results.
So what arrives waits in the peer's `Inbox`, cut into pieces that are handled in milliseconds (`comm.messages`), and
`Inboxes` gives each turn of the event loop a share of time: within it one piece of each peer is handled, in turn, and
what is left goes on in the next turn, after the sockets and timers have been looked at. What comes while there is time
is handled as it comes, without having waited.

Kept is the order of what one peer sends, its leaving included; between peers there is none, as there is none on the
network. Nobody reads on from a peer that has something waiting here: what it has to say waits on its own side, and
memory here stays bounded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.messages import pieces
from holdfast.cluster.errors import ProtocolError

logger = logging.getLogger(__name__)

#: How long messages are handled in one turn of the event loop; the last piece that is begun may take longer.
TURN_SECONDS = 0.005


class Inbox:
    """What one peer has sent and nobody has looked at yet.

    Parameters
    ----------
    connection
        Where it comes from: paused while something waits here, aborted when something can't be handled.
    handle
        Takes one message. May raise anything, `ProtocolError` for what can't be right.
    ended
        Called after the last message, with the error that ended the connection, if any.
    """

    def __init__(
        self,
        connection: Connection,
        handle: Callable[[tuple[Any, ...]], None],
        ended: Callable[[Exception | None], None],
    ) -> None:
        self._connection = connection
        self._handle = handle
        self._ended = ended
        self._messages: deque[tuple[Any, ...]] = deque()
        self._end: tuple[Exception | None] | None = None
        self._paused = False

    def add(self, messages: Iterable[tuple[Any, ...]]) -> None:
        for message in messages:
            self._messages.extend(pieces(message))

    def end(self, error: Exception | None) -> None:
        """Nothing more will come."""
        self._end = (error,)

    @property
    def waits(self) -> bool:
        return bool(self._messages) or self._end is not None

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
        """Handle one message, or the end if there is none."""
        if not self._messages:
            assert self._end is not None
            (error,), self._end = self._end, None
            try:
                self._ended(error)
            except Exception:  # a fault of the scheduler's own, from which others should not suffer
                logger.exception("taking leave of %s failed", self._connection.peer)
            return
        try:
            self._handle(self._messages.popleft())
        except ProtocolError as error:
            self._give_up(error)
        except Exception as error:  # a fault of the scheduler's own, or a message of the wrong shape
            logger.exception("handling a message of %s failed", self._connection.peer)
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._messages.clear()
        self._connection.abort(error)


class Inboxes:
    """Everybody's inboxes; used in the thread of the event loop in which it was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[Inbox, None] = OrderedDict()  # the next one first
        self._scheduled = False
        self._in_turn = False  # something has been handled in this one
        self._until = 0.0

    def received(self, inbox: Inbox, messages: Iterable[tuple[Any, ...]]) -> None:
        """Handle what a peer has sent: now as far as there is time, and soon what is left."""
        inbox.add(messages)
        self._wait(inbox)

    def ended(self, inbox: Inbox, error: Exception | None) -> None:
        """A peer's connection has ended: it leaves when all has been handled that it had sent."""
        inbox.end(error)
        self._wait(inbox)

    def _wait(self, inbox: Inbox) -> None:
        if inbox.waits:
            self._waiting[inbox] = None
        if not self._scheduled:
            self._work()
        if inbox.waits:
            inbox.pause()

    def _work(self) -> None:
        self._scheduled = False
        is_new = not self._in_turn
        if is_new:
            self._in_turn = True
            self._until = time.monotonic() + TURN_SECONDS
            self._loop.call_soon(self._end_turn)
        waiting = self._waiting
        while waiting:
            if is_new:
                is_new = False  # whatever time there is, each turn gets something done
            elif time.monotonic() >= self._until:
                self._scheduled = True
                self._loop.call_soon(self._work)
                return
            inbox, _ = waiting.popitem(last=False)
            inbox.handle_one()
            if inbox.waits:
                waiting[inbox] = None
            else:
                inbox.resume()

    def _end_turn(self) -> None:
        self._in_turn = False
