"""The driver of the client inside tasks: the thread that calls waits, and lends the slot of its task meanwhile.

A task keeps its thread and its stack while it waits. What it lends is the right to run (`holdfast.cluster.worker`): so
tasks that wait for tasks come to an end on a worker of one thread. A thread that a task has started waits like that of
any blocking client.

Only what may take until others have done something is worth that (`Effect.waits_for_others`). What the scheduler
answers at once isn't: the slot might be gone for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

from holdfast.client.drivers.blocking import BlockingDriver
from holdfast.client.drivers.effects import Effect


class InTaskDriver(BlockingDriver):
    """Blocks the calling thread, and lends the slot of the task that it runs.

    Parameters
    ----------
    flush
        Sends what was posted: what is waited for has to be asked for before the slot is lent.
    lend
        ``with lend():`` the slot is lent. May raise, if too many tasks wait.
    current_run
        The number of the run in this thread; None in a thread that runs no task.
    """

    def __init__(
        self,
        flush: Callable[[], object],
        lend: Callable[[], AbstractContextManager[None]],
        current_run: Callable[[], int | None],
    ) -> None:
        super().__init__()
        self._flush = flush
        self._lend = lend
        self._current_run = current_run

    @property
    def parent(self) -> int | None:
        return self._current_run()

    def block(self, effect: Effect) -> Any:
        if not effect.waits_for_others:
            return effect.block()
        self._flush()
        return effect.block_lending(self._lend)

    def in_loop(self, make: Callable[[], Coroutine[Any, Any, Any]], timeout: float | None = None) -> Effect:
        raise RuntimeError("the connection is the worker's, so nothing is opened or closed in its loop")
