"""Making a store's pages in time that no other process wants: what a process does that is there for nothing else.

To make a page keeps a processor, in the kernel, for a fraction of a millisecond, or for several where the machine is a
virtual one whose host has to find the memory first. A task that is woken there meanwhile waits. So it's done by a
process of the lowest priority there is (``SCHED_IDLE``), which the kernel takes off the processor for any other
process.

It can't be a thread of the process that runs the store: preempted while it held the interpreter's lock it would keep
the store waiting. And the lowest priority is not enough. A task that was preempted, or has slept, is owed some time,
even one that hardly counts; and what it does in the kernel is done in one go. So the page maker also looks how long it
had to wait while it made a page. If others have taken the processor in the meantime, they have much to do just now, in
short pieces, and it leaves them alone for a while.

Here is the inside of that process (`serve`); ``page_requests.py`` has the store's side. The process that runs the store
starts this one and keeps it running.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import time
from collections.abc import Iterator

from holdfast.objectstore.memory.filling import fill
from holdfast.objectstore.memory.headroom import headroom_limit
from holdfast.objectstore.memory.page_requests import REQUEST_NBYTES_MAX, answer_to, extents_in
from holdfast.objectstore.system.file_maps import FileMap
from holdfast.objectstore.system.pages import (
    HUGE_PAGE,
    HugePageSupply,
    current_processor,
    make_huge_page,
    populate,
)

#: How long others are left alone after they were in need of the processor: so many times as long as the piece took,
#: so that few of them ever meet with one, and no longer than that.
_PAUSE_FACTOR = 30
_PAUSE_SECONDS_MAX = 0.1
#: What the kernel's own threads take now and then, and waiting for them, is less.
_WAITED_SECONDS_MIN = 0.0003


class _MappedPages:
    """The pages of an arena that belongs to another process."""

    def __init__(self, fd: int, nbytes: int) -> None:
        self.fd = fd
        self._map = FileMap(fd, 0, nbytes, flags=mmap.MAP_SHARED, writable=True, alignment=HUGE_PAGE)
        self._supply = HugePageSupply()

    def make_huge_page(self, offset: int) -> bool:
        with _on_one_processor():  # of which each has its own memory that was given back
            self._supply.prepare()
            return make_huge_page(self._map.address + offset)

    def populate(self, offset: int, nbytes: int) -> bool:
        return populate(self._map.address + offset, nbytes)


@contextlib.contextmanager
def _on_one_processor() -> Iterator[None]:
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {current_processor()})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


class _Politeness:
    """Pauses while others need the processor, or until there is something to read from a socket."""

    def __init__(self, requests: socket.socket) -> None:
        self._poll = select.poll()
        self._poll.register(requests, select.POLLIN)
        self._worked = time.process_time()

    def pause(self, seconds: float) -> bool:
        """Waits, if it's better to after a piece that took so long; whether there is something to read."""
        worked = time.process_time()
        waited = seconds - (worked - self._worked)
        self._worked = worked
        pause = min(_PAUSE_FACTOR * seconds, _PAUSE_SECONDS_MAX) if waited > _WAITED_SECONDS_MIN else 0.0
        return bool(self._poll.poll(pause * 1000))


def lower_priority() -> None:
    """Gives this process the lowest priority, where that is allowed."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def serve(requests: socket.socket, arena_fd: int, capacity: int) -> None:
    """Makes pages of a store of ``capacity`` bytes until the other end of the socket is closed.

    Parameters
    ----------
    requests : socket.socket
        Gives the requests of ``page_requests.py``.
    arena_fd : int
        A writable descriptor of the arena.
    capacity : int
        The store's, in bytes.
    """
    pages = _MappedPages(arena_fd, os.fstat(arena_fd).st_size)
    politeness = _Politeness(requests)
    while request := requests.recv(REQUEST_NBYTES_MAX):
        fill(pages, extents_in(request), lambda: headroom_limit(capacity), politeness.pause)
        requests.send(answer_to(request))
