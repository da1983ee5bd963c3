"""`Queue`: values and futures that go from those that put them to those that get them.

To put something into a queue without a limit needs no answer. So a client sends many such items together, and only now
and then waits until the scheduler has heard all of them (`_Puts`). An item that the scheduler could not take is an
error of the next call that uses the queue.
"""

from __future__ import annotations

import logging
import pickle
import weakref
from collections.abc import Generator
from typing import Any, Self

from holdfast.client.coordination.items import is_plain, packing, unpacking
from holdfast.client.coordination.named import Named, on_loop, time_to_wait, whole_number
from holdfast.client.core.core import Core
from holdfast.client.core.leases import new_number
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.client.drivers.kinds import takes_its_kind
from holdfast.client.operations.recipes import Recipe
from holdfast.cluster import protocol
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.protocol import requests
from holdfast.cluster.protocol.limits import MAX_INTEGER, MAX_ITEMS

logger = logging.getLogger(__name__)

#: So many items are put without an answer, and so many bytes of them, before one is answered.
MAX_QUIET_ITEMS = 256
MAX_QUIET_NBYTES = 4 << 20


class _Puts:
    """What a client puts into one queue without an answer.

    Attributes
    ----------
    number
        Of these requests.
    left, nbytes_left
        How many more may be put before one is answered. None at first: the queue may be one with a limit.
    failure
        Why an item was not taken.
    """

    def __init__(self, core: Core, name: Any) -> None:
        self.name = name
        self.number = core.session.number_for(self._refused)
        self.left = 0
        self.nbytes_left = 0
        self.failure: Exception | None = None

    def _refused(self, error: Exception) -> None:
        if self.failure is None:
            logger.warning("an item was not put into the queue %r: %s", self.name, error)
        self.failure = error

    def answered(self, maxsize: int) -> None:
        """The scheduler has heard everything, and this is how large the queue may become."""
        self.left = 0 if maxsize else MAX_QUIET_ITEMS
        self.nbytes_left = MAX_QUIET_NBYTES

    def raise_failure(self) -> None:
        """Raise why an item was not taken, once."""
        failure, self.failure = self.failure, None
        if failure is not None:
            self.left = 0
            raise failure


#: By client and the name of the queue.
_puts: weakref.WeakKeyDictionary[Core, dict[Any, _Puts]] = weakref.WeakKeyDictionary()


