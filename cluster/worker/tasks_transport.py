"""The way of what a worker's tasks say as a client: in the worker's own connection.

The tasks of a worker share one client, which has neither a connection nor a thread of its own. What it says travels as
messages that carry others (`protocol.worker.FROM_TASKS`), in their order among all that the worker says; so does what
it is told. It lives and dies with the worker.

`TasksTransport` keeps the promises of `holdfast.client.core.transport`: that is where they are said. The session over
it is the client's affair; a worker whose tasks need no client never hears of one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from holdfast.cluster import protocol
from holdfast.cluster.comm.connection import Connection


class Receiver(Protocol):
    """Hears what the scheduler says to the tasks: a client's session."""

    def on_batch(self, messages: tuple[Any, ...]) -> None:
        """Messages have come, in the loop's thread."""

    def on_batch_elsewhere(self, messages: tuple[Any, ...]) -> bool:
        """Messages have come to another thread; False if the loop's is to handle them."""

    def on_close(self, error: Exception | None) -> None:
        """Nothing more will come. In the loop's thread."""

    def on_room(self) -> None:
        """There is room for messages again. In any thread."""

    def send_all_posted(self) -> None:
        """Send all that is to be sent, even if there is no room. In any thread."""

    def on_rejoin(self, welcome: Mapping[str, Any]) -> None:
        """Another scheduler goes on where the one before has ended. In the loop's thread."""


class TasksTransport:
    """Carries the messages of the client that a worker's tasks share.

    Parameters
    ----------
    connection
        The worker's.
    flush_seals
        Sends the seals of what was put into the store.
    may_read
        Whether the calling thread may read the connection while it waits.
    """

    def __init__(self, connection: Connection, flush_seals: Callable[[], object], may_read: Callable[[], bool]) -> None:
        self._connection = connection
        self._flush_seals = flush_seals
        self._may_read = may_read
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._receiver: Receiver | None = None
        self._ended = False
        #: The client's side keeps its client here.
        self.client: Any = None
        self.call_soon = self._loop.call_soon_threadsafe
        self.call_later = self._loop.call_later
        self.wake_reader = connection.wake_reader

    # -- for the session

    @property
    def closed(self) -> bool:
        return self._ended or self._connection.closed

    @property
    def is_broken(self) -> bool:
        return self._connection.is_broken

    @property
    def is_full(self) -> bool:
        return self._connection.is_full

    @property
    def is_current(self) -> bool:
        return threading.get_ident() == self._thread

    @property
    def scheduler(self) -> dict[str, Any]:
        """What the scheduler has said of itself."""
        return dict(self._connection.info.get("scheduler") or {})

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._connection.on_room = receiver.on_room
        self._connection.send_now([protocol.worker.TASKS_OPENED()])
        if self.closed:
            receiver.on_close(None)

    def send(self, messages: list[tuple[Any, ...]], queue: list[Any], taken: slice) -> None:
        if protocol.client.SCATTERED.is_in(messages):
            self._flush_seals()  # no process may look for an object before its seal is on its way
        self._connection.send_now([protocol.worker.FROM_TASKS(*message) for message in messages], queue, taken)

    def read_while(self, waits: Callable[[], bool], timeout: float | None) -> bool:
        # A task that has its slot must not take in other tasks, as a thread that reads does.
        return self._connection.read_while(waits, timeout) if self._may_read() else not waits()

    def close(self) -> None:
        """The session ends; the worker's connection stays."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_close(None)

    def leave_to_parent(self) -> None:
        self._ended = True

    # -- for the worker

    def hear(self, *message: Any) -> None:
        """A message for the tasks, in the loop's thread."""
        if self._receiver is not None:
            self._receiver.on_batch((message,))

    def hear_elsewhere(self, messages: Sequence[tuple[Any, ...]]) -> bool:
        """Messages for the tasks, in another thread; False if the loop's is to handle them."""
        return self._receiver is not None and self._receiver.on_batch_elsewhere(tuple(messages))

    def say_all(self) -> None:
        """Send what the tasks have said by now. In any thread."""
        if self._receiver is not None:
            self._receiver.send_all_posted()

    def rejoined(self, welcome: Mapping[str, Any]) -> None:
        """Another scheduler goes on where the one before has ended, and knows what the worker has. In the loop's
        thread."""
        if self._receiver is not None:
            self._receiver.on_rejoin(welcome)

    def end(self, error: Exception | None) -> None:
        """The worker ends: whatever the tasks wait for does not come. In the loop's thread."""
        self._ended = True
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_close(error)
        self.client = None  # a circle
