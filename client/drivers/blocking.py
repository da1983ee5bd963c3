"""The driver of a blocking client: the thread that calls is the thread that waits.

Nothing goes through another thread: while it waits for the scheduler, the calling thread reads the connection itself
(`holdfast.cluster.comm.shared`). Most operations never wait. An interrupt comes before a step of the operation, inside
of it, or after it. The operation is garbage then, which ends it where it yielded.

There is one thread that may not wait: that of the loop of the client's connection, where a coroutine of the user's runs
that `Client.sync` was given. In that thread the client is an asynchronous one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import Any, TypeVar

from holdfast.client.drivers.effects import Effect, InLoop, Operation
from holdfast.client.raising import CarriedError, raise_as_it_was
from holdfast.cluster.comm.loops import LoopThread

T = TypeVar("T")


class BlockingDriver:
    """Blocks the calling thread.

    Parameters
    ----------
    on_loop : callable, optional
        Gives an awaitable of what an operation gives, in the thread of the loop. Without, that can't be called there.

    Attributes
    ----------
    thread : LoopThread or None
        With the event loop of the client's connection; None until the first `in_loop`.
    """

    asynchronous = False
    is_over = False
    #: Threads are nothing that this kind of client would be without.
    call_in = None

    @property
    def parent(self) -> int | None:
        return None

    @property
    def held(self) -> dict[int, Any] | None:
        return None

    def __init__(self, on_loop: Callable[[Operation[Any]], Any] | None = None) -> None:
        self.thread: LoopThread | None = None
        self._loop_thread = 0
        self._on_loop = on_loop

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return None if self.thread is None else self.thread.loop

    @property
    def gives_awaitables(self) -> bool:
        return get_ident() == self._loop_thread

    @property
    def may_block(self) -> bool:
        return get_ident() != self._loop_thread

    def run(self, operation: Operation[T]) -> T:
        if get_ident() == self._loop_thread and self._on_loop is not None:
            awaitable: Any = self._on_loop(operation)
            return awaitable  # type: ignore[no-any-return]  # of a T, as an asynchronous client gives
        error: StopIteration
        try:
            effect = operation.send(None)
            while True:
                try:
                    value = self.block(effect)
                except BaseException as raised:
                    effect = operation.throw(raised)
                else:
                    effect = operation.send(value)
        except StopIteration as done:
            given: T = done.value
            return given
        except CarriedError as carried:
            error = carried.error
        return raise_as_it_was(error)

    def block(self, effect: Effect) -> Any:
        """Wait for an effect."""
        return effect.block()

    def finish(self, operation: Operation[T]) -> T:
        return self.run(operation)

    def in_loop(self, make: Callable[[], Coroutine[Any, Any, Any]], timeout: float | None = None) -> Effect:
        if self.thread is None:
            self.thread = LoopThread("holdfast-client")
            self._loop_thread = self.thread.ident
        return InLoop(make, timeout, self.thread)


#: For operations without `Driver.in_loop`, in any thread that may be blocked.
BLOCKING = BlockingDriver()
