"""What tasks see of their worker: `holdfast.get_worker` gives it, and what extends a worker is given it."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from holdfast.cluster.comm.addresses import parse_address
from holdfast.cluster.instead import raise_no_attribute
from holdfast.cluster.worker import context
from holdfast.cluster.worker.task_states import TaskState, WorkerState


class Faced(context.RunsTasks, Protocol):
    """A worker, as far as it is shown."""

    nthreads: int
    resources: dict[str, float]
    memory_limit: int | None
    own_process: bool

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which it moves messages."""

    @property
    def status(self) -> str:
        """``"running"``, or ``"closing"``."""

    @property
    def shared_directory(self) -> str:
        """A folder of this host that its workers share. It is gone with its node agent."""

    def running(self) -> Iterable[Any]:
        """The keys of the tasks that run."""

    def forget_functions(self) -> None:
        """What tasks have imported may have changed: their functions are unpickled anew."""

    def restart(self, reason: str) -> None:
        """Have another process take its place."""

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a function with what it asks for by the names of its parameters."""


class SchedulerOfWorker(NamedTuple):
    """The scheduler of a worker, as the worker shows it."""

    #: ``tcp://host:port``.
    address: str


class WorkerFace:
    """A worker, as its tasks see it.

    Attributes
    ----------
    address : str
        ``<node address>/<n>``, as tasks can be sent to.
    name : str
        For people, and as tasks can be sent to.
    id : str
        Names this life of the worker: another process in its place has another id.
    nthreads : int
        How many tasks it runs at a time.
    resources : dict
        What it has of things that tasks can ask for.
    memory_limit : int or None
        In bytes.
    scheduler_address, node_address : str
        Those of the scheduler, and of the node agent of this host.
    plugins : dict
        The worker plugins that there are, by name.
    started : float
        When it began, by ``time.time()``.
    state : WorkerState
        What it knows of its tasks: ``state.tasks[key]`` has the ``state``, the ``exception``, ... of one that runs, or
        of which `WorkerPlugin.transition` is just told.

    Examples
    --------
    >>> from holdfast import Client, get_worker
    >>> def about():
    ...     worker = get_worker()
    ...     return worker.nthreads, worker.get_current_task()
    >>> with Client(n_workers=1, threads_per_worker=2, set_as_default=False) as client:
    ...     client.submit(about, key="about").result()
    (2, 'about')
    """

    def __init__(self, worker: Faced) -> None:
        self._worker = worker
        self.address = worker.address
        self.name = worker.name
        self.id = f"{worker.name}-{os.getpid()}-{os.urandom(4).hex()}"
        self.nthreads = worker.nthreads
        self.resources = dict(worker.resources)
        self.memory_limit = worker.memory_limit
        self.scheduler_address = worker.scheduler_address
        self.node_address = worker.node_address
        self.plugins: dict[str, Any] = {}
        self.started = time.time()
        self.state = WorkerState(worker.running)
        self.data: Mapping[Any, Any] = _Data(self)
        self._lock = threading.Lock()
        self._directory: str | None = None
        self._io_loop: Any = None

    @property
    def worker_address(self) -> str:
        """As ``address``."""
        return self.address

    contact_address = worker_address

    @property
    def host(self) -> str:
        """The host that it runs on, as its node agent is reached: a name, or the number of a network interface."""
        return parse_address(self.node_address)[0]

    ip = host

    @property
    def tasks(self) -> Mapping[Any, TaskState]:
        """As ``state.tasks``."""
        return self.state.tasks

    @property
    def scheduler(self) -> SchedulerOfWorker:
        """The scheduler, of which a worker has the address."""
        return SchedulerOfWorker(self.scheduler_address)

    @property
    def client(self) -> Any:
        """The client that its tasks share; see `holdfast.get_client`."""
        from holdfast.client import in_task  # the client builds on the cluster, and most tasks need none

        return in_task.core_of(self._worker).client

    @property
    def local_directory(self) -> str:
        """A directory of its own. It is made when it is first asked for, and goes with the worker, or with its node
        agent if the worker was killed."""
        with self._lock:
            if self._directory is None:
                path = os.path.join(self.shared_directory, f"worker-{self.address.rpartition('/')[2]}")
                shutil.rmtree(path, ignore_errors=True)  # of one that was killed here
                os.makedirs(path, mode=0o700)
                self._directory = path
            return self._directory

    @property
    def shared_directory(self) -> str:
        """A directory that all workers of this host share. It goes with their node agent."""
        return self._worker.shared_directory

    @property
    def own_process(self) -> bool:
        """Whether nothing but this worker goes on in its process."""
        return self._worker.own_process

    @property
    def status(self) -> str:
        """``"running"``, or ``"closing"``."""
        return self._worker.status

    def forget_functions(self) -> None:
        """Have functions of tasks unpickled anew, since what they are imported from may have changed."""
        self._worker.forget_functions()

    def restart(self, reason: str) -> None:
        """Have another process take the place of the worker's, at once, or when plugins that are just being set up
        have been. What it runs is run again, and no task is charged. Not for workers within another process."""
        self._worker.restart(reason)

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a function as `Client.run` does: with what it asks for by the names of its parameters."""
        return self._worker.call(function)

    @property
    def loop(self) -> Any:
        """The event loop in which it moves messages, as a tornado ``IOLoop``. What blocks it blocks the worker."""
        from tornado.ioloop import IOLoop  # most workers are never asked for it

        with self._lock:
            if self._io_loop is None:
                found = IOLoop._ioloop_for_asyncio.get(self._worker.loop)
                self._io_loop = found or IOLoop(asyncio_loop=self._worker.loop, make_current=False)
            return self._io_loop

    io_loop = loop

    def get_current_task(self) -> Any:
        """The key of the task that runs in this thread.

        Raises
        ------
        ValueError
            This thread runs none.
        """
        key = context.current_key()
        if key is None:
            raise ValueError("this thread runs no task")
        return key

    def log_event(self, topic: str | Iterable[str], msg: Any) -> None:
        """Log an event, as `Client.log_event`, without waiting until the scheduler has it. In any thread.

        Parameters
        ----------
        topic : str or iterable of str
            The name of a topic, or several.
        msg
            Up to 1 MiB.

        Raises
        ------
        TypeError, ValueError
            A topic has no such name, or the message is too large.
        """
        self._worker.log_event(topic, msg)

    def _end(self) -> None:
        """The worker has ended: what was made for its tasks goes."""
        with self._lock:
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
                self._directory = None

    def __getattr__(self, name: str) -> Any:
        raise_no_attribute("a worker", name, self)

    def __repr__(self) -> str:
        return f"<Worker {self.name}: {self.address}, threads: {self.nthreads}>"

    def __reduce__(self) -> Any:
        raise TypeError("a worker can't be pickled: its address names it anywhere")


class _Data(Mapping[Any, Any]):
    """The results that the store of a worker's host has, by key. Each look asks the scheduler."""

    def __init__(self, worker: WorkerFace) -> None:
        self._worker = worker

    def _keys(self) -> dict[Any, None]:
        held = self._worker.client.has_what(self._worker.node_address)
        return dict.fromkeys(key for keys in held.values() for key in keys)

    def __getitem__(self, key: Any) -> Any:
        if key not in self:
            raise KeyError(key)
        from holdfast.client import in_task  # as in `WorkerFace.client`

        return in_task.value_of(self._worker.client, key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())
