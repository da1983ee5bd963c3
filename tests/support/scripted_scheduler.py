"""A scheduler that decides nothing: it sends what a test tells it to, and keeps what it receives.

It tests a worker or a node agent alone, over real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.listening import Journal, Listener, bound_socket
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.comm.resumable import ResumableConnection
from holdfast.cluster.failures import loading
from holdfast.cluster.protocol import payloads
from holdfast.objectstore import decode

DEADLINE_SECONDS = 20.0
#: How often a condition is looked at, while no message comes, that depends on more than messages.
PERIOD_SECONDS = 0.02
TOKEN = b"a token for tests, long enough"
#: The tasks have serials from here on.
SERIAL = 1000


class Peer:
    """A process that has connected: what it said about itself, and what it has sent."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.role = connection.role
        self.info = connection.info
        self.received: list[tuple[Any, ...]] = []
        self.gone = False


class ScriptedScheduler:
    """Listens in a loop of its own; its methods are called from the test's thread."""

    def __init__(self) -> None:
        self.id = "scripted"
        #: How often it was started again; None: it keeps no journal, and can't be.
        self.restarts: int | None = None
        self.restart_seconds = 60.0
        self.acknowledges = False  # what it has received, if it keeps a journal
        self.peers: list[Peer] = []
        #: Sent to each peer that connects, in the same turn of the loop.
        self.greeting: list[tuple[Any, ...]] = []
        self._changed = threading.Condition()
        self._run_ids = itertools.count(1)
        self._sent: dict[int, set[bytes]] = {}
        self._keys: dict[int, Any] = {}  # by run

    def __enter__(self) -> Self:
        self.thread = LoopThread("scripted-scheduler")
        self.thread.run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thread.run(self._close())
        self.thread.close()

    async def _listen(self) -> None:
        await self._listen_at(bound_socket("127.0.0.1", 0))
        self.address = self._listener.address

    async def _listen_at(self, sock: socket.socket) -> None:
        self._listener = Listener(
            TOKEN,
            lambda role, info: {"scheduler": self._description()},
            self._on_connection,
            epoch=self.epoch,
            # It has recorded nothing but what it has acknowledged.
            journal=None if self.restarts is None else Journal(self.restart_seconds, lambda role, info, was: 0),
        )
        await self._listener.listen(sock)

    @property
    def epoch(self) -> str | None:
        return None if self.restarts is None else f"{self.id}/{self.restarts}"

    def _description(self) -> dict[str, Any]:
        return {"id": f"{self.id}-{self.restarts}", "epoch": self.epoch, "recovering": bool(self.restarts)}

    def keep_journal(self) -> None:
        """From now on it may be started again."""
        self.restarts = 0
        self.thread.run(self._again())

    def restart(self) -> None:
        """It dies, and another one goes on in its place."""
        assert self.restarts is not None
        self.restarts += 1
        self.die()
        self.thread.run(self._again())

    def die(self) -> None:
        """Nobody listens any more, and all connections end without a word."""
        self.thread.run(self._die())

    async def _die(self) -> None:
        await self._listener.close()
        for peer in self.peers:
            peer.gone = True
            transport = peer.connection._transport
            if transport is not None:
                transport.set_protocol(asyncio.Protocol())
                transport.abort()
                peer.connection._transport = None
            peer.connection.leave_to_parent()

    async def _again(self) -> None:
        await self._listener.close()
        host, port = parse_address(self.address)
        await self._listen_at(bound_socket(host, port))

    async def _close(self) -> None:
        await self._listener.close()
        for peer in self.peers:
            peer.connection.close()

    def _on_connection(self, connection: Connection) -> None:
        peer = Peer(connection)
        for message in self.greeting:
            connection.send(message)

        def on_batch(batch: tuple[Any, ...]) -> None:
            with self._changed:
                peer.received += batch
                self._changed.notify_all()
            if self.acknowledges and isinstance(connection, ResumableConnection):
                connection.handled(connection.handed_over)

        def on_close(error: Exception | None) -> None:
            with self._changed:
                peer.gone = True
                self._changed.notify_all()

        with self._changed:
            self.peers.append(peer)
            self._changed.notify_all()
        connection.start(on_batch, on_close)

    # -- what goes wrong

    def cut(self, peer: Peer) -> None:
        """End a connection without a word, and wait until it has ended here."""
        self.thread.call_soon(peer.connection.abort)
        self.wait(lambda: peer.gone, "the connection ends")

    def vanish(self) -> None:
        """Listen no more, and end all connections."""
        self.thread.run(self._listener.close())
        for peer in list(self.peers):
            if not peer.gone:
                self.cut(peer)

    @contextlib.contextmanager
    def stopped(self, peer: Peer) -> Iterator[None]:
        """End a connection, and do nothing after that."""
        go_on = threading.Event()
        loop = self.thread.loop

        def cut_and_stop() -> None:
            peer.connection.abort()
            loop.call_soon(loop.call_soon, go_on.wait, DEADLINE_SECONDS)  # the socket is closed by then

        self.thread.call_soon(cut_and_stop)
        try:
            yield
        finally:
            go_on.set()

    # -- waiting

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = DEADLINE_SECONDS) -> Any:
        """Wait until ``condition()`` is true; returns its value."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (value := condition()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not within {timeout:g} s: {what}; received {self._summary()}")
                self._changed.wait(min(left, PERIOD_SECONDS))
            return value

    def _summary(self) -> str:
        return repr({peer.info.get("address"): peer.received[-5:] for peer in self.peers})[:2000]

    def peer(self, address: str | None = None, *, role: str = "worker", timeout: float = DEADLINE_SECONDS) -> Peer:
        """The live connection of ``address``, or of any with this role."""

        def find() -> Peer | None:
            for peer in self.peers:
                if peer.role == role and not peer.gone and address in (None, peer.info["address"]):
                    return peer
            return None

        found: Peer = self.wait(find, f"a {role} at {address} connects", timeout)
        return found

    def message(self, peer: Peer, operation: str, timeout: float = DEADLINE_SECONDS) -> tuple[Any, ...]:
        """Take the next message of an operation that ``peer`` sends."""

        def take() -> tuple[Any, ...] | None:
            for index, message in enumerate(peer.received):
                if message[0] == operation:
                    return peer.received.pop(index)
            return None

        found: tuple[Any, ...] = self.wait(take, f"{operation!r} from {peer.info['address']}", timeout)
        return found

    # -- sending

    def send(self, peer: Peer, *messages: tuple[Any, ...]) -> None:
        def there() -> None:
            for message in messages:
                peer.connection.send(message)

        self.thread.call_soon(there)

    def send_raw(self, peer: Peer, data: bytes) -> None:
        """Send bytes as they are, which need not be frames."""

        def there() -> None:
            if peer.connection._transport is not None:
                peer.connection._transport.write(data)

        self.thread.call_soon(there)

    def task(self, peer: Peer, function: Any, *args: Any, key: Any = None, depends: Any = (), **kwargs: Any) -> Any:
        """A task for a ``run`` message; its function is sent ahead if it has to be."""
        blob = payloads.dumps(function)
        digest = hashlib.blake2b(blob, digest_size=16).digest()
        known = self._sent.setdefault(id(peer), set())
        if digest not in known:
            known.add(digest)
            self.send(peer, ("functions", [(digest, blob)]))
        run_id = next(self._run_ids)
        key = self._keys[run_id] = key or f"task-{run_id}"
        return (key, run_id, digest, payloads.dumps((args, kwargs)), list(depends), False, SERIAL + run_id)

    def node_task(self, node: Any, *, depends: Any = ()) -> Any:
        """A task that is a node of a dask graph."""
        run_id = next(self._run_ids)
        self._keys[run_id] = node.key
        return (node.key, run_id, None, payloads.dumps(node), list(depends), False, SERIAL + run_id)

    def run(self, peer: Peer, *tasks: Any) -> dict[Any, tuple[str, Any]]:
        """Run tasks and wait for all their outcomes: ``{key: (operation, entry)}``."""
        self.send(peer, ("run", list(tasks)))
        return self.outcomes(peer, [task[1] for task in tasks])

    def outcomes(self, peer: Peer, run_ids: list[int]) -> dict[Any, tuple[str, Any]]:
        found: dict[int, tuple[str, Any]] = {}

        def look() -> bool:
            for operation, *rest in peer.received:
                if operation in ("finished", "erred", "missing"):
                    for entry in rest[0]:
                        assert entry[0] == SERIAL + entry[1] or not entry[1]  # said once more
                        found[entry[1]] = (operation, entry)
            return found.keys() >= set(run_ids)

        self.wait(look, f"the outcomes of {run_ids}")
        return {self._keys[run_id]: found[run_id] for run_id in run_ids}

    def one(self, peer: Peer, task: Any) -> tuple[str, Any]:
        """Run one task; its operation and entry."""
        (outcome,) = self.run(peer, task).values()
        return outcome

    def value(self, peer: Peer, task: Any) -> Any:
        """Run one task that finishes with a small result; its value."""
        operation, entry = self.one(peer, task)
        assert operation == "finished", entry[3]
        assert entry[4] is not None, "the result is not inline"
        return decode(bytes(entry[4]))

    def error(self, peer: Peer, task: Any) -> tuple[BaseException, Any, str]:
        """Run one task that fails: its exception, traceback and text."""
        operation, entry = self.one(peer, task)
        assert operation == "erred", operation
        return *loading.load_exception(entry[2], entry[3]), entry[3]
