"""Which workers a `LocalCluster` has, how many, and how that is shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from holdfast.cluster.deploy.cluster import Cluster, out_of
from holdfast.cluster.deploy.local_scaling import LocalScaling, idle_first
from holdfast.cluster.deploy.local_views import LocalWorker
from holdfast.cluster.deploy.plan import MAX_WORKERS
from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.notebook import card
from holdfast.objectstore.sizes import format_size

if TYPE_CHECKING:
    from holdfast.cluster.deploy.cluster_processes import LocalProcesses
    from holdfast.cluster.deploy.host_plans import HostPlans
    from holdfast.cluster.deploy.in_process import LocalThreads


class PlannedWorkers(Cluster):
    """A cluster with plans of which host is to have which workers. A subclass has its parts."""

    _parts: LocalProcesses | LocalThreads
    _plans: HostPlans
    _scaling: LocalScaling
    _has_processes: bool

    @property
    def workers(self) -> dict[str, LocalWorker]:
        """The workers that there are to be, by name; an agent starts those again that die.

        Examples
        --------
        >>> [worker.nthreads for worker in cluster.workers.values()]
        [1, 1]
        """
        # Before it begins, no host has an address.
        hosts = self._parts.addresses() or [None] * len(self._plans)
        return {
            each.name: LocalWorker(each.name, each.address(hosts[each.host]), self._plans[each.host].threads_per_worker)
            for each in self._plans.workers()
        }

    @property
    def worker_spec(self) -> dict[str, dict[str, Any]]:
        """What each worker is, by name, as of a `SpecCluster`.

        Examples
        --------
        >>> [spec["options"]["nthreads"] for spec in cluster.worker_spec.values()]
        [1, 1]
        """
        return {name: self._spec_of(name) for name in self.workers}

    def new_worker_spec(self) -> dict[str, dict[str, Any]]:
        """The name and the specification of the next worker, as a dictionary with one entry.

        Examples
        --------
        >>> ((name, spec),) = cluster.new_worker_spec().items()
        >>> name in cluster.workers, spec["options"]["nthreads"]
        (False, 1)
        """
        name = self._plans.next_name
        return {name: self._spec_of(name)}

    def _spec_of(self, name: str) -> dict[str, Any]:
        from holdfast.cluster.deploy.worker import Nanny, Worker  # which bring much along that this class needs not

        plan = self._plans[0]
        options = {
            "name": name,
            "nthreads": plan.threads_per_worker,
            "memory_limit": plan.memory_limit,
            "resources": dict(plan.resources or {}),
        }
        return {"cls": Nanny if self._has_processes else Worker, "options": options}

    def scale(self, n: int = 0, memory: float | str | None = None, cores: float | None = None) -> Any:
        """Have so many workers. They come and go in the background; `wait_for_workers` waits for those that come.

        Idle workers go first. One that runs a task gets half a minute to end that. No result is lost: these lie in the
        object stores, which stay, also with no worker at all.

        Parameters
        ----------
        n : int
            The number of workers.
        memory, cores : optional
            Have so many workers at least that they have so much memory, or so many threads, together.

        Returns
        -------
        awaitable or None
            Of an asynchronous one: of the time when all hosts have been told, and those that go have gone.

        Examples
        --------
        >>> from holdfast import LocalCluster
        >>> with LocalCluster(n_workers=1, threads_per_worker=1) as cluster:
        ...     cluster.scale(3)
        ...     cluster.wait_for_workers(3)
        ...     len(cluster.scheduler_info["workers"])
        3
        """
        self._check_open()
        n = self._wanted(n, memory, cores)
        if n > MAX_WORKERS:
            raise ValueError(f"n must be from 0 to {MAX_WORKERS}, not {n}")
        surplus = self._plans.n_workers - n
        going = self._drop(idle_first(self.workers, self.scheduler_info, surplus)) if surplus > 0 else []
        self._plans.grow(max(0, -surplus))
        return self._do(self._scaled(going), f"scaling {self.name}")

    def scale_down(self, workers: Iterable[Any]) -> Any:
        """Have these workers no more, which are given by name or address; as `scale`."""
        self._check_open()
        return self._do(self._scaling.remove(self._connect, self._drop(workers)), f"scaling {self.name}")

    def _drop(self, workers: Iterable[Any]) -> list[str]:
        """These workers are in no host's plan any more: the addresses of those that have one."""
        named = {workers} if isinstance(workers, str) else {str(worker) for worker in workers}
        going = [each for each in self.workers.values() if not named.isdisjoint((each.name, each.address or ""))]
        self._plans.drop({each.name for each in going})
        return [each.address for each in going if each.address is not None]

    async def _scaled(self, going: list[str]) -> None:
        """These workers go, and what is missing of the others comes: it may have been retired."""
        if going:
            await self._scaling.remove(self._connect, going)
        await self._scaling.add(self._connect, lambda: self.closed)

    @property
    def plan(self) -> set[Any]:
        """The names of the workers that there are to be."""
        return set(self.workers)

    @property
    def requested(self) -> set[Any]:
        """The names of the workers that are there, or come by themselves: not of those that a client has retired."""
        return self.plan & (self.observed | self._scaling.coming())

    def _threads_per_worker(self) -> int | None:
        return self._plans[0].threads_per_worker

    def _memory_per_worker(self) -> int | None:
        return self._plans[0].memory_limit

    # -- how it is shown

    def __repr__(self) -> str:
        if self.status != Status.running:
            return f"LocalCluster({self.status})"
        here = self._here()
        text = f"workers={len(here)}, threads={sum(worker.nthreads for worker in here)}"
        if len(self._plans) > 1:
            text += f", hosts={len(self._parts.node_infos)}"
        ended = f", {', '.join(died)}" if (died := self._parts.died()) else ""
        return f"LocalCluster({self.scheduler_address!r}, {text}{ended})"

    def _here(self) -> list[LocalWorker]:
        """The workers whose hosts are there."""
        return [worker for worker in self.workers.values() if worker.address is not None]

    def _repr_html_(self) -> str:
        if self.status != Status.running:
            return card("LocalCluster", {"state": self.status})
        here, hosts = self._here(), len(self._parts.node_infos)
        return card(
            "LocalCluster",
            {
                "scheduler": self.scheduler_address,
                "state": ", ".join(self._parts.died()) or "running",
                "hosts": out_of(hosts, len(self._plans)),
                "workers": out_of(len(here), self._plans.n_workers),
                "threads": sum(worker.nthreads for worker in here),
                "object stores": format_size(hosts * self._plans[0].store_capacity),
                "scaling": "adaptive" if self._adaptive is not None and self._adaptive.is_running else "manual",
            },
        )
