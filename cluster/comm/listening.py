"""Where connections come in: a port that is listened to, and the sessions of those that may come back to it.

A listener whose connections may be taken up again (`resume`) waits for an end that is broken, for as long as the terms
of its session say. Only one over the network is waited for: a Unix socket can't be cut, so when the connection over a
`shortcut` ends, the other end's process has ended, or has closed it. The other end of a `shortcut` may look for another
listener, if there is a `Journal`.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from holdfast.cluster.comm import shortcut
from holdfast.cluster.comm.addresses import format_address, unknown_host
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.entrance import Entrance
from holdfast.cluster.comm.opening import ListenerOpening, Refused
from holdfast.cluster.comm.resumable import ResumableConnection
from holdfast.cluster.comm.resume import Terms, Was, cluster_of
from holdfast.cluster.errors import ConnectError

#: How many connections may wait in the kernel to be accepted; it may have a lower limit.
BACKLOG = 4096


class GraceOverError(ConnectError):
    """The other end has not come back to a session in time. It is not known whether it lives."""


class Timer(Protocol):
    """What ends a wait."""

    def cancel(self) -> None: ...


class Journal(NamedTuple):
    """What a listener has of those that were here before it, and leaves to those that come.

    Attributes
    ----------
    seconds
        How long ends look for the next listener when this one is gone.
    recorded
        ``recorded(role, info, was) -> frames``: how many frames of an end that was connected with an earlier listener
        have had their effects. May raise `Refused`.
    """

    seconds: float
    recorded: Callable[[str, dict[str, Any], Was], int]


class Listener:
    """Accepts connections and opens them, as many at a time as its `Entrance` has room for.

    Parameters
    ----------
    token:
        The cluster's token.
    welcome:
        ``welcome(role, info) -> info``, see `opening.ListenerOpening`.
    on_connection:
        Called with each connection that has opened; it calls `Connection.start`. Not with one that is taken up again.
    grace:
        ``grace(role)``: for how many seconds it waits for a connection of this role that is broken. Zero: not at all.
    epoch:
        What sets this listener apart from the one that listened here before it. With a journal, ``CLUSTER/NUMBER``.
    journal:
        If there is one, the owner of each connection says what it has `ResumableConnection.handled`.
    call_later:
        ``call_later(seconds, callback) -> timer``; the loop's, if not given.
    """

    def __init__(
        self,
        token: bytes,
        welcome: Callable[[str, dict[str, Any]], dict[str, Any]],
        on_connection: Callable[[Connection], None],
        *,
        grace: Callable[[str], float] = lambda role: 0.0,
        epoch: str | None = None,
        journal: Journal | None = None,
        call_later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        self._token = token
        self._welcome = welcome
        self._on_connection = on_connection
        self._grace = grace
        self._epoch = epoch or secrets.token_hex(8)
        self._journal = journal
        self._call_later = call_later
        self._sessions: dict[bytes, ResumableConnection] = {}
        self._entrances: list[Entrance] = []
        self.address = ""

    async def listen(self, sock: socket.socket) -> None:
        """Accept on a bound socket, which the listener owns from here on."""
        self.address = format_address(*sock.getsockname()[:2])
        shorter = shortcut.listening(*sock.getsockname()[:2])
        # One for each: a flood on the network's side is not in the way of this host's processes.
        self._entrances = [Entrance(each, self._open) for each in (sock, shorter) if each is not None]

    async def _open(self, sock: socket.socket, peer: str) -> None:
        connection = Connection()
        # Over the shortcut nothing begins that is waited for; what has begun over the network may go on there.
        opening = ListenerOpening(self._token, self._welcome, _Known(self, waits=sock.family != socket.AF_UNIX))
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
            await connection.open_as_listener(opening)
            if opening.taken is not None:
                assert opening.terms is not None
                self._sessions[opening.terms.id].go_on_over(connection, opening.taken)
                return
            if opening.terms is not None:
                connection = self._begin(connection, opening.terms, opening.was, opening.start)
            self._on_connection(connection)
        except Refused:  # it is told so, and closed after that
            raise
        except BaseException:
            connection.abort()
            if not connection.was_made:
                sock.close()
            raise

    def _begin(self, opened: Connection, terms: Terms, was: Was | None, start: int) -> ResumableConnection:
        later = self._call_later or asyncio.get_running_loop().call_later
        connection = self._sessions[terms.id] = ResumableConnection(
            opened,
            terms,
            lambda connection: _Wait(connection, terms.seconds, later, lambda: self._sessions.pop(terms.id, None)),
            connects=False,
            was=was,
            start=start,
        )
        return connection

    async def close(self) -> None:
        """Stop accepting, also those that would come back. Connections that are open stay open."""
        for entrance in self._entrances:
            await entrance.close()


class _Known:
    """What an opening may know of a listener's sessions (`opening.Sessions`)."""

    def __init__(self, listener: Listener, *, waits: bool) -> None:
        self._listener = listener
        self._waits = waits

    def begin(self, role: str) -> Terms | None:
        listener = self._listener
        seconds = listener._grace(role) if self._waits else 0.0
        restart = 0.0 if listener._journal is None else listener._journal.seconds
        return Terms.new(listener._epoch, seconds, restart) if seconds > 0 or restart > 0 else None

    def find(self, session: bytes, epoch: str, role: str) -> Terms:
        if epoch != self._listener._epoch:
            code = "restarted" if self._has_journal_of(cluster_of(epoch)) else "resume"
            raise Refused(code, f"{epoch} is gone, {self._listener._epoch} listens here now")
        connection = self._listener._sessions.get(session)
        if connection is None or connection.role != role or connection.is_ending:
            raise Refused("resume", "the session has ended")
        return connection.session.terms

    def recorded(self, role: str, info: dict[str, Any], was: Was) -> int:
        journal = self._listener._journal
        if journal is None or not self._has_journal_of(was.cluster):
            raise Refused("resume", f"{was.cluster} is gone, {self._listener._epoch} listens here now")
        return journal.recorded(role, info, was)

    def _has_journal_of(self, cluster: str) -> bool:
        listener = self._listener
        return listener._journal is not None and cluster != "" and cluster == cluster_of(listener._epoch)

    def supersede(self, session: bytes, attempt: int) -> int:
        connection = self._listener._sessions[session]
        if attempt <= connection.session.attempt:
            raise Refused("resume", "a later attempt has come before")
        connection.session.attempt = attempt
        return connection.supersede()


