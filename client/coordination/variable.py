"""`Variable`: a name for a value that clients and tasks set, get and wait for."""

from __future__ import annotations

from typing import Any

from holdfast.client.coordination.items import packing, unpacking
from holdfast.client.coordination.named import Named, time_to_wait
from holdfast.client.core.core import Core
from holdfast.client.core.leases import new_number
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.drivers.kinds import takes_its_kind
from holdfast.client.operations.recipes import Recipe
from holdfast.client.packing.checks import warn_without_effect
from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.protocol import requests


class Variable(Named):
    """A variable of the whole cluster. Clients and tasks that name it alike share it.

    Whatever can be pickled can be its value, also futures and collections on futures, which keep their results alive.
    The value stays when the client that has set it is gone. What is large lies in the object store, and those that get
    it read it there. A task that waits for a value lends its slot to other tasks.

    Parameters
    ----------
    name : str or tuple, optional
        Default: one that nobody else has. A variable can be sent to tasks, which share it then.
    client : Client, optional
        Default: the current client where it is used; in a task that of the task.
    maxsize
        Has no effect, as a warning says: a variable has one value.

    Examples
    --------
    >>> from holdfast import Variable
    >>> model = Variable("model")
    >>> model.set(client.submit(pow, 2, 10))
    >>> Variable("model").get().result()
    1024
    >>> model.delete()

    In an asynchronous client all of its methods are awaited.
    """

    _kind = "variable"

    def __init__(self, name: Any = None, client: Any = None, maxsize: int = 0) -> None:
        if maxsize:
            warn_without_effect("maxsize", maxsize)
        super().__init__(name, client)

    @takes_its_kind
    def set(self, value: Any, timeout: float | str | None = None) -> Any:
        """Give it a value, in the place of the one that it has. In an asynchronous client: await it.

        Parameters
        ----------
        value : object
            Whatever can be pickled; a future, or something with futures in it.
        timeout : float or str, optional
            How long the scheduler may take to answer, in seconds or as text such as ``"30 s"``.

        Raises
        ------
        TypeError
            It can't be pickled.
        TimeoutError
            The scheduler has not answered in time.
        RuntimeError
            The values of all variables are too many, or take too much.
        CancelledError
            A future in it was cancelled or released.

        Examples
        --------
        >>> Variable("x").set([1, 2, 3])
        """
        core = self._core
        return core.driver.run(_setting(core, self.name, value, seconds(timeout)))

    @takes_its_kind
    def get(self, timeout: float | str | None = None) -> Any:
        """Its value; wait until it has one. In an asynchronous client: await it.

        Parameters
        ----------
        timeout : float or str, optional
            How long to wait, in seconds or as text such as ``"5 s"``. Default: as long as it takes.

        Returns
        -------
        object
            Futures in it are of this client, and so keep their results alive.

        Raises
        ------
        TimeoutError
            It had no value.
        UnreadableError, ObjectLostError
            The value can't be unpickled here, or its data is lost.

        Examples
        --------
        >>> x = Variable("x")
        >>> x.set("value")
        >>> x.get(timeout=1)
        'value'
        """
        core = self._core
        return core.driver.run(_getting(core, self.name, time_to_wait(timeout)))

    def delete(self) -> Any:
        """Take its value away, for all; no error if it has none. In an asynchronous client: await it.

        Who gets it afterwards waits until it is set again. A client that is closed already deletes nothing.

        Examples
        --------
        >>> x = Variable("x")
        >>> x.set(1)
        >>> x.delete()
        """
        return self._run(_deleting(self._core, self.name))


def _setting(core: Core, name: Any, value: Any, timeout: float | None) -> Operation[None]:
    recipe: Recipe = yield from packing(core, f"the value of the variable {name!r}", value)
    data, keys = raw(recipe.data), tuple(recipe.held)
    yield Ask(core.session, requests.SET_VARIABLE, timeout, name=name, data=data, keys=keys)
    del recipe  # until here this client holds what the variable is to hold


def _getting(core: Core, name: Any, timeout: float | None) -> Operation[Any]:
    session, lease = core.session, new_number()
    ended = (protocol.client.REQUEST(0, *requests.END_READING(lease=lease)),)
    is_reading = True
    try:
        answer = yield Ask(session, requests.GET_VARIABLE, None, name=name, lease=lease, timeout=timeout)
        is_reading = bool(answer["keys"])
        value = yield from unpacking(core, f"the value of the variable {name!r}", answer["data"], answer["keys"])
    finally:
        if is_reading:
            session.outbox += ended  # there is no call before it, so no interrupt comes before it
            session.flush_soon()
    return value


def _deleting(core: Core, name: Any) -> Operation[None]:
    try:
        yield Ask(core.session, requests.DELETE_VARIABLE, None, name=name)
    except ConnectError:
        if not core.closed:
            raise
