"""A client's event loop: what runs in it for others."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.client.core.core import Core
from holdfast.client.drivers.effects import Operation

#: How long the loop may take to say which one it is.
LOOP_SECONDS = 10.0


def ioloop(core: Core) -> Any:
    """See `Client.loop`."""
    loop = _loop_of(core)

    async def current() -> Any:
        from tornado.ioloop import IOLoop  # most programs never ask for it

        return IOLoop.current()

    try:
        here: object = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        from tornado.ioloop import IOLoop

        return IOLoop.current()
    return asyncio.run_coroutine_threadsafe(current(), loop).result(LOOP_SECONDS)


def _loop_of(core: Core) -> asyncio.AbstractEventLoop:
    loop = core.driver.loop
    if loop is None:
        raise RuntimeError("the connection of a client inside of tasks is its worker's, so this client has no loop")
    if core.closed or loop.is_closed():
        raise RuntimeError("the client is closed, and its event loop with it: open another client")
    return loop


def call(
    core: Core, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], timeout: float | None
) -> Operation[Any]:
    """See `Client.sync`."""
    _loop_of(core)
    ended = False

    async def run() -> Any:
        nonlocal ended
        try:
            given = func(*args, **kwargs)
            return await given if inspect.isawaitable(given) else given
        except TimeoutError:
            ended = True  # it is that of the function
            raise

    try:
        return (yield core.driver.in_loop(run, timeout))
    except TimeoutError:
        if ended or timeout is None:
            raise
        name = getattr(func, "__qualname__", repr(func))
        raise TimeoutError(f"{name:.200} was not done within {timeout:g} s, and is cancelled") from None
