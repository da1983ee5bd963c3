"""What operations wait for.

An effect knows two ways to be waited for: in a thread, which it blocks, and on the running event loop. Which of them it
is, and what is done around it, is the driver's to say. The effects that are about results and about answers of the
scheduler are with what they wait for, in `holdfast.client.core`.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from holdfast.cluster.comm.loops import LoopThread

T = TypeVar("T")


class Effect(abc.ABC):
    """Something that an operation waits for. What the waiting gives, or raises, comes out of the ``yield``."""

    __slots__ = ()

    @property
    def waits_for_others(self) -> bool:
        """Whether it may take until others have done something: then a task lends its slot meanwhile."""
        return False

    @abc.abstractmethod
    def block(self) -> Any:
        """Wait for it in this thread."""

    def block_lending(self, lend: Callable[[], AbstractContextManager[None]]) -> Any:
        """Wait for it in the thread of a task, within ``lend()`` if it waits for others."""
        with lend():
            return self.block()

    @abc.abstractmethod
    async def wait(self) -> Any:
        """Wait for it on the running loop. If this is cancelled, nothing goes on that a caller would see."""


#: Yields effects, and returns a value.
Operation = Generator[Effect, Any, T]


class Driver(Protocol):
    """Takes operations to their ends."""

    @property
    def asynchronous(self) -> bool:
        """Whether it is that of an asynchronous client, on a loop of the user's."""

    @property
    def gives_awaitables(self) -> bool:
        """Whether `run` gives awaitables in the calling thread."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop of the client's connection; None where it has none of its own, as inside of tasks."""

    @property
    def thread(self) -> LoopThread | None:
        """The client's own, with the loop of its connection; None without one."""

    @property
    def call_in(self) -> Callable[[Callable[[], object], float], object] | None:
        """``call_in(function, seconds)`` calls on the loop of an asynchronous client, from any thread. Else None."""

    @property
    def is_over(self) -> bool:
        """Whether it runs nothing any more: the loop of an asynchronous client is closed."""

    @property
    def may_block(self) -> bool:
        """Whether the calling thread may be blocked."""

    @property
    def parent(self) -> int | None:
        """The run of the task that the calling thread runs: what is submitted here is its. None outside of tasks."""

    @property
    def held(self) -> dict[int, Any] | None:
        """What ends with the run, or with the actor, of the calling thread, by number. None where there is neither."""

    def run(self, operation: Operation[Any]) -> Any:
        """What the operation gives; an awaitable of it, if it `gives_awaitables`."""

    def finish(self, operation: Operation[T]) -> T:
        """What the operation gives, in any kind of client: for what can't be left and taken up again, as a pickler.

        Raises
        ------
        WouldWaitError
            It would have to wait, in a thread that may not be blocked.
        """

    def in_loop(self, make: Callable[[], Coroutine[Any, Any, Any]], timeout: float | None = None) -> Effect:
        """The effect of a coroutine that runs in the loop of the client's connection.

        `TimeoutError` comes out of it after ``timeout`` seconds.
        """


class WouldWaitError(RuntimeError):
    """A call that never waits would have to."""


class NotAtOnce(Exception):  # an outcome that is no error
    """Something that was tried on the event loop can't be done there at once."""


class Blocking(Effect):
    """What blocks on another socket, or computes long: on a loop, it runs in the loop's default executor.

    Attributes
    ----------
    undo : callable or None
        Called with what `block` gave, if it is not waited for any more.
    """

    __slots__ = ()
    undo: Callable[[Any], object] | None = None

    def at_once(self) -> Any:
        """Tried first on a loop: does the same as `block` if that takes no time, else raises `NotAtOnce`."""
        raise NotAtOnce

    async def wait(self) -> Any:
        try:
            return self.at_once()
        except NotAtOnce:
            pass
        job = _Job(self.block, self.undo)
        try:
            return await asyncio.get_running_loop().run_in_executor(None, job.run)
        except BaseException:  # also when the coroutine is not gone on with
            job.abandon()
            raise


class Elsewhere(Blocking):
    """A function that blocks, or computes long.

    Parameters
    ----------
    function
        Does it, in any thread.
    at_once
        As `Blocking.at_once`.
    undo
        As `Blocking.undo`.
    """

    __slots__ = ("_at_once", "_function", "undo")

    def __init__(
        self,
        function: Callable[[], Any],
        at_once: Callable[[], Any] | None = None,
        undo: Callable[[Any], object] | None = None,
    ) -> None:
        self._function = function
        self._at_once = at_once
        self.undo = undo

    def block(self) -> Any:
        return self._function()

    def at_once(self) -> Any:
        if self._at_once is None:
            raise NotAtOnce
        return self._at_once()


class _Job:
    """A function that runs in another thread, for a caller that may stop waiting for it."""

    def __init__(self, function: Callable[[], Any], undo: Callable[[Any], object] | None) -> None:
        self._function = function
        self._undo = undo
        self._lock = threading.Lock()
        self._abandoned = False
        self._given: list[Any] = []

    def run(self) -> Any:
        given = self._function()
        with self._lock:
            if not self._abandoned:
                if self._undo is not None:
                    self._given.append(given)
                return given
        if self._undo is not None:
            self._undo(given)
        return None

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
        if self._undo is not None and self._given:
            self._undo(self._given.pop())


class Sleep(Effect):
    """Some time passes."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def block(self) -> None:
        time.sleep(self.seconds)

    async def wait(self) -> None:
        await asyncio.sleep(self.seconds)


class InLoop(Effect):
    """A coroutine that runs in the loop of the client's connection: a thread's, or the running one.

    See `Driver.in_loop`.
    """

    __slots__ = ("make", "thread", "timeout")

    def __init__(
        self, make: Callable[[], Coroutine[Any, Any, Any]], timeout: float | None, thread: LoopThread | None
    ) -> None:
        self.make = make
        self.timeout = timeout
        self.thread = thread

    def block(self) -> Any:
        assert self.thread is not None
        return self.thread.run(self.make(), self.timeout)

    async def wait(self) -> Any:
        async with asyncio.timeout(self.timeout):
            return await self.make()


class Signal:
    """Ends one wait on the running loop; any thread may give it. Made on the loop."""

    __slots__ = ("_future", "_loop", "_thread")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._future: asyncio.Future[bool] = self._loop.create_future()

    def give(self) -> None:
        """Twice is no harm. Also where a lock is held."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing goes on there
            if threading.get_ident() == self._thread:
                self._end(True)
            else:
                self._loop.call_soon_threadsafe(self._end, True)

    def _end(self, given: bool) -> None:
        if not self._future.done():
            self._future.set_result(given)

    async def wait(self, timeout: float | None) -> bool:
        """Whether it was given within ``timeout`` seconds."""
        late = None if timeout is None else self._loop.call_later(max(0.0, timeout), self._end, False)
        try:
            return await self._future
        finally:
            if late is not None:
                late.cancel()
