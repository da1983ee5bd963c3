"""Having a store's pages made by a process of their own (`page_maker`): the node agent's side."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import threading
from collections.abc import Sequence

from holdfast.cluster.node.page_maker import EXTENT, NUMBER
from holdfast.cluster.processes.child import describe_exit
from holdfast.cluster.processes.forking import ForkedProcess, Launcher
from holdfast.cluster.processes.restarts import Restarts
from holdfast.objectstore import StoreServer
from holdfast.objectstore.errors import HoldfastError

logger = logging.getLogger(__name__)

_MODULE = "holdfast.cluster.node.page_maker"
_NAME = "the page maker"


class RemotePages:
    """Has pages made by asking; what `Prefaulter` takes.

    Parameters
    ----------
    requests
        A socket to the one that makes them, this object's to close.
    """

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._number = 0
        self.works = True

    def fill(self, extents: Sequence[tuple[int, int]], stop: threading.Event) -> None:
        """Have pages made in the holes of the extents; returns when they are, or when ``stop`` is set."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)  # of an earlier end; that of this call is seen by ``stop``, or comes later
        try:
            self._send(extents)
            while not stop.is_set() and self._answer() != self._number:
                self._poll.poll()
            if stop.is_set():
                self._send(())  # its answer comes later, and isn't waited for
        except ConnectionError as error:
            logger.debug("%s doesn't answer: %s", _NAME, error)
            self.works = False

    def interrupt(self) -> None:
        """Have a call of `fill` in another thread see that ``stop`` is set."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Let the other end go. Nothing may be asked any more."""
        self.works = False
        self._requests.close()
        os.close(self._wake)

    def _send(self, extents: Sequence[tuple[int, int]]) -> None:
        self._number += 1
        request = NUMBER.pack(self._number) + b"".join(EXTENT.pack(*extent) for extent in extents)
        try:
            self._requests.send(request, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise ConnectionAbortedError("it reads nothing any more") from None

    def _answer(self) -> int:
        """The number of the request that is answered; 0 if none is."""
        try:
            answer = self._requests.recv(NUMBER.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        if not answer:
            raise ConnectionResetError("it has closed the socket")
        (number,) = NUMBER.unpack(answer)
        return int(number)


class PageMaker:
    """The process, and the store that it makes pages for. While there is no process, the store makes them itself.

    Parameters
    ----------
    store
        A store that has started.
    launcher
        What forks the process.
    """

    def __init__(self, store: StoreServer, launcher: Launcher) -> None:
        self._store = store
        self._launcher = launcher
        self._child: ForkedProcess | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._child.pid if self._child is not None else None

    def start(self) -> None:
        """Have it begin, without waiting for it, and again when it has died."""
        self._keeping = asyncio.ensure_future(self._keep())

    async def close(self) -> None:
        """End it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])

    async def _keep(self) -> None:
        restarts = Restarts()
        while True:
            restarts.begin()
            try:
                reason = await self._run_once(restarts)
            except (OSError, HoldfastError) as error:
                reason = f"could not be started: {error}"
            pause = restarts.ended(reason)
            logger.warning("%s %s: the store makes its pages itself for %.2g s", _NAME, reason, pause)
            await asyncio.sleep(pause)

    async def _run_once(self, restarts: Restarts) -> str:
        """Run one process to its end; says how it ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pages = RemotePages(ours)
        try:
            with theirs:
                descriptors = {"--requests-fd": theirs.fileno(), "--arena-fd": self._store.writable_fd}
                self._child = await self._launcher.fork_async(
                    _MODULE, ["--capacity", str(self._store.capacity)], _NAME, pass_fds=descriptors
                )
            restarts.ready()  # nobody waits for what hardly gets on while there is other work
            self._store.have_pages_made_by(pages)
            return describe_exit(await self._child.exited())
        finally:
            self._store.have_pages_made_by(None)
            pages.close()
            child, self._child = self._child, None
            if child is not None and child.returncode is None:
                child.kill()
                await child.exited()
