"""Pins: what keeps an object's bytes in place while anything in this process looks at them.

``get`` makes a pin and gives it to Arrow as the base of the buffer over the object's bytes. Whatever
is made from that buffer (an array, a slice of a column of a table) holds it, directly or not, so the pin
is finalised when the last of them is gone, and not before. A ``BoardPin`` is one that this process has taken by
itself (``board.py``); a ``Pin`` is one that the server was asked for.

A finaliser may run anywhere: on any thread, in the middle of a garbage collection, while this very
process holds this very store's locks. So it does three things only, none of which takes a lock: it appends to a list
or a deque, it takes its note out of a dictionary (``looks.py``), and it may put a token into a ``SimpleQueue``, which
is made for finalisers. The list is emptied by the next message that goes to the server anyhow; the token wakes a
thread that empties it if there is none: at once if the object is large, within milliseconds if it's small. A thread
that is about to let go of objects and will have a moment soon can undertake to empty it itself (``Ledger.defer``).

An interrupt (Ctrl-C) may come anywhere too: whenever a function begins, or one that is written in C returns. What must
happen together is written so that nothing is called in between.

A fork has the views, too, and no connection: what is alive when this process forks is *lent*, and isn't dropped at the
server before the fork has ended (``forks.py``).

The ledger also counts what is alive. The connection of a store that was closed stays open until that
count is zero, since the server takes a closed connection for the end of all of its pins.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from holdfast.objectstore.client.maps import Mapping
from holdfast.objectstore.client.views import Looks
from holdfast.objectstore.codecs.flat import SHARE_NBYTES
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.index import BoardView
from holdfast.objectstore.shared.protocol import IDS_PER_FRAME, Op, pack
from holdfast.objectstore.system import forks
from holdfast.objectstore.system.forks import Lease

URGENT_NBYTES = 1 << 20
_NAP_SECONDS = 0.01
_STOP = None


class Pin:
    """One look at one object, once it's granted: when its ``nbytes`` are known. Held by buffers, never by name."""

    __slots__ = ("_born", "_ledger", "nbytes", "object_id")

    def __init__(self, ledger: Ledger, object_id: ObjectID) -> None:
        self._ledger = ledger
        self._born = ledger.forks
        self.object_id = object_id
        self.nbytes = 0

    def __del__(self) -> None:
        try:
            granted = self.nbytes
        except AttributeError:  # an interrupt came before it had begun
            return
        if granted:
            self._ledger.drop(self.object_id, granted, self._born)
            self._ledger.looks.drop(self)


class BoardPin:
    """One look at the object in one slot of the board. Held by buffers, never by name."""

    __slots__ = ("_ledger", "nbytes", "slot")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.slot = 0
        self.nbytes = 0

    def __del__(self) -> None:
        try:
            slot = self.slot
        except AttributeError:  # an interrupt came before it had begun
            return
        if slot:
            self._ledger.drop_slot(slot, self.nbytes)
            if self.nbytes >= SHARE_NBYTES:
                self._ledger.looks.drop(self)


class WritableExtent:
    """Bytes of the arena that are this process's to write. Held by the array that is made of them.

    The array may outlive the seal, the abort, even the store; its memory must not become somebody
    else's while it can be written through. So the extent is given back here, when the array is gone: as
    an abort if it wasn't sealed, as an unpin if it was (``seal`` keeps a pin for it).

    Attributes
    ----------
    offset : int
        Where it is in the arena; less than zero before it's granted.
    sealed_as : ObjectID or None
        What it was sealed as.
    handed_over : bool
        Whether a seal takes it as it is: nobody writes any more, and no pin is kept.
    """

    __slots__ = ("__array_interface__", "_born", "_ledger", "_mapping", "handed_over", "nbytes", "offset", "sealed_as")

    def __init__(self, ledger: Ledger, mapping: Mapping, nbytes: int) -> None:
        self._ledger = ledger
        self._born = ledger.forks
        self._mapping = mapping
        self.nbytes = nbytes
        self.offset = -1
        self.sealed_as: ObjectID | None = None
        self.handed_over = False

    def view(self) -> memoryview:
        """The bytes. Everything made from them holds the extent."""
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (self.nbytes,),
            "typestr": "|u1",
            "data": (self._mapping.writable_address + self.offset, False),
        }
        return memoryview(np.asarray(self))  # type: ignore[arg-type]

    def __del__(self) -> None:
        try:
            handed_over = self.handed_over
        except AttributeError:  # an interrupt came before it had begun
            return
        if handed_over:
            self._ledger.drop(None, 0)
        elif self.offset >= 0:
            self._ledger.drop(self.offset if self.sealed_as is None else self.sealed_as, self.nbytes, self._born)
            self._ledger.looks.drop(self)


