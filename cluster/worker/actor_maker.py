"""What a client sends in the place of a function whose result is to stay on its worker as an actor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from holdfast.cluster.worker.context import current_worker


class ActorMaker:
    """Makes an actor of what a function gives. It is called as the function, in a task.

    Parameters
    ----------
    function
        Makes the object: a class, usually.
    collecting
        A context manager that collects the futures that are pickled in it. The client's, as what the futures are.
    handle
        ``handle(key, number, name, methods)`` makes a handle of the actor, where the result of the task is read. The
        client's, too.
    """

    def __init__(self, function: Callable[..., Any], collecting: Any, handle: Callable[..., Any]) -> None:
        self.function = function
        self.collecting = collecting
        self.handle = handle
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> ActorHandle:
        worker = current_worker()
        assert worker is not None
        made = worker.actors.make(partial(self.function, *args, **kwargs), self.collecting)
        return ActorHandle(self.handle, made)


class ActorHandle:
    """The result of a task that has made an actor. What is read of it is a handle."""

    def __init__(self, handle: Callable[..., Any], made: tuple[Any, ...]) -> None:
        self._handle = handle
        self._made = made

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._handle, self._made
