"""Which task runs in this thread, for what is called from inside a task."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, TypeVarTuple

from holdfast.cluster.worker.tasks_transport import TasksTransport
from holdfast.objectstore import Store

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class TaskLoop(Protocol):
    """The event loop of a task that is a coroutine."""

    #: The client's side keeps its driver here.
    driver: Any

    @property
    def is_current(self) -> bool:
        """Whether it is the loop that runs in this thread."""

    def wait(self) -> AbstractContextManager[None]:
        """Within it the coroutine waits for what others bring about."""


class HelpedLoop(TaskLoop, Protocol):
    """One whose coroutine has other threads work for it."""

    def run_in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine that runs in it; in another thread."""


class MakesActors(Protocol):
    """The actors of a worker, as far as its tasks know them."""

    def make(self, construct: Callable[[], Any]) -> tuple[Any, ...]:
        """Make an actor in this task; what its handle has to know."""


class RunsTasks(Protocol):
    """A worker, as far as its tasks know it."""

    scheduler_address: str
    node_address: str
    address: str
    name: str
    token: bytes
    own_process: bool

    @property
    def actors(self) -> MakesActors:
        """Its actors."""

    @property
    def store(self) -> Store:
        """The connection to the store of this host."""

    @property
    def tasks(self) -> TasksTransport:
        """The way of what its tasks say as a client."""

    def log_event(self, topic: str | Iterable[str], msg: Any) -> None:
        """Log an event, which clients can get."""

    @property
    def face(self) -> Any:
        """What its tasks see of it (`face.WorkerFace`)."""

    def lend(self) -> AbstractContextManager[None]:
        """Within it, the task of this thread waits for others, which run in its slot meanwhile."""

    def secede(self) -> bool:
        """The task of this thread lends its slot until `rejoin`, or its end; false if it has done so before."""

    def rejoin(self) -> None:
        """The task of this thread waits for a slot, if `secede` has lent its own."""


class Held(Protocol):
    """Something that belongs to what runs in a thread, and ends with that: a lease."""

    def end(self) -> None:
        """End it, before anything else is said. Twice is no harm."""


class _Context(threading.local):
    worker: RunsTasks | None = None
    key: Any = None
    run_id: int | None = None
    loop: TaskLoop | None = None
    helps: HelpedLoop | None = None
    held: dict[int, Held] | None = None


_context = _Context()
_runs_tasks = False


def current_worker() -> RunsTasks | None:
    """The worker whose task is running in this thread; None outside of tasks."""
    return _context.worker


def current_key() -> Any:
    """The key of the task that is running in this thread; None outside of tasks."""
    return _context.key


def current_run() -> int | None:
    """The run of the task that is running in this thread; None outside of tasks."""
    return _context.run_id


def is_beside_tasks() -> bool:
    """Whether this thread is one of the worker's that runs no task: an actor's."""
    return _context.worker is not None and _context.run_id is None


def enter(worker: RunsTasks | None, *, holds: bool = False) -> None:
    """From now on this thread runs tasks of ``worker``; with ``holds``, what these hold ends with them."""
    global _runs_tasks
    if worker is not None and worker.own_process:
        _runs_tasks = True
    _context.worker = worker
    _context.held = {} if holds else None


def held_here() -> dict[int, Held] | None:
    """What ends with the run, or with the actor, of this thread, by number; None in a thread that has neither."""
    return _context.held


def end_held() -> None:
    """What ran in this thread has ended: a run, or an actor."""
    if _context.held:
        for held in list(_context.held.values()):
            held.end()
        _context.held.clear()


def runs_tasks() -> bool:
    """Whether this is the process of a worker, in which nothing else goes on."""
    return _runs_tasks


def current_task_loop() -> TaskLoop | None:
    """The loop of the coroutine that is the task of this thread, within that coroutine; else None."""
    loop = _context.loop
    return loop if loop is not None and loop.is_current else None


def helped_task_loop() -> HelpedLoop | None:
    """The loop of the coroutine that has this thread work for it (`helping`); None in other threads."""
    return _context.helps


def helping(loop: HelpedLoop, call: Callable[[*Arguments], T]) -> Callable[[*Arguments], T]:
    """``call`` for another thread, in which it belongs to the task of this one, a coroutine: ``loop`` runs it."""
    here = _context
    of_task = {"worker": here.worker, "key": here.key, "run_id": here.run_id, "held": here.held}

    def helped(*args: *Arguments) -> T:
        before = dict(_context.__dict__)
        _context.__dict__.update(of_task, loop=None, helps=loop)
        try:
            return call(*args)
        finally:
            _context.__dict__.clear()
            _context.__dict__.update(before)

    return helped


def enter_loop(loop: TaskLoop | None) -> None:
    """From now on the task of this thread is a coroutine, which ``loop`` runs; None: it is none."""
    _context.loop = loop


def run(key: Any, run_id: int | None) -> None:
    """From now on this thread runs the task ``key``, whose run is ``run_id``; None for none."""
    _context.key = key
    _context.run_id = run_id
