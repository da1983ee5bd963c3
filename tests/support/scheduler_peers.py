"""Peers of a scheduler that say what a test tells them to, in the loop in which the scheduler runs."""

from __future__ import annotations

import asyncio

from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.scheduler.io.server import Scheduler

TOKEN = b"t" * 32
NODE = "tcp://127.0.0.1:1"
WORKER = f"{NODE}/0"


class Peer:
    """One connection to the scheduler, and what came over it."""

    def __init__(self):
        self.messages = []
        self.gone = False
        self.changed = asyncio.Event()

    @classmethod
    async def join(cls, scheduler, role, timeout=5, **info):
        peer = cls()
        peer.connection = await connect(scheduler.address, token=TOKEN, role=role, info=info, timeout=timeout)
        peer.connection.start(peer.on_batch, peer.on_close)
        return peer

    @classmethod
    async def join_as_node(cls, scheduler, inventory=(), *, address=NODE, incarnation="first", timeout=5):
        info = {"address": address, "hostname": "here", "capacity": 1, "incarnation": incarnation}
        peer = await cls.join(scheduler, "node", timeout, **info)
        if inventory is not None:
            peer.connection.send(("inventory", inventory))
            peer.connection.send(("ready",))
        return peer

    def on_batch(self, batch):
        self.messages += batch
        self.changed.set()

    def on_close(self, error):
        self.gone = True
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def next(self, operation):
        await self.until(lambda: any(m[0] == operation for m in self.messages))
        message = next(m for m in self.messages if m[0] == operation)
        self.messages.remove(message)
        return message


class Setup:
    """A scheduler with a node, a worker and a client."""

    def __init__(self, *, validate=True, **options):
        self.options = {"validate": validate, **options}

    async def __aenter__(self):
        self.scheduler = Scheduler(token=TOKEN, sock=bound_socket("127.0.0.1", 0), **self.options)
        await self.scheduler.start()
        self.node = await Peer.join_as_node(self.scheduler)
        self.worker = await self.add_worker()
        self.client = await Peer.join(self.scheduler, "client", id="me", name="me")
        return self

    @property
    def gone(self):
        """Whether any of the three has lost its connection."""
        return self.client.gone or self.node.gone or self.worker.gone

    async def add_node(self, address):
        node = await Peer.join_as_node(self.scheduler, address=address)
        async with asyncio.timeout(20):
            while not self.scheduler.state.hosts[address].is_ready:
                await asyncio.sleep(0.001)
        return node

    async def settled(self, role):
        """A peer that joined as a further one of its role has left, and all that follows from it is done."""
        state = self.scheduler.state
        known = {"client": state.clients, "worker": state.workers, "node": state.hosts}[role]
        async with asyncio.timeout(20):
            while len(known) > 1 or state.life.follow_up.has_more:
                await asyncio.sleep(0.001)

    def add_worker(self, **info):
        return Peer.join(self.scheduler, "worker", address=WORKER, name="here-0", node=NODE, nthreads=1, **info)

    async def __aexit__(self, *exc_info):
        # A node leaves when it is told to, and the scheduler waits for that.
        self.node.connection.close()
        await self.scheduler.close()

    def submit(self, key):
        self.client.connection.send(("functions", [(b"f" * 16, b"blob")]))
        self.client.connection.send(("submit", [(key, b"f" * 16, b"args", ())], None, {}, ""))
