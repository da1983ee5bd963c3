"""What operations wait for that the scheduler says: results, and answers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

from holdfast.client.core.calls import Call
from holdfast.client.core.completions import Completions
from holdfast.client.core.key_state import KeyState
from holdfast.client.core.session import Session
from holdfast.client.drivers.effects import Effect, Signal
from holdfast.cluster.protocol.message import Request


class Ready(Effect):
    """States aren't pending any more: all of them, or as `KeyTable.wait` says. Gives whether they are in time."""

    __slots__ = ("first", "on_error", "session", "states", "timeout")

    def __init__(
        self,
        session: Session,
        states: Collection[KeyState],
        timeout: float | None,
        *,
        first: bool = False,
        on_error: bool = False,
    ) -> None:
        self.session = session
        self.states = states
        self.timeout = timeout
        self.first = first
        self.on_error = on_error

    @property
    def waits_for_others(self) -> bool:
        return not self.session.table.is_over(self.states, first=self.first, on_error=self.on_error)

    def block(self) -> bool:
        self.session.check_may_block()
        return self.session.table.wait(self.states, self.timeout, first=self.first, on_error=self.on_error)

    async def wait(self) -> bool:
        table = self.session.table
        signal = Signal()
        waiter = table.begin_wait(self.states, first=self.first, on_error=self.on_error, wake=signal.give)
        if waiter is None:
            return True
        over = False
        try:
            self.session.flush_to_wait()
            over = await signal.wait(self.timeout)
        finally:
            if not over or waiter.pending:
                table.end_wait(waiter, self.states)
        return over


class Completed(Effect):
    """One of the states is ready that some completions hear of. Gives whether one is in time."""

    __slots__ = ("completions", "session", "timeout")

    def __init__(self, session: Session, completions: Completions, timeout: float | None) -> None:
        self.session = session
        self.completions = completions
        self.timeout = timeout

    @property
    def waits_for_others(self) -> bool:
        return not self.completions.ready

    def block(self) -> bool:
        self.session.check_may_block()
        return self.session.table.wait_for_one(self.completions, self.timeout)

    async def wait(self) -> bool:
        signal = Signal()
        wakes = self.completions.wakes
        wake = signal.give
        wakes.append(wake)
        try:
            if self.completions.ready:
                return True
            self.session.flush_to_wait()
            return await signal.wait(self.timeout)
        finally:
            wakes.remove(wake)


class Ask(Effect):
    """The scheduler has answered a request. Gives the answer, or raises its error."""

    __slots__ = ("arguments", "request", "session", "timeout")

    def __init__(self, session: Session, request: Request, timeout: float | None = None, /, **arguments: Any) -> None:
        self.session = session
        self.request = request
        self.timeout = timeout
        self.arguments = arguments

    @property
    def waits_for_others(self) -> bool:
        return self.request.waits

    def block(self) -> Any:
        return self.session.ask(self.request, self.timeout, **self.arguments)

    def block_lending(self, lend: Callable[[], AbstractContextManager[None]]) -> Any:
        return self.session.ask(self.request, self.timeout, lend, **self.arguments)

    async def wait(self) -> Any:
        return await self.session.ask_on_loop(self.request, self.timeout, **self.arguments)


class Answered(Effect):
    """A call of an actor is answered. Gives whether it is in time."""

    __slots__ = ("call", "session", "timeout")

    def __init__(self, session: Session, call: Call, timeout: float | None = None) -> None:
        self.session = session
        self.call = call
        self.timeout = timeout

    @property
    def waits_for_others(self) -> bool:
        return not self.call.is_done

    def block(self) -> bool:
        self.session.check_may_block()
        return self.session.wait_for_call(self.call, self.timeout)

    async def wait(self) -> bool:
        call = self.call
        signal = Signal()
        call.wakes.append(signal.give)
        if call.is_done:
            return True
        self.session.flush_to_wait()
        return await signal.wait(self.timeout)
