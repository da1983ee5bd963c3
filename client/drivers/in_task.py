"""The driver of the client inside tasks: what waits is the thread of the task, which lends its slot meanwhile.

A task keeps its thread and its stack while it waits. What it lends is the right to run (`holdfast.cluster.worker`): so
tasks that wait for tasks come to an end on a worker of one thread. A thread that a task has started waits like that of
any blocking client.

Only what may take until others have done something is worth that (`Effect.waits_for_others`). What the scheduler
answers at once isn't: the slot might be gone for hours.

In a task that is a coroutine the client gives awaitables: each is waited for on the loop of the task, which lends the
slot where it would sleep (`holdfast.cluster.worker.coroutines`). A call that never waits may block there all the same:
nothing but the task goes on in that loop. A thread that such a coroutine has work for it (`asyncio.to_thread`) blocks;
what it waits for is waited for on the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from holdfast.client.drivers.asynchronous import AsynchronousDriver
from holdfast.client.drivers.blocking import BlockingDriver
from holdfast.client.drivers.effects import Effect, Operation

T = TypeVar("T")


class TaskLoop(Protocol):
    """The loop of a task that is a coroutine."""

    #: Kept here for the client.
    driver: Any

    def wait(self) -> AbstractContextManager[None]:
        """Within it the coroutine waits for what others bring about."""


class HelpedLoop(TaskLoop, Protocol):
    """One whose coroutine has other threads work for it."""

    def run_in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine that runs in it; in another thread."""


class InTaskDriver(BlockingDriver):
    """Blocks the calling thread, and lends the slot of the task that it runs; or waits on the loop of that task.

    Parameters
    ----------
    flush
        Sends what was posted: what is waited for has to be asked for before the slot is lent.
    lend
        ``with lend():`` the slot is lent. May raise, if too many tasks wait.
    current_run
        The number of the run in this thread; None in a thread that runs no task.
    current_loop
        The loop of the coroutine that runs in this thread; None if the task is none.
    helped_loop
        The loop of the coroutine that has this thread work for it; None in other threads.
    held_here
        What ends with the run, or with the actor, of this thread; None if it has neither.
    """

    def __init__(
        self,
        flush: Callable[[], object],
        lend: Callable[[], AbstractContextManager[None]],
        current_run: Callable[[], int | None],
        current_loop: Callable[[], TaskLoop | None],
        helped_loop: Callable[[], HelpedLoop | None],
        held_here: Callable[[], dict[int, Any] | None],
    ) -> None:
        super().__init__()
        self._flush = flush
        self._lend = lend
        self._current_run = current_run
        self._current_loop = current_loop
        self._helped_loop = helped_loop
        self._held_here = held_here

    @property
    def held(self) -> dict[int, Any] | None:
        return self._held_here()

    @property
    def parent(self) -> int | None:
        return self._current_run()

    @property
    def gives_awaitables(self) -> bool:
        return self._current_loop() is not None

    def run(self, operation: Operation[Any]) -> Any:
        loop = self._current_loop()
        if loop is None:
            return super().run(operation)
        return _driver_on(loop).run(operation)

    def finish(self, operation: Operation[Any]) -> Any:
        return super().run(operation)

    def block(self, effect: Effect) -> Any:
        if not effect.waits_for_others:
            return effect.block()
        self._flush()
        helped = self._helped_loop()
        if helped is None:
            return effect.block_lending(self._lend)
        return helped.run_in_loop(_wait_on(helped, effect))

    def in_loop(self, make: Callable[[], Coroutine[Any, Any, Any]], timeout: float | None = None) -> Effect:
        raise RuntimeError("the connection is the worker's, so nothing is opened or closed in its loop")


def _driver_on(loop: TaskLoop) -> _OnTaskLoop:
    """The driver on the loop of a task, in whose thread this is called."""
    if loop.driver is None:
        loop.driver = _OnTaskLoop(loop)
    driver: _OnTaskLoop = loop.driver
    return driver


async def _wait_on(loop: TaskLoop, effect: Effect) -> Any:
    return await _driver_on(loop).wait(effect)


class _OnTaskLoop(AsynchronousDriver):
    """Waits on the loop of a task."""

    def __init__(self, loop: TaskLoop) -> None:
        super().__init__()
        self._wait_for = self.wait
        self._task_loop = loop

    async def wait(self, effect: Effect) -> Any:
        """Wait for an effect; with the slot of the task lent, if it waits for others."""
        if not effect.waits_for_others:
            return await effect.wait()
        with self._task_loop.wait():
            return await effect.wait()
