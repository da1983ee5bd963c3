"""Making pages before they're asked for: a headroom of free memory that the next large object finds ready.

The first write to a page of the arena costs the kernel a page: a copy onto new pages runs at a tenth of
the speed of one onto pages that are there. So a thread of the server makes pages ahead of demand, in free
extents and from their low end, where the allocator carves. It goes for some room for small objects first, and then for
the largest extents: that is where a large object goes, and what is smaller was mostly written, and freed, before. How
the pages are made is in ``filling.py``.

It is bounded in every direction. The free pages that take up memory, whichever process made them, are never raised
above the headroom's limit: a quarter of the store, 1 GiB, and a tenth of the memory that is available at that moment.
The thread works half of the time, so that it never takes more than half a core from tasks that compute, and it ends
when the headroom is full. The next use that leaves noticeably less of it free starts another. A store that no client
uses has no thread and no timer, and once its pages were given back (``trim.py``) it makes none before it is used again.

Which extents are free is read in the loop; by the time that pages are made there a client may have been given
them. That is harmless: making a page changes no byte, and the client would have paid for it. What it has written to is
left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from holdfast.objectstore.memory.allocator import Allocator
from holdfast.objectstore.memory.arena import Arena
from holdfast.objectstore.memory.filling import fill
from holdfast.objectstore.system.memory_limits import available_memory

_PAUSE_SECONDS = 0.05
#: So much less of the headroom starts a pass.
_LEAST_NBYTES = 8 << 20
_EXTENTS_MAX = 256
_EXTENT_NBYTES_MIN = 1 << 20
_HEADROOM_NBYTES_MAX = 1 << 30
_CAPACITY_SHARE = 0.25
_AVAILABLE_SHARE = 0.1


def headroom_limit(capacity: int) -> int:
    """The most bytes of free pages to have at the ready, in a store of ``capacity`` bytes, now."""
    return int(min(capacity * _CAPACITY_SHARE, _HEADROOM_NBYTES_MAX, available_memory() * _AVAILABLE_SHARE))


class PageFiller(Protocol):
    """Makes pages elsewhere, as `fill` does here."""

    works: bool

    def fill(self, extents: Sequence[tuple[int, int]], stop: threading.Event) -> None:
        """Makes pages as `fill` does, and returns when that is done, or ``stop`` is set; for one thread."""

    def interrupt(self) -> None:
        """To be called when ``stop`` was set, in any thread: `fill` returns at once then."""


class Headroom:
    """Keeps one store's headroom. All methods are the loop's to call.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Whose timer is used.
    arena, allocator : Arena, Allocator
        The pages, and the books that say which are free.
    limit : callable
        The bytes of free pages that may take up memory; asked before each piece, by a thread.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, arena: Arena, allocator: Allocator, limit: Callable[[], int]
    ) -> None:
        self._loop = loop
        self._arena = arena
        self._allocator = allocator
        self._limit = limit
        self._maker: PageFiller | None = None
        self._used_nbytes = -1  # as the last pass found it, or less since: only more use makes another necessary
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._cancelled = False

    @property
    def busy(self) -> bool:
        """Whether the headroom is growing, or about to."""
        return self._timer is not None or self._thread is not None

    def headroom(self) -> list[tuple[int, int]]:
        """Where the next large objects will lie: free extents, the largest first, cut to the limit's sum."""
        left = self._limit()
        extents: list[tuple[int, int]] = []
        for offset, nbytes in self._free_extents():
            if left <= 0:
                break
            extents.append((offset, min(nbytes, left)))
            left -= nbytes
        return extents

    def have_made_by(self, maker: PageFiller | None) -> None:
        """From here on ``maker`` makes the pages, as long as it works; None: they're made in this process."""
        self.pause()
        self._maker = maker
        self.touch()

    def touch(self) -> None:
        """The store was used."""
        used = self._allocator.used_nbytes
        if used <= self._used_nbytes:
            self._used_nbytes = used
            return
        # A pass looks at all there is: small results that come and go aren't worth it.
        worth_it = self._used_nbytes < 0 or used >= self._used_nbytes + _LEAST_NBYTES
        if worth_it and not self.busy and not self._cancelled:
            self._timer = self._loop.call_later(_PAUSE_SECONDS, self._begin)

    def pause(self) -> None:
        """Makes no more pages until the next ``touch``. Waits for a piece that is being made here, milliseconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._thread is not None:
            self._stop.set()
            if self._maker is not None:
                self._maker.interrupt()
            self._thread.join()
            self._thread = None
        self._used_nbytes = -1

    def cancel(self) -> None:
        """Makes no more pages at all."""
        self._cancelled = True
        self.pause()

    def _begin(self) -> None:
        self._timer = None
        self._used_nbytes = self._allocator.used_nbytes
        self._stop = threading.Event()
        arguments = self._free_extents(), self._stop
        self._thread = threading.Thread(target=self._run, args=arguments, name="holdfast-store-headroom", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there may be no more threads: then pages are made when they are written to
            self._thread = None

    def _free_extents(self) -> list[tuple[int, int]]:
        extents = self._allocator.next_extents(_EXTENTS_MAX)
        return [(offset, nbytes) for offset, nbytes in extents if nbytes >= _EXTENT_NBYTES_MIN]

    def _run(self, extents: list[tuple[int, int]], stop: threading.Event) -> None:
        maker = self._maker
        try:
            if maker is not None and maker.works:
                maker.fill(extents, stop)
            if (maker is None or not maker.works) and not stop.is_set():
                fill(self._arena, extents, self._limit, stop.wait)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop was closed without us
                self._loop.call_soon_threadsafe(self._end, stop)

    def _end(self, stop: threading.Event) -> None:
        if self._stop is stop and not stop.is_set():
            self._thread = None
            self.touch()
