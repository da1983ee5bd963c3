"""`ActorFuture`: what a call of an actor's method will give."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NoReturn

from holdfast.client.core.calls import Call
from holdfast.client.core.core import Core
from holdfast.client.drivers.asynchronous import drive
from holdfast.client.operations.actors import result
from holdfast.client.raising import hide_own_frames
from holdfast.cluster.durations import seconds


class ActorFuture:
    """What a call of an actor's method will give, and already the call: it goes on whether it is waited for or not.

    Calls of an `Actor`'s methods make these. It keeps the actor until the call is answered.

    Examples
    --------
    >>> from collections import Counter
    >>> words = client.submit(Counter, actor=True).result()
    >>> words.update(["a", "b", "a"]).result()
    >>> words.most_common(1).result()
    [('a', 2)]
    """

    __slots__ = ("__weakref__", "_call", "_core")

    def __init__(self, call: Call, core: Core) -> None:
        self._call = call
        self._core = core

    def result(self, timeout: float | str | None = None) -> Any:
        """Wait until the call is done and return what it gave. In an asynchronous client: await it.

        Parameters
        ----------
        timeout : float or str, optional
            In seconds, or as text such as ``"500 ms"``. Default: wait as long as it takes.

        Raises
        ------
        TimeoutError
            It was not done in time. It goes on; ask again.
        ActorLostError
            The worker that had the actor is gone; names both, and says why.
        ConnectError
            The connection with the scheduler is gone.
        Exception
            Whatever the method raised, with its traceback; or what an argument that is a future failed with.

        Examples
        --------
        >>> from collections import Counter
        >>> words = client.submit(Counter, ["a", "b"], actor=True).result()
        >>> words.total().result(timeout="10 s")
        2
        """
        try:
            return self._core.driver.run(result(self._core, self._call, seconds(timeout)))
        except BaseException as error:
            hide_own_frames(error)
            raise

    def done(self) -> bool:
        """Whether the call is done: it gave something, or failed.

        Examples
        --------
        >>> from collections import Counter
        >>> future = client.submit(Counter, actor=True).result().total()
        >>> future.result(), future.done()
        (0, True)
        """
        return self._call.is_done

    def __await__(self) -> Generator[Any, None, Any]:
        """``await future`` on any running event loop, also of a blocking client."""
        operation = result(self._core, self._call, None)
        driver = self._core.driver
        awaitable = driver.run(operation) if driver.gives_awaitables else drive(operation)
        awaited: Generator[Any, None, Any] = awaitable.__await__()
        return awaited

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"what a call of {self._call.name} will give can't be sent elsewhere, nor be the result of a task: send "
            "what it has given, result(), or let the other end call the actor, whose handle can be sent"
        )

    def __repr__(self) -> str:
        call = self._call
        status = "pending" if not call.is_done else "finished" if call.ok else "error"
        return f"<ActorFuture: {status}, {call.name}>"
