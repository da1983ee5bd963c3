"""Slots: the right to run one task. A worker has as many slots as it runs tasks at a time.

Terms
-----
slot
    Belongs to the thread that holds it; a thread runs a task only while it holds one.
blocked
    A task in the middle of its work that waits for something which other tasks have to bring about. It keeps its thread
    and all that is on its stack, and lends its slot.
to return
    A blocked task whose wait is over gets a slot again before it goes on.

Invariants
----------
1. No more tasks run at a time than there are slots.
2. Of the tasks that return, the one that was blocked last comes first: it is the deepest of its kind, and what it
   brings about lets the others return.
3. If a slot is free, nothing waits to return.
4. The ledger names a thread in one slot at most, the one that it had last: there the agent finds what a thread was
   doing that a signal came in.
5. Each slot is free, held, or on its way to a blocked task. Code that gives calls a time limit may raise an exception
   in a task's thread from another thread, between any two steps of what is done here. So when a run ends that has lent
   its slot, this is put in order again.

All methods are called with one lock held, that of the queue of tasks (`threads`): a thread takes a task together with a
slot.
"""

from __future__ import annotations

import heapq
import itertools
import threading

from holdfast.cluster.worker.ledger import WorkerLedger

#: What Python calls no thread.
_NO_THREAD = 0


class Slot:
    """The right to run one task.

    Attributes
    ----------
    take
        ``take(run_id)`` notes in the ledger which run is in it; 0 for none.
    thread : int
        The thread that had it last; 0 if that has another one since.
    """

    __slots__ = ("_ledger", "_number", "take", "thread")

    def __init__(self, number: int, ledger: WorkerLedger) -> None:
        self._number = number
        self._ledger = ledger
        self.take = ledger.taker(number)
        self.thread = 0

    def hold(self, thread: int) -> None:
        """The calling thread, which is another one than before, has it from now on."""
        self.thread = thread
        self._ledger.hold(self._number)

    def forget_thread(self) -> None:
        """The thread that had it has another one."""
        self.thread = 0
        self._ledger.forget_thread(self._number)


class Blocked:
    """A task that is blocked.

    Attributes
    ----------
    order : int
        How many were blocked before it.
    gate : threading.Lock
        Held while it waits for a slot.
    slot : Slot or None
        The one that it has got.
    """

    __slots__ = ("gate", "order", "slot")

    def __init__(self) -> None:
        self.order = 0
        self.gate = threading.Lock()
        self.slot: Slot | None = None


class Slots:
    """The slots of a worker.

    Parameters
    ----------
    count
        How many there are.
    ledger
        Of this process.

    Attributes
    ----------
    free : list of Slot
        Those that no run holds.
    held : dict
        The others, by the thread that holds each.
    blocked : dict
        What is blocked, by thread; until it has a slot again.
    returning : list
        A heap of what waits for a slot, to return.
    lent : dict
        The runs that have lent a slot and not ended: their places in the ledger.
    """

    def __init__(self, count: int, ledger: WorkerLedger) -> None:
        self._ledger = ledger
        self._order = itertools.count()
        self._all = [Slot(number, ledger) for number in reversed(range(count))]
        self.free = list(self._all)
        self.held: dict[int, Slot] = {}
        self.blocked: dict[int, Blocked] = {}
        self.returning: list[tuple[int, Blocked]] = []
        self.lent: dict[int, int] = {}

    def take(self, thread: int) -> Slot:
        """The calling thread takes a slot that is free."""
        slot = self.held[thread] = self.free.pop()
        if slot.thread != thread:
            self._hold(slot, thread)
        return slot

    def _hold(self, slot: Slot, thread: int) -> None:
        """The calling thread has a slot that is not the one that it had last (4)."""
        for other in self._all:
            if other.thread == thread:
                other.forget_thread()
        slot.hold(thread)

    def leave(self, thread: int) -> None:
        """A thread has no use for its slot any more: a task that returns gets it, if there is one."""
        slot = self.held.pop(thread)
        if self.returning:
            _, blocked = heapq.heappop(self.returning)
            blocked.slot = slot
            blocked.gate.release()
        else:
            self.free.append(slot)

    def lend(self, thread: int, run_id: int) -> None:
        """The task of a thread, which is among those that are blocked, lends its slot."""
        if run_id not in self.lent:
            self.lent[run_id] = self._ledger.lend(run_id)
        self.held[thread].take(0)
        self.blocked[thread].order = next(self._order)
        self.leave(thread)

    def want(self, blocked: Blocked) -> None:
        """The wait of a task is over. If it gets no slot at once, its gate is held until it has one."""
        if self.free:
            blocked.slot = self.free.pop()
        else:
            heapq.heappush(self.returning, (-blocked.order, blocked))
            blocked.gate.acquire()

    def returned(self, thread: int, run_id: int) -> None:
        """The task of the calling thread goes on, with the slot that it has got; without one if this worker ends."""
        slot = self.blocked.pop(thread).slot
        if slot is not None:
            self.held[thread] = slot
            self._hold(slot, thread)
            slot.take(run_id)

    def ended(self, thread: int, place: int) -> None:
        """A run of a thread that had lent its slot has ended; ``place`` is what `lent` had of it."""
        self._ledger.end(place)
        blocked = self.blocked.pop(thread, None)
        if blocked is not None:  # it was interrupted on its way back
            self.returning[:] = [entry for entry in self.returning if entry[1] is not blocked]
            heapq.heapify(self.returning)
        self._take_back_lost()

    def _take_back_lost(self) -> None:
        """Give away the slots that nothing has (5)."""
        waiting = [blocked.slot for blocked in self.blocked.values() if blocked.slot is not None]
        if len(self.free) + len(self.held) + len(waiting) < len(self._all):
            known = {*self.free, *self.held.values(), *waiting}
            for slot in self._all:
                if slot not in known:
                    self.held[_NO_THREAD] = slot
                    self.leave(_NO_THREAD)

    def stop(self) -> None:
        """This worker ends: nothing waits for a slot any longer."""
        for _, blocked in self.returning:
            blocked.gate.release()
        self.returning.clear()
