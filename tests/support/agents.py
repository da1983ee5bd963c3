"""A host of a cluster whose scheduler is a test."""

from __future__ import annotations

from scripted_scheduler import TOKEN

from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.node import NodeAgent


class Host:
    """A node agent in a loop of its own thread, and what the scheduler sees of it."""

    def __init__(self, scheduler, stack, **options):
        self.scheduler = scheduler
        self.thread = LoopThread("node-agent")
        stack.callback(self.thread.close)
        options = {"n_workers": 0, "store_capacity": 128 << 20, "name": "host", **options}
        self.agent = NodeAgent(scheduler.address, token=TOKEN, **options)
        stack.callback(self.close)
        self.thread.run(self.agent.start(), timeout=60)
        self.address = self.agent.address
        self.node = scheduler.peer(self.address, role="node")

    def worker(self, index=0):
        return self.scheduler.peer(f"{self.address}/{index}")

    def close(self):
        self.thread.run(self.agent.close(), timeout=20)

    def in_loop(self, function, *args):
        """Call something of the agent's where it may be called."""

        async def call():
            return function(*args)

        return self.thread.run(call())

    def store_stats(self):
        return self.in_loop(self.agent.store.stats)
