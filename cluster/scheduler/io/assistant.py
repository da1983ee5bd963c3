"""The assistant, as the scheduler has it: a process that is started when it is first needed (`cluster/assistant`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.comm import tokens
from holdfast.cluster.comm.connecting import shared_connection
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.processes.parent import SpawnedProcess, spawn
from holdfast.cluster.protocol.assistant import EVENT_LOGGED, TELL
from holdfast.cluster.protocol.message import Dispatch
from holdfast.cluster.scheduler.tasks.feed import (
    Change,
    Feed,
    Joined,
    Left,
    Move,
    Restarted,
    Submitted,
    Subscription,
    TopicEvent,
    weight_of,
)

logger = logging.getLogger(__name__)

MODULE = "holdfast.cluster.assistant"
#: How long it may take to end, with the plugins that it takes down.
CLOSE_SECONDS = 3.0
#: So many changes go in one message, and so many are kept while it is slow.
TOLD_TOGETHER = 500
KEPT = 100_000
_HOOKS: dict[type, str] = {
    Move: "transition",
    Submitted: "update_graph",
    TopicEvent: "log_event",
    Restarted: "restart",
}


class Assistant:
    """Has a process for what users have written for the scheduler. Used in the thread of the scheduler's loop.

    Parameters
    ----------
    token
        The cluster's.
    feed
        What happens in the scheduler.
    done, stored
        Take what an errand has come to.
    logged
        Takes an event for topics.
    left
        ``left(reason)``: the process is gone, and what it had to do with it.
    priority_of
        ``priority_of(key)``: where a task comes among others that could run; None if there is no such task.
    """

    def __init__(
        self,
        *,
        token: bytes,
        feed: Feed,
        done: Callable[..., None],
        stored: Callable[..., None],
        logged: Callable[..., None],
        left: Callable[[str], None],
        priority_of: Callable[[Any], tuple[float, int] | None],
    ) -> None:
        self._token = token
        self._feed = feed
        self._left = left
        self._priority_of = priority_of
        self._hooks: frozenset[str] = frozenset()
        self._connection: Connection | None = None
        self._process: SpawnedProcess | None = None
        self._running: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self._closing = False
        self._dispatch: Dispatch[None] = Dispatch(
            protocol.assistant.FROM_ASSISTANT,
            {
                protocol.errands.ERRAND_DONE: done,
                protocol.errands.ERRAND_STORED: stored,
                protocol.assistant.LISTEN: self._listen,
                EVENT_LOGGED: logged,
                protocol.assistant.ENDED: _nothing,
            },
        )

    def send(self, message: tuple[Any, ...], address: str) -> None:
        """Have it do something for the scheduler at this address. It is started if it isn't there."""
        if self._closing:
            return
        if self._connection is None:
            self._start(address)
        assert self._connection is not None
        self._connection.send(message)

    def _start(self, address: str) -> None:
        ours, theirs = socket.socketpair()
        connection = self._connection = shared_connection(ours)
        connection.trust()
        connection.start(self._on_batch, lambda error: self._ended(connection, error))
        self._running = asyncio.ensure_future(self._run(address, theirs, connection))

    async def _run(self, address: str, theirs: socket.socket, connection: Connection) -> None:
        """Start the process, and wait for its end."""
        try:
            with theirs, tokens.handed_down(self._token) as token_fd:
                arguments = ["--scheduler", address, "--socket-fd", str(theirs.fileno())]
                arguments += [tokens.OPTION, str(token_fd)]
                descriptors = (theirs.fileno(), token_fd)
                process = self._process = await asyncio.to_thread(
                    spawn, MODULE, arguments, name="the assistant", pass_fds=descriptors
                )
        except Exception as error:  # there is no room for a process
            logger.exception("the assistant could not be started")
            connection.abort(error)
            return
        code = await process.exited()
        logger.info("the assistant has ended with code %d", code)

    def _on_batch(self, batch: tuple[Any, ...]) -> None:
        for message in batch:
            self._dispatch(message)

    def _ended(self, connection: Connection, error: Exception | None) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        self._listen(())
        if not self._closing:
            self._left(f"the process beside the scheduler ended{f' ({error})' if error else ''}")

    async def close(self) -> None:
        """End it."""
        self._closing = True
        if self._connection is not None:
            self._connection.close()
        if self._running is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.shield(self._running)
                return
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self._running

    # -- what happens

    def _listen(self, hooks: Sequence[str]) -> None:
        self._hooks = frozenset(hooks)
        if hooks and self._subscription is None:
            self._subscription = self._feed.subscribe(self._wake, limit=KEPT)
        elif not hooks and self._subscription is not None:
            self._feed.unsubscribe(self._subscription)
            self._subscription = None

    def _wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        if self._subscription is None or self._connection is None:
            return
        missed, batches = self._subscription.take()
        told: list[tuple[Any, ...]] = []
        weight = 0
        for batch in batches:
            for change in batch.changes:
                hook = _hook_of(change)
                if hook in self._hooks:
                    told.append((batch.at_seconds, hook, *self._given(change)))
                    weight += weight_of(change)
                if weight >= TOLD_TOGETHER:
                    self._connection.send(TELL(missed, told))
                    told, weight, missed = [], 0, 0
        if told or missed:
            self._connection.send(TELL(missed, told))

    def _given(self, change: Change) -> tuple[Any, ...]:
        """What a hook is given."""
        if isinstance(change, Move):
            return change.key, change.before, change.after
        if isinstance(change, (Joined, Left)):
            return (change.address,)
        if isinstance(change, TopicEvent):
            return change.topics, change.record
        if isinstance(change, Submitted):
            tasks = [(key, tuple(dependencies), self._priority_of(key)) for key, dependencies in change.tasks]
            return change.client, change.wants, tasks, change.options
        return ()


def _hook_of(change: Change) -> str:
    """The name of the method of a plugin that hears of a change; of a host that comes or goes none does."""
    if isinstance(change, Joined):
        return f"add_{change.kind}"
    if isinstance(change, Left):
        return f"remove_{change.kind}"
    return _HOOKS[type(change)]


def _nothing() -> None:
    pass
