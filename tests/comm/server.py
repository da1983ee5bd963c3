"""A listener that remembers."""

from __future__ import annotations

import asyncio

from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.listening import Listener, bound_socket

TOKEN = b"t" * 32


class Server:
    """A listener that remembers."""

    def __init__(self, welcome=lambda role, info: {"role": role}):
        self.batches = []
        self.connections = []
        self.ends = []
        self.changed = asyncio.Event()
        self.listener = Listener(TOKEN, welcome, self.connected)

    def connected(self, conn):
        self.connections.append(conn)
        conn.start(self.received, self.ended)

    def received(self, batch):
        self.batches.append(batch)
        self.changed.set()

    def ended(self, error):
        self.ends.append(error)
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def __aenter__(self):
        await self.listener.listen(bound_socket("127.0.0.1", 0))
        return self

    async def __aexit__(self, *exc_info):
        await self.listener.close()
        for conn in self.connections:
            conn.abort()

    def connect(self, **options):
        return connect(
            self.listener.address, **{"token": TOKEN, "role": "client", "info": {"id": "me"}, "timeout": 5, **options}
        )
