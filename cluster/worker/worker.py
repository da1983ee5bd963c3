"""A worker: how it starts and ends, and what it is made of.

The loop's thread only moves messages; it never waits for the store, which the very same loop may serve. `hearing` says
what each message means. A task goes
from the message, perhaps by way of `waiting_runs`, through the queue of `threads` to a thread, where `execution`
makes an outcome of it, and `outcomes` sends that to the scheduler. A thread that has no task moves messages too, so
that a task which comes meanwhile needs no other one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from holdfast import objectstore
from holdfast.cluster import protocol, versions
from holdfast.cluster.comm.connecting import connect, shared_connection
from holdfast.cluster.comm.connection import Connection
from holdfast.cluster.comm.resumable import ResumableConnection
from holdfast.cluster.errands.threads import ErrandThreads
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.identity import own_identity
from holdfast.cluster.processes import kept_logs
from holdfast.cluster.protocol.limits import MAX_REASON_LENGTH
from holdfast.cluster.protocol.records import record_of, topic_names
from holdfast.cluster.worker import context, output, stacks
from holdfast.cluster.worker.actor import Surroundings
from holdfast.cluster.worker.actors import Actors
from holdfast.cluster.worker.blocking import Blocking
from holdfast.cluster.worker.contents import Contents
from holdfast.cluster.worker.errands import WorkerErrands
from holdfast.cluster.worker.execution import Task, TaskRunner
from holdfast.cluster.worker.face import WorkerFace
from holdfast.cluster.worker.forks import Forks
from holdfast.cluster.worker.functions import FunctionTable
from holdfast.cluster.worker.hearing import Hearing
from holdfast.cluster.worker.imports import ImportsFreezer
from holdfast.cluster.worker.ledger import WorkerLedger
from holdfast.cluster.worker.looking import Looking
from holdfast.cluster.worker.outcomes import OutcomeSender
from holdfast.cluster.worker.preloading import Preloads
from holdfast.cluster.worker.rejoining import Rejoining
from holdfast.cluster.worker.running import Running
from holdfast.cluster.worker.tasks_transport import TasksTransport
from holdfast.cluster.worker.threads import TaskThreads
from holdfast.cluster.worker.waiting_runs import WaitingRuns
from holdfast.cluster.worker.warm_up import warm_up
from holdfast.cluster.worker.watchdog import Watchdog, identity_of
from holdfast.cluster.worker.write_behind import WriteBehind
from holdfast.objectstore.errors import StoreClosedError

logger = logging.getLogger(__name__)

#: How long `Worker.start` looks for the scheduler.
CONNECT_TIMEOUT_SECONDS = 30.0
#: How long `Worker.close` waits for the tasks that run. They can't be stopped, and their results are not awaited.
CLOSE_TIMEOUT_SECONDS = 1.0
#: How long it waits for its plugins to be taken down.
CLOSE_PLUGINS_SECONDS = 3.0
#: How often it is looked whether there is room for more to say, when there was none.
FULL_PAUSE_SECONDS = 0.02
#: How often the loop writes into the ledger that it goes round.
HEAR_SECONDS = 1.0


class Worker:
    """Runs tasks for a scheduler, in the event loop in which it is started and threads of its own.

    Parameters
    ----------
    scheduler_address:
        ``tcp://host:port``.
    token:
        The cluster's token.
    node_address:
        The address of the agent of this host.
    store_socket:
        The socket of this host's object store.
    index:
        The worker's number on its host; its address is ``<node address>/<index>``.
    name:
        For people.
    nthreads:
        How many tasks it runs at once.
    resources:
        What it has of things that tasks can ask for, ``{"GPU": 1}``.
    memory_limit:
        Bytes of memory of its own that it may use. The node agent enforces it; the worker only tells the scheduler.
    own_process:
        Whether nothing but this worker goes on in this process.
    preload:
        What it runs before it registers, with arguments (`preloading`).
    on_joining:
        Called before it registers: from then on there are tasks, and what they do to this process is theirs.
    ledger:
        Shared with the node agent; one of its own if not given.

    Attributes
    ----------
    actors : Actors
        Those that live here. Made by `start`.
    finished : asyncio.Event
        Set when the worker has ended by itself or was closed. Made by `start`.
    reason : str or None
        Why it ended by itself, if that was not asked for.
    """

    actors: Actors
    finished: asyncio.Event

    def __init__(
        self,
        scheduler_address: str,
        *,
        token: bytes,
        node_address: str,
        store_socket: str | os.PathLike[str],
        index: int,
        name: str,
        nthreads: int = 1,
        resources: dict[str, float] | None = None,
        memory_limit: int | None = None,
        own_process: bool = False,
        preload: Sequence[tuple[str, Sequence[str]]] = (),
        on_joining: Callable[[], None] | None = None,
        ledger: WorkerLedger | None = None,
        prefixes_lines: bool = False,
    ) -> None:
        if nthreads < 1:
            raise ValueError(f"a worker needs at least one thread, not {nthreads}")
        self.scheduler_address = scheduler_address
        self.node_address = node_address
        self.address = f"{node_address}/{index}"
        self.name = name
        self.nthreads = nthreads
        self.resources = dict(resources or {})
        self.memory_limit = memory_limit
        self.reason: str | None = None
        self.token = token
        self._store_socket = os.fspath(store_socket)
        self._ledger = ledger or WorkerLedger(nthreads)
        self._hearing: asyncio.TimerHandle | None = None
        self.functions = FunctionTable()
        #: What its tasks see of it.
        self.face = WorkerFace(self)
        self._restart_reason: str | None = None
        self._imports = ImportsFreezer() if own_process else None
        self.own_process = own_process
        self._preloads = Preloads(preload)
        self._on_joining = on_joining
        self._prefixes_lines = prefixes_lines
        self._store: objectstore.Store | None = None
        self._threads: TaskThreads | None = None
        self._connection: Connection | None = None
        self._tasks: TasksTransport | None = None
        self._watchdog: Watchdog | None = None
        self._closing: asyncio.Task[None] | None = None
        _workers.add(self)

    async def start(self) -> None:
        """Attach to the store and register with the scheduler.

        Raises
        ------
        ConnectError, StoreError
            One of them is not there or does not take this worker.
        """
        kept_logs.keep_own()
        if self._prefixes_lines:
            output.prefix_lines()
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self.finished = asyncio.Event()
        self._hear()
        try:
            # First the store: tasks may arrive as soon as the scheduler knows of this worker.
            self._store = await asyncio.to_thread(objectstore.connect, self._store_socket, name=self.name)
            self._store.warm()
            self._write_behind = WriteBehind(self._store, f"holdfast-write-behind-{self.name}")
            contents = Contents()
            runner = TaskRunner(
                self._store, self.functions, self._write_behind, self.name, self._found_writer, contents
            )
            self._outcomes = OutcomeSender(
                self._flush_seals, self._deliver, self._say_first, contents, f"holdfast-outcomes-{self.name}"
            )
            self._threads = TaskThreads(
                self.nthreads,
                self._in_thread,
                self._run,
                self._read_while,
                self._wake_reader,
                self._ledger,
                f"holdfast-task-{self.name}",
            )
            self._waiting_runs = WaitingRuns(self._threads.submit, self._outcomes.put)
            self._blocking = Blocking(self._threads, self._deliver, self._read_while, self._wake_reader)
            around = Surroundings(
                self._store,
                self._outcomes,
                self._in_thread,
                self.lend,
                self._store_is_gone,
                output.end_lines if self._prefixes_lines else bool,
                self.name,
                Forks(),
            )
            self.actors = Actors(around, self._deliver)
            self._running = Running(
                runner,
                self._outcomes,
                self._waiting_runs,
                self._blocking,
                self._write_behind,
                self._store,
                imports=self._imports,
                prefixes_lines=self._prefixes_lines,
                is_idle=self._threads.nothing_queued,
                tell_begun=self._tell_begun,
                cannot_report=self._cannot_report,
                store_is_gone=self._store_is_gone,
            )
            self._looking = Looking(
                lambda: self._threads.threads if self._threads else [],
                self._store,
                runner,
                self._running.run_with,
                self.log_event,
                self.name,
            )
            self._does = WorkerErrands(
                self.face, self.name, self._store, self._in_errand, self._run_tasks_by, self._running.run
            )
            self._errands = ErrandThreads(
                "worker",
                {**self._does.handlers(), **self._looking.handlers()},
                self._deliver_errand,
                f"holdfast-errand-{self.name}",
                inside=self._in_errand,
            )
            self._hears = Hearing(
                self._threads,
                self._waiting_runs,
                self._blocking,
                self._running,
                self.functions,
                self._write_behind,
                self.actors,
                take_errand=self._errands.take,
                deliver=self._deliver,
                close=lambda: self._end(None),
            )
            self._rejoining = Rejoining(
                self._threads,
                self._waiting_runs,
                self._blocking,
                self._outcomes,
                self._write_behind,
                self.actors,
                forget=self._hears.forget,
                deliver=self._deliver,
                name=self.name,
            )
            if self.own_process:
                await self._warm_up()
            await self._preloads.setup(self)
            if self._on_joining is not None:
                self._on_joining()
            self._connection = await connect(
                self.scheduler_address,
                token=self.token,
                role="worker",
                info={
                    "address": self.address,
                    "name": self.name,
                    "node": self.node_address,
                    "nthreads": self.nthreads,
                    "resources": self.resources,
                    "memory_limit": self.memory_limit,
                    **own_identity(),
                    "incarnation": self._ledger.incarnation,
                    "versions": versions.own(),
                },
                timeout=CONNECT_TIMEOUT_SECONDS,
                shared=True,
            )
        except BaseException:
            await self.close()
            raise
        self._tasks = self._hears.tasks = TasksTransport(
            self._connection, self._flush_seals, lambda: self._blocking.is_lending or context.is_beside_tasks()
        )
        self._connection.on_break = self._on_break
        if isinstance(self._connection, ResumableConnection):
            self._connection.on_rejoin = self._on_rejoin
        self._looking.start()
        if self.own_process:
            self._watchdog = self._watch()
        self._connection.start(self._hears.on_batch, self._on_connection_lost, self._hears.on_batch_elsewhere)
        self._threads.read()
        self._rejoining.joined(self._connection.info)

    def _watch(self) -> Watchdog:
        connection, threads = self._connection, self._threads
        assert connection is not None
        assert threads is not None
        store = self.store.descriptor
        of_store = [(store, identity_of(store) or (0, 0))]
        return Watchdog(
            lambda: {
                "its connection to the scheduler": connection.descriptors,
                "its connection to the object store": of_store,
            },
            lambda: [*threads.threads, *self.actors.threads, self._outcomes.thread, self._write_behind.thread],
            lambda: self._ledger.heard,
            self._give_up,
            f"holdfast-watchdog-{self.name}",
        )

    def _give_up(self, reason: str) -> None:
        """This process is no use any more: end it, whatever else goes on in it."""
        self._ledger.leave_reason(reason)  # which its node logs
        os._exit(1)

    def _hear(self) -> None:
        self._ledger.hear()
        self._hearing = self._loop.call_later(HEAR_SECONDS, self._hear)

    async def _warm_up(self) -> None:
        ours, theirs = socket.socketpair()
        self._connection = shared_connection(ours)
        ended = asyncio.Event()
        self._connection.start(self._hears.on_batch, lambda error: ended.set(), self._hears.on_batch_elsewhere)
        await asyncio.to_thread(warm_up, theirs, self.store)
        await ended.wait()
        self._connection = None

    @property
    def tasks(self) -> TasksTransport:
        """The way of what its tasks say as a client."""
        if self._tasks is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._tasks

    @property
    def status(self) -> str:
        """``"running"``, or ``"closing"``, as functions of `Client.run` may ask."""
        return "running" if self._closing is None and self._connection is not None else "closing"

    @property
    def shared_directory(self) -> str:
        """A folder of this host that its workers share. It is gone with its node agent."""
        return os.path.dirname(self._store_socket)

    def running(self) -> list[Any]:
        """The keys of the tasks that run."""
        threads = [] if self._threads is None else self._threads.threads
        return [task.key for task in stacks.running_tasks([thread.ident for thread in threads])]

    def forget_functions(self) -> None:
        """What tasks have imported may have changed: their functions are unpickled anew."""
        self.functions.unload()

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a function as `Client.run` does: with what it asks for by the names of its parameters."""
        return self._does.calls.result_of(function)

    def restart(self, reason: str) -> None:
        """Have another process take the place of this one. In any thread; while plugins are being set up, that comes
        after them."""
        if not self.own_process:
            logger.warning("%s is to start again (%s), and can't within the process of others", self.name, reason)
            return
        self._restart_reason = reason
        if wanted := self._restart_wanted():
            self._deliver(wanted)

    def _restart_wanted(self) -> list[tuple[Any, ...]]:
        """What tells the scheduler that another process is wanted, if one is and no plugin is being set up."""
        reason = self._restart_reason
        if reason is None or self._does.plugins.is_setting_up:
            return []
        self._restart_reason = None
        logger.info("%s wants to start again: %s", self.name, reason)
        return [protocol.worker.RESTART_WANTED(reason[:MAX_REASON_LENGTH])]

    def lend(self) -> contextlib.AbstractContextManager[None]:
        """Within it, the task of this thread waits for others, which run in its slot meanwhile (`blocking`)."""
        return self._blocking.lend()

    def log_event(self, topic: str | Iterable[str], msg: Any) -> None:
        """Log an event, as `Client.log_event`, without waiting until the scheduler has it. In any thread.

        While there is no scheduler, or it is far behind, this waits until there is room for more; but for the loop's
        thread.

        Parameters
        ----------
        topic
            The name of a topic, or several.
        msg
            Up to 1 MiB.

        Raises
        ------
        TypeError, ValueError
            A topic has no such name, or the message is too large.
        """
        logged = protocol.worker.EVENT_LOGGED(topic_names(topic), record_of(msg))
        if threading.get_ident() != self._loop_thread:
            while self._connection is not None and self._connection.is_full and self._closing is None:
                time.sleep(FULL_PAUSE_SECONDS)
        self._deliver([logged])

    def secede(self) -> bool:
        """The task of this thread lends its slot until `rejoin`, or its end; false if it has done so before."""
        return self._blocking.secede()

    def rejoin(self) -> None:
        """The task of this thread waits for a slot, if `secede` has lent its own."""
        self._blocking.rejoin()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which it was started."""
        return self._loop

    @property
    def store(self) -> objectstore.Store:
        """The connection to the store of this host."""
        if self._store is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._store

    async def close(self) -> None:
        """Stop taking tasks, leave the scheduler and the store. Tasks that run are given a moment, no more."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._hearing is not None:
            self._hearing.cancel()
        if self._tasks is not None:
            self._outcomes.worker_ends()
            self._tasks.end(ConnectError(f"the worker {self.name} ends"))
        if self._threads is not None:
            self._blocking.stop()
            self.actors.stop()
            self._threads.stop()
            self._errands.begin_no_more()
            if not await self._does.close(CLOSE_PLUGINS_SECONDS):
                logger.info("%s closes while a plugin is still being taken down", self.name)
            if not await self._threads.join(CLOSE_TIMEOUT_SECONDS):
                logger.info("%s closes while a task still runs", self.name)
            if not await asyncio.to_thread(self._errands.join, CLOSE_TIMEOUT_SECONDS):
                logger.info("%s closes while an errand is still being done", self.name)
            self._errands.stop()
            await asyncio.to_thread(self._looking.close)
            await asyncio.to_thread(self._outcomes.close)
            await asyncio.to_thread(self._write_behind.close)
        await self._preloads.teardown(self)
        if self._connection is not None:
            self._connection.close()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        self.face._end()
        self.finished.set()

    def _end(self, reason: str | None) -> None:
        """End by itself; ``reason`` says why, if it was not asked for."""
        if self._closing is None:
            self.reason = reason
            if reason is not None:
                logger.warning("%s ends: %s", self.name, reason)
            self._closing = asyncio.ensure_future(self._close())

    def _leave_to_parent(self) -> None:
        """In a process that a task has forked: let go of the connection, which ends with this worker's process then."""
        if self._tasks is not None:
            self._tasks.leave_to_parent()
        if self._connection is not None and self._closing is None:
            self._connection.leave_to_parent()

    # -- the connection

    def _on_break(self, is_broken: bool) -> None:
        self._write_behind.pause(is_broken)
        if not is_broken and self._threads is not None:
            self._threads.read()

    def _on_rejoin(self, welcome: dict[str, Any]) -> None:
        self._rejoining.rejoined(welcome, lambda: self.tasks.rejoined(welcome))

    def _on_connection_lost(self, error: Exception | None) -> None:
        self._end(f"the connection to the scheduler was lost{f' ({error})' if error else ''}")

    # -- tasks, in their threads

    @contextlib.contextmanager
    def _in_thread(self) -> Iterator[None]:
        context.enter(self, holds=True)
        try:
            with self.store.batch():
                yield
        except StoreClosedError:
            pass  # the last flush; no peer is left to tell
        finally:
            context.end_held()  # an actor's
            context.enter(None)

    def _run(self, task: Task) -> None:
        self._running.run(task)

    def _tell_begun(self, run_id: int) -> None:
        self._deliver([protocol.worker.BEGUN([run_id])])

    def _run_tasks_by(self, run: Callable[[Task], None] | None) -> None:
        assert self._threads is not None
        self._threads.run_by(run or self._run)

    # -- errands, in theirs

    def _deliver_errand(self, message: tuple[Any, ...]) -> None:
        # The scheduler is to know of a restart when it hears of the plugins that want it, before it sends tasks.
        self._deliver([*self._restart_wanted(), message])

    @contextlib.contextmanager
    def _in_errand(self) -> Iterator[None]:
        context.enter(self)
        try:
            yield
        finally:
            context.enter(None)

    def _cannot_report(self) -> None:
        if self._watchdog is not None:
            self._give_up("it can't report how tasks end any more")

    # -- in any thread

    def _wake_reader(self) -> None:
        if self._connection is not None:
            self._connection.wake_reader()

    def _deliver(self, messages: list[tuple[Any, ...]]) -> None:
        if self._connection is not None:
            self._connection.send_now(messages)

    def _say_first(self) -> None:
        if self._tasks is not None:
            self._tasks.say_all()

    # -- in any thread but the loop's

    def _read_while(self, waits: Callable[[], bool]) -> bool:
        try:
            return self._connection is not None and self._connection.read_while(waits)
        except Exception:  # a batch that can't be handled: the loop finds the same, and closes the connection
            logger.debug("a batch of the scheduler's failed in a task's thread", exc_info=True)
            return False

    def _found_writer(self, key: Any, digest: bytes | None) -> None:
        self._outcomes.put((protocol.worker.WROTE, (key, digest)))

    def _flush_seals(self) -> bool:
        try:
            self.store.flush()
        except StoreClosedError as error:
            self._store_is_gone(error)
            return False
        return True

    def _store_is_gone(self, error: StoreClosedError) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: this worker has ended before
            self._loop.call_soon_threadsafe(self._end, f"the object store is gone ({error})")


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for worker in list(_workers):
        worker._leave_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)
