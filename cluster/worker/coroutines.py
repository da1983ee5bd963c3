"""Tasks that are coroutines: each runs on an event loop of its own, in the thread of its task.

What a call gives is looked at, not the function: so functions that only wrap a coroutine function, and the nodes of
dask's graphs, are tasks of this kind too. The client of such a task gives awaitables
(`holdfast.client.drivers.in_task`).

A task lends its slot while it waits for other tasks (`blocking`). A coroutine may wait for several things at a time,
and go on with whatever is there first. So its slot is lent where its loop is about to sleep, if something that it waits
for is brought about by other tasks; and it has a slot again before the loop goes on. If the slot can't be lent, because
too many tasks wait already, that is raised where the coroutine waits.

A coroutine has threads work for it, by `asyncio.to_thread` and `loop.run_in_executor`. These belong to its task too. If
one of them waits for other tasks, its waiting is done on the loop: the coroutine waits for the thread, so the slot can
be lent.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, TypeVarTuple

from holdfast.cluster.errors import BlockedTasksError
from holdfast.cluster.worker import context

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run the coroutine that a task is, to its end. Gives what it returns, and raises what it raises."""
    worker = context.current_worker()
    loop = TaskLoop(nullcontext if worker is None else worker.lend)
    context.enter_loop(loop)
    try:
        with asyncio.Runner(loop_factory=lambda: loop.loop) as runner:
            error, value = runner.run(_outcome(coroutine))
    finally:
        context.enter_loop(None)
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback has this frame
    return value


async def _outcome(coroutine: Coroutine[Any, Any, Any]) -> tuple[BaseException | None, Any]:
    """What a coroutine raises, with nothing of the loop in its traceback; or what it returns."""
    try:
        return None, await coroutine
    except BaseException as error:  # it is the task's, whatever it is
        return error, None


class Wait:
    """Something that the coroutine waits for, and that others bring about. A context of the part that waits.

    It gives up, with an error, if the slot of the task can't be lent, as a timeout of asyncio does.
    """

    __slots__ = ("_cancelling", "_error", "_loop", "_task")

    def __init__(self, loop: TaskLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._error: BlockedTasksError | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._loop.waits[self] = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._loop.waits.pop(self, None)
        task, self._task = self._task, None
        if self._error is not None and kind is asyncio.CancelledError:
            assert task is not None
            if task.uncancel() <= self._cancelling:
                raise self._error from None

    def fail(self, error: BlockedTasksError) -> None:
        """Raise an error where it waits."""
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()


class TaskLoop:
    """The event loop of one task.

    Parameters
    ----------
    lend
        ``with lend():`` the slot of the task is lent. May raise a `BlockedTasksError`.

    Attributes
    ----------
    waits : dict of Wait
        What the coroutine waits for that other tasks bring about.
    driver
        The client's side keeps its driver here.
    """

    def __init__(self, lend: Callable[[], AbstractContextManager[None]]) -> None:
        self._lend = lend
        self.waits: dict[Wait, None] = {}
        self.driver: Any = None
        self.loop = _Loop(self)

    @property
    def is_current(self) -> bool:
        """Whether it is the loop that runs in this thread."""
        return asyncio._get_running_loop() is self.loop

    def wait(self) -> Wait:
        """Within it the coroutine waits for what others bring about."""
        return Wait(self)

    def run_in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine that runs in it; in another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def sleep(self, select: Callable[[], list[Any]]) -> list[Any]:
        """Wait for events; with the slot lent, if others bring them about."""
        try:
            lending = self._lend()
            lending.__enter__()
        except BlockedTasksError as error:
            for wait in list(self.waits):
                wait.fail(error)
            return []
        try:
            return select()
        finally:
            lending.__exit__(None, None, None)


class _Loop(asyncio.SelectorEventLoop):
    """The loop of a task. Threads that its executors have call functions as a part of the task."""

    def __init__(self, of: TaskLoop) -> None:
        super().__init__(_Selector(of))
        self._of = of

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        if executor is None or isinstance(executor, ThreadPoolExecutor):
            func = context.helping(self._of, func)
        return super().run_in_executor(executor, func, *args)


class _Selector(selectors.DefaultSelector):
    """Waits for events of a loop, and tells it before it sleeps."""

    def __init__(self, loop: TaskLoop) -> None:
        super().__init__()
        self._of = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if self._of.waits and (timeout is None or timeout > 0):
            ready: list[Any] = super().select(0)
            return ready or self._of.sleep(lambda: super(_Selector, self).select(timeout))
        found: list[Any] = super().select(timeout)
        return found
