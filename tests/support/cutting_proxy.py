"""A proxy that breaks the connections that it carries, at random and under way.

Each connection gets a fate when it comes: after so many bytes, in either direction, it is reset, or ended as a proxy
ends one that it tires of, or nothing more is carried for a while before it's reset, or one direction is closed first.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.loops import LoopThread

FAULTS = ("reset", "end", "swallow", "half")
SWALLOW_SECONDS = (0.01, 0.3)
_RESET = struct.pack("ii", 1, 0)
_PIECE_NBYTES = 1 << 16


class CuttingProxy:
    """Carries bytes between the peers that connect to ``address`` and a target.

    Parameters
    ----------
    target
        The address that it stands for.
    chance
        Decides the fates.
    nbytes
        A connection lives for so many bytes, at the least and at the most; None: for ever, until `calm` is over.

    Attributes
    ----------
    cuts : Counter
        How many connections were cut, by the way.
    """

    def __init__(self, target: str, chance: random.Random, nbytes: tuple[int, int] | None = None) -> None:
        self._target = parse_address(target)
        self._chance = chance
        self.nbytes = nbytes
        self.cuts: Counter[str] = Counter()
        self._refuses = False
        self._is_silent = False
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread = LoopThread("cutting proxy")
        self._thread.run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.run(self._close())
        self._thread.close()

    def cut(self, fault: str = "reset") -> int:
        """Cut all connections that there are now; how many."""
        return self._thread.run(self._cut(fault))

    def refuse(self, refuses: bool = True) -> None:
        """Cut every new connection at once, or carry them again."""
        self._refuses = refuses

    def keep_silent(self) -> None:
        """From now on, when one end of a connection ends, the other one is not told."""
        self._is_silent = True

    def calm(self) -> None:
        """Cut nothing more."""
        self.nbytes = None
        self._thread.run(self._pardon())

    async def _listen(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.address = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self._accepting = asyncio.ensure_future(self._accept())

    async def _close(self) -> None:
        self._accepting.cancel()
        self._listening.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _cut(self, fault: str) -> int:
        links = [link for link in self._links if not link.cut.done()]
        for link in links:
            link.cut.set_result(fault)
        return len(links)

    async def _pardon(self) -> None:
        for link in self._links:
            link.left = None

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._listening)
            task = loop.create_task(self._serve(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        far = socket.socket()
        far.setblocking(False)
        link = _Link(self._chance, self.nbytes, lambda: self._is_silent)
        try:
            if self._refuses:
                return
            await loop.sock_connect(far, self._target)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._links.add(link)
            carriers = [loop.create_task(link.carry(near, far)), loop.create_task(link.carry(far, near))]
            ended = asyncio.ensure_future(asyncio.wait(carriers))
            try:
                await asyncio.wait([link.cut, ended], return_when=asyncio.FIRST_COMPLETED)
                if self._is_silent:
                    await link.cut
                if link.cut.done():
                    fault = link.cut.result()
                    self.cuts[fault] += 1
                    if fault == "swallow":
                        for carrier in carriers:
                            carrier.cancel()
                        await asyncio.sleep(self._chance.uniform(*SWALLOW_SECONDS))
                    elif fault == "half":
                        with contextlib.suppress(OSError):
                            self._chance.choice((near, far)).shutdown(socket.SHUT_WR)
                        await asyncio.sleep(self._chance.uniform(*SWALLOW_SECONDS))
                    if fault != "end":
                        for sock in (near, far):
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            finally:
                for carrier in carriers:
                    carrier.cancel()
                await ended
        except OSError:
            pass
        finally:
            self._links.discard(link)
            near.close()
            far.close()


class _Link:
    def __init__(
        self, chance: random.Random, nbytes: tuple[int, int] | None, is_silent: Callable[[], bool] = bool
    ) -> None:
        self._chance = chance
        self._is_silent = is_silent
        self.left = None if nbytes is None else chance.randint(*nbytes)
        self.cut: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def carry(self, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, _PIECE_NBYTES):
                if self.left is not None:
                    data = data[: self.left]
                    self.left -= len(data)
                await loop.sock_sendall(sink, data)
                if self.left == 0 and not self.cut.done():
                    self.cut.set_result(self._chance.choice(FAULTS))
                    return
        with contextlib.suppress(OSError):
            if not self._is_silent():
                sink.shutdown(socket.SHUT_WR)
