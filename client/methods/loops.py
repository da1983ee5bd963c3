"""The event loop of a client, for libraries that run coroutines beside it: `Client.loop` and `Client.sync`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.client.methods.face import Face
from holdfast.client.operations import loops
from holdfast.cluster.durations import seconds


class LoopMethods(Face):
    """The methods of a client that are about its loop."""

    @property
    def loop(self) -> Any:
        """The event loop of the client's connection, as a `tornado.ioloop.IOLoop`; ``loop.asyncio_loop`` is asyncio's.

        That of a blocking client runs in a thread of its own, that of an asynchronous one is the user's. Inside of
        tasks there is none, since the connection is the worker's.

        Raises
        ------
        RuntimeError
            The client has no loop, or it is closed.

        Examples
        --------
        >>> import threading
        >>> called = threading.Event()
        >>> client.loop.add_callback(called.set)
        >>> called.wait(10)
        True
        """
        return loops.ioloop(self._core)

    def sync(
        self,
        func: Callable[..., Any],
        *args: Any,
        asynchronous: bool | None = None,
        callback_timeout: float | str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call ``func(*args, **kwargs)`` in the client's event loop, and wait for the coroutine that it gives.

        There the client is an asynchronous one, whatever its kind: what elsewhere waits is awaited. The connection of a
        blocking client stands still while ``func`` computes, so it should not compute long. In an asynchronous client:
        await it.

        Parameters
        ----------
        func : callable
            Mostly a coroutine function. What it returns is awaited if it can be.
        *args, **kwargs
            Its arguments.
        asynchronous : bool, optional
            Taken for compatibility, with the value of `asynchronous`.
        callback_timeout : float or str, optional
            How long to wait, in seconds or as text such as ``"5 s"``.

        Returns
        -------
        What it gives.

        Raises
        ------
        TimeoutError
            It was not done in time, and is cancelled.
        RuntimeError
            The client has no loop, or it is closed.
        ValueError
            ``asynchronous`` is not what the client is here.

        Examples
        --------
        >>> async def total(client, numbers):
        ...     squares = await client.gather(client.map(pow, numbers, [2] * len(numbers)))
        ...     return await client.submit(sum, squares)
        >>> client.sync(total, client, [1, 2, 3])
        14
        """
        self._check_kind(asynchronous)
        return self._run(loops.call(self._core, func, args, kwargs, seconds(callback_timeout)))
