"""Asking a page maker for pages (``page_maker.py``): the requests, and the store's side.

A request is a number and the extents to fill, pairs of offset and size; the answer is the number. A request ends the
one before, so one without extents ends all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Sequence

logger = logging.getLogger("holdfast.objectstore")

REQUEST_NBYTES_MAX = 64 << 10
_NUMBER = struct.Struct("<Q")
_EXTENT = struct.Struct("<QQ")


def extents_in(request: bytes) -> list[tuple[int, int]]:
    """The extents that a request is about."""
    return list(_EXTENT.iter_unpack(request[_NUMBER.size :]))


def answer_to(request: bytes) -> bytes:
    """What says that a request was done."""
    return request[: _NUMBER.size]


class RemoteFiller:
    """Has pages made by a page maker; a `PageFiller` of the headroom.

    Parameters
    ----------
    requests : socket.socket
        To the page maker, one that keeps messages apart (``SOCK_SEQPACKET``); this object's to close.

    Attributes
    ----------
    works : bool
        Whether the page maker has answered so far.
    """

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._number = 0
        self.works = True

    def fill(self, extents: Sequence[tuple[int, int]], stop: threading.Event) -> None:
        """Has pages made in the holes of the extents; returns when they are, or when ``stop`` is set."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)  # of an earlier end; that of this call is seen by ``stop``, or comes later
        try:
            self._send(extents)
            while not stop.is_set() and self._answer() != self._number:
                self._poll.poll()
            if stop.is_set():
                self._send(())  # its answer comes later, and isn't waited for
        except ConnectionError as error:
            logger.debug("the page maker doesn't answer: %s", error)
            self.works = False

    def interrupt(self) -> None:
        """Has a call of `fill` in another thread see that ``stop`` is set."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Lets the page maker end. Nothing may be asked any more."""
        self.works = False
        self._requests.close()
        os.close(self._wake)

    def _send(self, extents: Sequence[tuple[int, int]]) -> None:
        self._number += 1
        request = _NUMBER.pack(self._number) + b"".join(_EXTENT.pack(*extent) for extent in extents)
        try:
            self._requests.send(request, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise ConnectionAbortedError("it reads nothing any more") from None

    def _answer(self) -> int:
        """The number of the request that is answered; 0 if none is."""
        try:
            answer = self._requests.recv(_NUMBER.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        if not answer:
            raise ConnectionResetError("it has closed the socket")
        (number,) = _NUMBER.unpack(answer)
        return int(number)
