"""`RLock`: a lock that its owner may acquire again.

The scheduler knows the lock as it knows any other; how often it was acquired is known here. So an owner is what runs
in one client: a thread, a coroutine's asyncio task, a run of a task of the cluster. Which owner has which lock is noted
for each client by name (`_Owned`), and so all `RLock` objects of one name and one client agree.

An interrupt that comes before the first instruction of ``__exit__`` leaves the lock acquired, as it does with
`threading.RLock`. `Lock` is released then when its object goes. Here the object says nothing about the lock: its owner
may release it by another object of that name, and does so as long as it lives.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from types import TracebackType
from typing import Any, Self

from holdfast.client.coordination.leases import waiting_time
from holdfast.client.coordination.lock import is_locked
from holdfast.client.coordination.named import Named, check_blocking, on_loop
from holdfast.client.core.core import Core
from holdfast.client.core.leases import Lease
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.cluster.protocol import requests


class _Owned:
    """A lock that an owner has, and how often it has acquired it."""

    __slots__ = ("count", "lease", "owner")

    def __init__(self, owner: Any, lease: Lease) -> None:
        self.owner = owner
        self.lease = lease
        self.count = 1

    def is_of(self, owner: Any) -> bool:
        """Whether this owner has it. What a run has left acquired has ended with the run."""
        return self.owner == owner and bool(self.lease.held)


#: Of each client what is owned, by name.
_owned: weakref.WeakKeyDictionary[Core, dict[Any, _Owned]] = weakref.WeakKeyDictionary()


def _owner(core: Core) -> Any:
    """What stands for what runs here."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        task = None
    return (threading.current_thread(), core.driver.parent) if task is None else task


class RLock(Named):
    """A `Lock` that its owner may acquire again, and has to release as often. The owner is a thread, an asyncio task,
    or a task of the cluster. For all others it is the lock of that name.

    Parameters
    ----------
    name : str or tuple, optional
        Default: one that nobody else has. A lock can be sent to tasks, which share it then.
    client : Client, optional
        Default: the current client where it is used; in a task that of the task.

    Examples
    --------
    >>> from holdfast import RLock
    >>> lock = RLock("tree")
    >>> def walk(depth):
    ...     with lock:
    ...         return depth and 1 + walk(depth - 1)
    >>> walk(3)
    3

    In an asynchronous client: ``async with lock``, or ``await lock.acquire()`` and ``await lock.release()``.
    """

    _kind = "rlock"

    def __init__(self, name: Any = None, client: Any = None) -> None:
        super().__init__(name, client)

    def acquire(self, blocking: bool = True, timeout: float | str | None = None) -> Any:
        """Wait until nobody else has it, and take it. In an asynchronous client: await it.

        Parameters
        ----------
        blocking : bool
            If false, it isn't waited for.
        timeout : float or str, optional
            How long to wait, in seconds or as text such as ``"5 s"``. Default: as long as it takes.

        Returns
        -------
        bool
            Whether it was acquired, which is so at once for its owner.

        Raises
        ------
        ValueError
            There is a timeout, and ``blocking`` is false.
        TimeoutError
            The time is over, and no scheduler is there to say so: it is being started again.

        Examples
        --------
        >>> lock = RLock("x")
        >>> lock.acquire(), lock.acquire()
        (True, True)
        >>> lock.release(); lock.release()
        """
        return self._acquire(waiting_time(blocking, timeout))

    def release(self) -> Any:
        """Undo one ``acquire``; after the last one the next owner has it. In an asynchronous client: await it.

        Raises
        ------
        RuntimeError
            It isn't owned by what runs here.

        Examples
        --------
        >>> lock = RLock("x")
        >>> lock.acquire()
        True
        >>> lock.release()
        """
        core = self._core
        return core.driver.run(self._releasing(core, _owner(core)))

    def locked(self) -> Any:
        """Whether an owner has it, here or elsewhere. In an asynchronous client: await it.

        Examples
        --------
        >>> RLock("x").locked()
        False
        """
        core = self._core
        return core.driver.run(is_locked(core, self.name))

    def _acquire(self, timeout: float | None) -> Any:
        core = self._core
        owner = _owner(core)
        before = self._count(core, owner)
        try:
            return core.driver.run(self._acquiring(core, owner, timeout))
        except BaseException:  # an interrupt after the operation has ended
            self._set_back(core, owner, before)
            raise

    def _acquiring(self, core: Core, owner: Any, timeout: float | None) -> Operation[bool]:
        table = _owned.setdefault(core, {})
        owned = table.get(self.name)
        if owned is not None and owned.is_of(owner):
            owned.count += 1
            return True
        lease = Lease(core, requests.RELEASE_LOCKS, {})
        try:
            granted = yield from lease.acquire(
                Ask(core.session, requests.ACQUIRE_LOCKS, None, names=(self.name,), lease=lease.number, timeout=timeout)
            )
            if granted:
                table[self.name] = _Owned(owner, lease)
        except BaseException:
            self._set_back(core, owner, 0)
            lease.give_up()
            raise
        return granted

    def _releasing(self, core: Core, owner: Any) -> Operation[None]:
        table = _owned.get(core, {})
        owned = table.get(self.name)
        if owned is None or not owned.is_of(owner):
            raise RuntimeError(f"{self!r} was released, but what runs here does not own it")
        count = owned.count
        try:
            if count > 1:
                owned.count = count - 1
            else:
                del table[self.name]  # before the next one has it, which may be of this client
                owned.lease.give_back()
        except BaseException:
            self._set_back(core, owner, count - 1)
            if count == 1:
                owned.lease.give_up()
            raise
        return
        yield

    def _count(self, core: Core, owner: Any) -> int:
        """How often its owner has acquired it, if that is this one."""
        owned = _owned.get(core, {}).get(self.name)
        return owned.count if owned is not None and owned.is_of(owner) else 0

    def _set_back(self, core: Core, owner: Any, count: int) -> None:
        """Its owner, if that is this one, has acquired it so often."""
        table = _owned.get(core, {})
        owned = table.get(self.name)
        if owned is None or not owned.is_of(owner):
            return
        owned.count = count
        if not count:
            del table[self.name]
            owned.lease.give_up()

    def __enter__(self) -> Self:
        check_blocking(self._core, type(self))
        self._acquire(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        core = self._core
        await on_loop(self._acquiring(core, _owner(core), None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        core = self._core
        await on_loop(self._releasing(core, _owner(core)))
