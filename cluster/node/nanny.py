"""The process beside a node agent that runs what users have written for the host (`cluster/nanny/`).

The agent passes on errands and what they come to, and looks no further: it never unpickles a user's bytes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.comm import tokens
from holdfast.cluster.comm.connecting import shared_connection
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.frames import raw_values
from holdfast.cluster.processes.forking import ForkedProcess, Forker
from holdfast.cluster.processes.parent import describe_exit
from holdfast.cluster.protocol.errands import (
    ERRAND,
    ERRAND_DONE,
    ERRAND_STORED,
    SET_UP_NANNY_PLUGINS,
    TAKE_DOWN_NANNY_PLUGIN,
    done_by,
)
from holdfast.cluster.protocol.limits import MAX_REASON_LENGTH
from holdfast.cluster.protocol.message import Dispatch
from holdfast.objectstore.errors import HoldfastError

logger = logging.getLogger(__name__)

#: The errands that are the nanny's.
OPERATIONS = frozenset(errand.operation for errand in done_by("nanny"))
#: How long it may take to end, with the plugins that it takes down.
CLOSE_SECONDS = 3.0

_MODULE = "holdfast.cluster.nanny.__main__"


class NannyProcess:
    """Has a process for what users have written for the host. Used in the thread of the agent's loop.

    Parameters
    ----------
    arguments
        What the process is told of the cluster and the host.
    name
        The host's, for people.
    token
        The cluster's.
    forker
        What forks the process.
    say
        ``say(message)`` tells the scheduler something.
    restart
        Has all worker processes of the host start anew, and returns when they have.
    log_level
        How much the process logs.

    Attributes
    ----------
    environment : dict
        Variables of the environment of the worker processes that start from now on; None takes one away.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        name: str,
        *,
        token: bytes,
        forker: Forker,
        say: Callable[[tuple[Any, ...]], None],
        restart: Callable[[], Coroutine[Any, Any, None]],
        log_level: str = "INFO",
    ) -> None:
        self.environment: dict[str, str | None] = {}
        self._arguments = [*arguments, "--log-level", log_level]
        self._name = f"the nanny of {name}"
        self._token = token
        self._forker = forker
        self._say = say
        self._restart = restart
        self._connection: Connection | None = None
        self._child: ForkedProcess | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._restarting: set[asyncio.Task[None]] = set()
        self._pending: dict[int, str] = {}
        self._closing = False
        self._dispatch: Dispatch[None] = Dispatch(
            protocol.nanny.FROM_NANNY,
            {
                ERRAND_DONE: self._done,
                ERRAND_STORED: self._stored,
                protocol.nanny.ENVIRONMENT: self._environment,
                protocol.nanny.ENDED: _nothing,
            },
        )

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._child.pid if self._child is not None else None

    def take(self, number: int, operation: str, arguments: dict[str, Any]) -> None:
        """Have it do an errand. It is started if it isn't there."""
        if self._closing:
            return
        if self._connection is None and operation == TAKE_DOWN_NANNY_PLUGIN.operation:
            self._say(ERRAND_DONE(number, True, {"failed": []}))  # there is none
            return
        if self._connection is None:
            self._start()
        assert self._connection is not None
        self._pending[number] = operation
        self._connection.send(ERRAND(number, operation, raw_values(arguments)))

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        connection = self._connection = shared_connection(ours)
        connection.trust()
        connection.start(self._on_batch, lambda error: self._ended(connection, error))
        _keep(self._running, self._run(theirs, connection))

    async def _run(self, theirs: socket.socket, connection: Connection) -> None:
        """Start the process, and wait for its end."""
        try:
            with theirs, tokens.handed_down(self._token) as token_fd:
                descriptors = {"--socket-fd": theirs.fileno(), tokens.OPTION: token_fd}
                child = await self._forker.fork_async(_MODULE, self._arguments, self._name, pass_fds=descriptors)
        except (OSError, HoldfastError) as error:  # there is no room for a process
            logger.warning("%s could not be started: %s", self._name, error)
            connection.abort(error)
            return
        self._child = child
        try:
            code = await child.exited()
            logger.info("%s has ended: it %s", self._name, describe_exit(code))
        finally:
            if self._child is child:
                self._child = None
            if child.returncode is None:  # it can't be watched, or this is cancelled
                child.kill_group()
                await child.exited()

    def _on_batch(self, batch: tuple[Any, ...]) -> None:
        for message in batch:
            self._dispatch(message)

    def _ended(self, connection: Connection, error: Exception | None) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        pending, self._pending = self._pending, {}
        if self._closing:
            return
        reason = f"{self._name} ended{f' ({error})' if error else ''}"[:MAX_REASON_LENGTH]
        for number in pending:
            self._say(ERRAND_DONE(number, False, ["ConnectError", reason]))
        self._say(protocol.node.NANNY_LEFT(reason))

    async def close(self) -> None:
        """End it."""
        self._closing = True
        for restarting in self._restarting:
            restarting.cancel()
        if self._connection is not None:
            self._connection.close()
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=CLOSE_SECONDS)
        for running in late:
            running.cancel()
        if late:
            await asyncio.wait(late)

    # -- what it says

    def _done(self, number: int, ok: bool, value: Any) -> None:
        operation = self._pending.pop(number, None)
        if operation is None:
            return
        message = ERRAND_DONE(number, ok, raw_values(value) if type(value) is dict else value)
        if ok and operation == SET_UP_NANNY_PLUGINS.operation and type(value) is dict and value.get("restart"):
            _keep(self._restarting, self._say_after_restart(message))
        else:
            self._say(message)

    async def _say_after_restart(self, message: tuple[Any, ...]) -> None:
        await self._restart()
        self._say(message)

    def _stored(self, *fields: Any) -> None:
        number, *_ = fields
        if self._pending.pop(number, None) is not None:
            self._say(ERRAND_STORED(*fields))

    def _environment(self, variables: dict[str, str | None]) -> None:
        self.environment = dict(variables)


def _keep(tasks: set[asyncio.Task[None]], coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, which is one of these until it has ended."""
    task = asyncio.ensure_future(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _nothing() -> None:
    pass
