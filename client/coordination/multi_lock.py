"""`MultiLock`: several locks at once, all of them or none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.client.coordination.leases import Leasing, waiting_time
from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Effect
from holdfast.cluster.protocol import requests


class MultiLock(Leasing):
    """Several locks that are acquired at once: two that want some of the same never wait for each other.

    They are the locks that `Lock` and `RLock` have under these names. Those that come first get them first: as long as
    it waits, those that come later wait for what it wants.

    Parameters
    ----------
    names : list of str or tuple
        Of the locks. One that is named twice counts once.
    client : Client, optional
        Default: the current client where it is used; in a task that of the task.

    Raises
    ------
    ValueError
        There are no names.

    Examples
    --------
    >>> from holdfast import MultiLock
    >>> with MultiLock(["accounts/1", "accounts/2"]) as both:
    ...     both.locked()
    True

    In an asynchronous client: ``async with``, or ``await lock.acquire()`` and ``await lock.release()``.
    """

    _kind = "multi-lock"
    _release = requests.RELEASE_LOCKS

    def __init__(self, names: Iterable[Any] | None = None, client: Any = None) -> None:
        if isinstance(names, (str, bytes)):
            raise TypeError(f"the names of locks are a list, not {names!r:.200}: [{names!r:.200}]")
        super().__init__(tuple(dict.fromkeys(names or ())), client)
        if not self.name:
            raise ValueError("a MultiLock needs the name of a lock at least: MultiLock(['x', 'y'])")
        self._count: int | None = None

    @property
    def names(self) -> list[Any]:
        """The names of the locks.

        Examples
        --------
        >>> MultiLock(["x", "y"]).names
        ['x', 'y']
        """
        return list(self.name)

    def _ask(self, core: Core, timeout: float | None, number: int, count: int | None = None) -> Effect:
        return Ask(
            core.session, requests.ACQUIRE_LOCKS, None, names=self.name, lease=number, timeout=timeout, count=count
        )

    def acquire(self, blocking: bool = True, timeout: float | str | None = None, num_locks: int | None = None) -> Any:
        """Wait until they are free, and take them. In an asynchronous client: await it.

        Parameters
        ----------
        blocking : bool
            If false, they aren't waited for.
        timeout : float or str, optional
            How long to wait, in seconds or as text such as ``"5 s"``. Default: as long as it takes.
        num_locks : int, optional
            How many of the locks are needed, whichever they are. Default: all of them.

        Returns
        -------
        bool
            Whether they were acquired. If not, none of them was.

        Raises
        ------
        ValueError
            There is a timeout, and ``blocking`` is false; or ``num_locks`` isn't from 1 to the number of names.
        TimeoutError
            The time is over, and no scheduler is there to say so: it is being started again.

        Examples
        --------
        >>> lock = MultiLock(["x", "y", "z"])
        >>> lock.acquire(num_locks=2), MultiLock(["x", "y", "z"]).acquire(num_locks=2, timeout="10 ms")
        (True, False)
        >>> lock.release()
        """
        if num_locks is not None and not 0 < num_locks <= len(self.name):
            raise ValueError(f"num_locks is from 1 to {len(self.name)}, the number of names, and not {num_locks!r}")
        return self._acquire(
            self._core,
            waiting_time(blocking, timeout),
            lambda core, limit, number: self._ask(core, limit, number, num_locks),
        )

    def release(self) -> Any:
        """Let the next ones have them. In an asynchronous client: await it.

        It returns when that is said, and does not wait until the scheduler has heard it.

        Raises
        ------
        RuntimeError
            This object has not acquired them.

        Examples
        --------
        >>> lock = MultiLock(["x", "y"])
        >>> lock.acquire()
        True
        >>> lock.release()
        """
        return self._run(self._releasing())

    def locked(self) -> bool:
        """Whether this object has acquired them. It asks nobody, so it isn't awaited.

        Examples
        --------
        >>> MultiLock(["x", "y"]).locked()
        False
        """
        return bool(self._held)
