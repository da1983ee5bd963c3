"""The queue of tasks and the threads that take from it, in the order in which the tasks came.

A thread with nothing to do reads what the scheduler sends, if no other one does: a task that comes then is run by the
thread that has received it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable

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
    name:
        For the threads' names.
    """

    def __init__(
        self,
        nthreads: int,
        inside: Callable[[], contextlib.AbstractContextManager[None]],
        run: Callable[[Task], None],
        read_while: Callable[[Callable[[], bool]], bool],
        nudge: Callable[[], None],
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
        # The order is the queue's; what is still to be run is the dictionary's, so that `drop` costs a look-up.
        self._order: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._queued: dict[int, Task] = {}
        self._threads = [threading.Thread(target=self._serve, name=f"{name}-{n}", daemon=True) for n in range(nthreads)]
        for thread in self._threads:
            thread.start()

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be run."""
        return not self._queued

    def submit(self, tasks: Iterable[Task]) -> None:
        """Run these after those that wait already."""
        if self._stopping:
            return
        for task in tasks:
            self._queued[task[1]] = task
            self._order.put(task[1])
        self._nudge()

    def drop(self, run_ids: Iterable[int]) -> list[int]:
        """Don't start these; returns those that had not started. What runs already, or isn't known, is left alone."""
        return [run_id for run_id in run_ids if self._queued.pop(run_id, None) is not None]

    def stop(self) -> None:
        """Start no task any more, and end each thread when its task is done."""
        if not self._stopping:
            self._stopping = True
            self._queued.clear()
            for _ in self._threads:
                self._order.put(-1)
            self._nudge()

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
            for thread in self._threads:
                thread.join()  # it has a few instructions to go
            self._all_ended.set()

    def _serve(self) -> None:
        with self._inside():
            self._take_tasks()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waited for a task that long
            self._loop.call_soon_threadsafe(self._one_ended)

    def _take_tasks(self) -> None:
        order = self._order
        take = self._queued.pop
        while True:
            if order.empty():
                self._read_while(order.empty)
            task = take(order.get(), None)
            if task is not None:
                self._run(task)
                task = None  # it holds its inline dependencies
            elif self._stopping:
                return
