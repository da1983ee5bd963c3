"""A link between an asker and a node agent's port that stalls, breaks or changes bytes when it is told to."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from holdfast.cluster.comm.addresses import parse_address

GET_NBYTES = 17
_SLOW_NBYTES = 32 << 10


class SlowLink:
    """Relays connections to a node's port. What the holder sends is not read while the link is held.

    Parameters
    ----------
    target : str
        The address of the node.
    change : callable
        What becomes of a piece that the holder sends.
    change_sent : callable
        What becomes of a piece that the asker sends.
    rate : int, optional
        How many bytes a second of the holder's may pass.

    Attributes
    ----------
    address : str
        Where to ask.
    hold_next_get : bool
        Hold the link as soon as an object is asked for, once.
    asked : threading.Event
        An object has been asked for.
    """

    def __init__(
        self,
        target: str,
        *,
        change: Callable[[bytes], bytes] = bytes,
        change_sent: Callable[[bytes], bytes] = bytes,
        rate: int | None = None,
    ) -> None:
        self._target = parse_address(target)
        self._change = change
        self._change_sent = change_sent
        self._rate = rate
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.hold_next_get = False
        self.asked = threading.Event()
        self._flowing = threading.Event()
        self._flowing.set()
        self._left: int | None = None
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listening.close()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()
        for sock in self._sockets:
            sock.close()

    def hold(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        """Break all connections that there are."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.resume()

    def cut_after(self, nbytes: int | None) -> None:
        """Break a connection when the holder has sent so many more bytes; None: don't any more."""
        self._left = nbytes

    def _accept(self) -> None:
        while True:
            try:
                asker, _ = self._listening.accept()
            except OSError:
                return
            try:
                holder = self._connect()
            except OSError:
                asker.close()
                continue
            self._sockets += [asker, holder]
            for relay in (self._from_asker, self._from_holder):
                thread = threading.Thread(target=relay, args=(asker, holder), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _connect(self) -> socket.socket:
        sock = socket.socket()
        if self._rate is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_NBYTES)  # what waits waits with the holder
        try:
            sock.connect(self._target)
        except BaseException:
            sock.close()
            raise
        return sock

    def _from_asker(self, asker: socket.socket, holder: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := asker.recv(1 << 20):
                if len(data) == GET_NBYTES and data[:1] == b"G":
                    if self.hold_next_get:
                        self.hold_next_get = False
                        self.hold()
                    self.asked.set()
                holder.sendall(self._change_sent(data))
        with contextlib.suppress(OSError):
            holder.shutdown(socket.SHUT_RDWR)

    def _from_holder(self, asker: socket.socket, holder: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                holder.recv(1, socket.MSG_PEEK)
                self._flowing.wait()
                data = holder.recv(1 << 20 if self._rate is None else _SLOW_NBYTES)
                if self._rate is not None:
                    time.sleep(len(data) / self._rate)
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                asker.sendall(self._change(data))
                if not data or self._left == 0:
                    break
        for sock in (asker, holder):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
