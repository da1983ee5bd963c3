"""How the hosts of a `LocalCluster` come to have the workers that their plans say.

An agent is told through the scheduler, and says by itself which workers it keeps then. An agent that is started again
knows the plan of its host from the beginning. What is told is what there is to be, so it may be told twice; it is told
until all hosts have heard it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from holdfast.cluster import protocol
from holdfast.cluster.deploy.host_plans import HostPlans
from holdfast.cluster.errors import NoWorkerError
from holdfast.objectstore.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.cluster.deploy.cluster_processes import LocalProcesses
    from holdfast.cluster.deploy.in_process import LocalThreads
    from holdfast.cluster.deploy.scheduler_comm import SchedulerComm

logger = logging.getLogger(__name__)

#: How often a host is asked again that was not there when it was to have other workers.
RETRY_SECONDS = 0.1
#: A worker that a host was told to have, and that hasn't come or has gone for so long, has to be asked for again: a
#: client may have retired it.
COMING_SECONDS = 10.0

Connect = Callable[[], "Awaitable[SchedulerComm]"]


class LocalScaling:
    """Tells the agents of one cluster.

    Parameters
    ----------
    parts
        Has the agents.
    plans
        What their hosts are to have.
    name
        Of the cluster, for messages.
    """

    def __init__(self, parts: LocalProcesses | LocalThreads, plans: HostPlans, name: str) -> None:
        self._parts = parts
        self._plans = plans
        self._name = name
        self._adding = asyncio.Lock()  # an agent is started once, however many ask for it
        self._told = [time.monotonic()] * len(plans)

    def coming(self) -> set[str]:
        """The names of those that may come by themselves, since their hosts were told of them a short while ago."""
        now = time.monotonic()
        return {worker.name for worker in self._plans.workers() if now - self._told[worker.host] < COMING_SECONDS}

    async def add(self, connect: Connect, is_over: Callable[[], bool]) -> None:
        """Have each host keep the workers that it is to have. One that has gone, and is to have some, comes back.

        Parameters
        ----------
        connect
            Gives what the scheduler is asked by.
        is_over
            Whether this is of no use any more.
        """
        pending = set(range(len(self._plans)))
        while pending and not is_over():
            async with self._adding:
                comm = await connect()
                for host in sorted(pending):
                    if await self._tell(comm, host):
                        pending.discard(host)
            if pending:
                await asyncio.sleep(RETRY_SECONDS)

    async def _tell(self, comm: SchedulerComm, host: int) -> bool:
        """Tell a host of its workers, if it is there; whether it knows of them then."""
        address, plan = self._parts.addresses()[host], self._plans[host]
        if address is None:
            if plan.n_workers:
                await self._parts.refill(host)
            return not plan.n_workers
        try:
            await comm.ask(protocol.requests.ADD_WORKERS, node=address, indices=plan.numbers)
        except ValueError:  # it has just gone, and another one comes
            return False
        self._told[host] = time.monotonic()
        return True

    async def remove(self, connect: Connect, addresses: Iterable[str]) -> None:
        """Close workers. Those that the scheduler has are retired first."""
        comm = await connect()
        going = set(addresses)
        there = (await comm.identity())["workers"]
        if known := sorted(going & set(there)):
            try:
                await comm.retire_workers(known, close_hosts=False)
            except (NoWorkerError, ValueError):
                pass  # they have just gone, or others let them go
            except (TimeoutError, RuntimeError, HoldfastError) as error:  # they have actors, say
                if comm.is_over:
                    raise
                logger.warning("%s keeps the workers %s: %s", self._name, ", ".join(known), error)
                self._keep(known)
                going -= set(known)
        # Also those that have come meanwhile.
        hosts = {address.rpartition("/")[0] for address in going}
        for host in sorted(hosts & set(filter(None, self._parts.addresses()))):
            theirs = sorted(address for address in going if address.rpartition("/")[0] == host)
            with contextlib.suppress(ValueError):  # the host has just gone
                await comm.ask(protocol.requests.REMOVE_WORKERS, node=host, workers=theirs)

    def _keep(self, addresses: Iterable[str]) -> None:
        """Workers that were to go stay."""
        for host, at in enumerate(self._parts.addresses()):
            numbers = [int(address.rpartition("/")[2]) for address in addresses if address.rpartition("/")[0] == at]
            if numbers:
                self._plans.keep(host, numbers)


def idle_first(names: Iterable[str], info: dict[str, Any], count: int) -> list[str]:
    """So many of these workers that may go: those that aren't there, then idle ones, the youngest first.

    Parameters
    ----------
    names
        The oldest first.
    info
        What `Client.scheduler_info` gives.
    count
        How many.
    """
    known = {worker["name"]: worker for worker in info["workers"].values()}
    order = {name: place for place, name in enumerate(names)}

    def cost(name: str) -> tuple[int, int]:
        worker = known.get(name)
        busy = 0 if worker is None else 1 + min(1, worker["processing"] + worker["blocked"])
        return busy, -order[name]

    return sorted(order, key=cost)[:count]
