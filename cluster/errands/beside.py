"""The way of a process that does errands beside another one: a socket that it was started with, and no loop."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from holdfast.cluster.comm import frames
from holdfast.cluster.comm.frame_reader import FrameReader

_RECEIVE_NBYTES = 1 << 20


class Beside:
    """The process that this one is beside, as seen from here.

    Parameters
    ----------
    sock
        The way to it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = threading.Lock()

    def send(self, message: tuple[Any, ...]) -> None:
        """Say something, in any thread. Nothing happens if that process is gone: then this one ends."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(b"".join(frames.pack([message])))

    def messages(self) -> Iterator[Any]:
        """What it says, until it says no more."""
        reader = FrameReader()
        while received := self._receive():
            for batch in reader.feed(received):
                yield from batch

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_NBYTES)
        except OSError:
            return b""


def leave() -> None:
    """End this process. A function may run still, and is not waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
