"""`Lock`: one client or task at a time has it."""

from __future__ import annotations

from typing import Any

from holdfast.client.coordination.leases import Leasing, waiting_time
from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Effect, Operation
from holdfast.cluster.protocol import requests


class Lock(Leasing):
    """A lock of the whole cluster. Clients and tasks that name it alike share it.

    Those that wait get it in the order in which they came. The scheduler takes it from a client that has left or whose
    process has died; a connection that breaks and is taken up again keeps it. What a task has acquired and not released
    ends with the task, however that ends, and what an actor has ends with the actor. A task that waits for a lock lends
    its slot to other tasks.

    Parameters
    ----------
    name : str or tuple, optional
        Default: one that nobody else has. A lock can be sent to tasks, which share it then.
    client : Client, optional
        Default: the current client where it is used; in a task that of the task.
    scheduler_rpc, loop
        Have no effect, as a warning says: its client has both.

    Examples
    --------
    >>> from holdfast import Lock
    >>> def append(path, line):
    ...     with Lock("log"), open(path, "a") as file:
    ...         file.write(line)

    In an asynchronous client: ``async with lock``, or ``await lock.acquire()`` and ``await lock.release()``.
    """

    _kind = "lock"
    _release = requests.RELEASE_LOCKS

    def __init__(self, name: Any = None, client: Any = None, scheduler_rpc: Any = None, loop: Any = None) -> None:
        super().__init__(name, client, scheduler_rpc, loop)

    def _ask(self, core: Core, timeout: float | None, number: int) -> Effect:
        return Ask(core.session, requests.ACQUIRE_LOCKS, None, names=(self.name,), lease=number, timeout=timeout)

    def acquire(self, blocking: bool = True, timeout: float | str | None = None) -> Any:
        """Wait until it is free, and take it. In an asynchronous client: await it.

        Parameters
        ----------
        blocking : bool
            If false, it isn't waited for.
        timeout : float or str, optional
            How long to wait, in seconds or as text such as ``"5 s"``. Default: as long as it takes.

        Returns
        -------
        bool
            Whether it was acquired. A wait that is cancelled or interrupted has not acquired it.

        Raises
        ------
        ValueError
            There is a timeout, and ``blocking`` is false.
        RuntimeError
            Too many requests of this client wait already, or there are too many locks.
        TimeoutError
            The time is over, and no scheduler is there to say so: it is being started again.

        Examples
        --------
        >>> lock = Lock("x")
        >>> lock.acquire(), Lock("x").acquire(timeout="10 ms")
        (True, False)
        >>> lock.release()
        """
        return self._acquire(self._core, waiting_time(blocking, timeout))

    def release(self) -> Any:
        """Let the next one have it. In an asynchronous client: await it.

        It returns when that is said, and does not wait until the scheduler has heard it.

        Raises
        ------
        RuntimeError
            This object has not acquired it.

        Examples
        --------
        >>> lock = Lock("x")
        >>> lock.acquire()
        True
        >>> lock.release()
        """
        return self._run(self._releasing())

    def locked(self) -> Any:
        """Whether a client or task has it, this one or another. In an asynchronous client: await it.

        Examples
        --------
        >>> with Lock("x"):
        ...     Lock("x").locked()
        True
        """
        core = self._core
        return core.driver.run(is_locked(core, self.name))


def is_locked(core: Core, name: Any) -> Operation[bool]:
    """Whether a client or task has the lock of this name."""
    locked: bool = yield Ask(core.session, requests.IS_LOCKED, None, name=name)
    return locked
