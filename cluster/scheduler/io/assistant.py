"""The assistant, as the scheduler has it: a process that is started when it is first needed (`cluster/assistant`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.comm import tokens
from holdfast.cluster.comm.connecting import shared_connection
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.processes.parent import SpawnedProcess, spawn
from holdfast.cluster.protocol.message import Dispatch
from holdfast.cluster.scheduler.tasks.feed import Change, Feed, Joined, Left, Move, Subscription

logger = logging.getLogger(__name__)

MODULE = "holdfast.cluster.assistant"
#: How long it may take to end, with the plugins that it takes down.
CLOSE_SECONDS = 3.0
#: So many changes go in one message, and so many are kept while it is slow.
TOLD_TOGETHER = 500
KEPT = 100_000


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
    left
        ``left(reason)``: the process is gone, and what it had to do with it.
    """

    def __init__(
        self,
        *,
        token: bytes,
        feed: Feed,
        done: Callable[..., None],
        stored: Callable[..., None],
        left: Callable[[str], None],
    ) -> None:
        self._token = token
        self._feed = feed
        self._left = left
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
        self._listen(False)
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

    def _listen(self, listens: bool) -> None:
        if listens and self._subscription is None:
            self._subscription = self._feed.subscribe(self._wake, limit=KEPT)
        elif not listens and self._subscription is not None:
            self._feed.unsubscribe(self._subscription)
            self._subscription = None

    def _wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        if self._subscription is None or self._connection is None:
            return
        missed, batches = self._subscription.take()
        changes = [told for batch in batches for change in batch.changes if (told := _told(change)) is not None]
        for start in range(0, max(len(changes), bool(missed)), TOLD_TOGETHER):
            self._connection.send(protocol.assistant.TELL(missed, changes[start : start + TOLD_TOGETHER]))
            missed = 0


def _told(change: Change) -> tuple[Any, ...] | None:
    """How a change is told: as the hook of a plugin that hears of it, with what that is given."""
    if isinstance(change, Move):
        return ("transition", change.key, change.before, change.after)
    if isinstance(change, (Joined, Left)) and change.kind != "host":
        return (f"{'add' if isinstance(change, Joined) else 'remove'}_{change.kind}", change.address)
    return None


def _nothing() -> None:
    pass
