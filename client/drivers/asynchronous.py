"""The driver of an asynchronous client: a coroutine on the loop that the client was opened on.

No thread is the client's own. What would block the loop runs in the loop's default executor, as `effects.Blocking`
says. A call that never waits, such as `Client.submit`, has no coroutine: where it would have to wait after all, because
there is no room in a store, say, it raises `WouldWaitError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from holdfast.client.drivers.blocking import BLOCKING, BlockingDriver
from holdfast.client.drivers.effects import Blocking, Effect, InLoop, NotAtOnce, Operation, WouldWaitError
from holdfast.client.raising import CarriedError, hide_own_frames

T = TypeVar("T")


#: Gives the awaitable of an effect.
WaitFor = Callable[[Effect], Awaitable[Any]]
_WAIT: WaitFor = operator.methodcaller("wait")


async def drive(operation: Operation[T], wait_for: WaitFor = _WAIT) -> T:
    """Take an operation to its end on the running loop, which may be any."""
    try:
        effect = operation.send(None)
        while True:
            try:
                value = await wait_for(effect)
            except BaseException as error:
                effect = operation.throw(error)
            else:
                effect = operation.send(value)
    except StopIteration as done:
        given: T = done.value
        return given
    except CarriedError as carried:
        # No coroutine can raise this one.
        raise RuntimeError(f"a task raised {carried.error!r}") from carried.error
    except BaseException as error:
        hide_own_frames(error)
        raise
    finally:
        operation.close()


class AsynchronousDriver:
    """Waits on the event loop that is running where it is made."""

    asynchronous = True
    gives_awaitables = True
    #: The loop is the user's.
    thread = None

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._process = os.getpid()
        self._wait_for = _WAIT

    @property
    def parent(self) -> int | None:
        return None

    @property
    def held(self) -> dict[int, Any] | None:
        return None

    @property
    def is_over(self) -> bool:
        return self.loop.is_closed()

    @property
    def may_block(self) -> bool:
        return threading.get_ident() != self._thread

    def run(self, operation: Operation[T]) -> Coroutine[Any, Any, T]:
        try:
            here: object = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        # In a fork the operation says itself that the client is the parent's.
        if here is not self.loop and os.getpid() == self._process:
            operation.close()
            if self.is_over:
                raise RuntimeError(
                    "the event loop that this asynchronous client was opened on is closed: open another client"
                )
            raise RuntimeError(
                "an asynchronous client belongs to the event loop that it was opened on, and this call is made "
                f"{'on another one' if here else 'where none is running'}: await it there "
                "(asyncio.run_coroutine_threadsafe), or open another client here"
            )
        coroutine = drive(operation, self._wait_for)
        named: Any = coroutine
        named.__qualname__ = f"holdfast.{getattr(operation, '__name__', 'operation')}"  # for Python's warning
        return coroutine

    def call_in(self, function: Callable[[], object], seconds: float) -> object:
        """Call on the loop after a while; from any thread, also inside the garbage collector."""
        if not seconds:
            return self.loop.call_soon_threadsafe(function)
        return self.loop.call_soon_threadsafe(self.loop.call_later, seconds, function)

    def finish(self, operation: Operation[T]) -> T:
        return (BLOCKING if self.may_block else _AT_ONCE).run(operation)

    def in_loop(self, make: Callable[[], Coroutine[Any, Any, Any]], timeout: float | None = None) -> Effect:
        return InLoop(make, timeout, None)


def run_here(operation: Operation[T]) -> Coroutine[Any, Any, T]:
    """An awaitable of what an operation gives, on the loop that is running here."""
    return AsynchronousDriver().run(operation)


class _AtOnceDriver(BlockingDriver):
    """Takes an operation to its end in the thread of the loop, if that can be done there at once."""

    def block(self, effect: Effect) -> Any:
        if isinstance(effect, Blocking):
            with contextlib.suppress(NotAtOnce):
                return effect.at_once()
        raise WouldWaitError(
            "this call would have to wait, and it returns at once in an asynchronous client: await "
            "client.scatter(data) for data that is large, or wait(future) for a future of another client, and give "
            "the future that you have then"
        )


_AT_ONCE = _AtOnceDriver()
