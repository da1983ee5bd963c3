"""A host that has a million objects, and a client that has them there, as the scheduler sees them: two connections.

What the scheduler has to do when such a host is lost does not depend on what is in the objects. So there are none: the
host says that it is there, and the client says what it has stored. The host has a worker, too, which never ends a run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import loop_watch
from holdfast import LocalCluster
from holdfast.cluster.comm.connecting import connect
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.protocol import client as to_scheduler
from holdfast.cluster.protocol import node as from_node
from holdfast.cluster.protocol.limits import MAX_ITEMS

T = TypeVar("T")

_HOST = "tcp://192.0.2.1:1"
_FUNCTION = b"benchmark-bounds"
_TIMEOUT_SECONDS = 30.0
#: Other clients have no more tasks than this.
FEW = 100_000


class PretendedHost:
    """The host and the client, in a thread of their own.

    Parameters
    ----------
    cluster
        That they join.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._told = 0
        self._changed = asyncio.Event()
        self._do(self._join())

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    async def _join(self) -> None:
        self._node = await self._connect("node", address=_HOST, hostname="pretended", capacity=1 << 50, incarnation="1")
        self._node.send(from_node.READY())
        self._client = await self._connect("client", id="pretended", name="pretended")
        self._client.send(to_scheduler.FUNCTIONS_SENT([(_FUNCTION, b"")]))

    async def _connect(self, role: str, **info: Any) -> Connection:
        token = self._cluster.token
        connection = await connect(
            self._cluster.scheduler_address,
            token=token if isinstance(token, bytes) else token.encode(),
            role=role,
            info=info,
            timeout=_TIMEOUT_SECONDS,
        )
        connection.start(self._heard, lambda error: None)
        return connection

    def _heard(self, messages: tuple[tuple[Any, ...], ...]) -> None:
        for message in messages:
            if message[0] in (to_scheduler.CANCELLED.operation, to_scheduler.ERRED.operation):
                self._told += len(message[1])
        self._changed.set()

    async def _until_told(self, count: int) -> None:
        while self._told < count:
            self._changed.clear()
            await self._changed.wait()
        self._told = 0

    async def _send(self, message: tuple[Any, ...]) -> None:
        self._client.send(message)
        while self._client.is_full:
            await asyncio.sleep(0.001)

    def submit(self, tasks: int) -> None:
        """Submit so many tasks, all but one of which depend on that one, which runs on the host's worker."""
        self._do(self._submit(tasks))

    async def _submit(self, tasks: int) -> None:
        options = {"workers": ["pretended"], "priority": 2.0}
        await self._send(to_scheduler.SUBMIT([("root", _FUNCTION, b"", ())], None, options, ""))
        # It comes after its task, which is more urgent than all others: one of another client would never end there.
        self._worker = await self._connect("worker", address=f"{_HOST}/0", name="pretended", node=_HOST, nthreads=1)
        for start in range(1, tasks, MAX_ITEMS):
            names = range(start, min(start + MAX_ITEMS, tasks))
            below = [(f"task-{number}", _FUNCTION, b"", ("root",)) for number in names]
            await self._send(to_scheduler.SUBMIT(below, None, {}, ""))

    def cancel(self, tasks: int) -> None:
        """Cancel that one, and thereby all; returns when the client was told of each."""
        self._do(self._cancel(tasks))

    async def _cancel(self, tasks: int) -> None:
        await self._send(to_scheduler.CANCEL(["root"], False, None, ""))
        await self._until_told(tasks)

    def scatter(self, objects: int) -> None:
        """Store so many objects on the host."""
        self._do(self._scatter(objects))

    async def _scatter(self, objects: int) -> None:
        for start in range(0, objects, MAX_ITEMS):
            numbers = range(start, min(start + MAX_ITEMS, objects))
            stored = [(f"data-{n}", n.to_bytes(16, "big"), 1_000, "bytes", _HOST, None) for n in numbers]
            await self._send(to_scheduler.SCATTERED(stored, False, ""))

    def lose(self, objects: int) -> None:
        """Lose the host; returns when the client was told that each object is lost."""
        self._do(self._lose(objects))

    async def _lose(self, objects: int) -> None:
        self._node.close()
        await self._until_told(objects)

    def end(self, directory: Path) -> None:
        """Leave the cluster; returns when the scheduler has forgotten all that the client had.

        Parameters
        ----------
        directory
            Where `loop_watch` notes how many tasks the scheduler knows.
        """
        self._loop.call_soon_threadsafe(self._client.close)
        while loop_watch.tasks_now(directory) > FEW:
            time.sleep(0.01)
        self._loop.call_soon_threadsafe(self._loop.stop)
