"""Clients that the server has hung up on, while their processes live on.

A process whose connection the server closed (it broke the protocol, or left its replies unread) still has the
arena mapped, and may still look at its views or write what was reserved for it. If those bytes went to somebody
else at once, it would see, or destroy, another client's object. So what such a client holds is kept until its
process has ended, which a descriptor of that process (a pidfd) tells.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class Quarantine:
    """Waits for the ends of processes.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Watches the descriptors.
    release : callable
        Called in the loop with each client of a process that has ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, release: Callable[[int], None]) -> None:
        self._loop = loop
        self._release = release
        self._clients: dict[int, list[int]] = {}  # of each process
        self._pidfds: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def hold(self, client: int, pid: int) -> bool:
        """``release`` will be called for the client when its process ends. False if that can't be seen."""
        if pid not in self._pidfds:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:  # it has ended already, is not in sight, or there are no descriptors left
                return False
            self._pidfds[pid] = pidfd
            self._clients[pid] = []
            self._loop.add_reader(pidfd, self._ended, pid)
        self._clients[pid].append(client)
        return True

    def close(self) -> None:
        """Waits no longer, and releases nobody."""
        for pid in list(self._pidfds):
            self._forget(pid)

    def _ended(self, pid: int) -> None:
        for client in self._forget(pid):
            self._release(client)

    def _forget(self, pid: int) -> list[int]:
        pidfd = self._pidfds.pop(pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        return self._clients.pop(pid)
