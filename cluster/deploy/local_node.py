"""The node agent of this process: its workers for one scheduler and in one event loop share it, and its object store.

It starts with the first worker, and ends with the last one. A scheduler of the same loop keeps it until that closes
itself, so that results outlive the workers that made them.

The agent and the workers have an event loop in a thread of their own, and not that of whoever makes the workers. An
asynchronous client writes into the store without awaiting it: if the same loop served the store, the client would wait
for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.deploy.lasting_executor import LastingExecutor
from holdfast.cluster.node import NodeAgent
from holdfast.cluster.node.worker_plan import WorkerPlan

T = TypeVar("T")
#: How long one may take to end that was left behind.
CLOSE_SECONDS = 10.0
#: How often it is looked whether a worker is kept still.
LOOK_SECONDS = 0.1

_Table = dict[str, "LocalNode"]
_tables: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Table] = weakref.WeakKeyDictionary()
_kept: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, set[str]] = weakref.WeakKeyDictionary()


class LocalNode:
    """A node agent that several share; see `borrow`.

    Parameters
    ----------
    scheduler_address
        ``tcp://host:port``.
    options
        Of the `NodeAgent`.
    """

    def __init__(self, scheduler_address: str, **options: Any) -> None:
        self.scheduler_address = scheduler_address
        self.agent = NodeAgent(scheduler_address, n_workers=0, **options)
        self._thread = LoopThread("holdfast-local-node")
        self._users = 0
        self._numbers = itertools.count()
        self._starting = asyncio.ensure_future(self.run(_start(self.agent)))
        self._closing: asyncio.Task[None] | None = None
        # Of a loop that ends with this open, at the latest at the end of the interpreter.
        loop = asyncio.get_running_loop()
        self._finalizer = weakref.finalize(loop, _abandon, self._thread, self.agent, os.getpid())

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop of the agent."""
        return await self._thread.run_for(coroutine)

    @property
    def is_over(self) -> bool:
        """Whether it ends or has ended: it was given back, or has lost its scheduler."""
        if self._closing is not None or not self._finalizer.alive:
            return True
        return hasattr(self.agent, "finished") and self.agent.finished.is_set()

    async def use(self) -> None:
        """Wait until it has started; `give_back` it in the end, also if this raises what its start has raised."""
        self._users += 1
        await asyncio.shield(self._starting)

    async def add(self, name: str | None, **plan: Any) -> WorkerPlan:
        """Have it keep one more worker, and wait until that is registered."""
        index = next(self._numbers)
        made = WorkerPlan(index, name or f"{self.agent.name}-{index}", **plan)
        await self.run(self.agent.workers.add(made))
        return made

    async def remove(self, address: str) -> None:
        """Close a worker, if there is one of this address."""
        if not self.is_over:
            await self.run(self.agent.workers.remove(address))

    async def ended(self, address: str) -> None:
        """Wait until the agent has ended, or a worker of this process by itself."""
        await self.run(self._ended(address))

    async def _ended(self, address: str) -> None:
        workers = self.agent.workers
        over = asyncio.ensure_future(self.agent.finished.wait())
        try:
            while address in workers.plans and not over.done():
                worker = workers.worker(address)
                finished = getattr(worker, "finished", None)
                if worker is None or finished is None:  # it is being started anew, or is a process, which is kept alive
                    await asyncio.wait([over], timeout=LOOK_SECONDS)
                    continue
                await _first(over, asyncio.ensure_future(finished.wait()))
                if workers.worker(address) is worker:
                    return  # it was not told to
        finally:
            over.cancel()

    async def give_back(self) -> None:
        """The user has no use for it any more."""
        self._users -= 1
        if not self._users and self.scheduler_address not in _kept_here():
            await self.close()

    async def close(self) -> None:
        """End it, whoever uses it."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        table = _table_here()
        if table.get(self.scheduler_address) is self:
            del table[self.scheduler_address]
        self._starting.cancel()
        await asyncio.wait([self._starting])
        if not self._starting.cancelled():
            self._starting.exception()  # which those that waited for it have raised
        if self._finalizer.detach() is None:
            return  # at the end of the interpreter it may have been ended before its users
        try:
            await self.run(_close(self.agent))
        finally:
            await asyncio.to_thread(self._thread.close)


async def _first(over: asyncio.Future[Any], finished: asyncio.Future[Any]) -> None:
    try:
        await asyncio.wait([over, finished], return_when=asyncio.FIRST_COMPLETED)
    finally:
        finished.cancel()


async def _start(agent: NodeAgent) -> None:
    # Each call that blocks has a thread of its own, also when the interpreter ends.
    asyncio.get_running_loop().set_default_executor(LastingExecutor())
    await agent.start()


async def _close(agent: NodeAgent) -> None:
    if hasattr(agent, "finished"):  # else it has not begun to start
        await agent.close()


def _abandon(thread: LoopThread, agent: NodeAgent, pid: int) -> None:
    """End an agent whose loop is gone."""
    if os.getpid() == pid:
        with contextlib.suppress(TimeoutError):
            thread.run(_close(agent), CLOSE_SECONDS)
        thread.close(CLOSE_SECONDS)


def _table_here() -> _Table:
    return _tables.setdefault(asyncio.get_running_loop(), {})


def _kept_here() -> set[str]:
    return _kept.setdefault(asyncio.get_running_loop(), set())


async def borrow(scheduler_address: str, **options: Any) -> LocalNode:
    """The node agent of this loop for a scheduler, which the caller gives back (`LocalNode.give_back`).

    Parameters
    ----------
    scheduler_address
        ``tcp://host:port``.
    options
        Of the `NodeAgent`, if one has to be started.

    Raises
    ------
    ConnectError, StoreError, HoldfastError
        It could not start.
    """
    table = _table_here()
    node = table.get(scheduler_address)
    if node is None or node.is_over:
        node = table[scheduler_address] = LocalNode(scheduler_address, **options)
    try:
        await node.use()
    except BaseException:
        await node.give_back()
        raise
    return node


def keep(scheduler_address: str) -> None:
    """A scheduler of this loop keeps the node that workers of this loop will have."""
    _kept_here().add(scheduler_address)


async def let_go(scheduler_address: str) -> None:
    """That scheduler closes: its node ends, whoever uses it."""
    _kept_here().discard(scheduler_address)
    if (node := _table_here().get(scheduler_address)) is not None:
        await node.close()
