"""The queue of tasks and the threads that take from it, in the order in which the tasks came.

A thread with nothing to do reads what the scheduler sends, if no other one does: a task that comes then is run by the
thread that has received it. So is one that could not start before the task that a thread has just run: whoever queues
tasks in one of these threads takes the next itself, and wakes others for the rest only.

A thread that takes a task writes that into the ledger, from which the node agent sees which runs have begun when this
process can't say (`cluster/ledger.py`). One that finds that runs were revoked meanwhile waits until the worker is told
which, and then begins its task or forgets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from holdfast.cluster.ledger import WorkerLedger
from holdfast.cluster.worker.execution import Task


class TaskThreads:
    """Runs tasks in a fixed number of threads.

    The threads are daemons: nobody can stop a task that runs, and it must not keep its process from ending.

    Parameters
    ----------
    nthreads:
        How many.
    inside:
        Each thread takes its tasks within ``inside()``.
    run:
        ``run(task)``: runs one, in a thread; it lets no error out.
    read_while, nudge:
        `Connection.read_while` and `Connection.nudge`.
    ledger:
        Of this process.
    name:
        For the threads' names.

    Attributes
    ----------
    threads : list of threading.Thread
    """

    def __init__(
        self,
        nthreads: int,
        inside: Callable[[], contextlib.AbstractContextManager[None]],
        run: Callable[[Task], None],
        read_while: Callable[[Callable[[], bool]], bool],
        nudge: Callable[[], None],
        ledger: WorkerLedger,
        name: str,
    ) -> None:
        self._inside = inside
        self._run = run
        self._read_while = read_while
        self._nudge = nudge
        self._loop = asyncio.get_running_loop()
        self._all_ended = asyncio.Event()
        self._running = nthreads
        self._stopping = False
        self._queued: OrderedDict[int, Task | None] = OrderedDict()  # by run; None: a thread is to end
        self._ledger = ledger
        self._taking = threading.Lock()  # tasks out of the queue
        self._told = threading.Condition(self._taking)  # of a revocation, or to stop
        self._confirmed = 0  # revocations that this worker was told of
        self._revoked: set[int] = set()  # runs that threads have taken, and are not to begin
        self._lock = threading.Lock()  # of the count of those that wait for a wake-up
        self._waiting = 0
        self._to_read = False
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.threads = [
            threading.Thread(target=self._serve, args=(n,), name=f"{name}-{n}", daemon=True) for n in range(nthreads)
        ]
        for thread in self.threads:
            thread.start()

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be run."""
        return not self._queued

    def submit(self, tasks: Sequence[Task]) -> None:
        """Run these after those that wait already."""
        if self._stopping:
            return
        for task in tasks:
            self._queued[task[1]] = task
        takes_one = threading.current_thread() in self.threads
        self._wake(min(len(tasks), len(self._queued) - takes_one))

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
                self._nudge()

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

    def stop(self) -> None:
        """Start no task any more, and end each thread when its task is done."""
        if not self._stopping:
            with self._taking:
                self._stopping = True
                self._queued.clear()
                self._queued.update({-number: None for number, _ in enumerate(self.threads, 1)})
                self._told.notify_all()
            self._wake(len(self.threads))

    async def join(self, timeout: float) -> bool:
        """Wait until all threads are past their last task; whether they are."""
        try:
            async with asyncio.timeout(timeout):
                await self._all_ended.wait()
        except TimeoutError:
            return False
        return True

    def _one_ended(self) -> None:
        self._running -= 1
        if not self._running:
            for thread in self.threads:
                thread.join()  # it has a few instructions to go
            self._all_ended.set()

    def _serve(self, thread: int) -> None:
        with self._inside():
            self._take_tasks(self._ledger.taker(thread))
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waited for a task that long
            self._loop.call_soon_threadsafe(self._one_ended)

    def _take_tasks(self, take: Callable[[int], None]) -> None:
        queued, taking, revocations = self._queued, self._taking, self._ledger.revocations
        nothing_queued = partial(operator.not_, queued)
        confirmed = 0  # revocations that the worker had been told of when this thread waited for word last
        while True:
            try:
                with taking:  # which is the fence of the ledger as well
                    run_id, task = queued.popitem(last=False)
                    if task is not None:
                        take(run_id)
            except KeyError:
                if not self._read_while(nothing_queued):
                    self._wait()
                continue
            if task is None:
                return
            may_begin = revocations[0] == confirmed
            if not may_begin:
                may_begin, confirmed = self._await_word(run_id)
            if may_begin:
                self._run(task)
            del task  # it holds its inline dependencies

    def _await_word(self, run_id: int) -> tuple[bool, int]:
        """Runs were revoked before a thread took this one, or since: wait until it's known whether it is one of them.

        Returns whether it is none, and how many revocations the worker was told of.
        """
        with self._told:
            self._told.wait_for(lambda: self._stopping or self._ledger.revocations[0] == self._confirmed)
            revoked = run_id in self._revoked
            self._revoked.discard(run_id)
            return not revoked and not self._stopping, self._confirmed

    def _wait(self) -> None:
        with self._lock:
            if self._queued or self._to_read:
                self._to_read = False
                return
            self._waiting += 1
        self._wake_ups.get()
