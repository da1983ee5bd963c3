"""Which workers may run which tasks.

A task with requirements names workers, asks for resources, or both (`Requirements`). Such a task waits in state
"no-worker" while the cluster has no worker for it, and no place that one is to come to. A worker that is retired counts
as little as one that is gone, also if its process stays (``close_workers=False``).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.scheduler.tasks.model import Host, Worker, WorkerPlace
from holdfast.cluster.scheduler.tasks.requirements import Elsewhere, Requirements


class Eligibility:
    """Holds workers against requirements.

    Parameters
    ----------
    hosts, workers
        The scheduler's tables; only read here.
    """

    def __init__(self, hosts: dict[str, Host], workers: dict[str, Worker]) -> None:
        self._hosts = hosts
        self._workers = workers
        self._requirements: weakref.WeakValueDictionary[Any, Requirements] = weakref.WeakValueDictionary()
        #: Whether tasks with these requirements can run, since something has `changed` last.
        self._can_run: weakref.WeakKeyDictionary[Requirements, bool] = weakref.WeakKeyDictionary()

    def requirements(self, options: dict[str, Any]) -> Requirements | None:
        """The shared `Requirements` that the options of a task ask for, None for none."""
        named = options.get("workers") or ()
        resources = options.get("resources") or {}
        if not named and not resources and "actor" not in options:
            return None
        try:
            workers = (named,) if isinstance(named, str) else tuple(map(str, named))
            key = (
                workers,
                # To ask for nothing of a resource is no requirement: a worker that doesn't know it may run the task.
                tuple(sorted((str(name), float(amount)) for name, amount in resources.items() if amount)),
                bool(options.get("allow_other_workers")),
                bool(options.get("actor")),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"malformed requirements of a task: {error}") from None
        found = self._requirements.get(key)
        if found is None:
            found = self._requirements[key] = Requirements(*key)
        return found

    def elsewhere(self, requirements: Requirements | None, worker: Worker) -> Requirements:
        """The shared `Requirements` of tasks that are to run on another worker than this one, if they can."""
        if isinstance(requirements, Elsewhere):
            requirements = requirements.requirements
        key = (requirements, worker.address)
        found = self._requirements.get(key)
        if found is None:
            found = self._requirements[key] = Elsewhere(requirements, worker.address)
        return found

    def candidates(self, requirements: Requirements | None) -> list[Worker]:
        """The workers that may run tasks with these requirements, busy or not."""
        workers = [worker for worker in self._workers.values() if not worker.is_retired]
        if requirements is None:
            return workers
        able = [w for w in workers if requirements.could_run_on(w)]
        named = [w for w in able if requirements.names(w) and not (requirements.yields and w.retiring)]
        return named or [w for w in able if requirements.falls_back_on(w)]

    def changed(self) -> None:
        """Workers or hosts have come or gone, or count no longer, or have other places."""
        self._can_run.clear()

    def can_run(self, requirements: Requirements | None) -> bool:
        """Whether there is a worker that may run tasks with these requirements, or a place that one is to come to."""
        if requirements is None:
            return bool(self._workers) or any(host.places for host in self._hosts.values())
        known = self._can_run.get(requirements)
        if known is None:
            known = self._can_run[requirements] = self._find_out(requirements)
        return known

    def _find_out(self, requirements: Requirements) -> bool:
        return bool(self.candidates(requirements)) or any(
            (requirements.names(place) or requirements.falls_back_on(place)) and requirements.could_run_on(place)
            for place in self.places()
        )

    def check(self) -> None:
        """Check that what is known is still so: for validation."""
        for requirements, known in self._can_run.items():
            assert known == self._find_out(requirements)

    def places(self) -> Iterator[WorkerPlace]:
        """The places of all workers but those that are retired."""
        for host in self._hosts.values():
            for place in host.places:
                worker = self._workers.get(place.address)
                if worker is None or not worker.is_retired:
                    yield place

    def may_run_now(self, worker: Worker, requirements: Requirements | None) -> bool:
        """Whether a worker may run tasks with these requirements, and has the resources for one now."""
        if requirements is None:
            return True
        if requirements.resources and (worker.reclaiming or not requirements.fits_now(worker)):
            return False
        return self.is_named(worker, requirements)

    def is_named(self, worker: Worker, requirements: Requirements) -> bool:
        """Whether these requirements mean a worker, by its name, or since the one that they wish for isn't there."""
        if requirements.names(worker):
            return True
        others = (w for w in self._workers.values() if not w.retiring and requirements.could_run_on(w))
        return requirements.falls_back_on(worker) and not any(map(requirements.names, others))
