"""Connecting to a listener, and coming back to it when the connection has broken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import Any

from holdfast.cluster.comm import shortcut
from holdfast.cluster.comm.addresses import format_address, parse_address, unknown_host
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.opening import ConnectorOpening, RestartedError, ResumeError, Return, TryLater
from holdfast.cluster.comm.resumable import ResumableConnection
from holdfast.cluster.comm.shared import SharedTransport
from holdfast.cluster.comm.strangers import foreign_answer, who_answers
from holdfast.cluster.errors import AuthenticationError, ConnectError, ProtocolError, VersionMismatchError

logger = logging.getLogger(__name__)

#: How long each attempt to come back may take: what no machine receives isn't sent again soon.
ATTEMPT_SECONDS = 5.0
#: The pause after the first attempt is none, after the second this, and then it grows up to the maximum, which grows
#: itself with the time that has passed. It begins again when something was said in between.
PAUSE_SECONDS = 0.05
QUICK_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 1.0
#: People are told of a connection that isn't taken up again within this: nothing that waits for it goes on.
WARN_SECONDS = 1.0
#: The same if another listener may come: that takes a while, and is the rule.
RESTART_WARN_SECONDS = 3.0
#: How often it is looked whether a thread still reads what came over the connection that has broken.
READER_SECONDS = 0.001

_SILENT = "somebody listens there and says nothing: it is stopped, or waits for another protocol"


class NoAnswerError(ConnectError):
    """There was no answer in time at an address where a listener may be."""


async def connect(
    address: str,
    *,
    token: bytes,
    role: str,
    info: dict[str, Any],
    timeout: float = 10.0,
    what: str = "scheduler",
    shared: bool = False,
    again: bool = False,
) -> Connection:
    """Connect and open, trying again until ``timeout`` seconds are over while there is no answer.

    With ``shared``, other threads than the loop's can use it, too. With ``again``, a process has listened there before,
    so that when none listens now, none will: that isn't waited for.

    Returns
    -------
    Connection
        Open, with ``info`` set to what the listener said. Call its `start` to get what it sends. If the listener
        offers that, it comes back by itself when it breaks, and rejoins another one with the same info.

    Raises
    ------
    ConnectError
        There was no answer: names the address, how long and how often it was tried, and the last error. A
        `NoAnswerError` if a listener may be there all the same.
    AuthenticationError, VersionMismatchError
        A program answered that can't be worked with.
    """
    host, port = parse_address(address)
    where = format_address(host, port)
    started = time.monotonic()
    attempts = 0
    delay = 0.01
    while True:
        attempts += 1
        connection: Connection | None = None
        try:
            async with asyncio.timeout(max(0.1, timeout - (time.monotonic() - started))):
                connection = await _connect(host, port, shared)
                opening = ConnectorOpening(token, role, info, where, comes_back=True)
                await connection.open_as_connector(opening)
                if opening.terms is None:
                    return connection
                return ResumableConnection(
                    connection,
                    opening.terms,
                    lambda connection: _Return(connection, host, port, token, role, info, shared),
                    connects=True,
                )
        except (AuthenticationError, VersionMismatchError):
            _abort(connection)
            raise
        except ProtocolError:
            _abort(connection)
            raise foreign_answer(where, connection.first_words if connection is not None else b"") from None
        except TryLater as error:
            _abort(connection)
            reason, is_unknown = str(error), False
        except ConnectError:
            _abort(connection)
            raise
        except asyncio.CancelledError:
            _abort(connection)
            raise
        except (OSError, TimeoutError) as error:
            _abort(connection)
            if connection is not None and who_answers(connection.first_words):
                raise foreign_answer(where, connection.first_words) from None
            if again and isinstance(error, ConnectionRefusedError):
                raise ConnectError(f"no {what} listens at {where} any more") from None
            unknown = unknown_host(error, host)
            reason, is_unknown = unknown or _reason(error), unknown is not None
            if isinstance(error, TimeoutError):
                reason = "no answer" if connection is None else _SILENT
        elapsed = time.monotonic() - started
        if elapsed + delay >= timeout:
            raise NoAnswerError(
                f"no {what} answered at {where}: tried {attempts} times in {elapsed:.1f} s, last: {reason}"
                + ("" if is_unknown else ". Is it running there? 'holdfast start --head' starts one")
            )
        await asyncio.sleep(delay)
        delay = min(delay * 2, 0.5)


class _Return:
    """The connecting end's way over a break: it connects again, for as long as the listener waits.

    If the listener keeps a journal, also for as long as another one may need to come in its place.
    """

    def __init__(
        self,
        connection: ResumableConnection,
        host: str,
        port: int,
        token: bytes,
        role: str,
        info: dict[str, Any],
        shared: bool,
    ) -> None:
        self._connection: ResumableConnection | None = connection
        self._host = host
        self._port = port
        self._where = format_address(host, port)
        self._token = token
        self._role = role
        self._info = info
        self._shared = shared
        self._attempt: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._moved = 0  # frames, in both directions, when it broke last

    @property
    def seconds(self) -> float:
        if self._connection is None:
            return 0.0
        terms = self._connection.session.terms
        return max(terms.seconds, terms.restart)

    def broke(self, error: Exception | None) -> None:
        self._task = asyncio.ensure_future(self._come_back(error))

    def resumed(self) -> None:
        self._attempt = None

    def ended(self) -> None:
        self._connection = None
        with contextlib.suppress(RuntimeError):  # there is no loop any more, or none runs here: nor does the task
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()

    def leave_to_parent(self) -> None:
        self._connection = None
        if self._attempt is not None:
            self._attempt.leave_to_parent()

    async def _come_back(self, error: Exception | None) -> None:
        connection = self._connection
        if connection is None:
            return
        began = time.monotonic()
        seconds = self.seconds
        while connection.is_read:  # by a thread, which finds out in a moment
            await asyncio.sleep(READER_SECONDS)
        connection.handle()  # what it had taken
        if connection.said_goodbye:
            connection.close()
            return
        moved = connection.taken + connection.session.acknowledged
        if moved != self._moved:
            self._moved, self._pause = moved, 0.0
        may_restart = connection.session.terms.restart > 0
        is_warned = False
        while not connection.closed:
            reason = await self._try(connection)
            passed = time.monotonic() - began
            if reason is None or not connection.is_broken:
                if is_warned and not connection.closed:
                    logger.warning("the connection with %s goes on after %.1f s", self._where, passed)
                return
            if isinstance(reason, (ResumeError, RestartedError, AuthenticationError, VersionMismatchError)):
                connection.abort(reason)
                return
            if passed + self._pause >= seconds:
                because = f"{error}; " if error is not None else ""
                failed = "has not come back" if may_restart else "could not be taken up again"
                connection.abort(ConnectError(f"{because}it {failed} within {seconds:g} s: {_reason(reason)}"))
                return
            if passed >= (RESTART_WARN_SECONDS if may_restart else WARN_SECONDS) and not is_warned:
                is_warned = True
                logger.warning(
                    "there has been no connection with %s for %.1f s: %s. Holdfast tries for %.0f s more to take it up "
                    "again; what waits for it goes on then",
                    self._where,
                    passed,
                    _reason(reason),
                    seconds - passed,
                )
            await asyncio.sleep(self._pause)
            # A listener that is started again is soon there.
            longest = min(max(QUICK_PAUSE_SECONDS, passed / 10), MAX_PAUSE_SECONDS)
            self._pause = min(2 * self._pause + PAUSE_SECONDS, longest)

    async def _try(self, connection: ResumableConnection) -> Exception | None:
        """What went wrong, if anything did."""
        session = connection.session
        session.attempt += 1
        back = Return(session.terms, session.attempt, connection.taken)
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                try:
                    opening = ConnectorOpening(self._token, self._role, {}, self._where, back)
                    attempt = await self._open(opening)
                except RestartedError:
                    if connection.on_rejoin is None:
                        raise
                    was = session.was
                    opening = ConnectorOpening(
                        self._token, self._role, self._info, self._where, was=was, comes_back=True
                    )
                    attempt = await self._open(opening)
            if opening.terms is session.terms:
                connection.go_on_over(attempt, opening.taken)
            else:
                assert opening.terms is not None
                connection.rejoin_over(attempt, opening.terms, opening.recorded)
        except (OSError, ConnectError, ProtocolError, TimeoutError) as error:
            _abort(self._attempt)
            return error
        except Exception as error:  # a fault of this program's own, which must not leave the connection broken for ever
            logger.exception("taking up the connection with %s again failed", self._where)
            _abort(self._attempt)
            return error
        except BaseException:
            _abort(self._attempt)
            raise
        return None

    async def _open(self, opening: ConnectorOpening) -> Connection:
        """A connection that has opened; one that has not is aborted later."""
        _abort(self._attempt)
        self._attempt = None
        attempt = self._attempt = await _connect(self._host, self._port, self._shared)
        await attempt.open_as_connector(opening)
        return attempt


def shared_connection(sock: socket.socket) -> Connection:
    """A connection over a connected socket, which is the connection's to close, that other threads can use too.

    To be called in the loop's thread.
    """
    connection = Connection()
    SharedTransport(asyncio.get_running_loop(), sock, connection)
    return connection


async def _connected_socket(host: str, port: int) -> socket.socket:
    """A socket that is connected to an address, by the shortest way."""
    loop = asyncio.get_running_loop()
    failure: OSError = ConnectionRefusedError()
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = shortcut.connected(*address[:2])
        if sock is not None:
            return sock
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


async def _connect(host: str, port: int, shared: bool) -> Connection:
    loop = asyncio.get_running_loop()
    sock = await _connected_socket(host, port)
    try:
        if shared:
            connection = shared_connection(sock)
        elif sock.family == socket.AF_UNIX:
            _, connection = await loop.create_unix_connection(Connection, sock=sock)
        else:
            _, connection = await loop.create_connection(Connection, sock=sock)
    except BaseException:
        sock.close()
        raise
    return connection


def _abort(connection: Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(RuntimeError):
            connection.abort()


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError) and not error.args:
        return "no answer"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
