"""The holdings: what one connection holds at the server, and what of it has died and is to be told there.

A finaliser of a pin (``pins.py``) only notes what has died, in a list. The list is emptied by the next message that
goes to the server anyhow. If there is none, a token wakes a thread for this, which empties it: at once if the object
is large, within milliseconds if it's small. A thread that is about to let go of objects and will have a moment soon can
undertake to empty the list itself (``Holdings.defer``).

A fork has the views, too, and no connection: what is alive when this process forks is *kept* for the fork, and isn't
dropped at the server before the fork has ended (``forks.py``).

The holdings also count what is alive. The connection of a store that was closed stays open until that
count is zero, since the server takes a closed connection for the end of all of its pins.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from holdfast.objectstore.client.arena_maps import ArenaMaps
from holdfast.objectstore.client.index_view import IndexView, SlotHolder
from holdfast.objectstore.client.views import Views
from holdfast.objectstore.shared.frames import pack
from holdfast.objectstore.shared.ids import ObjectID
from holdfast.objectstore.shared.protocol import IDS_PER_FRAME, Op
from holdfast.objectstore.system import forks
from holdfast.objectstore.system.forks import Fork

URGENT_NBYTES = 1 << 20
_NAP_SECONDS = 0.01
_STOP = None

_Held = ObjectID | int | None
"""What is held by message: a pin on an object, a reservation at an offset, or one that a seal has taken."""


class _Kept(NamedTuple):
    """What has died here, but forks may have; and how often this process had forked when it began, and when it died."""

    what: _Held
    born: int
    died: float


class Dead(NamedTuple):
    """What has died: objects to unpin, offsets to abort, and what a seal has taken; slots of the index without pins.

    And of what a fork may still look at: which part of it has ended now, and which hasn't.
    """

    dropped: list[_Held]
    last_unpins: list[int]
    returned: list[_Held]
    still_kept: list[_Kept]

    def frames(self) -> bytes:
        """What the server is to be told."""
        dropped = self.dropped + self.returned
        unpins = [what for what in dropped if isinstance(what, bytes)]
        aborts = [what for what in dropped if isinstance(what, int)]
        kinds: list[tuple[Op, list[Any]]] = [(Op.UNPIN, unpins), (Op.ABORT, aborts), (Op.LAST_UNPIN, self.last_unpins)]
        return b"".join(
            pack((op, names[start : start + IDS_PER_FRAME]))
            for op, names in kinds
            for start in range(0, len(names), IDS_PER_FRAME)
        )


class Holdings:
    """What one connection holds at the server, and what of it has died.

    Parameters
    ----------
    index : IndexView
        With the pins that this process has taken by itself.
    flush : callable
        Sends what has died. Called by a thread of this object; false once the connection is gone.
    on_end : callable
        Called after ``close``, when nothing is alive any more or the connection is gone.
    maps : ArenaMaps
        Kept while anything looks into the arena, and then let go of.
    soon : callable, optional
        ``soon(function, seconds)`` has the function called after so many seconds, from wherever it is called itself,
        also in a finaliser: an event loop, which takes the place of that thread until ``close``.

    Attributes
    ----------
    views : Views
        What large objects the pins are on.
    fork_count : int
        How often this process has forked: what is younger no fork has.
    """

    def __init__(
        self,
        index: IndexView,
        flush: Callable[[], bool],
        on_end: Callable[[], None],
        maps: ArenaMaps,
        soon: Callable[[Callable[[], object], float], object] | None = None,
    ) -> None:
        self._soon = soon
        self.index = index
        self.views = Views()
        self.maps = maps
        self._flush = flush
        self._on_end = on_end
        self._disowned = False
        self._closing = False
        self.fork_count = 0
        self._dropped: list[_Held] = []
        self._kept: list[_Kept] = []
        self._forks: dict[Fork, float] = {}  # the number of each; infinite as long as that is near
        self._begin()
        forks.register(self)

    def _begin(self) -> None:
        self._tokens: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._armed = False
        self._deferring: set[int] = set()  # threads
        self._lock = threading.Lock()
        self._alive = 0
        self._thread: threading.Thread | None = None

    def pin(self, object_id: ObjectID, pin: SlotHolder) -> int | None:
        """Pins an object that can be found in the index: its offset. None if it isn't there."""
        if self._thread is None and self._soon is None:
            self._start()
        place = self.index.pin(object_id, pin)
        if place is None:
            return None
        offset, pin.nbytes = place
        return offset

    def add(self) -> None:
        """Something will be alive: a pin or a reservation that is being asked for."""
        if self._thread is None and self._soon is None:
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

        ``born`` is what ``forks`` was when it began; None if there was no view of it.
        """
        if self._disowned:
            return
        if born is not None and self._forks:
            is_near = math.inf in self._forks.values()
            self._kept.append(_Kept(what, born, math.inf if is_near else self.fork_count))
        else:
            self._dropped.append(what)
        self._wake(nbytes)

    def drop_slot(self, slot: int, nbytes: int) -> None:
        """A pin in the index has died. Safe in a finaliser."""
        if self._disowned:
            return
        self.index.dropped.append(slot)
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
            self._send(True)
        elif threading.get_ident() in self._deferring:
            return
        elif nbytes >= URGENT_NBYTES:
            self._send(True)
        elif not self._armed:
            self._armed = True
            self._send(False)

    def _send(self, urgent: bool) -> None:
        """Has what has died sent: now, or with what dies in a moment. Safe in a finaliser."""
        soon = self._soon
        if soon is None:
            self._tokens.put(urgent)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: it is sent when the store is
            soon(self._step, 0.0 if urgent else _NAP_SECONDS)

    @property
    def pending(self) -> bool:
        """Whether there's anything that the server hasn't been told."""
        return bool(self._dropped) or self.index.pending or bool(self._kept)

    def dead(self) -> Dead:
        """What has died since the last ``tell``. Not to be called by two threads at a time."""
        returned: list[_Held] = []
        still_kept: list[_Kept] = []
        if kept := self._kept[:]:
            numbers = list(self._forks.values())
            for each in kept:
                if any(each.born < number <= each.died for number in numbers):
                    still_kept.append(each)
                else:
                    returned.append(each.what)
        return Dead(self._dropped[:], self.index.unpin(), returned, still_kept)

    def tell(self, dead: Dead, outgoing: bytearray) -> None:
        """Adds what has died to what goes to the server, and forgets it."""
        frames, count, returned = dead.frames(), len(dead.dropped), len(dead.returned)
        kept = returned + len(dead.still_kept)
        with self._lock:
            outgoing += frames
            del self._dropped[:count]
            self._kept[:kept] = dead.still_kept
            self._alive -= count + returned
        self.index.told()

    # Forks

    def before_fork(self, fork: Fork) -> None:
        """A fork is near: no pin ends until ``after_fork``. Twice is no error."""
        self._forks.setdefault(fork, math.inf)
        self.index.before_fork(fork)

    def after_fork(self, fork: Fork) -> bool:
        """Keeps what is alive until the fork has ended; whether there's anything. Twice is no error."""
        has_any = self.index.after_fork(fork) or self._alive > 0
        if self._forks[fork] == math.inf:
            self.fork_count += 1
            self._forks[fork] = self.fork_count
        return has_any

    def fork_ended(self, fork: Fork) -> None:
        """The fork has ended: what was kept for it may go."""
        self.index.fork_ended(fork)
        del self._forks[fork]
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
            # What was got outlives the store, and maybe the loop.
            self._soon = None
            self._start()
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
            self.maps.let_go()
        self._on_end()

    def stop(self) -> None:
        """Ends the thread; the connection is gone."""
        self._tokens.put(_STOP)

    def disown(self) -> None:
        """This is a forked child: what is alive here is the parent's to drop. Takes no lock."""
        self._disowned = True
        self.views.clear()
        self._dropped.clear()
        self._kept.clear()
        self.index.disown()
        self._begin()

    def _empty(self) -> bool:
        return self._alive == 0 and self.index.held == 0

    def _wake_if_closing(self) -> None:
        if self._closing:
            self._send(True)

    def _run(self) -> None:
        while True:
            urgent = self._tokens.get()
            if urgent is False:
                with contextlib.suppress(queue.Empty):
                    urgent = self._tokens.get(timeout=_NAP_SECONDS)
            if urgent is _STOP:
                return
            if not self._step():
                return

    def _step(self) -> bool:
        """Sends what has died; whether more may die."""
        self._armed = False
        if not self._flush():
            if self._closing:
                self._on_end()
            return False
        if self._closing:
            with self._lock:
                empty = self._empty()
            if empty:
                self._end()
                return False
        return True
