"""A listener that knows from the feed alone what the tasks of a scheduler are doing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from holdfast.cluster.scheduler.machine.machine import SchedulerState
from holdfast.cluster.scheduler.tasks.feed import Change, Joined, Left, Move
from holdfast.cluster.scheduler.tasks.model import Task


class Replay:
    """Follows a scheduler's state from the time when it is made.

    Attributes
    ----------
    tasks
        How many tasks of a key are in a state, by key and state.
    peers
        Which hosts, workers and clients are there, by kind and address.
    moves
        How often each move was heard of.
    missed
        Of how much was not heard.
    """

    def __init__(self, state: SchedulerState, **options: Any) -> None:
        self.tasks = states_of(state)
        self.peers = peers_of(state)
        self.moves: Counter[tuple[str | None, str]] = Counter()
        self.missed = 0
        self.subscription = state.feed.subscribe(**options)

    def catch_up(self) -> None:
        """Take in what has happened."""
        taken = self.subscription.take()
        self.missed += taken.missed
        for batch in taken.batches:
            assert batch.changes
            for change in batch.changes:
                self._take_in(change)

    def _take_in(self, change: Change) -> None:
        if isinstance(change, Move):
            key, before, after = change[:3]
            self.moves[before, after] += 1
            if before is not None:
                assert self.tasks[key, before], f"{key!r} was not {before}"
                self.tasks[key, before] -= 1
            if after != "forgotten":
                self.tasks[key, after] += 1
        elif isinstance(change, Joined):
            assert change[:2] not in self.peers
            self.peers.add(change[:2])
        elif isinstance(change, Left):
            self.peers.remove(change[:2])


def states_of(state: SchedulerState) -> Counter[tuple[Any, str]]:
    """What `Replay.tasks` should be."""
    return Counter((task.key, task.state) for task in every_task(state))


def peers_of(state: SchedulerState) -> set[tuple[str, str]]:
    """What `Replay.peers` should be."""
    tables = {"host": state.hosts, "worker": state.workers, "client": state.clients}
    return {(kind, address) for kind, table in tables.items() for address in table}


def every_task(state: SchedulerState) -> Iterator[Task]:
    """All tasks, those included that have lost their keys."""
    return chain(state.tasks.values(), state.life.generations.earlier)
