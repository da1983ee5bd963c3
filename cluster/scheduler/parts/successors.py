"""Workers that make room for another process, and those that come after them at the same address.

A worker *makes room* when its process is to be ended for what it runs (`kills`), or since a client or a plugin restarts
it (`restarting`, `plugins`). Its *successor* is awaited from then on until one of these:

===================================================  ==================================================================
the node finds the process at nothing to be ended    the worker stays, and is no longer about to end
a worker joins at the address                        that is the successor
the node keeps no worker there any more, or leaves   there will be none
`SUCCESSOR_SECONDS` have passed                      nobody waits any longer, whatever comes later
===================================================  ==================================================================

So whoever means the worker of an address, and not one process, can wait for the successor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from holdfast.cluster.scheduler.parts.kills import Kills
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.instructions import RestartWorkers
from holdfast.cluster.scheduler.tasks.model import Host, Worker

#: How long a successor is awaited, from when the worker before it has left, or something waits for it first.
SUCCESSOR_SECONDS = 30.0


class _Awaited(Timed):
    """Of an address: until when a successor is awaited there."""

    __slots__ = ("_part", "address", "due")

    due: float | None

    def __init__(self, part: Successors, address: str, due: float) -> None:
        super().__init__()
        self._part = part
        self.address = address
        self.due = due

    def expire(self, now: float) -> None:
        self.due = None
        self._part.waited_enough(self.address)


class Successors(Part):
    """Knows where a successor is awaited.

    Parameters
    ----------
    shared
        What all parts work with.
    kills
        Knows which processes are to be ended.
    revocation
        Bars workers.

    Attributes
    ----------
    on_settled : callable
        ``on_settled(address, reason)`` is called when nobody is awaited at an address any more; the reason says why no
        worker is there to be used, and is None if one is.
    """

    name = "successors"

    def __init__(self, shared: Shared, kills: Kills, revocation: Revocation) -> None:
        super().__init__(shared)
        self._revocation = revocation
        self.on_settled: Callable[[str, str | None], None] = _nothing
        self._kills = kills
        self._left: dict[str, Worker] = {}  # those that have made room, and have no successor yet
        self._awaited: dict[str, _Awaited] = {}
        kills.on_spared = self._spared

    def is_awaited(self, address: str) -> bool:
        """Whether the worker of an address makes room for another one, or has."""
        worker = self.shared.workers.get(address)
        return address in self._left if worker is None else self._makes_room(worker)

    def replace(self, workers: Iterable[Worker]) -> None:
        """Have other processes take the places of these workers, as far as none does already."""
        of_hosts: dict[Host, list[str]] = {}
        for worker in workers:
            if not worker.ending:
                worker.ending = "replaced"
                self._revocation.retire(worker, True)
                of_hosts.setdefault(worker.host, []).append(worker.address)
        for host, addresses in of_hosts.items():
            self.shared.instructions.put(RestartWorkers(host.address, addresses))

    def wait_for(self, address: str) -> None:
        """Something waits for the worker of an address, at which a successor is awaited."""
        if address not in self._awaited:
            self._watch(address)

    @property
    def left(self) -> Mapping[str, Worker]:
        """The workers that have made room, and have no successor yet."""
        return self._left

    @property
    def there(self) -> list[Worker]:
        """These, and the workers that there are."""
        return [*self._left.values(), *self.shared.workers.values()]

    def _makes_room(self, worker: Worker) -> bool:
        return worker.ending == "replaced" or self._kills.is_asked_for(worker)

    def _watch(self, address: str) -> None:
        awaited = self._awaited[address] = _Awaited(self, address, self.shared.now + SUCCESSOR_SECONDS)
        self.shared.deadlines.watch(awaited)

    def _unwatch(self, address: str) -> bool:
        awaited = self._awaited.pop(address, None)
        if awaited is not None:
            awaited.due = None
            self.shared.deadlines.forget(awaited)
        return awaited is not None

    def _settle(self, address: str, reason: str | None) -> None:
        self._left.pop(address, None)
        if self._unwatch(address):
            self.on_settled(address, reason)

    # -- what happens

    def worker_left(self, worker: Worker) -> None:
        if self._makes_room(worker) and worker.address in worker.host.kept_addresses:
            self._left[worker.address] = worker
            self._unwatch(worker.address)
            self._watch(worker.address)
        else:
            self._settle(worker.address, f"the worker {worker.name} at {worker.address} has left")

    def worker_joined(self, worker: Worker) -> None:
        self._settle(worker.address, None)

    def _spared(self, worker: Worker) -> None:
        if not self._makes_room(worker):
            self._settle(worker.address, None)

    def places_left(self, host: Host, addresses: Collection[str]) -> None:
        for address in addresses:
            if address in self._left:
                self._settle(address, f"no worker is kept at {address} any more")

    def host_left(self, host: Host) -> None:
        for address in [address for address, worker in self._left.items() if worker.host is host]:
            self._settle(address, f"the host of {address} has left")

    def waited_enough(self, address: str) -> None:
        """The time is over in which a successor was to come."""
        what = "has left" if address in self._left else "is about to be ended"
        self._settle(address, f"{address} {what}, and for {SUCCESSOR_SECONDS:g} s no other process has taken its place")

    def check(self) -> None:
        for address, worker in self._left.items():
            assert address not in self.shared.workers
            assert address in self._awaited, f"nobody would stop waiting for {address}"
            assert self.shared.hosts.get(worker.host.address) is worker.host
        for address, awaited in self._awaited.items():
            assert self.is_awaited(address), f"nobody is to come at {address}"
            assert awaited.due is not None
        self.shared.deadlines.check(self._awaited.values())


def _nothing(address: str, reason: str | None) -> None:
    pass
