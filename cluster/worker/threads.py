"""The queue of tasks, and the threads that take from it as long as there are slots (`slots`).

There may be more threads than slots, since a task that waits for others keeps its thread and lends its slot
(`TaskThreads.lend`). Two rules hold:

1. Of the threads that are not blocked there are at least as many as slots, so a slot that is free, and a task for it,
   never wait for a thread. A thread that lends its slot sees to this first: if no other thread is to spare, it starts
   one. If that can't be, its wait fails and nothing is lent.
2. A task that returns comes before all tasks that have not begun.

==================================  ==================================================================================
a thread that …                     … then
==================================  ==================================================================================
has ended a task, and one returns   gives its slot to that
has ended a task, others are queued keeps its slot and takes the next one
has nothing to run                  leaves its slot, if it has one; reads what the scheduler sends, if no other thread
                                    does; else waits to be woken; or ends, if enough others wait
lends its slot                      gives it to a task that returns; else leaves it, and wakes a thread if tasks are
                                    queued
secedes                             the same as one that lends its slot, and goes on
returns, or rejoins                 takes a slot that is free; else waits for one
==================================  ==================================================================================

A thread with nothing to do reads what the scheduler sends, if no other one does: a task that comes then is run by the
thread that has received it. So is one that could not start before the task that a thread has just run: a thread of
these that queues tasks takes the next one itself, and wakes others for the rest only.

A thread that takes a task writes that into the ledger, from which the node agent sees which runs have begun when this
process can't say (`cluster/ledger.py`). One that finds that runs were revoked meanwhile waits until the worker is told
which, and then begins its task or forgets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import operator
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from holdfast.cluster.errors import BlockedTasksError
from holdfast.cluster.ledger import BLOCKED_MAX
from holdfast.cluster.worker.execution import Task
from holdfast.cluster.worker.ledger import WorkerLedger
from holdfast.cluster.worker.slots import Blocked, Slot, Slots

#: So many threads may wait for something to do, beyond those that there are slots for; more end.
SPARE_MAX = 8


class TaskThreads:
    """Runs tasks, as many at once as there are slots.

    The threads are daemons: a task that runs can't be stopped, and it must not keep its process from ending.

    Parameters
    ----------
    nthreads:
        How many slots there are.
    inside:
        Each thread takes its tasks within ``inside()``.
    run:
        ``run(task)``: runs one, in a thread; it lets no error out.
    read_while, wake_reader:
        `Connection.read_while` and `Connection.wake_reader`.
    ledger:
        Of this process.
    name:
        For the threads' names.
    blocked_max:
        How many tasks may be blocked at a time: no more than the ledger has room for, which is what None means.

    Attributes
    ----------
    nothing_queued : callable
        ``nothing_queued()``: whether nothing waits to be run. Written in C, for `read_while`.
    threads : list of threading.Thread
        Those that live, whatever they do. Replaced when it changes, so that any thread may look at it.
    """

    def __init__(
        self,
        nthreads: int,
        inside: Callable[[], contextlib.AbstractContextManager[None]],
        run: Callable[[Task], None],
        read_while: Callable[[Callable[[], bool]], bool],
        wake_reader: Callable[[], None],
        ledger: WorkerLedger,
        name: str,
        blocked_max: int | None = None,
    ) -> None:
        self._nthreads = nthreads
        self._inside = inside
        self._run = run
        self._read_while = read_while
        self._wake_reader = wake_reader
        self._loop = asyncio.get_running_loop()
        self._all_ended = asyncio.Event()
        self._stopping = False
        self._queued: OrderedDict[int, Any] = OrderedDict()  # tasks by run
        self.nothing_queued: Callable[[], bool] = partial(operator.not_, self._queued)
        self._ledger = ledger
        self._name = name
        self._blocked_max = BLOCKED_MAX if blocked_max is None else blocked_max
        self._taking = threading.Lock()  # tasks out of the queue, and slots
        self._slots = Slots(nthreads, ledger)
        self._told = threading.Condition(self._taking)  # of a revocation, or to stop
        self._confirmed = 0  # revocations that this worker was told of
        self._revoked: set[int] = set()  # runs that threads have taken, and are not to begin
        self._doubted: set[int] = set()  # the same, unless they have begun
        self._forgone: set[int] = set()  # of these, those that have not
        self._lock = threading.Lock()  # of the count of those that wait for a wake-up
        self._waiting = 0
        self._to_read = False
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._names = itertools.count()
        self._idents: set[int] = set()  # of the threads
        self._count = 0  # of the threads that live, or are about to
        self.threads: list[threading.Thread] = []
        for _ in range(nthreads):
            self._count += 1
            self._start()

    @property
    def blocked(self) -> int:
        """How many tasks are blocked, those included that wait to return."""
        return len(self._slots.blocked)

    @property
    def is_blocked(self) -> bool:
        """Whether the task of this thread is."""
        return threading.get_ident() in self._slots.blocked

    def run_by(self, run: Callable[[Task], None]) -> None:
        """From now on tasks are run by this."""
        self._run = run

    def submit(self, tasks: Sequence[Task]) -> None:
        """Run these after those that wait already."""
        if self._stopping:
            return
        for task in tasks:
            _, run_id, _, _, _, _, _ = task
            self._queued[run_id] = task
        slots, queued = self._slots, len(self._queued)
        # A thread that leaves its slot looks at the queue after that. So it is enough to wake others for free slots.
        free = len(slots.free)
        thread = threading.get_ident()
        if thread in self._idents and thread not in slots.blocked:  # it takes one itself
            if queued == 1:
                return
            queued -= 1
            free -= thread not in slots.held
        self._wake(min(len(tasks), queued, free))

    def read(self) -> None:
        """There's something to read from now on: one that has nothing to do, or the first that has, does it."""
        with self._lock:
            self._to_read = not self._waiting
        if not self._to_read:
            self._wake(1)

    def _wake(self, nthreads: int) -> None:
        """Have so many threads look at what is queued, or all that have nothing to do."""
        if nthreads > 0:
            with self._lock:
                woken = min(nthreads, self._waiting)
                self._waiting -= woken
            for _ in range(woken):
                self._wake_ups.put(None)
            if woken < nthreads:
                self._wake_reader()

    def drop(self, run_ids: Iterable[int]) -> list[int]:
        """Don't start these; returns those that had not started. What runs already, or isn't known, is left alone."""
        with self._taking:
            return [run_id for run_id in run_ids if self._queued.pop(run_id, None) is not None]

    def revoke(self, run_ids: Iterable[int]) -> list[int]:
        """Forget these, which the agent has revoked: those that wait here, and those that a thread has not begun.

        Returns them; what isn't here is left alone. Before `confirm`.
        """
        with self._taking:
            taken = self._ledger.running
            here = [run_id for run_id in run_ids if run_id in taken or run_id in self._queued]
            for run_id in here:
                if self._queued.pop(run_id, None) is None:
                    self._revoked.add(run_id)
            return here

    def confirm(self, revocations: int) -> None:
        """This worker was told of so many revocations: tasks begin again, unless there are more already."""
        with self._taking:
            self._confirmed = revocations
            self._told.notify_all()

    def forgo(self, run_ids: Iterable[int]) -> tuple[list[int], list[int]]:
        """Don't start these, and wait no longer for word of what the agent has revoked: who would give it is gone.

        Returns
        -------
        list of int
            Those that had not started.
        list of int
            Those that a thread has taken, and of which it is not known yet whether it starts them (`has_forgone`).
        """
        with self._taking:
            dropped = [run_id for run_id in run_ids if self._queued.pop(run_id, None) is not None]
            self._doubted.clear()
            self._forgone.clear()
            revocations = self._ledger.revocations[0]
            if revocations != self._confirmed:
                self._doubted.update({*self._ledger.running}.intersection(run_ids))
                self._confirmed = revocations
                self._told.notify_all()
            return dropped, list(self._doubted)

    def is_taken(self, run_id: int) -> bool:
        """Whether a run is the last that a thread has taken into its slot."""
        return run_id in self._ledger.running

    def has_forgone(self, run_id: int) -> bool:
        """Whether a run that was in doubt is not started: a thread has found out that it might have been revoked."""
        return run_id in self._forgone

    # -- blocked tasks

    @contextlib.contextmanager
    def lend(
        self, run_id: int, tell_blocked: Callable[[int], None], tell_returned: Callable[[int], None]
    ) -> Iterator[bool]:
        """Within it, the task that this thread runs has no slot: others run meanwhile.

        It does nothing in a thread that holds no slot, such as one that the task has started. Gives whether it does.

        Parameters
        ----------
        run_id
            The task's.
        tell_blocked
            ``tell_blocked(run_id)`` is called while the task still has its slot: what it says leaves before anything
            that the next task in this slot has to say.
        tell_returned
            ``tell_returned(run_id)`` is called when it has one again.

        Raises
        ------
        BlockedTasksError
            Too many tasks wait already, or the system has no thread for another task; says how many there may be.
        """
        thread = threading.get_ident()
        blocked = self._lend(thread, run_id, tell_blocked)
        try:
            yield blocked is not None
        finally:
            if blocked is not None:
                try:
                    self._return(thread, blocked, run_id)
                finally:
                    tell_returned(run_id)

    def secede(self, run_id: int, tell_blocked: Callable[[int], None]) -> bool:
        """The task that this thread runs has no slot from now on, until `rejoin` or until it ends.

        Does nothing in a thread that holds no slot. Gives whether it does. The parameters and errors are those of
        `lend`.
        """
        return self._lend(threading.get_ident(), run_id, tell_blocked) is not None

    def rejoin(self, run_id: int, tell_returned: Callable[[int], None]) -> None:
        """The task that this thread runs waits for a slot, if it has none."""
        thread = threading.get_ident()
        blocked = self._slots.blocked.get(thread)
        if blocked is not None:
            try:
                self._return(thread, blocked, run_id)
            finally:
                tell_returned(run_id)

    def _lend(self, thread: int, run_id: int, tell_blocked: Callable[[int], None]) -> Blocked | None:
        slots = self._slots
        if thread not in slots.held:
            return None
        blocked = Blocked()
        with self._taking:
            if len(slots.blocked) >= self._blocked_max:
                raise BlockedTasksError(_too_many(self._blocked_max))
            slots.blocked[thread] = blocked
            lacks_one = self._count - len(slots.blocked) < self._nthreads
            self._count += lacks_one
        try:
            if lacks_one:
                self._start_spare()
            tell_blocked(run_id)
        except BaseException:
            with self._taking:
                del slots.blocked[thread]
            raise
        with self._taking:
            slots.lend(thread, run_id)
            has_work = bool(self._queued and slots.free)
        if has_work:
            self._wake(1)
        return blocked

    def _return(self, thread: int, blocked: Blocked, run_id: int) -> None:
        try:
            with self._taking:
                if not self._stopping:
                    self._slots.want(blocked)
            self._await_slot(blocked)
        finally:
            # Code that gives tasks a time limit may raise an exception in this thread from another one. It comes out
            # when the slot is here, which would be lost otherwise.
            self._await_slot(blocked)
            with self._taking:
                self._slots.returned(thread, run_id)

    def _await_slot(self, blocked: Blocked) -> None:
        if blocked.slot is None and not self._stopping:
            blocked.gate.acquire()

    def _start_spare(self) -> None:
        try:
            self._start()
        except RuntimeError as error:
            with self._taking:
                self._count -= 1
            raise BlockedTasksError(
                f"this task can't wait for others: {self.blocked - 1:,} tasks of its worker wait already, and the "
                f"system has no thread for one more ({error}). {_WAY_OUT}"
            ) from None

    # -- the end

    def stop(self) -> None:
        """Start no task any more, and end each thread when its task is done."""
        if not self._stopping:
            with self._taking:
                self._stopping = True
                self._queued.clear()
                self._queued[0] = None  # for the thread that reads while nothing is queued
                self._slots.stop()
                self._told.notify_all()
            self._wake(self._count)

    async def join(self, timeout: float) -> bool:
        """Wait until all threads are past their last task; whether they are."""
        try:
            async with asyncio.timeout(timeout):
                await self._all_ended.wait()
        except TimeoutError:
            return False
        return True

    # -- threads

    def _start(self) -> None:
        """Start a thread, which counts as one already."""
        thread = threading.Thread(target=self._serve, name=f"{self._name}-{next(self._names)}", daemon=True)
        with self._taking:
            self.threads = [*self.threads, thread]
        try:
            thread.start()
        except BaseException:
            self._forget(thread)
            raise

    def _forget(self, thread: threading.Thread) -> None:
        with self._taking:
            self.threads = [other for other in self.threads if other is not thread]

    def _serve(self) -> None:
        self._idents.add(threading.get_ident())
        try:
            with self._inside():
                self._take_tasks()
        finally:
            self._idents.discard(threading.get_ident())
        thread = threading.current_thread()
        self._forget(thread)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and did not wait that long for a task
            self._loop.call_soon_threadsafe(self._ended, thread)

    def _ended(self, thread: threading.Thread) -> None:
        thread.join()  # it has a few instructions to go
        if not self.threads:
            self._all_ended.set()

    def _take_tasks(self) -> None:
        queued, slots = self._queued, self._slots
        free, returning, lent = slots.free, slots.returning, slots.lent
        taking, revocations = self._taking, self._ledger.revocations
        thread = threading.get_ident()
        confirmed = 0  # revocations that the worker had been told of when this thread waited for word last
        run_id = 0
        slot: Slot | None = None
        while True:
            with taking:  # which is the fence of the ledger as well
                if lent and (place := lent.pop(run_id, None)) is not None:
                    slots.ended(thread, place)
                    slot = slots.held.get(thread)  # it need not be the one that the task has begun in
                if not queued or returning or slot is None or self._stopping:
                    if slot is not None:
                        slots.leave(thread)
                        slot = None
                    if queued and free and not self._stopping:
                        slot = slots.take(thread)
                    elif self._stopping or self._has_surplus:
                        self._count -= 1
                        return
                if slot is not None:
                    run_id, task = queued.popitem(last=False)
                    slot.take(run_id)
            if slot is None:
                if not self._read_while(self.nothing_queued):
                    self._wait()
                continue
            if revocations[0] == confirmed:
                self._run(task)
            else:
                may_begin, confirmed = self._await_word(run_id)
                if may_begin:
                    self._run(task)
            del task  # it holds its inline dependencies

    @property
    def _has_surplus(self) -> bool:
        """Whether more threads than are needed have no task. The caller has the lock."""
        return self._count - len(self._slots.blocked) > self._nthreads + SPARE_MAX

    def _await_word(self, run_id: int) -> tuple[bool, int]:
        """Runs were revoked before a thread took this one, or since: wait until it's known whether it is one of them.

        Returns whether it is none, and how many revocations the worker was told of.
        """
        with self._told:
            self._told.wait_for(lambda: self._stopping or self._ledger.revocations[0] == self._confirmed)
            revoked = run_id in self._revoked
            self._revoked.discard(run_id)
            if run_id in self._doubted:
                revoked = True
                self._doubted.discard(run_id)
                self._forgone.add(run_id)
            return not revoked and not self._stopping, self._confirmed

    def _wait(self) -> None:
        with self._lock:
            if (self._queued and self._slots.free) or self._to_read or self._stopping:
                self._to_read = False
                return
            self._waiting += 1
        self._wake_ups.get()


_WAY_OUT = (
    "Give tasks what they need as arguments, submit(f, future), instead of waiting for it inside of them; or start "
    "more workers"
)


def _too_many(blocked_max: int) -> str:
    return (
        f"this task can't wait for others: {blocked_max:,} tasks of its worker wait already, and no more may, since "
        f"each keeps a thread. {_WAY_OUT}"
    )
