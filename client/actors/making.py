"""What is submitted so that an actor is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.client.actors.actor import handle_of
from holdfast.client.packing.collecting import collecting
from holdfast.cluster.worker.actor_maker import ActorMaker


def as_actor(function: Callable[..., Any]) -> ActorMaker:
    """A function that gives the handle of an actor: of the object that ``function`` makes."""
    if not callable(function):
        raise TypeError(f"an actor is made by what can be called, such as a class, not by {function!r}")
    return ActorMaker(function, collecting, handle_of)


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
