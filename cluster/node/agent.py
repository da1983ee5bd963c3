"""The node agent: puts the parts of a host together, and takes them down in the right order."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.cluster.clock import ListeningClock, Rounds
from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.comm.connecting import NoAnswerError
from holdfast.cluster.comm.listening import bound_socket
from holdfast.cluster.errands.threads import ErrandThreads
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.node import errands
from holdfast.cluster.node.deaths import Death
from holdfast.cluster.node.durable import DurableFiles
from holdfast.cluster.node.heartbeat import Heartbeat
from holdfast.cluster.node.ledger import Revoked
from holdfast.cluster.node.nanny import OPERATIONS, NannyProcess
from holdfast.cluster.node.pages import PageMaker
from holdfast.cluster.node.scheduler_link import SchedulerLink
from holdfast.cluster.node.worker_plan import WorkerPlan
from holdfast.cluster.node.workers import HostWorkers
from holdfast.cluster.processes import kept_logs, run_directory
from holdfast.cluster.processes.forking import Forker
from holdfast.cluster.processes.host_id import host_id
from holdfast.cluster.transfer.fetcher import Fetcher
from holdfast.cluster.transfer.server import TransferServer
from holdfast.objectstore import ObjectID, StoreServer
from holdfast.objectstore.core.objects import ObjectMeta

logger = logging.getLogger(__name__)

#: How long `NodeAgent.close` waits for errands that are being done. They can't be stopped.
ERRANDS_SECONDS = 1.0


class NodeAgent:
    """One host of a cluster: its store, its workers, its way to other hosts.

    Parameters
    ----------
    scheduler_address:
        ``tcp://host:port``.
    token:
        The cluster's token.
    host, port:
        Where other hosts reach this one; port 0: any free one.
    n_workers, threads_per_worker:
        The workers that this host begins with.
    indices:
        The numbers of these workers, if not those from zero on.
    memory_limit:
        Bytes of memory of its own that each worker may use; more, and it is killed.
    store_capacity:
        Bytes of the object store, or a size such as ``"4 GB"``; 30 % of the memory if not given.
    spill_directory:
        Where the store moves objects that don't fit; the first of the usual places on a disk if not given.
    resources:
        What each worker has of things that tasks can ask for.
    processes:
        False: the workers run in this process and loop, and nothing enforces a memory limit.
    forker:
        What forks the workers' processes; one is started if not given.
    name:
        The host's name, for people.
    deaths, last_death, last_death_seconds:
        How many agents were here before this one and died, and how the last one did, and how long ago, for people.
    log_level:
        How much worker processes log.
    worker_logs:
        The directory in which each worker process has a log of its own; None: they write where this process does.

    Attributes
    ----------
    address : str
        Identity of this host and address of its transfer port. Known after `start`.
    store : StoreServer
        Known after `start`, as is ``run_directory``.
    finished : asyncio.Event
        Set when the agent has ended by itself or was closed. Made by `start`.
    reason : str or None
        Why it ended by itself, if that was not asked for.
    """

    finished: asyncio.Event
    store: StoreServer
    run_directory: run_directory.RunDirectory

    def __init__(
        self,
        scheduler_address: str,
        *,
        token: bytes,
        host: str = "127.0.0.1",
        port: int = 0,
        n_workers: int = 1,
        threads_per_worker: int = 1,
        indices: Sequence[int] | None = None,
        memory_limit: int | None = None,
        environment: Mapping[str, str] | None = None,
        preload: Sequence[tuple[str, Sequence[str]]] = (),
        store_capacity: int | str | None = None,
        spill_directory: str | None = None,
        resources: Mapping[str, float] | None = None,
        processes: bool = True,
        forker: Forker | None = None,
        name: str | None = None,
        deaths: int = 0,
        last_death: str | None = None,
        last_death_seconds: float = 0.0,
        log_level: str = "INFO",
        worker_logs: Path | None = None,
        dask_config: bytes = b"",
    ) -> None:
        indices = range(n_workers) if indices is None else indices
        if n_workers < 0 or threads_per_worker < 1 or len(set(indices)) != len(indices):
            raise ValueError(f"a host can't have {n_workers} workers with {threads_per_worker} threads each")
        self.scheduler_address = scheduler_address
        self.address = ""
        self.name = name or socket.gethostname()
        self.reason: str | None = None
        self._deaths = deaths
        self._last_death = last_death
        self._died = time.monotonic() - last_death_seconds if deaths else None
        self._token = token
        self._host = host
        self._port = port
        self._indices = list(indices)
        # Of workers that are like those which this host begins with.
        self._like = WorkerPlan(
            0,
            "",
            nthreads=threads_per_worker,
            memory_limit=memory_limit,
            resources=dict(resources or {}),
            environment=dict(environment or {}),
            preload=preload,
            in_process=not processes,
        )
        self._store_capacity = store_capacity
        self._spill_directory = spill_directory
        self._processes = processes
        self._forker = forker or Forker()
        self._log_level = log_level
        self._worker_logs = worker_logs
        self._dask_config = dask_config
        self._clock = ListeningClock()  # a wait for something of the store lasts while it could have come
        self._rounds: Rounds | None = None
        self._store_started = False
        self._link: SchedulerLink | None = None
        self._fetcher: Fetcher | None = None
        self._transfer_server: TransferServer | None = None
        self._workers: HostWorkers | None = None
        self._page_maker: PageMaker | None = None
        self._errands: ErrandThreads | None = None
        self._durable: DurableFiles | None = None
        self._nanny: NannyProcess | None = None
        self._heartbeat: Heartbeat | None = None
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start everything; the store serves and all workers are registered when this returns.

        Raises
        ------
        ConnectError, StoreError, HoldfastError
            Something could not start. All that had started has been taken down again.
        """
        self.finished = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        kept_logs.keep_own()
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        run_directory.sweep()
        self._rounds = Rounds(self._clock)
        self.run_directory = run_directory.RunDirectory.create("node")
        self.store = StoreServer(
            self._store_capacity,
            socket_path=self.run_directory.path / "store.sock",
            fetch=self._fetch,
            on_left=self._process_left,
            spill_directory=self._spill_directory,
            clock=self._clock.time,
        )
        listening = bound_socket(self._host, self._port)
        try:
            self.address = format_address(
                reachable(listening.getsockname()[0], self.scheduler_address), listening.getsockname()[1]
            )
            await self.store.start()
            self._store_started = True
            self._transfer_server = TransferServer(
                listening, self.store, token=self._token, name=self.address, on_left=self._left
            )
        except BaseException:
            listening.close()
            raise
        self._durable = durable = DurableFiles(self.store, self._fetch)
        handlers = errands.handlers(self._describe, durable.handlers)
        self._errands = ErrandThreads("node", handlers, self._say, f"holdfast-errand-{self.name}")
        self._link = link = SchedulerLink(
            self.scheduler_address,
            token=self._token,
            clock=self._clock,
            inventory=self._inventory,
            places=self._places,
            on_delete=self._delete,
            on_forget=self._forget,
            on_add=self._add,
            on_remove=self._remove,
            on_restart=self._restart,
            on_copy=self._copy,
            on_report=self._report,
            on_parted=self._parted,
            on_revoke=self._revoke,
            on_kill=self._kill,
            on_errand=self._do_errand,
            on_end=self._end,
        )
        self._fetcher = Fetcher(
            self.store,
            address=self.address,
            token=self._token,
            on_copied=self._link.copied,
            on_not_copied=self._link.not_copied,
            place=durable.place,
        )
        self._transfer_server.start()
        self._nanny = nanny = NannyProcess(
            [
                "--scheduler",
                self.scheduler_address,
                "--node",
                self.address,
                "--store",
                self.store.socket_path,
                "--name",
                self.name,
            ],
            self.name,
            token=self._token,
            forker=self._forker,
            say=self._say,
            restart=lambda: self.workers.restart_processes(),
            log_level=self._log_level,
        )
        # Importing takes a worker process most of its start; the scheduler is looked for meanwhile.
        self._workers = workers = HostWorkers(
            scheduler_address=self.scheduler_address,
            node_address=self.address,
            store_socket=self.store.socket_path,
            token=self._token,
            forker=self._forker,
            on_exit=self._exited,
            on_change=self._places_changed,
            on_pause=self._report,
            environment=lambda: nanny.environment,
            log_level=self._log_level,
            log_directory=self._worker_logs,
            dask_config=self._dask_config,
        )
        workers.begin(self._plan(index) for index in self._indices)
        self._heartbeat = Heartbeat(
            self._workers,
            stats=self.store.stats,
            send=self._link.heartbeat,
            interval=lambda: link.heartbeat_seconds,
            clock=self._clock,
            died=self._died,
        )
        if self._processes:
            self._page_maker = PageMaker(self.store, self._forker)
            self._page_maker.start()
        description = {
            "address": self.address,
            "hostname": self.name,
            "host_id": host_id(),
            "store_socket": self.store.socket_path,
            "capacity": self.store.stats()["capacity"],
            "pid": os.getpid(),
            "deaths": self._deaths,
            "last_death": self._last_death,
        }
        try:
            await self._link.connect(description, again=self._deaths > 0)
        except NoAnswerError:  # which is a reason to try again, but for another agent
            raise
        except ConnectError as error:
            self.reason = str(error)
            raise
        self._heartbeat.start()
        await self._workers.ready()
        self.run_directory.write_info(
            {
                "address": self.address,
                "scheduler": self.scheduler_address,
                "store_socket": self.store.socket_path,
                "workers": len(self._indices),
            }
        )

    async def close(self) -> None:
        """Stop the workers, leave the cluster, close the store. Nothing is left behind. Twice is no error."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._errands is not None:
            self._errands.stop()
        if self._durable is not None:
            self._durable.stop()
        if self._workers is not None:
            await self._workers.close()
        if self._page_maker is not None:
            await self._page_maker.close()
        if self._nanny is not None:
            await self._nanny.close()
        self._forker.close()
        if self._link is not None:
            self._link.close()
        if self._errands is not None:
            await asyncio.to_thread(self._errands.join, ERRANDS_SECONDS)
        # The threads that move bytes into the arena before the arena.
        if self._fetcher is not None:
            await self._fetcher.close()
        if self._transfer_server is not None:
            await self._transfer_server.close()
        if self._store_started:
            await self.store.aclose()
        if hasattr(self, "run_directory"):
            self.run_directory.close()
        if self._rounds is not None:
            self._rounds.cancel()
        self.finished.set()

    def _end(self, reason: str | None) -> None:
        """End by itself; ``reason`` says why, if it was not asked for."""
        if self._closing is None:
            self.reason = reason
            if reason is not None:
                logger.warning("this host leaves the cluster: %s", reason)
            self._closing = asyncio.ensure_future(self._close())

    # -- the parts

    async def _fetch(self, object_id: ObjectID, sources: Iterable[str]) -> None:
        assert self._fetcher is not None
        await self._fetcher.fetch(object_id, sources)

    def _inventory(self) -> Iterator[ObjectMeta]:
        # The scheduler takes it in pieces, and some of it may be gone meanwhile.
        return (m for m in self.store.inventory() if m.object_id is not None and self.store.contains(m.object_id))

    def _describe(self, object_id: ObjectID) -> dict[str, Any] | None:
        """What the store has of an object. In the thread of an errand."""

        async def describe() -> dict[str, Any] | None:
            return self.store.describe(object_id)

        return asyncio.run_coroutine_threadsafe(describe(), self._loop).result()

    def _delete(self, object_ids: Iterable[bytes]) -> None:
        self.store.delete([ObjectID(object_id) for object_id in object_ids])

    def _forget(self, object_ids: Iterable[bytes]) -> list[bytes]:
        return [bytes(stays) for stays in self.store.forget([ObjectID(object_id) for object_id in object_ids])]

    def _copy(self, objects: Iterable[tuple[bytes, Sequence[str]]]) -> None:
        assert self._fetcher is not None
        self._fetcher.copy(objects)

    def _exited(self, worker_address: str, death: Death) -> None:
        if self._link is not None:
            self._link.exited(worker_address, death)

    def _process_left(self, name: str, pid: int, object_ids: list[ObjectID]) -> None:
        self._left(name, object_ids, None if self._workers is None else self._workers.incarnation_of(pid))

    def _left(self, name: str, object_ids: list[ObjectID], incarnation: int | None = None) -> None:
        if self._link is not None and object_ids:
            self._link.left(name, object_ids, incarnation)

    def _say(self, message: tuple[Any, ...]) -> None:
        if self._link is not None:
            self._link.say(message)

    def _do_errand(self, number: int, operation: str, arguments: dict[str, Any]) -> None:
        assert self._errands is not None
        assert self._nanny is not None
        take = self._nanny.take if operation in OPERATIONS else self._errands.take
        take(number, operation, arguments)

    def _report(self) -> None:
        assert self._heartbeat is not None
        self._heartbeat.report()

    def _parted(self, worker_address: str, pid: int) -> None:
        assert self._workers is not None
        self._workers.parted(worker_address, pid)

    def _revoke(self, worker_address: str, incarnation: int, run_ids: Sequence[int]) -> Revoked | None:
        assert self._workers is not None
        return self._workers.revoke(worker_address, incarnation, run_ids)

    def _kill(self, worker_address: str, incarnation: int, run_ids: Sequence[int], reason: str) -> Revoked | None:
        assert self._workers is not None
        return self._workers.kill(worker_address, incarnation, run_ids, reason)

    # -- workers that come and go

    @property
    def workers(self) -> HostWorkers:
        """The workers of this host. Known from `start` on."""
        if self._workers is None:
            raise RuntimeError("the node agent is not started")
        return self._workers

    def _plan(self, index: int) -> WorkerPlan:
        """A worker like those that this host begins with."""
        return dataclasses.replace(self._like, index=index, name=f"{self.name}-{index}")

    def _add(self, indices: Sequence[int]) -> None:
        self.workers.keep(map(self._plan, indices))

    def _restart(self, addresses: Sequence[str]) -> None:
        self.workers.restart_soon(addresses)

    def _remove(self, addresses: Sequence[str]) -> None:
        self.workers.remove_soon(addresses)

    def _places(self) -> tuple[int, list[tuple[str, str, int, dict[str, float]]]]:
        return self.workers.nthreads, self.workers.places()

    def _places_changed(self) -> None:
        if self._link is not None:
            self._link.places_changed()


def reachable(host: str, scheduler_address: str) -> str:
    """The address to give to others: of a host bound to all its addresses, the one that faces the scheduler."""
    if host not in ("0.0.0.0", "::"):
        return host
    scheduler = parse_address(scheduler_address)
    family, kind, protocol, _, target = socket.getaddrinfo(*scheduler, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.connect(target)  # of a datagram socket: sends nothing
        return str(sock.getsockname()[0])
