"""What the scheduler says to a worker, and what each message means there.

A batch is handled by the loop, or by a thread that has no task and reads the connection meanwhile (`threads`). What is
for the loop alone stays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from holdfast.cluster import protocol
from holdfast.cluster.protocol.message import Dispatch
from holdfast.cluster.worker.actors import Actors
from holdfast.cluster.worker.blocking import Blocking
from holdfast.cluster.worker.functions import FunctionTable
from holdfast.cluster.worker.running import Running
from holdfast.cluster.worker.tasks_transport import TasksTransport
from holdfast.cluster.worker.threads import TaskThreads
from holdfast.cluster.worker.waiting_runs import WaitingRuns
from holdfast.cluster.worker.write_behind import WriteBehind

#: Messages that a task's thread can't handle like the others.
_NOT_ANYWHERE = frozenset({protocol.worker.CLOSE.operation, protocol.worker.TO_TASKS.operation})


class Hearing:
    """Handles what the scheduler says.

    Parameters
    ----------
    threads, waiting_runs, blocking, running, functions, write_behind, actors
        The worker's.
    take_errand
        Takes an errand.
    deliver
        ``deliver(messages)`` sends messages to the scheduler at once, in any thread.
    close
        Called when the worker is to end.

    Attributes
    ----------
    tasks : TasksTransport or None
        Hears what is for the client of the worker's tasks, from when there is one.
    """

    def __init__(
        self,
        threads: TaskThreads,
        waiting_runs: WaitingRuns,
        blocking: Blocking,
        running: Running,
        functions: FunctionTable,
        write_behind: WriteBehind,
        actors: Actors,
        *,
        take_errand: Callable[..., None],
        deliver: Callable[[list[tuple[Any, ...]]], None],
        close: Callable[[], None],
    ) -> None:
        self.tasks: TasksTransport | None = None
        self._threads = threads
        self._waiting_runs = waiting_runs
        self._blocking = blocking
        self._running = running
        self._deliver = deliver
        self._dispatch: Dispatch[None] = Dispatch(
            protocol.worker.TO_WORKER,
            {
                protocol.worker.HOLDING: blocking.hold,
                protocol.worker.TIMED: running.limit,
                protocol.worker.RUN_TASKS: waiting_runs.add,
                protocol.worker.GRANTED: blocking.granted,
                protocol.worker.FUNCTIONS_SENT: functions.add,
                protocol.worker.FUNCTIONS_FORGOTTEN: functions.forget,
                protocol.worker.DISCARD: write_behind.discard,
                protocol.worker.DROP: self._drop,
                protocol.worker.REVOKED: self._revoked,
                protocol.worker.CALLS: actors.call,
                protocol.worker.DROP_CALLS: actors.drop_calls,
                protocol.worker.DROP_ACTORS: actors.drop,
                protocol.worker.TO_TASKS: self._tell_tasks,
                protocol.errands.ERRAND: take_errand,
                protocol.worker.CLOSE: close,
            },
        )

    def on_batch(self, batch: tuple[Any, ...]) -> None:
        """Handle a batch."""
        for message in batch:
            self._dispatch(message)

    def on_batch_elsewhere(self, batch: tuple[Any, ...]) -> bool:
        """Handle a batch in a task's thread, unless it is for the loop's; whether it is handled."""
        for message in batch:
            if message[0] in _NOT_ANYWHERE:
                return self._on_others_batch(batch)
        for message in batch:
            self._dispatch(message)
        return True

    def _on_others_batch(self, batch: tuple[Any, ...]) -> bool:
        """The same, for a batch with messages to the tasks or for the loop's thread."""
        if protocol.worker.CLOSE.is_in(batch):
            return False
        said = [protocol.worker.TO_TASKS.fields_of(message) for message in batch]
        if self.tasks is None or not self.tasks.hear_elsewhere([to_tasks for to_tasks in said if to_tasks]):
            return False  # there the messages are checked that don't come here
        self.on_batch(tuple([message for message, to_tasks in zip(batch, said, strict=True) if not to_tasks]))
        return True

    def _drop(self, run_ids: Sequence[int]) -> None:
        if dropped := self._waiting_runs.drop(run_ids, self._threads.drop):
            self.forget(dropped)
            self._deliver([protocol.worker.DROPPED(dropped)])

    def _revoked(self, number: int, run_ids: Sequence[int]) -> None:
        self.forget(self._waiting_runs.drop(run_ids, self._threads.revoke))
        self._threads.confirm(number)
        self._deliver([protocol.worker.CONFIRMED(number)])

    def forget(self, run_ids: Iterable[int]) -> None:
        """These runs never begin."""
        self._blocking.ended(run_ids)
        self._running.forget(run_ids)

    def _tell_tasks(self, *message: Any) -> None:
        if self.tasks is not None:
            self.tasks.hear(*message)
