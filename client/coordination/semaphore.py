"""`Semaphore`: so many clients and tasks at a time have a lease of it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Self

from holdfast.client.coordination.leases import Leasing
from holdfast.client.coordination.named import on_loop, time_to_wait, whole_number
from holdfast.client.core.core import Core
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Effect, Operation
from holdfast.cluster.protocol import requests
from holdfast.cluster.user_warnings import warn_user


class Semaphore(Leasing):
    """A semaphore of the whole cluster. Clients and tasks that name it alike share it.

    It grants leases in the order in which they were asked for. The scheduler takes a lease from a client that has left
    or whose process has died. What a task has acquired and not released ends with the task, however that ends, and what
    an actor has ends with the actor; no lease runs out otherwise. A task that waits for a lease lends its slot to other
    tasks.

    A semaphore is there from when it is made until it is closed, also when the client that has made it is gone.

    Parameters
    ----------
    max_leases : int
        How many there may be at a time.
    name : str or tuple, optional
        Default: one that nobody else has. A semaphore can be sent to tasks, which share it then.
    client : Client, optional
        Default: the current client where it is used; in a task that of the task.
    scheduler_rpc, loop
        Have no effect, as a warning says: its client has both.

    Raises
    ------
    ValueError
        There is a semaphore of this name with another number of leases; or ``max_leases`` is less than one. In an
        asynchronous client this is raised where the semaphore is awaited, or used first.

    Examples
    --------
    >>> from holdfast import Semaphore
    >>> def read(query, database):
    ...     with database:
    ...         return query.upper()
    >>> database = Semaphore(max_leases=2, name="database")
    >>> client.gather(client.map(read, ["a", "b", "c"], database=database))
    ['A', 'B', 'C']
    >>> database.close()

    In an asynchronous client: ``semaphore = await Semaphore(2)``, ``async with semaphore``, and all methods are
    awaited.
    """

    _kind = "semaphore"
    _release = requests.RELEASE_SEMAPHORE

    def __init__(
        self, max_leases: int = 1, name: Any = None, client: Any = None, scheduler_rpc: Any = None, loop: Any = None
    ) -> None:
        super().__init__(name, client, scheduler_rpc, loop)
        self.max_leases = whole_number("max_leases", max_leases, 1)
        self._is_open = False
        self._run_now(self._opening)

    @classmethod
    def _again(cls, *arguments: Any) -> Self:
        name, max_leases, is_open = arguments
        self = cls.__new__(cls)
        Leasing.__init__(self, name, None)
        self.max_leases = max_leases
        self._is_open = is_open
        return self

    def _arguments(self) -> tuple[Any, ...]:
        return (self.name, self.max_leases, self._is_open)

    def _opening(self, core: Core) -> Operation[Self]:
        if not self._is_open:
            yield Ask(core.session, requests.OPEN_SEMAPHORE, None, name=self.name, max_leases=self.max_leases)
            self._is_open = True
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        """The semaphore, once it is there."""
        return on_loop(self._opening(self._core)).__await__()

    def _ask(self, core: Core, timeout: float | None, number: int) -> Effect:
        opened = None if self._is_open else self.max_leases
        return Ask(
            core.session,
            requests.ACQUIRE_SEMAPHORE,
            None,
            name=self.name,
            lease=number,
            timeout=timeout,
            max_leases=opened,
        )

    def acquire(self, timeout: float | str | None = None) -> Any:
        """Wait for a lease. In an asynchronous client: await it.

        Parameters
        ----------
        timeout : float or str, optional
            How long to wait, in seconds or as text such as ``"5 s"``. Default: as long as it takes.

        Returns
        -------
        bool
            Whether there is one now. A wait that is cancelled or interrupted has none.

        Raises
        ------
        RuntimeError
            The semaphore was closed; or there are too many leases, or too many requests of this client that wait.
        TimeoutError
            The time is over, and no scheduler is there to say so: it is being started again.

        Examples
        --------
        >>> semaphore = Semaphore(2)
        >>> semaphore.acquire(), semaphore.acquire(), semaphore.acquire(timeout="10 ms")
        (True, True, False)
        >>> semaphore.release(); semaphore.release(); semaphore.close()
        """
        return self._acquire(self._core, time_to_wait(timeout))

    def release(self) -> Any:
        """Give the lease back that this object has had longest. In an asynchronous client: await it.

        It returns when that is said, and does not wait until the scheduler has heard it.

        Raises
        ------
        RuntimeError
            This object has no lease.

        Examples
        --------
        >>> semaphore = Semaphore()
        >>> semaphore.acquire()
        True
        >>> semaphore.release()
        """
        return self._run(self._releasing())

    def get_value(self) -> Any:
        """How many leases of it are granted, to whomever. In an asynchronous client: await it.

        Examples
        --------
        >>> with Semaphore(3) as semaphore:
        ...     semaphore.get_value()
        1
        """
        return self._run(_value(self._core, self.name))

    def close(self) -> Any:
        """End the semaphore for all: those that wait for it get a `RuntimeError`. In an asynchronous client: await it.

        Twice is no error. If leases are not released yet, there is a `RuntimeWarning`.

        Examples
        --------
        >>> semaphore = Semaphore()
        >>> semaphore.close()
        """
        return self._run(_closing(self._core, self.name))


def _value(core: Core, name: Any) -> Operation[int]:
    value: int = yield Ask(core.session, requests.SEMAPHORE_VALUE, None, name=name)
    return value


def _closing(core: Core, name: Any) -> Operation[None]:
    left: int = yield Ask(core.session, requests.CLOSE_SEMAPHORE, None, name=name)
    if left:
        leases = "one lease was" if left == 1 else f"{left:,} leases were"
        text = f"the semaphore {name!r} was closed, and {leases} not released yet"
        warn_user(text, RuntimeWarning)
