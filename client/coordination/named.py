"""What has a name in the cluster, by which clients and tasks share it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator
from typing import Any, ClassVar, Self

from holdfast.client import defaults
from holdfast.client.core.core import Core
from holdfast.client.core.registry import core_here, registry
from holdfast.client.drivers.asynchronous import AsynchronousDriver
from holdfast.client.drivers.effects import Operation
from holdfast.client.futures.binding import bound
from holdfast.client.packing.checks import warn_without_effect
from holdfast.client.packing.keys import random_token, wire_key
from holdfast.cluster.durations import seconds
from holdfast.cluster.protocol.limits import LONGEST_WAIT_SECONDS, MAX_INTEGER


class Named:
    """The way of one client to what a name stands for.

    Without a client, it is the current one where the object is used first; in a task that of the task. One that is
    unpickled belongs to the client that unpickles it: so it can be sent to tasks, and come back from them.

    Parameters
    ----------
    name : str or tuple, optional
        Default: one that nobody else has.
    client : Client, optional
        Default: the current client.
    scheduler_rpc, loop
        Have no effect, as a warning says: its client has both.
    """

    #: What the names that are made up begin with.
    _kind: ClassVar[str]

    def __init__(self, name: Any, client: Any, scheduler_rpc: Any = None, loop: Any = None) -> None:
        for argument, value in (("scheduler_rpc", scheduler_rpc), ("loop", loop)):
            if value is not None:
                warn_without_effect(argument, value)
        self.name = f"{self._kind}-{random_token()}" if name is None else wire_key(name)
        self._given: Core | None = None if client is None else client._core
        self._found: Core | None = None

    @property
    def _core(self) -> Core:
        if self._given is not None:
            return core_here(self._given)
        core = self._found
        if core is not None and not core.closed:
            return core_here(core)
        core = defaults.current()
        if registry.running_task() is None:
            self._found = core
        return core

    @property
    def client(self) -> Any:
        """The client that it is used by here.

        Examples
        --------
        >>> from holdfast import Lock
        >>> Lock("x", client=client).client is client
        True
        """
        return self._core.client

    def _run(self, operation: Operation[Any]) -> Any:
        """What an operation gives; in an asynchronous client an awaitable of that."""
        return self._core.driver.run(operation)

    def __await__(self) -> Generator[Any, None, Self]:
        """The object itself, for code that awaits what it makes."""
        return _given(self).__await__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name!r}>"

    def _run_now(self, operation: Callable[[Core], Operation[Any]]) -> None:
        """Do what a new object begins with, in a client that blocks; others do it when they are awaited or used."""
        try:
            core = self._core
        except ValueError:  # there is no client yet
            return
        if not core.driver.gives_awaitables and not core.session.transport.is_current:
            core.driver.run(operation(core))

    def __dask_tokenize__(self) -> tuple[str, Any]:
        # What it is in a graph is its name, whatever client it is used by.
        return (type(self).__name__, self.name)

    # -- how it travels

    def _arguments(self) -> tuple[Any, ...]:
        """What `_again` takes."""
        return (self.name,)

    @classmethod
    def _again(cls, *arguments: Any) -> Self:
        """One that was pickled. It asks the scheduler for nothing."""
        return cls(*arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _unpickled, (type(self), *self._arguments())


def _unpickled(kind: type[Named], *arguments: Any) -> Named:
    made = kind._again(*arguments)
    to = getattr(bound.to, "core", bound.to)
    if isinstance(to, Core):
        made._given = to
    return made


async def _given(value: Any) -> Any:
    return value


def check_blocking(core: Core, kind: type) -> None:
    """Raise a `TypeError` where the ``with`` of an object of this class would have to await."""
    if core.driver.gives_awaitables:
        raise TypeError(f"the client is an asynchronous one here: use 'async with {kind.__name__}(...)'")


def whole_number(name: str, value: Any, least: int) -> int:
    """An argument that is a whole number: one of Python's, or of NumPy's.

    Raises
    ------
    TypeError
        It is none.
    ValueError
        It is less than ``least``, or too large to be sent.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is a whole number, not {value!r:.200}") from None
    if number < least:
        raise ValueError(f"{name} is {least} at least, not {number:.0f}")
    if number > MAX_INTEGER:
        raise ValueError(f"{name} is at most {MAX_INTEGER:,}")
    return number


def time_to_wait(timeout: Any) -> float | None:
    """For how many seconds to wait, as an argument ``timeout`` says it; None: for as long as it takes.

    Raises
    ------
    ValueError
        It is no time.
    """
    limit = seconds(timeout)
    if limit is None or limit > LONGEST_WAIT_SECONDS:
        return None
    if limit != limit:
        raise ValueError("the timeout is a number of seconds, not nan")
    return max(0.0, float(limit))


async def on_loop(operation: Operation[Any]) -> Any:
    """What an operation gives, on the running loop, whatever kind of client it is of."""
    return await AsynchronousDriver().run(operation)
