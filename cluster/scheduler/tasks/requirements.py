"""Which workers may run a task."""

from __future__ import annotations

from typing import Protocol


class Candidate(Protocol):
    """A worker, or a place that one is to come to."""

    names: frozenset[str]
    resources: dict[str, float]


class FreeCandidate(Candidate, Protocol):
    """A worker that is there."""

    free_resources: dict[str, float]


class Requirements:
    """Which workers may run a task. Tasks that ask for the same share one; None stands for "any worker".

    Attributes
    ----------
    workers
        Names of workers or hosts (`holdfast.cluster.naming`), one of which must fit; empty: any.
    resources
        What a run takes from its worker while it lasts, by name.
    loose
        ``workers`` is a wish: when none of them is there, any worker will do.
    """

    __slots__ = ("__weakref__", "loose", "resources", "workers")

    def __init__(self, workers: tuple[str, ...], resources: tuple[tuple[str, float], ...], loose: bool) -> None:
        self.workers = workers
        self.resources = resources
        self.loose = loose

    def names(self, candidate: Candidate) -> bool:
        """Whether ``workers`` means this worker, or the one of this place."""
        return not self.workers or any(name in candidate.names for name in self.workers)

    def could_run_on(self, candidate: Candidate) -> bool:
        """Whether the worker has the resources when nothing else runs there."""
        return all(candidate.resources.get(name, 0.0) >= amount for name, amount in self.resources)

    def fits_now(self, worker: FreeCandidate) -> bool:
        """Whether the worker has the resources now."""
        return all(worker.free_resources.get(name, 0.0) >= amount for name, amount in self.resources)