class Queue(Named):
    """A queue of the whole cluster. Clients and tasks that name it alike share it.

    Whatever can be pickled goes through it, also futures and collections on futures, which keep their results alive.
    The items stay when the client that has put them is gone. What is large lies in the object store, and those that get
    it read it there. Those that wait are served in the order in which they came. A task that waits lends its slot to
    other tasks.

    Each item is got once, also when connections break and the scheduler is started again. What one client has put comes
    in its order. If two clients put without waiting, that item comes first which reaches the scheduler first. A queue
    with a ``maxsize`` keeps the order of all, since `put` waits for the scheduler there. If the one that was to get an
    item gives up or dies, the item comes back to its place; so others may have got later ones before it.

    Parameters
    ----------
    name : str or tuple, optional
        Default: one that nobody else has. A queue can be sent to tasks, which share it then.
    client : Client, optional
        Default: the current client where it is used; in a task that of the task.
    maxsize : int
        How many items it has room for; who puts more waits. 0: as many as the scheduler keeps, or as another object of
        this name says.

    Raises
    ------
    ValueError
        There is a queue of this name with another limit. In an asynchronous client this is raised where the queue is
        awaited, or used first.

    Examples
    --------
    >>> from holdfast import Queue
    >>> queue = Queue("numbers")
    >>> future = client.submit(pow, 2, 10)
    >>> queue.put({"result": future})
    >>> queue.get(timeout="30 s")["result"].result()
    1024

    In an asynchronous client all of its methods are awaited.
    """

    _kind = "queue"

    def __init__(self, name: Any = None, client: Any = None, maxsize: int = 0) -> None:
        super().__init__(name, client)
        self.maxsize = max(0, whole_number("maxsize", maxsize, -MAX_INTEGER))
        self._is_open = not self.maxsize
        if self.maxsize:
            self._run_now(self._opening)

    @classmethod
    def _again(cls, *arguments: Any) -> Self:
        name, maxsize, is_open = arguments
        self = cls(name)
        self.maxsize = maxsize
        self._is_open = is_open
        return self

    def _arguments(self) -> tuple[Any, ...]:
        return (self.name, self.maxsize, self._is_open)

    def _opening(self, core: Core) -> Operation[Self]:
        if not self._is_open:
            yield Ask(core.session, requests.OPEN_QUEUE, None, name=self.name, maxsize=self.maxsize)
            self._is_open = True
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        """The queue, once it is there."""
        return on_loop(self._opening(self._core)).__await__()

    def _puts(self, core: Core) -> _Puts:
        of_core = _puts.get(core)
        if of_core is None:
            of_core = _puts.setdefault(core, {})
        puts = of_core.get(self.name)
        if puts is None:
            puts = of_core[self.name] = _Puts(core, self.name)
        return puts

    # -- putting

    @takes_its_kind
    def put(self, value: Any, timeout: float | str | None = None) -> Any:
        """Put something into the queue; wait for room if it is full. In an asynchronous client: await it.

        If the queue has no limit, this returns when the item is on its way, in the order of all that this client puts.

        Parameters
        ----------
        value : object
            Whatever can be pickled; a future, or something with futures in it.
        timeout : float or str, optional
            How long to wait for room, in seconds or as text such as ``"5 s"``. Default: as long as it takes.

        Raises
        ------
        TimeoutError
            The queue was full all the time.
        TypeError
            It can't be pickled.
        RuntimeError
            All queues of the cluster together are full; or the queue was closed while it was waited for. If it has no
            limit, this is said by the next call that uses the queue.
        CancelledError
            A future in it was cancelled or released.

        Examples
        --------
        >>> queue = Queue("letters")
        >>> for letter in "ab":
        ...     queue.put(letter)
        >>> queue.get(batch=2)
        ['a', 'b']
        """
        core = self._core
        return core.driver.run(self._putting(core, value, time_to_wait(timeout)))

    def _putting(self, core: Core, value: Any, timeout: float | None) -> Operation[None]:
        session, puts = core.session, self._puts(core)
        session.check_open()
        puts.raise_failure()
        recipe: Recipe = yield from packing(core, f"what is put into the queue {self.name!r}", value)
        data, keys = recipe.data, tuple(recipe.held)
        if puts.left and puts.nbytes_left > len(data) and not self.maxsize:
            puts.left -= 1
            puts.nbytes_left -= len(data)
            asked = requests.PUT_QUIETLY(name=self.name, data=raw(data), keys=keys)
            session.enqueue(protocol.client.REQUEST(puts.number, *asked))
            session.flush_promptly()
        else:
            yield from self._put_answered(core, puts, data, keys, timeout)
        del recipe  # until here this client holds what the item is to hold

    def _put_answered(
        self, core: Core, puts: _Puts, data: bytes, keys: tuple[Any, ...], timeout: float | None
    ) -> Operation[None]:
        lease = new_number()
        try:
            maxsize = yield Ask(
                core.session,
                requests.PUT,
                None,
                name=self.name,
                data=raw(data),
                keys=keys,
                lease=lease,
                maxsize=self.maxsize,
                timeout=timeout,
            )
        except BaseException:
            core.session.tell(requests.GIVE_UP_ITEMS, lease=lease)
            raise
        self._is_open = True
        puts.raise_failure()
        puts.answered(maxsize)

    # -- getting

    @takes_its_kind
    def get(self, timeout: float | str | None = None, batch: bool | int = False) -> Any:
        """Take the first item out of the queue; wait for one if there is none. In an asynchronous client: await it.

        A call that is cancelled or interrupted takes nothing: the item is in its place again.

        Parameters
        ----------
        timeout : float or str, optional
            How long to wait, in seconds or as text such as ``"5 s"``. Default: as long as it takes.
        batch : bool or int
            True: a list of all that are there, without waiting. A number: a list of so many, as soon as there are.

        Returns
        -------
        object or list
            Futures in it are of this client, and so keep their results alive.

        Raises
        ------
        TimeoutError
            There was nothing in it, or not so much.
        RuntimeError
            The queue was closed while it was waited for.
        UnreadableError, ObjectLostError
            An item can't be unpickled here, or its data is lost. It is taken all the same.

        Examples
        --------
        >>> queue = Queue("digits")
        >>> for digit in range(4):
        ...     queue.put(digit)
        >>> queue.get(), queue.get(batch=2), queue.get(batch=True), queue.get(batch=True)
        (0, [1, 2], [3], [])
        """
        core = self._core
        limit = time_to_wait(timeout)
        if batch is not True and batch is not False:
            try:
                batch = whole_number("batch", batch, 0)
            except (TypeError, ValueError):
                raise ValueError(f"batch is true, false or a number of items, not {batch!r:.200}") from None
        return core.driver.run(self._getting(core, limit, batch))

    def _getting(self, core: Core, timeout: float | None, batch: bool | int) -> Operation[Any]:
        session = core.session
        leases: list[int] = []
        has_them = False
        try:
            items: list[Any] = []
            wanted = MAX_ITEMS if batch is True else int(batch) or (0 if batch is not False else 1)
            while wanted:
                leases.append(new_number())
                answer = yield self._ask_for(core, leases[-1], min(wanted, MAX_ITEMS), batch is True, timeout)
                items += answer["items"]
                wanted = min(answer["left"], MAX_ITEMS) if batch is True else wanted - len(answer["items"])
            has_them = True
            what = f"an item of the queue {self.name!r}"
            values = []
            for data, keys in items:
                if not keys and is_plain(data):
                    values.append(pickle.loads(data))
                else:
                    values.append((yield from unpacking(core, what, data, keys)))
            confirmed = tuple([_confirmation(lease) for lease in leases])
            given = values if batch is not False else values[0]
            session.flush_later()
        except Exception:
            for lease in reversed(leases):
                session.tell(requests.CONFIRM_ITEMS if has_them else requests.GIVE_UP_ITEMS, lease=lease)
            raise
        except BaseException:
            for lease in reversed(leases):
                session.tell(requests.GIVE_UP_ITEMS, lease=lease)
            raise
        # No call from here on, so that no interrupt comes in between: the caller has them, or the queue.
        session.outbox += confirmed
        return given

    def _ask_for(self, core: Core, lease: int, count: int, at_once: bool, timeout: float | None) -> Ask:
        return Ask(
            core.session,
            requests.GET,
            None,
            name=self.name,
            lease=lease,
            count=count,
            at_once=at_once,
            maxsize=0 if self._is_open else self.maxsize,
            timeout=timeout,
        )

    # -- the rest

    @takes_its_kind
    def qsize(self) -> Any:
        """How many items are in it. In an asynchronous client: await it.

        Examples
        --------
        >>> queue = Queue()
        >>> queue.put(1)
        >>> queue.qsize()
        1
        """
        return self._run(_size(self._core, self.name))

    def close(self) -> Any:
        """Forget the queue and all that is in it, for all. In an asynchronous client: await it.

        Those that wait for it get a `RuntimeError`. Who uses the name afterwards has a new queue. A client that is
        closed already closes nothing.

        Examples
        --------
        >>> queue = Queue("done")
        >>> queue.put(1)
        >>> queue.close()
        >>> queue.qsize()
        0
        """
        return self._run(self._closing(self._core))

    def _closing(self, core: Core) -> Operation[None]:
        try:
            yield Ask(core.session, requests.CLOSE_QUEUE, None, name=self.name)
        except ConnectError:
            if not core.closed:
                raise
        self._is_open = not self.maxsize
        puts = _puts.get(core, {}).pop(self.name, None)
        if puts is not None:
            core.session.forget_number(puts.number)


def _size(core: Core, name: Any) -> Operation[int]:
    size: int = yield Ask(core.session, requests.QUEUE_SIZE, None, name=name)
    return size


def _confirmation(lease: int) -> tuple[Any, ...]:
    return protocol.client.REQUEST(0, *requests.CONFIRM_ITEMS(lease=lease))
