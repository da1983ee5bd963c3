"""The process that makes a store's pages (`page_maker`): how the node agent starts it, and starts it again."""

from __future__ import annotations

import asyncio
import logging
import socket

from holdfast.cluster.processes.forking import ForkedProcess, Forker
from holdfast.cluster.processes.parent import describe_exit
from holdfast.cluster.processes.restarts import Restarts
from holdfast.objectstore import StoreServer
from holdfast.objectstore.errors import HoldfastError
from holdfast.objectstore.memory.page_requests import RemoteFiller

logger = logging.getLogger(__name__)

_MODULE = "holdfast.cluster.node.page_maker"
_NAME = "the page maker"


class PageMaker:
    """The process, and the store that it makes pages for. While there is no process, the store makes them itself.

    Parameters
    ----------
    store
        A store that has started.
    forker
        What forks the process.
    """

    def __init__(self, store: StoreServer, forker: Forker) -> None:
        self._store = store
        self._forker = forker
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
        filler = RemoteFiller(ours)
        try:
            with theirs:
                descriptors = {"--requests-fd": theirs.fileno(), "--arena-fd": self._store.writable_fd}
                self._child = await self._forker.fork_async(
                    _MODULE, ["--capacity", str(self._store.capacity)], _NAME, pass_fds=descriptors
                )
            restarts.ready()  # the agent doesn't wait for what hardly gets on while there is other work
            self._store.have_pages_made_by(filler)
            return describe_exit(await self._child.exited())
        finally:
            self._store.have_pages_made_by(None)
            filler.close()
            child, self._child = self._child, None
            if child is not None and child.returncode is None:
                child.kill()
                await child.exited()
