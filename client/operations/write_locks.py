"""Locks that dask puts into tasks which write, for the whole cluster.

`dask.utils.SerializableLock` is a lock of each process: it keeps two threads of a process from writing at once, and not
two processes, which may write into one chunk of a file and lose what the other has written. A `WriteLock` takes a lock
of the cluster first, which all locks of the same token share, and then the lock of the process: what the libraries
below need, and what others of the process hold as well. So nothing that kept a lock out before gets in now.

A `WriteLock` differs from a `Lock` in what happens around it:

* A task that waits for it keeps its slot. The one that has it is in a slot, and writes: so it ends soon. A task that
  had lent its slot might be granted the lock, and wait for a slot behind a long task, while all others wait for it.
* It is held by the run. Each run unpickles its own arguments, so a lock that is not released by the end of a run, in
  whatever way that has ended, goes with them. The scheduler takes it from the tasks of a worker that has died.

Outside of a cluster, where there is no client, it is the lock of the process alone.
"""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
from types import TracebackType
from typing import Any

import cloudpickle
from dask.utils import SerializableLock

from holdfast.client import defaults
from holdfast.client.core.core import Core
from holdfast.client.core.leases import Lease
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Effect
from holdfast.cluster.protocol import requests

#: What the names of these locks begin with.
PREFIX = "write-lock"


class _AskInPlace(Ask):
    """The scheduler has answered, and a task that waits for that keeps its slot."""

    __slots__ = ()

    @property
    def waits_for_others(self) -> bool:
        return False


class WriteLock:
    """A lock of the cluster and one of the process, taken and released together.

    Parameters
    ----------
    name
        Of the lock of the cluster.
    local
        The lock of the process.
    """

    def __init__(self, name: Any, local: Any) -> None:
        self._name = name
        self._local = local
        self._held: dict[int, Lease] = {}

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take both, as `threading.Lock.acquire` takes one. Returns whether they were acquired."""
        lease = None
        try:
            core = defaults.current()
        except ValueError:  # the task runs without a cluster
            pass
        else:
            if not core.driver.asynchronous:
                lease = Lease(core, requests.RELEASE_LOCKS, self._held)
                seconds = None if blocking and timeout < 0 else max(0.0, timeout) if blocking else 0.0
                if not core.driver.finish(lease.acquire(self._ask(core, lease.number, seconds))):
                    return False
        acquired: bool = False
        try:
            acquired = self._local.acquire(blocking, timeout)
        finally:
            if not acquired and lease is not None:
                lease.give_up()
        return acquired

    def _ask(self, core: Core, number: int, timeout: float | None) -> Effect:
        arguments = {"names": (self._name,), "lease": number, "timeout": timeout}
        return _AskInPlace(core.session, requests.ACQUIRE_LOCKS, None, **arguments)

    def release(self) -> None:
        """Let go of both.

        Raises
        ------
        RuntimeError
            They were not acquired.
        """
        self._local.release()
        for lease in list(self._held.values()):
            lease.give_back()

    def locked(self) -> bool:
        """Whether this process has it."""
        is_locked: bool = self._local.locked()
        return is_locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        held = self.__dict__.get("_held")
        if held:
            with contextlib.suppress(RuntimeError):
                self._local.release()
            for lease in list(held.values()):
                lease.give_up()

    def __reduce__(self) -> tuple[Any, ...]:
        return WriteLock, (self._name, self._local)

    def __repr__(self) -> str:
        return f"<WriteLock: {self._name!r}>"


def write_lock(lock: Any) -> Any:
    """What a task that writes gets in the place of a lock: the same, with each `SerializableLock` a `WriteLock`.

    Locks of other kinds stay as they are: a `Lock` of the cluster, a semaphore, a lock of files.
    """
    if isinstance(lock, SerializableLock):
        return _write_lock(lock)
    if lock is None or isinstance(lock, bool):
        return lock
    pickler = _Replacing(file := io.BytesIO())
    try:
        pickler.dump(lock)
        return pickle.loads(file.getvalue()) if pickler.has_replaced else lock
    except Exception:  # it is not to be sent as it is, which is found out when that is tried
        return lock


def _write_lock(lock: Any) -> WriteLock:
    return WriteLock((PREFIX, str(lock.token)), lock)


class _Replacing(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles something that a user has made of locks, with others in their places."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.has_replaced = False
        self._inside: list[Any] = []  # those that are in their `WriteLock` already

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, SerializableLock) and not any(obj is other for other in self._inside):
            self.has_replaced = True
            local = copy.copy(obj)  # of the same token, so the same lock; a pickler takes the lock itself for a circle
            self._inside.append(local)
            return _write_lock(local).__reduce__()
        return super().reducer_override(obj)