class _Wait:
    """The listening end's way over a break: it waits."""

    def __init__(
        self,
        connection: Connection,
        seconds: float,
        call_later: Callable[[float, Callable[[], None]], Timer],
        forget: Callable[[], object],
    ) -> None:
        self._connection: Connection | None = connection
        self.seconds = seconds
        self._call_later = call_later
        self._forget = forget
        self._timer: Timer | None = None

    def broke(self, error: Exception | None) -> None:
        self._timer = self._call_later(self.seconds, lambda: self._give_up(error))

    def _give_up(self, error: Exception | None) -> None:
        because = f" ({error})" if error is not None else ""
        if self._connection is not None:
            self._connection.abort(
                GraceOverError(f"its connection broke{because}, and it is not back after {self.seconds:g} s")
            )

    def resumed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def ended(self) -> None:
        self.resumed()
        self._connection = None
        self._forget()

    def leave_to_parent(self) -> None:
        self._connection = None


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket bound to ``host:port`` and listening, for a `Listener`.

    Raises
    ------
    ConnectError
        The port is in use or the address is not this host's; says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConnectError(
                f"port {port} of {host} is in use: stop what listens there ('holdfast status' shows a cluster of "
                "yours), or choose another port (0: any free one)"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConnectError(
                f"can't listen on {format_address(host, port)}: {host} is no address of this host; choose one that is "
                "('ip address' lists them)"
            ) from None
        reason = unknown_host(error, host) or error.strerror or error
        raise ConnectError(f"can't listen on {format_address(host, port)}: {reason}") from None
    sock.setblocking(False)
    return sock
