"""Clients that have no connection any more, while a process may still look at what they hold.

A process whose connection has ended may still have the arena mapped, and look at its views, or write what was reserved
for it: the server has hung up on it, say, since it broke the protocol or left its replies unread. And of a process that
has ended there may be forks, which have all that it looked at when it forked them. If those bytes went to another
client at once, they would see, or destroy, another client's object. So what a client holds is kept until no process is
left.

A *lifeline* tells when that is: a pipe of which each client is given one end. Only what maps the arena keeps it open;
forks inherit it as they inherit the map; and the kernel closes it with the last of them that ends or becomes another
program. The server need not guess from process ids, of which a fork's isn't known at all. A process may close
descriptors that it doesn't know, and still have the map; a *sentinel page* that is mapped with the arena tells that
(``sentinel_page.py``).
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable

from holdfast.objectstore.system.sentinel_page import ASK_SECONDS, SentinelPage

_CHUNK_NBYTES = 1 << 12


class Lifeline:
    """The server's end of a client's lifeline, and its sentinel; without a descriptor, a lifeline that has ended."""

    __slots__ = ("fd", "sentinel")

    def __init__(self, fd: int = -1, sentinel: SentinelPage | None = None) -> None:
        self.fd = fd
        self.sentinel = sentinel

    def has_ended(self) -> bool:
        """Whether no process has the arena mapped any more."""
        return not self.is_held() and (self.sentinel is None or not self.sentinel.is_mapped())

    def is_held(self) -> bool:
        """Whether a process has the other end of the pipe."""
        if self.fd < 0:
            return False
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        # The end has no bytes before it. If a process puts some there, they are taken out, a piece at a time.
        return not poll.poll(0) or bool(os.read(self.fd, _CHUNK_NBYTES))

    def close(self) -> None:
        """Waits for its end no longer. Twice is no error."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        if self.sentinel is not None:
            self.sentinel.close()


def lifeline() -> tuple[Lifeline, int]:
    """A new one, and the descriptor of the client's end of the pipe, the caller's to give away and to close.

    The client gets the sentinel's descriptor, too.

    Raises
    ------
    OSError
        If there are no descriptors left.
    """
    sentinel = SentinelPage()
    ours, theirs = os.pipe()
    return Lifeline(ours, sentinel), theirs


class Orphans:
    """Waits for the ends of lifelines.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Watches them.
    release : callable
        Called in the loop with each client whose lifeline has ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, release: Callable[[int], None]) -> None:
        self._loop = loop
        self._release = release
        self._lifelines: dict[int, Lifeline] = {}  # of each client
        self._timers: dict[int, asyncio.TimerHandle] = {}  # where no process holds the lifeline: only sentinels tell

    def __len__(self) -> int:
        return len(self._lifelines)

    def hold(self, client: int, lifeline: Lifeline) -> bool:
        """``release`` will be called for the client when its lifeline ends. False if it has ended already."""
        if lifeline.has_ended():
            return False
        self._lifelines[client] = lifeline
        if lifeline.is_held():
            self._loop.add_reader(lifeline.fd, self._check, client)
        else:
            self._check_later(client)
        return True

    def close(self) -> None:
        """Waits no longer, and releases no client."""
        for client in list(self._lifelines):
            self._forget(client)

    def _check(self, client: int) -> None:
        lifeline = self._lifelines[client]
        if lifeline.has_ended():
            self._forget(client)
            self._release(client)
        elif not lifeline.is_held():
            self._loop.remove_reader(lifeline.fd)
            self._check_later(client)

    def _check_later(self, client: int) -> None:
        self._timers[client] = self._loop.call_later(ASK_SECONDS, self._check, client)

    def _forget(self, client: int) -> None:
        lifeline = self._lifelines.pop(client)
        self._loop.remove_reader(lifeline.fd)
        if (timer := self._timers.pop(client, None)) is not None:
            timer.cancel()
        lifeline.close()
