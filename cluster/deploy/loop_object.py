"""`LoopObject`: what is opened and closed, and whose methods block or are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Self

from holdfast.cluster.deploy.process_interface import Status
from holdfast.cluster.deploy.runner import Runner
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError


class LoopObject:
    """Does what it does in one event loop: that of its caller, or one in a thread of its own.

    A subclass says in `_start` and `_close`, which run in that loop, how it begins and ends. Each is called once.

    Parameters
    ----------
    asynchronous
        Whether it belongs to the running event loop, and its methods are awaited.
    thread_name
        Of the thread of its loop, if it has one.
    """

    def __init__(self, asynchronous: bool, thread_name: str) -> None:
        self.status = Status.created
        self._asynchronous = asynchronous
        self._runner = Runner(asynchronous, thread_name)
        self._closing: asyncio.Task[None] | None = None

    # -- for subclasses

    async def _start(self) -> None:
        """Begin."""
        self.status = Status.running

    async def _close(self) -> None:
        """End, also what has begun only in part."""
        await self._runner.cancel()
        self.status = Status.closed

    async def _end(self) -> None:
        """`_close`, once, for all that call this. Whoever is cancelled meanwhile does not cut it short."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    # -- its loop

    @property
    def asynchronous(self) -> bool:
        """Whether its methods give awaitables here.

        Examples
        --------
        >>> cluster.asynchronous
        False
        """
        return self._asynchronous or self._runner.is_current

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop in which it does what it does by itself.

        Examples
        --------
        >>> cluster.loop.is_running()
        True
        """
        return self._runner.loop

    def sync(
        self,
        function: Callable[..., Awaitable[Any]],
        *args: Any,
        asynchronous: bool | None = None,
        callback_timeout: float | str | None = None,
        **kwargs: Any,
    ) -> Any:
        """What a coroutine function gives, run in the loop of the cluster; where methods are awaited, an awaitable.

        Parameters
        ----------
        function
            Called with the other arguments.
        asynchronous
            True: an awaitable in any case.
        callback_timeout
            After this it is cancelled, with a `TimeoutError`.

        Examples
        --------
        >>> async def count():
        ...     await cluster.refresh()
        ...     return len(cluster.observed)
        >>> cluster.sync(count, callback_timeout="10 s")
        2
        """
        coroutine = _coroutine(function(*args, **kwargs))
        timeout = seconds(callback_timeout)
        if asynchronous:
            return coroutine if timeout is None else asyncio.wait_for(coroutine, timeout)
        return self._runner.run(coroutine, timeout)

    def _do(self, coroutine: Coroutine[Any, Any, Any], what: str) -> Any:
        """Have a coroutine run in the loop: where methods are awaited, an awaitable of its end; else if it fails, that
        is logged."""
        if self.asynchronous:
            return self._runner.now(coroutine)
        self._runner.soon(coroutine, what)
        return None

    # -- beginning and end

    def __enter__(self) -> Self:
        if self._asynchronous:
            raise TypeError(f"an asynchronous cluster is opened with 'async with {type(self).__name__}(...)'")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._opened().__await__()

    async def _opened(self) -> Self:
        if self.status == Status.created:
            await self._start()
        elif self.closed:
            raise ConnectError(f"{self!r} can't be opened again: make another one")
        return self

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        result = self.close()
        if result is not None:
            await result

    def close(self, timeout: float | str | None = None) -> Any:
        """End it. Where its methods are awaited: await this. Twice is no error.

        Parameters
        ----------
        timeout
            How long it may take, in seconds or as text. After that there is a `TimeoutError`, and it ends all the same.

        Examples
        --------
        >>> from holdfast import LocalCluster
        >>> mine = LocalCluster(n_workers=0, processes=False)
        >>> mine.close(timeout="10 s")
        >>> mine.status.value
        'closed'
        """
        result = None
        if self.status != Status.closed:
            result = self.sync(self._end, callback_timeout=timeout)
        elif self.asynchronous:
            result = _nothing()
        if not self.asynchronous:
            self._runner.close()
        return result

    @property
    def closed(self) -> bool:
        """Whether it was closed.

        Examples
        --------
        >>> cluster.closed
        False
        """
        return self.status in (Status.closed, Status.failed)


async def _coroutine(result: Any) -> Any:
    return await result


async def _nothing() -> None:
    """For what is awaited and has nothing to do."""
