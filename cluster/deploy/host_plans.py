"""Which workers the hosts of a `LocalCluster` are to have.

A worker is known by its host and a number there, which no other worker of the host has or had. So it is called
``<name of the host>-<number>``, and an agent that has such a worker already is told nothing new by that number.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from holdfast.cluster.deploy.plan import NodePlan


class PlannedWorker(NamedTuple):
    """A worker that there is to be.

    Attributes
    ----------
    name : str
    host : int
        Which of the hosts has it.
    number : int
        On its host.
    """

    name: str
    host: int
    number: int

    def address(self, of_host: str | None) -> str | None:
        """Its address, if that of its host's agent is known."""
        return None if of_host is None else f"{of_host}/{self.number}"


class HostPlans:
    """The plan of each host, and how they change.

    Parameters
    ----------
    plans
        What there is in the beginning.
    on_change
        ``on_change(host, plan)``: a host has another plan now.
    """

    def __init__(self, plans: Sequence[NodePlan], on_change: Callable[[int, NodePlan], None]) -> None:
        self._plans = list(plans)
        self._on_change = on_change
        self._next = [plan.n_workers for plan in plans]

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, host: int) -> NodePlan:
        return self._plans[host]

    def workers(self) -> list[PlannedWorker]:
        """All of them, those of the first host first."""
        return [
            PlannedWorker(_name_of(plan, number), host, number)
            for host, plan in enumerate(self._plans)
            for number in plan.numbers
        ]

    @property
    def n_workers(self) -> int:
        """Of all hosts together."""
        return sum(plan.n_workers for plan in self._plans)

    @property
    def next_name(self) -> str:
        """What one more worker would be called."""
        host = self._emptiest()
        return _name_of(self._plans[host], self._next[host])

    def grow(self, count: int) -> None:
        """Have so many more, each on the host that has the fewest."""
        for _ in range(count):
            host = self._emptiest()
            number, self._next[host] = self._next[host], self._next[host] + 1
            self._set(host, [*self._plans[host].numbers, number])

    def drop(self, names: Collection[str]) -> None:
        """Have the workers of these names no more."""
        for host, plan in enumerate(self._plans):
            self._set(host, [number for number in plan.numbers if _name_of(plan, number) not in names])

    def keep(self, host: int, numbers: Iterable[int]) -> None:
        """Have these workers of a host all the same."""
        self._set(host, sorted({*self._plans[host].numbers, *numbers}))

    def _set(self, host: int, numbers: Sequence[int]) -> None:
        if list(numbers) != self._plans[host].numbers:
            plan = dataclasses.replace(self._plans[host], n_workers=len(numbers), indices=tuple(numbers))
            self._plans[host] = plan
            self._on_change(host, plan)

    def _emptiest(self) -> int:
        return min(range(len(self._plans)), key=lambda host: self._plans[host].n_workers)


def _name_of(plan: NodePlan, number: int) -> str:
    return f"{plan.name or socket.gethostname()}-{number}"
