"""How a client asks for leases, and gives them back.

`holdfast.client.core.leases` says what a lease is for a client.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from holdfast.client.coordination.named import Named, check_blocking, on_loop, time_to_wait
from holdfast.client.core.core import Core
from holdfast.client.core.leases import Lease
from holdfast.client.drivers.effects import Effect, Operation
from holdfast.cluster.protocol.message import Request

#: ``ask(core, timeout, number)`` asks for a lease.
_Asking = Callable[[Core, float | None, int], Effect]


class Leasing(Named):
    """What is acquired and released: ``with`` it in a blocking client and in tasks, ``async with`` it anywhere.

    The end of a ``with`` may be cut off by an interrupt before any of its code has run. So a lease of a ``with`` ends
    with the object, at the latest. One that was acquired without a ``with`` does not: code may mean to keep it.
    """

    _release: Request

    def __init__(self, name: Any, client: Any, scheduler_rpc: Any = None, loop: Any = None) -> None:
        super().__init__(name, client, scheduler_rpc, loop)
        self._held: dict[int, Lease] = {}

    def _ask(self, core: Core, timeout: float | None, number: int) -> Effect:
        """What asks for a lease."""
        raise NotImplementedError

    def __del__(self) -> None:
        for lease in [*self.__dict__.get("_held", {}).values()]:
            if lease.of_block:
                lease.give_up()

    def _acquire(self, core: Core, timeout: float | None, ask: _Asking | None = None, *, of_block: bool = False) -> Any:
        asking = self._ask if ask is None else ask
        lease = Lease(core, self._release, self._held, of_block=of_block)
        try:
            return core.driver.run(lease.acquire(asking(core, timeout, lease.number)))
        except BaseException:  # an interrupt after the operation has ended
            lease.give_up()
            raise

    def _releasing(self) -> Operation[None]:
        self._give_back()
        return
        yield

    def _give_back(self) -> None:
        """Release what was acquired first."""
        while True:
            lease = next(iter(self._held.values()), None)
            if lease is None:
                raise RuntimeError(f"{self!r} was released, but this object has not acquired it")
            try:
                if lease.give_back():
                    return
            except BaseException:
                lease.give_up()
                raise

    def __enter__(self) -> Self:
        core = self._core
        check_blocking(core, type(self))
        self._acquire(core, None, of_block=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # No call before the try: an interrupt comes after one. Nor can it be helped that one comes before all of this.
        numbers = [*self._held]
        try:
            self._give_back()
        except BaseException:
            lease = self._held.get(numbers[0]) if numbers else None
            if lease is not None:
                lease.give_up()
            raise

    async def __aenter__(self) -> Self:
        core = self._core
        lease = Lease(core, self._release, self._held, of_block=True)
        await on_loop(lease.acquire(self._ask(core, None, lease.number)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await on_loop(self._releasing())


def waiting_time(blocking: bool, timeout: float | str | None) -> float | None:
    """For how long to wait, as the ``acquire`` of locks is told.

    Raises
    ------
    ValueError
        There is a timeout, and nothing is to be waited for; or it is no time.
    """
    if blocking:
        return time_to_wait(timeout)
    if timeout is not None:
        raise ValueError("can't specify a timeout for a non-blocking call")
    return 0.0
