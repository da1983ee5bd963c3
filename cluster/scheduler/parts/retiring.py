"""Workers that are to go: they get nothing new to run, their data moves first, and then they end.

A *retirement* is a request that waits. Its workers are barred (`placing/revocation.py`), and what they were sent and
have not begun is taken back. A host *goes* when they are its last workers, if it is to; then its store goes too, so
clients are told not to use it, and what only it has is evacuated (`evacuating`).

=========== ============================================= ===========================================================
a retirement
is …        … until                                       … and then
=========== ============================================= ===========================================================
draining    its workers run nothing, or `grace` is over,  their nodes are told to end them: it is *ending*. If they
            and hosts that go have nothing unsaved        aren't to be closed, it is over, and they stay barred
draining    an object can't be taken to any other host,   all is undone, and nothing was closed; the client gets an
            its time is over, or its client leaves        error that names what could not be moved, or what still runs
ending      its workers have left                         it is over; hosts that go are *emptied*
=========== ============================================= ===========================================================

What a run has stored until its worker left is saved while the host is emptied, and then its node is told to close. If
something can't be moved then, the host stays, without workers: nothing is lost. A host that gets a worker meanwhile
stays as well.

A worker that dies while it drains is started again by its node. Its successor is barred like it, and so is that of a
worker which makes room for another process when it is named (`successors`).

Actors can't be moved (`actors`). So the retirement of a worker that has some, and is to be closed, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from holdfast.cluster.journal.tables import Held
from holdfast.cluster.protocol.requests import RETIRE_WORKERS
from holdfast.cluster.scheduler.parts.carrying import Carrying
from holdfast.cluster.scheduler.parts.copies import Copies
from holdfast.cluster.scheduler.parts.evacuating import Evacuation
from holdfast.cluster.scheduler.parts.part import Part, Shared
from holdfast.cluster.scheduler.parts.successors import Successors
from holdfast.cluster.scheduler.parts.waits import Refusal, Wait, WaitOwner
from holdfast.cluster.scheduler.placing.revocation import Revocation
from holdfast.cluster.scheduler.tasks.deadlines import Timed
from holdfast.cluster.scheduler.tasks.holders import Client
from holdfast.cluster.scheduler.tasks.instructions import CloseNode, RemoveWorkers, TellNodes
from holdfast.cluster.scheduler.tasks.model import Host, Task, Worker
from holdfast.cluster.scheduler.tasks.wording import some

#: What runs gets so long to end, and all of it may take so long, if the client does not say.
GRACE_SECONDS = 30.0
RETIRE_SECONDS = 300.0
#: How often it is looked whether workers run nothing any more.
LOOK_SECONDS = 0.05


class Retirement(Wait):
    """Workers that are to go, and the client that waits for it."""

    __slots__ = (
        "awaits_end",
        "barred",
        "close_hosts",
        "close_workers",
        "described",
        "evacuation",
        "is_ending",
        "is_undone_at_its_end",
        "until",
        "workers",
    )

    kind = "retirement"

    def __init__(
        self,
        part: Retiring,
        client: str,
        request: int,
        due: float,
        workers: Iterable[str],
        *,
        close_workers: bool,
        close_hosts: bool,
        awaits_end: bool,
        until: float,
    ) -> None:
        super().__init__(part, client, request, due)
        self.workers = dict.fromkeys(workers)
        self.close_workers = close_workers
        self.close_hosts = close_hosts
        self.awaits_end = awaits_end
        self.until = until  # what runs has time to end
        self.is_ending = False
        self.barred: dict[str, None] = {}  # those that weren't before
        self.is_undone_at_its_end = True
        self.described: dict[str, dict[str, Any]] = {}
        self.evacuation: Evacuation

    def describe(self) -> str:
        return f"the end of {len(self.workers):,} workers, which are retired"


class _Looks(Timed):
    """It is looked now and then whether the workers run something still: no part hears of the end of each run."""

    __slots__ = ("_part",)

    def __init__(self, part: Retiring) -> None:
        super().__init__()
        self._part = part

    @property
    def due(self) -> float | None:
        return self._part.look_at

    def expire(self, now: float) -> None:
        self._part.look(now)


class Retiring(Part, WaitOwner):
    """Answers `retire-workers`.

    Parameters
    ----------
    shared
        What all parts work with.
    carrying, copies
        See to where data lies.
    revocation
        Bars workers.
    successors
        Knows which workers make room for others.
    """

    name = "retiring"

    def __init__(
        self, shared: Shared, carrying: Carrying, copies: Copies, revocation: Revocation, successors: Successors
    ) -> None:
        super().__init__(shared)
        self._successors = successors
        self.requests = {RETIRE_WORKERS: self._retire}
        self.look_at: float | None = None
        self._carrying = carrying
        self._copies = copies
        self._revocation = revocation
        self._retirements: dict[Retirement, None] = {}
        self._emptied: dict[Host, Evacuation] = {}  # hosts that close when they have nothing unsaved
        self._closing: dict[Host, None] = {}  # those that were told to
        self._looks = _Looks(self)
        self._recovered: list[str] = []  # hosts that an earlier scheduler was emptying

    # -- requests

    def _retire(
        self,
        client: Client,
        request: int,
        workers: Sequence[str],
        close_workers: bool = True,
        close_hosts: bool = True,
        awaits_end: bool = True,
        grace: float = GRACE_SECONDS,
        timeout: float = RETIRE_SECONDS,
    ) -> None:
        self.shared.waits.demand_room(client.id)
        named = [w for w in named_workers(self._successors.there, workers) if w.ending != "closed"]
        chosen = [worker.address for worker in named]
        others = {address for each in self._retirements for address in each.workers}
        if close_workers and client.worker is not None and client.worker.address in chosen:
            text = f"a task can't retire its own worker, {client.worker.address}, which would end with the task"
            raise Refusal("RuntimeError", text)
        if both := [address for address in chosen if address in others]:
            raise Refusal("ValueError", f"{some(both, 5)} is being retired already")
        if not chosen:
            self.answer(client, request, {})
            return
        if close_workers and (
            occupied := [w for w in named if w.actors and not self._successors.is_awaited(w.address)]
        ):
            having = some((f"{worker.name!r} has {worker.actors:,}" for worker in occupied), 5)
            text = f"actors can't be moved, and {having}: let go of their handles before, or retire other workers"
            raise Refusal("RuntimeError", text)
        now = self.shared.now
        self._begin(
            Retirement(
                self,
                client.id,
                request,
                now + timeout,
                chosen,
                close_workers=close_workers,
                close_hosts=close_hosts,
                awaits_end=awaits_end,
                until=min(now + grace, now + timeout),
            )
        )

    def _begin(self, retirement: Retirement) -> None:
        self._retirements[retirement] = None
        self.shared.waits.begin(retirement)
        for worker in self._successors.there:
            if worker.address in retirement.workers:
                retirement.described[worker.address] = _describe(worker)
        for worker in self._workers_of(retirement):
            self._bar(retirement, worker)
        going = self._hosts_that_go(retirement) if retirement.close_hosts else []
        self._leave(going)
        retirement.evacuation = self._evacuation(going)
        self.ask_to_follow_up()

    def _bar(self, retirement: Retirement, worker: Worker) -> None:
        if not worker.retiring:
            retirement.barred[worker.address] = None
            self._revocation.retire(worker, True)

    def _evacuation(self, hosts: Iterable[Host]) -> Evacuation:
        evacuation = Evacuation(hosts, self.shared.hosts, self._carrying, self._copies, self.ask_to_follow_up)
        evacuation.look(self.shared.life.follow_up)
        return evacuation

    def _hosts_that_go(self, retirement: Retirement) -> list[Host]:
        """The hosts that have no other worker, and no place for one."""
        addresses = dict.fromkeys(address.rpartition("/")[0] for address in retirement.workers)
        hosts = [self.shared.hosts[address] for address in addresses if address in self.shared.hosts]
        return [
            host
            for host in hosts
            if host not in self._emptied
            and host not in self._closing
            and all(worker.ending or worker.address in retirement.workers for worker in host.workers)
            and all(any(name in retirement.workers for name in place.names) for place in host.places)
        ]

    def _workers_of(self, retirement: Retirement) -> list[Worker]:
        workers = self.shared.workers
        return [workers[address] for address in retirement.workers if address in workers]

    # -- hosts that go

    def _leave(self, hosts: Iterable[Host]) -> None:
        """Nothing new is to be put into these stores."""
        for host in hosts:
            host.leaving = True
            self._tell_clients([], [host.address])

    def _stay(self, hosts: Iterable[Host]) -> None:
        for host in hosts:
            host.leaving = False
            host.news = None
            self._tell_clients([host.description], [])

    def _tell_clients(self, more: list[dict[str, Any]], fewer: list[str]) -> None:
        for client in self.shared.clients:
            self.shared.instructions.put(TellNodes(client, more, fewer))

    # -- what happens

    def worker_joined(self, worker: Worker) -> None:
        for retirement in self._retirements:
            if worker.address in retirement.workers:
                self._bar(retirement, worker)
                if retirement.is_ending:
                    worker.ending = "closed"
                    self._revocation.retired(worker)
                return
        if worker.host.leaving and worker.host not in self._closing:
            self._keep(worker.host)

    def _keep(self, host: Host) -> None:
        """A host that was to go has a worker again."""
        evacuation = self._emptied.pop(host, None)
        if evacuation is not None:
            self.note_gone(host.address)
            evacuation.stop()
        for retirement in self._retirements:
            retirement.evacuation.hosts.pop(host, None)
        self._stay([host])

    def worker_left(self, worker: Worker) -> None:
        self._something_happened()

    def host_left(self, host: Host) -> None:
        evacuation = self._emptied.pop(host, None)
        if evacuation is not None:
            evacuation.stop()
        if evacuation is not None or host in self._closing:
            self.note_gone(host.address)
        for retirement in self._retirements:
            retirement.evacuation.hosts.pop(host, None)
            if not retirement.evacuation.hosts:
                retirement.evacuation.stop()
        self._closing.pop(host, None)
        self._something_happened()

    def _something_happened(self) -> None:
        if self._retirements or self._emptied:
            self.ask_to_follow_up()

    def look(self, now: float) -> None:
        """It is time to look at the workers again."""
        self.look_at = None
        self.ask_to_follow_up()

    # -- what is to be done

    def follow_up(self) -> None:
        for retirement in list(self._retirements):
            if retirement.is_ending:
                self._await_end(retirement)
            else:
                self._drain(retirement)
        for host in list(self._emptied):
            self._empty(host)

    def _drain(self, retirement: Retirement) -> None:
        evacuation = retirement.evacuation
        evacuation.go_on()
        if not evacuation.under_way and not evacuation.failures:
            if self._runs_nothing(retirement):
                self._end_workers(retirement)
            return
        if evacuation.failures:
            text = f"nothing was closed, since this could not be moved: {evacuation.failures_in_words()}"
            self.shared.waits.refuse(retirement, "NotCopiedError", text)

    def _runs_nothing(self, retirement: Retirement) -> bool:
        now = self.shared.now
        if now >= retirement.until or not any(map(_is_busy, self._workers_of(retirement))):
            return True
        self.look_at = min(now + LOOK_SECONDS, retirement.until)
        self.shared.deadlines.watch(self._looks)
        return False

    def _end_workers(self, retirement: Retirement) -> None:
        retirement.is_undone_at_its_end = False
        for worker in self._workers_of(retirement):
            self._revocation.retired(worker)
        if not retirement.close_workers:
            self.shared.waits.answer(retirement, retirement.described)
            return
        retirement.is_ending = True
        for worker in self._workers_of(retirement):
            worker.ending = "closed"
        of_nodes: dict[str, list[str]] = {}
        for address in retirement.workers:  # also of one that has just died, and would be started again
            of_nodes.setdefault(address.rpartition("/")[0], []).append(address)
        for node, addresses in of_nodes.items():
            if node in self.shared.hosts:
                self.shared.instructions.put(RemoveWorkers(node, addresses))
        for host in retirement.evacuation.hosts:
            self._empty_soon(host)
        if not retirement.awaits_end:
            self.shared.waits.answer(retirement, retirement.described)
        else:
            self._await_end(retirement)

    def _await_end(self, retirement: Retirement) -> None:
        if not self._workers_of(retirement) and not retirement.evacuation.hosts:
            self.shared.waits.answer(retirement, retirement.described)

    def _empty_soon(self, host: Host) -> None:
        self._emptied[host] = self._evacuation([host])
        self.note(host.address, None)

    def _empty(self, host: Host) -> None:
        if host.workers:
            return
        evacuation = self._emptied[host]
        evacuation.go_on()
        if not evacuation.under_way and not evacuation.failures:
            del self._emptied[host]
            self._closing[host] = None
            self.shared.instructions.put(CloseNode(host.address))
            return
        if evacuation.failures:
            self._stop_emptying(host, evacuation)

    def _stop_emptying(self, host: Host, evacuation: Evacuation) -> None:
        """Something has come into a store that goes, and can't be moved: the store stays."""
        del self._emptied[host]
        self.note_gone(host.address)
        evacuation.stop()
        self._stay([host])
        for retirement in list(self._retirements):
            if host in retirement.evacuation.hosts:
                text = (
                    f"the workers have ended, and {host.address} stays, since it has what could not be moved: "
                    f"{evacuation.failures_in_words()}"
                )
                self.shared.waits.refuse(retirement, "NotCopiedError", text)

    # -- the end of a wait

    def expired(self, wait: Wait) -> None:
        assert isinstance(wait, Retirement)
        left = self._workers_of(wait)
        if wait.is_ending:
            late = [worker.address for worker in left] + [host.address for host in wait.evacuation.hosts]
            text = f"{some(late, 5)} has not ended in time, though it was told to"
        elif wait.evacuation.under_way:
            text = f"nothing was closed: {wait.evacuation.left:,} objects were to be moved still when the time was over"
        else:
            busy = [worker.address for worker in left if _is_busy(worker)]
            text = f"nothing was closed: {some(busy, 5)} still ran tasks when the time was over"
        self.shared.waits.refuse(wait, "TimeoutError", text)

    def forget(self, wait: Wait) -> None:
        assert isinstance(wait, Retirement)
        del self._retirements[wait]
        wait.evacuation.stop()
        if wait.is_undone_at_its_end:
            for worker in self._workers_of(wait):
                if worker.address in wait.barred:
                    self._revocation.retire(worker, False)
            self._stay(wait.evacuation.hosts)

    # -- the rest

    def recover(self, entries: Mapping[Any, Held], tasks: Mapping[int, Task]) -> None:
        self._recovered = list(entries)

    def recovered(self) -> None:
        for address in self._recovered:
            host = self.shared.hosts.get(address)
            if host is None or host.workers:
                self.note_gone(address)
            else:
                self._leave([host])
                self._empty_soon(host)
                self.ask_to_follow_up()
        self._recovered.clear()

    def check(self) -> None:
        assert set(self._retirements) == {wait for wait in self.shared.waits if isinstance(wait, Retirement)}
        for retirement in self._retirements:
            for worker in self._workers_of(retirement):
                assert worker.retiring, f"{worker!r} is to go, and may get something to run"
                assert worker.ending or not retirement.is_ending
            for host in retirement.evacuation.hosts:
                assert host.leaving
                assert self.shared.hosts.get(host.address) is host
        assert self._emptied.keys().isdisjoint(self._closing)
        for host in (*self._emptied, *self._closing):
            assert host.leaving
            assert self.shared.hosts.get(host.address) is host
        self.shared.deadlines.check([self._looks])


def named_workers(workers: Iterable[Worker], names: Sequence[str]) -> list[Worker]:
    """The workers that these names mean, each of which is that of a worker or of a host with workers.

    Raises
    ------
    Refusal
        One of them means none; says which there are.
    """
    there = list(workers)
    wanted = dict.fromkeys(names)
    found = [worker for worker in there if not worker.names.isdisjoint(wanted)]
    for name in wanted:
        if not any(name in worker.names for worker in found):
            known = some([f"{worker.name} ({worker.address})" for worker in there], 10) if there else "none"
            raise Refusal("NoWorkerError", f"there is no worker or host {name!r:.200} with workers; there is {known}")
    return found


def _is_busy(worker: Worker) -> bool:
    return any(run.task is not None for run in worker.runs.values())


def _describe(worker: Worker) -> dict[str, Any]:
    host = worker.host
    return {
        "name": worker.name,
        "host": host.description.get("hostname", ""),
        "node": host.address,
        "nthreads": worker.nthreads,
    }
