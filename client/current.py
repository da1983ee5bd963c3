"""What there is where a call is made: the client to use, and inside a task its worker and its slot."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from holdfast.client import defaults
from holdfast.client.client import Client
from holdfast.client.core.registry import registry
from holdfast.client.operations.opening import CONNECT_SECONDS
from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.durations import seconds

if TYPE_CHECKING:  # a process without a worker needs nothing of one
    from holdfast.cluster.worker.face import WorkerFace


def get_client(address: str | None = None, timeout: float | str | None = None, resolve_address: bool = True) -> Client:
    """The client to use here: inside a task that of its worker, else the one that was opened last as a default.

    The tasks of a worker share a client, which uses the worker's connection and store. A task that waits by it, in
    `Future.result`, `Client.gather` or ``x.compute()``, lends its slot to other tasks, and goes on when there is a slot
    again. So tasks may wait for tasks that they have submitted, on a cluster of any size; up to 1,000 tasks of a worker
    at a time. In a task that is a coroutine function the client is an asynchronous one: ``await client.gather(...)``.

    Parameters
    ----------
    address : str, optional
        Of a scheduler, ``"tcp://HOST:PORT"`` or ``"HOST:PORT"``. If the client to use here is one of another cluster,
        a blocking client is opened, which is the caller's to close.
    timeout : float or str, optional
        How long to try to connect then, in seconds or as text such as ``"5 s"``.
    resolve_address : bool
        Whether two names of one host are the same address.

    Returns
    -------
    Client

    Raises
    ------
    ValueError
        There is none, and no address is given; says what to do.
    BlockedTasksError
        By what waits, if too many tasks of the worker wait already.

    Examples
    --------
    >>> from holdfast import get_client
    >>> def fibonacci(n):
    ...     if n < 2:
    ...         return n
    ...     client = get_client()
    ...     return sum(client.gather([client.submit(fibonacci, n - 1), client.submit(fibonacci, n - 2)]))
    >>> client.submit(fibonacci, 10).result()
    55
    """
    if address is None:
        return Client.current()
    try:
        core = defaults.current()
    except ValueError:
        pass
    else:
        wanted = _canonical(address, resolve=resolve_address)
        if _canonical(core.scheduler_address, resolve=resolve_address) == wanted:
            here: Client = core.client
            return here
    limit = seconds(timeout)
    return Client(
        address,
        timeout=CONNECT_SECONDS if limit is None else limit,
        set_as_default=registry.running_task() is None,
    )


def _canonical(address: str, *, resolve: bool) -> str:
    host, port = parse_address(address)
    if resolve:
        with contextlib.suppress(OSError):  # a name that is none here: connecting says so
            host = socket.gethostbyname(host)
    return format_address(host, port)


def default_client(client: Client | None = None) -> Client:
    """A client, if one is given; else the one to use here, as `get_client` says.

    Raises
    ------
    ValueError
        There is none.

    Examples
    --------
    >>> from holdfast import default_client
    >>> default_client() is client
    True
    """
    return Client.current() if client is None else client


# -- inside tasks


def get_worker() -> WorkerFace:
    """The worker that runs this task.

    Returns
    -------
    WorkerFace
        With `address`, `name`, `nthreads`, `client`, `data`, `plugins` and what else a task may want to know.

    Raises
    ------
    ValueError
        The calling thread runs no task.

    Examples
    --------
    >>> from holdfast import get_worker
    >>> def where():
    ...     return get_worker().address
    >>> client.submit(where).result()
    'tcp://...'
    """
    face: WorkerFace = _worker("get_worker").face
    return face


def secede() -> None:
    """Lend the slot of this task to other tasks for good, or until `rejoin`: the worker runs one more meanwhile.

    For a task that will not compute for long, such as one that watches something. Its result counts as that of any
    other. A task that waits by its client, as in `Client.gather`, lends its slot without that. What the task holds of
    resources is lent too.

    Raises
    ------
    ValueError
        The calling thread runs no task.
    BlockedTasksError
        1,000 tasks of the worker have lent their slots already.

    Examples
    --------
    >>> import time
    >>> from holdfast import secede
    >>> def watch():
    ...     secede()
    ...     time.sleep(0.01)
    ...     return "seen"
    >>> client.submit(watch).result()
    'seen'
    """
    _worker("secede").secede()


def rejoin() -> None:
    """Have the slot of this task again that `secede` has lent: wait until one is free. Without `secede` no error.

    Raises
    ------
    ValueError
        The calling thread runs no task.

    Examples
    --------
    >>> from holdfast import rejoin, secede
    >>> def watch_and_compute():
    ...     secede()
    ...     rejoin()
    ...     return sum(range(1_000))
    >>> client.submit(watch_and_compute).result()
    499500
    """
    _worker("rejoin").rejoin()


@contextlib.contextmanager
def worker_client(timeout: float | str | None = 3, separate_thread: bool = True) -> Iterator[Client]:
    """Within it a task has a client, that of `get_client`.

    Parameters
    ----------
    timeout : float or str
        Taken for compatibility: the client is there at once.
    separate_thread : bool
        Whether the task lends its slot from the beginning to the end (`secede`, `rejoin`), and not only while it waits.

    Raises
    ------
    ValueError
        The calling thread runs no task.
    BlockedTasksError
        As `secede` does.

    Examples
    --------
    >>> from holdfast import worker_client
    >>> def total(n):
    ...     with worker_client() as client:
    ...         return sum(client.gather(client.map(pow, range(n), [2] * n)))
    >>> client.submit(total, 4).result()
    14
    """
    seconds(timeout)  # it has to be a time
    worker = _worker("worker_client")
    lends = separate_thread and worker.secede()
    try:
        yield Client.current()
    finally:
        if lends:
            worker.rejoin()


def _worker(call: str) -> Any:
    task = registry.running_task()
    if task is None:
        where = "in a thread that a task has started" if registry.runs_tasks() else "outside of tasks"
        raise ValueError(f"there is no worker here: {call} is called {where}, and only a task's own thread has one")
    return task.worker
