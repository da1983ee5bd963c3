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
        ``workers`` is a wish: when none of them is there that has the resources, any worker will do that has them.
    actor
        The task makes an actor, which goes to a worker that has few.
    """

    __slots__ = ("__weakref__", "actor", "loose", "resources", "workers")

    def __init__(
        self, workers: tuple[str, ...], resources: tuple[tuple[str, float], ...], loose: bool, actor: bool = False
    ) -> None:
        self.workers = workers
        self.resources = resources
        self.loose = loose
        self.actor = actor

    def names(self, candidate: Candidate) -> bool:
        """Whether ``workers`` means this worker, or the one of this place."""
        return not self.workers or any(name in candidate.names for name in self.workers)

    @property
    def yields(self) -> bool:
        """Whether other workers will do when there is none that `names` means."""
        return self.loose

    def falls_back_on(self, candidate: Candidate) -> bool:
        """Whether this worker will do when there is none that `names` means."""
        return self.loose

    def could_run_on(self, candidate: Candidate) -> bool:
        """Whether the worker has the resources when nothing else runs there."""
        return all(candidate.resources.get(name, 0.0) >= amount for name, amount in self.resources)

    def fits_now(self, worker: FreeCandidate) -> bool:
        """Whether the worker has the resources now."""
        return all(worker.free_resources.get(name, 0.0) >= amount for name, amount in self.resources)


class Elsewhere(Requirements):
    """The requirements of a task that wants to be run on another worker than before, if one of them may run it.

    Parameters
    ----------
    requirements
        Those of the task, None for none.
    avoided
        The name of the worker that has run it last.
    """

    __slots__ = ("_avoided", "requirements")

    def __init__(self, requirements: Requirements | None, avoided: str) -> None:
        if requirements is None:
            super().__init__((), (), False)
        else:
            super().__init__(requirements.workers, requirements.resources, requirements.loose)
        self.requirements = requirements
        self._avoided = avoided

    def names(self, candidate: Candidate) -> bool:
        avoids = self._avoided in candidate.names
        return not avoids and super().names(candidate) and self.could_run_on(candidate)

    @property
    def yields(self) -> bool:
        return True

    def falls_back_on(self, candidate: Candidate) -> bool:
        return self.loose or super().names(candidate)
