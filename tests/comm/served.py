"""A listener whose connections survive, behind a proxy that cuts them."""

from __future__ import annotations

import asyncio
import random

from cutting_proxy import CuttingProxy

from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.listening import Listener, bound_socket
from tests.comm.server import TOKEN

DEADLINE_SECONDS = 30


class Served:
    """A listener whose connections survive, behind a proxy, and what came."""

    def __init__(self, seconds=20.0, **options):
        self.heard = []
        self.ends = []
        self.breaks = []
        self.connections = []
        self.changed = asyncio.Event()
        self.listener = Listener(TOKEN, lambda role, info: {}, self._connected, grace=lambda role: seconds, **options)

    async def __aenter__(self):
        await self.listener.listen(bound_socket("127.0.0.1", 0))
        self.proxy = CuttingProxy(self.listener.address, random.Random(7))
        await asyncio.to_thread(self.proxy.__enter__)
        return self

    async def __aexit__(self, *exc_info):
        await self.listener.close()
        for connection in self.connections:
            connection.abort()
        await asyncio.to_thread(self.proxy.__exit__, None, None, None)

    def _connected(self, connection):
        self.connections.append(connection)
        connection.on_break = self.breaks.append
        connection.start(self._on_batch, self._on_close)

    def _on_batch(self, batch):
        self.heard += batch
        self.changed.set()

    def _on_close(self, error):
        self.ends.append(error)
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                self.changed.clear()
                with_wait = asyncio.ensure_future(self.changed.wait())
                await asyncio.wait([with_wait], timeout=0.01)
                with_wait.cancel()

    async def connect(self, heard=None, ends=None, shared=False):
        connection = await connect(
            self.proxy.address, token=TOKEN, role="client", info={"id": "me"}, timeout=5, shared=shared
        )
        heard = [] if heard is None else heard
        ends = [] if ends is None else ends

        def on_batch(batch):
            heard.extend(batch)
            self.changed.set()

        def on_close(error):
            ends.append(error)
            self.changed.set()

        connection.start(on_batch, on_close, lambda batch: on_batch(batch) or True)
        return connection

    async def cut(self, fault="reset"):
        """Cut all connections that there are, which are some."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await asyncio.to_thread(self.proxy.cut, fault):
                await asyncio.sleep(0.01)
