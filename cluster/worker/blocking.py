"""What a task does around a wait for other tasks: it lends what it has, and has it again before it goes on.

A task that secedes does the first half, goes on without a slot, and does the second half when it rejoins, if it does.

=====================  =============================================================================================
before the wait        the scheduler is told (`blocked`), and then the slot is lent (`threads`)
after it               the resources that the run holds are asked for (`reclaim`), and the task waits for them
                       (`granted`); then it waits for a slot; then the scheduler is told (`returned`)
=====================  =============================================================================================

Resources are the scheduler's to give, since it may have lent them to a run that is still on its way here. Only runs of
which it has said so (`holding`) have some; the others don't ask.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.worker import context
from holdfast.cluster.worker.threads import TaskThreads


class Blocking:
    """Lends the slots and the resources of tasks that wait.

    Parameters
    ----------
    threads
        Where the slots are.
    deliver
        ``deliver(messages)`` sends messages to the scheduler at once, in any thread.
    read_while
        `Connection.read_while`.
    wake_reader
        `Connection.wake_reader`.
    """

    def __init__(
        self,
        threads: TaskThreads,
        deliver: Callable[[list[tuple[Any, ...]]], None],
        read_while: Callable[[Callable[[], bool]], bool],
        wake_reader: Callable[[], None],
    ) -> None:
        self._threads = threads
        self._deliver = deliver
        self._read_while = read_while
        self._wake_reader = wake_reader
        self._holding: set[int] = set()  # runs that hold resources
        self._lock = threading.Lock()
        self._grants: dict[int, threading.Lock] = {}  # of the runs that wait for theirs
        self._stopped = False
        self._saying = threading.Lock()  # what the scheduler is told, and what it knows by that
        self._told: set[int] = set()  # the runs that it takes for blocked
        self._reclaiming: set[int] = set()  # of these, those that want their resources back, or have them

    @contextlib.contextmanager
    def lend(self) -> Iterator[None]:
        """Within it, the task of this thread waits for others. It does nothing in a thread that runs no task.

        Raises
        ------
        BlockedTasksError
            Too many tasks of this worker wait already.
        """
        run_id = context.current_run()
        if run_id is None:
            yield
            return
        with self._threads.lend(run_id, self._tell_blocked, self._tell_returned) as lent:
            try:
                yield
            finally:
                if lent and run_id in self._holding:
                    self._reclaim(run_id)

    def secede(self) -> bool:
        """The task of this thread lends what it has until `rejoin`, or until it ends; false if it does so already.

        Raises
        ------
        BlockedTasksError
            As for `lend`.
        """
        run_id = context.current_run()
        return run_id is not None and self._threads.secede(run_id, self._tell_blocked)

    def rejoin(self) -> None:
        """The task of this thread waits until it has again what `secede` has lent."""
        run_id = context.current_run()
        if run_id is None or not self._threads.is_blocked:
            return
        try:
            if run_id in self._holding:
                self._reclaim(run_id)
        finally:
            self._threads.rejoin(run_id, self._tell_returned)

    @property
    def is_lending(self) -> bool:
        """Whether the task of this thread is within `lend`, or has seceded."""
        return self._threads.is_blocked

    def _tell_blocked(self, run_id: int) -> None:
        with self._saying:
            self._told.add(run_id)
            self._deliver([protocol.worker.BLOCKED([run_id])])

    def _tell_returned(self, run_id: int) -> None:
        with self._saying:
            is_told = run_id in self._told
            self._told.discard(run_id)
            self._reclaiming.discard(run_id)
            if is_told and not self._stopped:  # else it goes on without its slot, and perhaps without its resources
                self._deliver([protocol.worker.RETURNED([run_id])])

    def _reclaim(self, run_id: int) -> None:
        gate = threading.Lock()
        gate.acquire()
        with self._lock:
            if self._stopped:
                return
            self._grants[run_id] = gate
        try:
            with self._saying:
                self._reclaiming.add(run_id)
                self._deliver([protocol.worker.RECLAIM([run_id])])
            self._await_grant(run_id, gate)
        finally:
            self._await_grant(run_id, gate)  # whatever is raised in this thread from another one, as in `threads`

    def _await_grant(self, run_id: int, gate: threading.Lock) -> None:
        if run_id in self._grants and not self._read_while(gate.locked):
            gate.acquire()

    # -- what the scheduler says, and the end

    def hold(self, run_ids: Iterable[int]) -> None:
        """These runs, which are about to come, hold resources."""
        self._holding.update(run_ids)

    def ended(self, run_ids: Iterable[int]) -> None:
        """These runs have ended, or never begin."""
        if self._holding:
            self._holding.difference_update(run_ids)
        if self._told:
            with self._saying:
                self._told.difference_update(run_ids)
                self._reclaiming.difference_update(run_ids)

    def granted(self, run_ids: Iterable[int]) -> None:
        """These runs have their resources back."""
        with self._lock:
            gates = [gate for run_id in run_ids if (gate := self._grants.pop(run_id, None)) is not None]
        for gate in gates:
            gate.release()
            self._wake_reader()

    @contextlib.contextmanager
    def saying(self) -> Iterator[tuple[frozenset[int], list[int]]]:
        """Within it nothing is said of what blocks: for telling another scheduler, who knows nothing of that.

        Gives the runs that it is to take for blocked, and those of them that want their resources back.
        """
        with self._saying:
            with self._lock:
                waiting = [run_id for run_id in self._grants if run_id in self._reclaiming]
            # One that was granted its resources is about to go on, which the scheduler would not expect of others.
            self._told -= self._reclaiming.difference(waiting)
            self._reclaiming.intersection_update(waiting)
            yield frozenset(self._told), waiting

    def stop(self) -> None:
        """This worker ends: no task waits for resources any longer."""
        with self._lock:
            self._stopped = True
            gates = list(self._grants.values())
            self._grants.clear()
        for gate in gates:
            gate.release()
            self._wake_reader()
