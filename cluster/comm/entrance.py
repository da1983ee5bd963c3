"""Where connections come in, and wait until they have shown that they know the token.

Any program that reaches a port can connect, as often as it likes. So what an unopened connection may take is little,
and is not taken from a peer that has opened:

* At most `UNOPENED_MAX` are opening at a time. If one more comes, one of them is closed: the oldest of those that come
  from the address that has the most. So a peer that floods a port from one host closes no connection from another host.
* An opening takes at most `OPENING_TIMEOUT_SECONDS`, and each may take `OPENING_LEAST_SECONDS`, in which a peer that
  knows the token is done many times over. As long as no connection may be closed, new ones wait in the kernel. So
  accepting takes a bounded part of the event loop's time, however fast peers that were turned away come again.
* A peer that speaks another protocol is told so, and its connection closed, at its first words (`strangers`).
* There is no thread or process for an unopened connection, and no log line for each that was turned away.

A peer whose connection is closed before the opening is done may try again, and `connect` does.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from holdfast.cluster.comm.addresses import format_address
from holdfast.cluster.comm.limited_log import LimitedLog
from holdfast.cluster.comm.opening import Refused
from holdfast.cluster.comm.strangers import expect_greeting
from holdfast.cluster.errors import ProtocolError

logger = logging.getLogger(__name__)

UNOPENED_MAX = 256
OPENING_TIMEOUT_SECONDS = 10.0
OPENING_LEAST_SECONDS = 0.2
ACCEPTS_PER_TURN = 16
#: How long no connection is accepted when there are no descriptors left.
PAUSE_SECONDS = 0.2

Open = Callable[[socket.socket, str], Coroutine[Any, Any, None]]


class Entrance:
    """Accepts connections on a socket, and has them opened.

    Made and used in an event loop.

    Parameters
    ----------
    listening:
        A socket that listens, which is this object's from here on.
    open_connection:
        ``await open_connection(sock, peer)`` runs the opening over an accepted socket, which doesn't block, and hands
        the connection over to the code that it is for. It closes the socket if it raises, or is cancelled.
    """

    def __init__(self, listening: socket.socket, open_connection: Open) -> None:
        self._listening = listening
        self._open_connection = open_connection
        self._loop = asyncio.get_running_loop()
        # Those that are opening, in the order in which they came: since when, and the address that each comes from.
        self._unopened: dict[asyncio.Task[None], tuple[float, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # these, and those that were turned away just now
        self._pause: asyncio.TimerHandle | None = None
        self._log = LimitedLog(logger)
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    @property
    def unopened(self) -> int:
        """How many connections are opening."""
        return len(self._unopened)

    async def close(self) -> None:
        """Stop accepting, and break off what is opening. Connections that are open stay open. Twice is no error."""
        if self._listening.fileno() < 0:
            return
        if self._pause is None:
            self._loop.remove_reader(self._listening)
        else:
            self._pause.cancel()
        self._listening.close()
        await asyncio.sleep(0)  # one that was accepted just now would end without having closed its socket
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._log.end_period()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            late = self._latecomer() if len(self._unopened) >= UNOPENED_MAX else None
            if late is not None and (patience := self._patience(late)) > 0:
                self._rest(patience)
                return
            try:
                sock, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._log.warning("accepting a connection failed: %s", error)
                self._rest(PAUSE_SECONDS)
                return
            sock.setblocking(False)
            if late is not None:
                self._turn_away(late)
            source, peer = _names(address)
            task = self._loop.create_task(self._open(sock, peer))
            self._unopened[task] = self._loop.time(), source
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._unopened.pop(task, None)

    def _latecomer(self) -> asyncio.Task[None]:
        """The one that goes if another one comes: the oldest one from the address that has the most."""
        counts = collections.Counter(source for _, source in self._unopened.values())
        most = max(counts.values())
        return next(task for task, (_, source) in self._unopened.items() if counts[source] == most)

    def _patience(self, task: asyncio.Task[None]) -> float:
        """The seconds that a connection still has to open in, whatever comes."""
        return self._unopened[task][0] + OPENING_LEAST_SECONDS - self._loop.time()

    def _turn_away(self, task: asyncio.Task[None]) -> None:
        _, source = self._unopened.pop(task)
        task.cancel()
        self._log.warning(
            "a connection from %s was closed, because it did not open while %d others came", source, UNOPENED_MAX
        )

    def _rest(self, seconds: float) -> None:
        """Accept no connection for a time: what comes waits in the kernel."""
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    async def _open(self, sock: socket.socket, peer: str) -> None:
        try:
            async with asyncio.timeout(OPENING_TIMEOUT_SECONDS):
                try:
                    await expect_greeting(sock)
                except BaseException:
                    sock.close()
                    raise
                await self._open_connection(sock, peer)
        except Refused as error:
            # One that rejoins, or comes again soon, knows the token, and is no sign of anything wrong.
            log = logger.info if error.code in ("restarted", "later") else self._log.warning
            log("refused a connection from %s: %s", peer, error)
        except ProtocolError as error:
            self._log.warning("closing the connection with %s: %s", peer, error)
        except TimeoutError:
            self._log.warning(
                "closing the connection with %s: the opening took longer than %g s", peer, OPENING_TIMEOUT_SECONDS
            )
        except OSError as error:
            logger.debug("%s left during the opening: %s", peer, error)
        except Exception:
            logger.exception("the opening with %s failed", peer)


def _names(address: Any) -> tuple[str, str]:
    """Of what has connected: the host, and the connection, for messages to people."""
    if isinstance(address, tuple):
        return str(address[0]), format_address(*address[:2])
    return "this host", "this host"
