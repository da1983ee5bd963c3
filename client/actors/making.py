"""What is submitted so that an actor is made, in the place of the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from holdfast.client.actors.actor import handle_of


class ActorMaker:
    """Makes an actor of what a function gives. It is called as the function, in a task.

    Parameters
    ----------
    function
        Makes the object: a class, usually.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> ActorHandle:
        from holdfast.cluster.worker.context import current_worker  # only a task comes here, whose process has it

        worker = current_worker()
        assert worker is not None
        return ActorHandle(worker.actors.make(partial(self.function, *args, **kwargs)))


class ActorHandle:
    """The result of a task that has made an actor. What is read of it is a handle."""

    def __init__(self, made: tuple[Any, ...]) -> None:
        self._made = made

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return handle_of, self._made


def as_actor(function: Callable[..., Any]) -> ActorMaker:
    """A function that gives the handle of an actor: of the object that ``function`` makes."""
    if not callable(function):
        raise TypeError(f"an actor is made by what can be called, such as a class, not by {function!r}")
    return ActorMaker(function)


def is_actor(actor: bool, actors: bool) -> bool:
    """Whether a call is to make an actor: ``actor`` and ``actors`` are one option of two names.

    Raises
    ------
    TypeError
        One of them is neither true nor false.
    """
    for name, value in (("actor", actor), ("actors", actors)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} is True or False, not {value!r}")
    return actor or actors
