"""A link that goes wrong: a TCP proxy that can stall, cut connections, and come back."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.loops import LoopThread


class Proxy:
    """Carries bytes between the peers that connect to ``address`` and a target, as long as the link is there.

    Its methods are called from the test's thread.
    """

    def __init__(self, target: str) -> None:
        self._target = parse_address(target)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread = LoopThread("proxy")
        self._thread.run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.run(self._close())
        self._thread.close()

    def stall(self) -> None:
        """Carry nothing more, not even that a connection has ended, until `resume`. New ones are accepted."""
        self._thread.run(self._set(False))

    def resume(self) -> None:
        """Carry what has come meanwhile, and go on."""
        self._thread.run(self._set(True))

    def cut(self) -> None:
        """End all connections that there are."""
        self._thread.run(self._cut())

    async def _listen(self) -> None:
        self._flows = asyncio.Event()
        self._flows.set()
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.address = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        self._flows.set()
        await self._cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _set(self, flows: bool) -> None:
        if flows:
            self._flows.set()
        else:
            self._flows.clear()

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        await self._flows.wait()
        try:
            onward_reader, onward = await asyncio.open_connection(*self._target)
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(onward)
        await asyncio.gather(self._carry(reader, onward), self._carry(onward_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        await self._flows.wait()
        self._writers.discard(writer)
        writer.transport.abort() if writer.transport.is_closing() else writer.close()
