"""Mapping pages before they're used: the client's half of a put, and of a first look, that is fast.

Pages that the server made (``memory/headroom.py``), or that another process wrote, are there, but not in this
process's page tables: each costs it a fault, and those make a copy five times slower. Populating a
range maps its pages in one call, at a twentieth of the price of the faults. It happens twice:

* **Ahead.** Once a process is known to write large objects (``connect`` was told so, or it has reserved
  one) a thread asks the server where the next ones will lie, maps the pages that are there, and ends as
  soon as the server's headroom stops growing. Pages that aren't there are left alone: making them would
  take memory. Huge ones it maps to be read, too, which costs next to nothing: whatever is written there, by
  whomever, this process then reads without a fault. It works half of the time, and a process that only reads never
  starts it.
* **On demand.** A large object about to be written has the rest of its pages mapped (made, if they
  aren't there), by as many threads as copy it.

What is mapped already is not remembered, it is looked up, since the kernel unmaps what the server gives
back: ``page_table.py`` says of any page whether it's mapped, and one page speaks for its piece. Where that can't be
known, none is: to map twice is still cheap.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator

from holdfast.objectstore.client.arena_maps import ArenaMaps
from holdfast.objectstore.client.connection import StoreConnection
from holdfast.objectstore.errors import StoreError
from holdfast.objectstore.shared.protocol import Op
from holdfast.objectstore.system.page_table import PageTable
from holdfast.objectstore.system.pages import HUGE_PAGE, make_huge_page, populate, populate_to_read

_THREADS = min(4, os.cpu_count() or 1)
_PAUSE_SECONDS_MIN = 0.1
_PAUSE_SECONDS_MAX = 1.6
#: It works for so long before it pauses for as long: the shortest sleep takes a tenth of it.
_SLICE_SECONDS = 0.0005
_PATIENCE_SECONDS = 60.0
_JOIN_SECONDS = 1.0


class Warmer:
    """Keeps this process's maps ready for large objects.

    Parameters
    ----------
    maps : ArenaMaps
        Of this process.
    connection : StoreConnection
        Whose server knows what will be written next.
    """

    def __init__(self, maps: ArenaMaps, connection: StoreConnection) -> None:
        self._maps = maps
        self._connection = connection
        self._thread: threading.Thread | None = None
        self._again = False
        # A queue that is safe to put to wherever the end comes: in a finaliser, or in a forked child.
        self._stop: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = False

    def ahead(self) -> None:
        """Maps what will be written next, in the background. Cheap to call before every large object."""
        self._again = True
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self._run, name="holdfast-store-warm", daemon=True)
            self._thread.start()

    def now(self, offset: int, nbytes: int) -> None:
        """Maps the pages of an extent that is about to be written."""
        start = self._maps.writable_address
        with PageTable() as table:
            pieces = [piece for piece in _pieces(offset, nbytes) if not table.is_mapped(start + sum(piece) - 1)]
        share = -(-len(pieces) // _THREADS)
        helpers = [
            threading.Thread(target=self._make, args=(pieces[start : start + share],))
            for start in range(share, len(pieces), share or 1)
        ]
        for helper in helpers:
            helper.start()
        self._make(pieces[:share])
        for helper in helpers:
            helper.join()

    def stop(self) -> None:
        """Begins nothing more, and tells the thread to end."""
        self._stopped = True
        self._stop.put(None)

    def join(self) -> None:
        """Waits for the thread, after ``stop``. Not for long: it may wait for a server that is stuck."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        try:
            growing = True
            pauses = _pauses()
            while (growing or self._again) and not self._nap(next(pauses)):
                self._again = False
                extents, growing = self._connection.call(Op.HEADROOM, timeout=_PATIENCE_SECONDS)
                for offset, nbytes in extents:
                    if not self._map_resident(offset, nbytes):
                        return
        except StoreError:
            pass  # the store is gone, or it is stuck: the next call that uses the store is told so
        finally:
            self._thread = None

    def _map_resident(self, offset: int, nbytes: int) -> bool:
        """Maps what of an extent is there, piece by piece. False if it's time to end."""
        maps = self._maps
        began = time.monotonic()
        with PageTable() as table:
            for piece in _pieces(offset, nbytes):
                end = sum(piece)
                # Piece by piece: to ask for the holes of a whole extent keeps a processor for milliseconds.
                if not table.is_mapped(maps.writable_address + end - 1):
                    if not maps.is_resident(*piece):
                        continue
                    if not self._map(*piece):
                        return False
                if piece[1] == HUGE_PAGE and not table.is_mapped(maps.address + end - 1):
                    populate_to_read(maps.address + piece[0], 1)  # of small ones, a few
                worked = time.monotonic() - began
                if worked >= _SLICE_SECONDS:
                    if self._nap(worked):
                        return False
                    began = time.monotonic()
        return True

    def _nap(self, seconds: float) -> bool:
        """Waits. True as soon as it's time to end."""
        with contextlib.suppress(queue.Empty):
            self._stop.get(timeout=seconds)
        return self._stopped

    def _make(self, pieces: list[tuple[int, int]]) -> None:
        for offset, nbytes in pieces:
            if nbytes == HUGE_PAGE and self._maps.is_hole(offset, nbytes):
                make_huge_page(self._maps.writable_address + offset)
            if not self._map(offset, nbytes):
                return

    def _map(self, offset: int, nbytes: int) -> bool:
        return populate(self._maps.writable_address + offset, nbytes)


def _pieces(offset: int, nbytes: int) -> Iterator[tuple[int, int]]:
    """The parts of an extent, cut where huge pages begin: each one's offset and size."""
    end = offset + nbytes
    while offset < end:
        until = min(offset // HUGE_PAGE * HUGE_PAGE + HUGE_PAGE, end)
        yield offset, until - offset
        offset = until


def _pauses() -> Iterator[float]:
    """Seconds between one look at the headroom and the next: each looks at all of it."""
    pause = _PAUSE_SECONDS_MIN
    while True:
        yield pause
        pause = min(2 * pause, _PAUSE_SECONDS_MAX)
