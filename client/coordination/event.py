"""`Event`: a flag that clients and tasks set, and wait for."""

from __future__ import annotations

from typing import Any

from holdfast.client.coordination.named import Named, time_to_wait
from holdfast.client.core.core import Core
from holdfast.client.core.leases import new_number
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.cluster.protocol import requests
from holdfast.cluster.protocol.message import Request


class Event(Named):
    """A flag of the whole cluster, which is not set at first. Clients and tasks that name it alike share it.

    It stays set until it is cleared, also when the client that has set it is gone. A task that waits for an event lends
    its slot to other tasks.

    Parameters
    ----------
    name : str or tuple, optional
        Default: one that nobody else has. An event can be sent to tasks, which share it then.
    client : Client, optional
        Default: the current client where it is used; in a task that of the task.

    Examples
    --------
    >>> from holdfast import Event
    >>> def wait_for(event):
    ...     return event.wait(timeout="30 s")
    >>> event = Event("ready")
    >>> future = client.submit(wait_for, event)
    >>> event.set()
    >>> future.result()
    True

    In an asynchronous client all of its methods are awaited.
    """

    _kind = "event"

    def __init__(self, name: Any = None, client: Any = None) -> None:
        super().__init__(name, client)

    def wait(self, timeout: float | str | None = None) -> Any:
        """Wait until it is set. In an asynchronous client: await it.

        Parameters
        ----------
        timeout : float or str, optional
            How long to wait, in seconds or as text such as ``"5 s"``. Default: as long as it takes.

        Returns
        -------
        bool
            Whether it is set.

        Raises
        ------
        TimeoutError
            The time is over, and no scheduler is there to say so: it is being started again.

        Examples
        --------
        >>> Event("never").wait(timeout="10 ms")
        False
        """
        core = self._core
        return core.driver.run(_waiting(core, self.name, time_to_wait(timeout)))

    def set(self) -> Any:
        """Set it: all that wait for it go on. In an asynchronous client: await it.

        Examples
        --------
        >>> event = Event("done")
        >>> event.set()
        >>> event.is_set()
        True
        """
        return self._run(_asking(self._core, requests.SET_EVENT, self.name))

    def clear(self) -> Any:
        """Clear it: those that wait from now on wait until it is set again. In an asynchronous client: await it.

        Examples
        --------
        >>> event = Event("done")
        >>> event.clear()
        >>> event.is_set()
        False
        """
        return self._run(_asking(self._core, requests.CLEAR_EVENT, self.name))

    def is_set(self) -> Any:
        """Whether it is set. In an asynchronous client: await it.

        Examples
        --------
        >>> Event("unheard of").is_set()
        False
        """
        return self._run(_asking(self._core, requests.IS_EVENT_SET, self.name))


def _asking(core: Core, request: Request, name: Any) -> Operation[Any]:
    return (yield Ask(core.session, request, None, name=name))


def _waiting(core: Core, name: Any, timeout: float | None) -> Operation[bool]:
    number = new_number()
    try:
        is_set: bool = yield Ask(core.session, requests.WAIT_FOR_EVENT, None, name=name, wait=number, timeout=timeout)
    except BaseException:
        core.session.tell(requests.STOP_WAITING, wait=number)
        raise
    return is_set
