"""`Actor`: the handle of an object that lives on a worker."""

from __future__ import annotations

from typing import Any, NoReturn

from holdfast.client.actors.actor_future import ActorFuture
from holdfast.client.core.core import Core
from holdfast.client.futures.errors import error_of
from holdfast.client.futures.future import Future, _unpickled
from holdfast.client.operations.actors import attribute, call

#: What notebooks and libraries look for in any object: an actor that has such an attribute doesn't mean them.
_PROBED = ("_repr_", "_ipython_")


class Actor:
    """The handle of an object that lives on one worker, and keeps its state there.

    It is the result of a task that was submitted with ``actor=True``. A method that is called by it runs in the actor,
    and the call gives an `ActorFuture` at once. Any other attribute is read there, and given: ``counter.n``; in an
    asynchronous client, ``await counter.n``.

    * Calls of one caller run in the order in which they are made; those of several callers come in between each other.
      One runs at a time, except for methods that are ``async def``: while one of these waits, others go on.
    * An actor runs in a thread of its own, and takes no slot of the worker's tasks. Its methods may use `get_client`,
      and call other actors. A method that waits for a call of its own actor waits for ever; an ``async def`` method may
      await one.
    * Futures among the arguments stand for their values. Large arguments and results lie in the object store, and are
      read in place.
    * A handle can be an argument of tasks and of other actors' methods, part of what such a method gives, and part of a
      dataset. The actor lives as long as there is a handle or a future of it anywhere, and until its calls are done.
    * An actor is not moved, and not made again: when its worker dies, calls fail with an `ActorLostError`.

    Examples
    --------
    >>> class Counter:
    ...     def __init__(self, n=0):
    ...         self.n = n
    ...     def add(self, k):
    ...         self.n += k
    ...         return self.n
    >>> counter = client.submit(Counter, 10, actor=True).result()
    >>> counter.add(5).result()
    15
    >>> counter.n
    15
    """

    __slots__ = ("__weakref__", "_attributes", "_future", "_methods", "_name", "_number")

    def __init__(
        self, future: Future, number: int, name: str, methods: tuple[str, ...], attributes: tuple[str, ...]
    ) -> None:
        put = object.__setattr__
        put(self, "_future", future)
        put(self, "_number", number)
        put(self, "_name", name)
        put(self, "_methods", methods)
        put(self, "_attributes", attributes)

    _future: Future
    _number: int
    _name: str
    _methods: tuple[str, ...]
    _attributes: tuple[str, ...]

    @property
    def key(self) -> Any:
        """The key of the task that has made it.

        Examples
        --------
        >>> from collections import Counter
        >>> client.submit(Counter, key="words", actor=True).result().key
        'words'
        """
        return self._future.key

    @property
    def client(self) -> Any:
        """The client that the handle belongs to.

        Examples
        --------
        >>> from collections import Counter
        >>> client.submit(Counter, actor=True).result().client is client
        True
        """
        return self._future.client

    def __getattr__(self, name: str) -> Any:
        if name in self._methods:
            return ActorMethod(self, name)
        if (name.startswith("__") and name.endswith("__")) or name.startswith(_PROBED):
            raise AttributeError(f"the actor {self._name} has no method {name!r}")
        core = self._core_to_ask()
        return core.driver.run(attribute(core, self, self._number, self._name, name))

    def _core_to_ask(self) -> Core:
        future = self._future
        future._check_held()
        if future._state.reason is not None:
            raise error_of(future._state)
        return future._core

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"an attribute of an actor can't be set from elsewhere: give {self._name} a method that sets {name!r}"
        )

    def __dir__(self) -> list[str]:
        own = [name for name in super().__dir__() if name.startswith("__") or not name.startswith("_")]
        return sorted({*own, *self._methods, *self._attributes})

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Actor, (self._future, self._number, self._name, self._methods, self._attributes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Actor) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, int]:
        return self._future._core.session.scheduler.get("id"), self._number

    def __dask_tokenize__(self) -> tuple[str, Any, int]:
        return (type(self).__name__, *self._identity)

    def __repr__(self) -> str:
        return f"<Actor: {self._name}, key: {self._future.key!r:.200}>"


class ActorMethod:
    """A method of an actor: called, it gives an `ActorFuture` at once."""

    __slots__ = ("_actor", "_method")

    def __init__(self, actor: Actor, method: str) -> None:
        self._actor = actor
        self._method = method

    def __call__(self, *args: Any, **kwargs: Any) -> ActorFuture:
        """Call it.

        Raises
        ------
        TypeError
            An argument can't be pickled; names it. Nothing was sent.
        CancelledError
            The actor, or a future among the arguments, was cancelled or released.
        ConnectError
            The connection with the scheduler is gone.
        RuntimeError
            100,000 calls to this actor wait already, of an asynchronous client. A blocking one waits for room.
        """
        actor = self._actor
        core = actor._core_to_ask()
        return ActorFuture(call(core, actor, actor._number, actor._name, self._method, args, kwargs), core)

    @property
    def __name__(self) -> str:
        return self._method

    def __repr__(self) -> str:
        return f"<method {self._method} of {self._actor!r}>"


def handle_of(key: Any, number: int, name: str, methods: tuple[str, ...], attributes: tuple[str, ...]) -> Actor:
    """A handle of an actor that a task has made, where the result of that is read."""
    return Actor(_unpickled(key), number, name, methods, attributes)
