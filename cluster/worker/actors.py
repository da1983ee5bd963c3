"""The actors of a worker, by number. `actor` says how one lives, `actor_outcomes` how what it gives is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.protocol.worker import ACTORS_MADE
from holdfast.cluster.worker import context
from holdfast.cluster.worker.actor import Described, LivingActor, Surroundings
from holdfast.cluster.worker.actor_calls import Call


class Actors:
    """The actors of a worker.

    Parameters
    ----------
    around
        What all of them share.
    deliver
        ``deliver(messages)`` sends messages to the scheduler at once, in any thread.
    """

    def __init__(self, around: Surroundings, deliver: Callable[[list[tuple[Any, ...]]], None]) -> None:
        self._around = around
        self._deliver = deliver
        self._actors: dict[int, LivingActor] = {}

    @property
    def threads(self) -> list[threading.Thread]:
        """Those of the actors that are to live."""
        return [actor.thread for actor in list(self._actors.values())]

    def make(self, construct: Callable[[], Any]) -> Described:
        """Make an actor, in a task, whose result is a handle of it. Raises what ``construct`` raises.

        The task lends its slot meanwhile: what the constructor waits for may be a task for this worker.
        """
        key, number = context.current_key(), context.current_run()
        assert number is not None
        actor = LivingActor(self._around, key, number)
        try:
            described = actor.make(construct)
        except BaseException:
            actor.end()
            raise
        self._actors[number] = actor
        self._deliver([ACTORS_MADE([(number, described.name)])])
        return described

    def said_again(self) -> list[tuple[Any, ...]]:
        """Messages that say which actors live here."""
        made = [(number, actor.name) for number, actor in list(self._actors.items())]
        return [ACTORS_MADE(made)] if made else []

    # -- what the scheduler says

    def call(self, calls: Iterable[Call]) -> None:
        """Have these begun, in this order."""
        for call in calls:
            _, number, _, _, _, _ = call
            self._actors[number].add(call)  # the scheduler drops none that has calls

    def drop_calls(self, numbers: Iterable[int]) -> None:
        """Begin none of these."""
        for actor in list(self._actors.values()):
            actor.drop_calls(numbers)

    def drop(self, numbers: Iterable[int]) -> None:
        """Let go of these actors, of which no call is under way."""
        for number in numbers:
            actor = self._actors.pop(number, None)
            if actor is not None:
                actor.end()

    def stop(self) -> None:
        """The worker ends: begin nothing any more."""
        self.drop(list(self._actors))
