"""The driver of a blocking client: the thread that calls is the thread that waits.

Nothing goes through another thread: while it waits for the scheduler, the calling thread reads the connection itself
(`holdfast.cluster.comm.shared`). Most operations never wait. An interrupt comes before a step of the operation, inside
of it, or after it. The operation is garbage then, which ends it where it yielded.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from holdfast.client.drivers.effects import Effect, InLoop, Operation
from holdfast.client.raising import CarriedError, raise_as_it_was
from holdfast.cluster.comm.loops import LoopThread

T = TypeVar("T")


class BlockingDriver:
    """Blocks the calling thread.

    Attributes
    ----------
    thread : LoopThread or None
        With the event loop of the client's connection; None until the first `in_loop`.
    """

    asynchronous = False
    may_block = True
    is_over = False
    #: Threads are nothing that this kind of client would be without.
    call_in = None

    @property
    def parent(self) -> int | None:
        return None

    def __init__(self) -> None:
        self.thread: LoopThread | None = None

    def run(self, operation: Operation[T]) -> T:
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
        return InLoop(make, timeout, self.thread)


#: For operations without `Driver.in_loop`, in any thread that may be blocked.
BLOCKING = BlockingDriver()