_Held = ObjectID | int | None
"""What is held by message: a pin on an object, a reservation at an offset, or one that a seal has taken."""


class _Lent(NamedTuple):
    """What has died here, but forks may have; and how often this process had forked when it began, and when it died."""

    what: _Held
    born: int
    died: float


class Dead(NamedTuple):
    """What has died: objects to unpin, offsets to abort, and what a seal has taken; slots of the board to look at.

    And of what a fork may still look at: which part of it has ended now, and which hasn't.
    """

    dropped: list[_Held]
    looks: list[int]
    returned: list[_Held]
    still_lent: list[_Lent]

    def frames(self) -> bytes:
        """What the server is to be told."""
        dropped = self.dropped + self.returned
        unpins = [what for what in dropped if isinstance(what, bytes)]
        aborts = [what for what in dropped if isinstance(what, int)]
        kinds: list[tuple[Op, list[Any]]] = [(Op.UNPIN, unpins), (Op.ABORT, aborts), (Op.LOOK, self.looks)]
        return b"".join(
            pack((op, names[start : start + IDS_PER_FRAME]))
            for op, names in kinds
            for start in range(0, len(names), IDS_PER_FRAME)
        )


class Ledger:
    """What one connection holds at the server, and what of it has died.

    Parameters
    ----------
    board : BoardView
        On which the pins are that this process has taken by itself.
    flush : callable
        Sends what has died. Called by the ledger's own thread; false once the connection is gone.
    on_end : callable
        Called after ``close``, when nothing is alive any more or the connection is gone.
    mapping : Mapping
        Kept while anything looks into it, and then let go of.

    Attributes
    ----------
    looks : Looks
        What large objects the pins are on.
    forks : int
        How often this process has forked: what is younger no fork has.
    """

    def __init__(
        self, board: BoardView, flush: Callable[[], bool], on_end: Callable[[], None], mapping: Mapping
    ) -> None:
        self.board = board
        self.looks = Looks()
        self.mapping = mapping
        self._flush = flush
        self._on_end = on_end
        self._disowned = False
        self._closing = False
        self.forks = 0
        self._dropped: list[_Held] = []
        self._lent: list[_Lent] = []
        self._leases: dict[Lease, float] = {}  # which fork it is, by number; infinite as long as that is near
        self._begin()
        forks.register(self)

    def _begin(self) -> None:
        self._tokens: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._armed = False
        self._deferring: set[int] = set()  # threads
        self._lock = threading.Lock()
        self._alive = 0
        self._thread: threading.Thread | None = None

    def pin(self, object_id: ObjectID, pin: BoardPin) -> int | None:
        """Pins an object on the board, if it can be found there: its offset."""
        if self._thread is None:
            self._start()
        place = self.board.pin(object_id, pin)
        if place is None:
            return None
        offset, pin.nbytes = place
        return offset

    def add(self) -> None:
        """Something will be alive: a pin or a reservation that is being asked for."""
        if self._thread is None:
            self._start()
        added = False
        try:
            with self._lock:
                self._alive += 1
                added = True
        except BaseException:  # an interrupt, as the lock was given back
            if added:
                self.discard()
            raise

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="holdfast-store-unpin", daemon=True)
                self._thread.start()

    def discard(self) -> None:
        """What was added was not given."""
        with self._lock:
            self._alive -= 1
        self._wake_if_closing()

    def drop(self, what: _Held, nbytes: int, born: int | None = None) -> None:
        """A pin on an object, a reservation at an offset, or one that a seal took, has died. Safe in a finaliser.

        ``born`` is what ``forks`` was when it began; None if nobody had a view of it.
        """
        if self._disowned:
            return
        if born is not None and self._leases:
            is_near = math.inf in self._leases.values()
            self._lent.append(_Lent(what, born, math.inf if is_near else self.forks))
        else:
            self._dropped.append(what)
        self._wake(nbytes)

    def drop_slot(self, slot: int, nbytes: int) -> None:
        """A pin on the board has died. Safe in a finaliser."""
        if self._disowned:
            return
        self.board.dropped.append(slot)
        self._wake(nbytes)

    def defer(self) -> None:
        """This thread will call ``settle`` soon: for what dies in it until then no other one is woken."""
        self._deferring.add(threading.get_ident())

    def settle(self) -> None:
        """Sends what has died, if this thread has deferred that."""
        thread = threading.get_ident()
        if thread in self._deferring:
            self._deferring.discard(thread)
            if self.pending:
                self._flush()

    def _wake(self, nbytes: int) -> None:
        if self._closing:
            self._tokens.put(True)
        elif threading.get_ident() in self._deferring:
            return
        elif nbytes >= URGENT_NBYTES:
            self._tokens.put(True)
        elif not self._armed:
            self._armed = True
            self._tokens.put(False)

    @property
    def pending(self) -> bool:
        """Whether there's anything that the server hasn't been told."""
        return bool(self._dropped) or self.board.pending or bool(self._lent)

    def dead(self) -> Dead:
        """What has died since the last ``tell``. Not to be called by two threads at a time."""
        returned: list[_Held] = []
        still_lent: list[_Lent] = []
        if lent := self._lent[:]:
            forks = list(self._leases.values())
            for each in lent:
                if any(each.born < fork <= each.died for fork in forks):
                    still_lent.append(each)
                else:
                    returned.append(each.what)
        return Dead(self._dropped[:], self.board.unpin(), returned, still_lent)

    def tell(self, dead: Dead, outgoing: bytearray) -> None:
        """Adds what has died to what goes to the server, and forgets it."""
        frames, count, returned = dead.frames(), len(dead.dropped), len(dead.returned)
        lent = returned + len(dead.still_lent)
        with self._lock:
            outgoing += frames
            del self._dropped[:count]
            self._lent[:lent] = dead.still_lent
            self._alive -= count + returned
        self.board.told()

    # Forks

    def set_aside(self, lease: Lease) -> None:
        """A fork is near: no pin ends until ``lend``. Twice is no error."""
        self._leases.setdefault(lease, math.inf)
        self.board.set_aside(lease)

    def lend(self, lease: Lease) -> bool:
        """Keeps what is alive until ``take_back``, for a fork; whether there's anything. Twice is no error."""
        has_lent = self.board.lend(lease) or self._alive > 0
        if self._leases[lease] == math.inf:
            self.forks += 1
            self._leases[lease] = self.forks
        return has_lent

    def take_back(self, lease: Lease) -> None:
        """The fork has ended, and has let go of what it was lent."""
        self.board.take_back(lease)
        del self._leases[lease]
        if self.pending:
            self._wake(URGENT_NBYTES)

    def close(self) -> None:
        """No more will be added. ``on_end`` is called as soon as nothing is alive: now, or by the thread."""
        if self._disowned:
            return
        self._closing = True
        connected = self._flush()
        with self._lock:
            thread, empty = self._thread, self._empty()
        if connected and not empty:
            self._tokens.put(True)
            return
        self._end()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def abandon(self) -> None:
        """``close`` for a finaliser: takes no lock and waits for nothing."""
        if self._disowned:
            return
        self._closing = True
        if self._thread is None:
            self._end()
        else:
            self._tokens.put(True)

    def _end(self) -> None:
        if self._empty():  # otherwise the connection is gone, and the mapping goes with the last view
            self.mapping.let_go()
        self._on_end()

    def stop(self) -> None:
        """Ends the thread; the connection is gone."""
        self._tokens.put(_STOP)

    def disown(self) -> None:
        """This is a forked child: what is alive here is the parent's to drop. Takes no lock."""
        self._disowned = True
        self.looks.clear()
        self._dropped.clear()
        self._lent.clear()
        self.board.disown()
        self._begin()

    def _empty(self) -> bool:
        return self._alive == 0 and self.board.held == 0

    def _wake_if_closing(self) -> None:
        if self._closing:
            self._tokens.put(True)

    def _run(self) -> None:
        while True:
            urgent = self._tokens.get()
            if urgent is False:
                with contextlib.suppress(queue.Empty):
                    urgent = self._tokens.get(timeout=_NAP_SECONDS)
            if urgent is _STOP:
                return
            self._armed = False
            if not self._flush():
                return
            if self._closing:
                with self._lock:
                    empty = self._empty()
                if empty:
                    self._end()
                    return
