"""How a client ends: when it is closed, with its process, and with its cluster."""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import AsyncGenerator

from holdfast.client import defaults
from holdfast.client.core.core import Core
from holdfast.client.core.registry import registry
from holdfast.client.core.resources import CLOSE_TIMEOUT_SECONDS
from holdfast.client.core.waits import Ask
from holdfast.client.drivers.effects import Operation
from holdfast.cluster import protocol
from holdfast.cluster.errors import ConnectError

#: How long a client that is closed waits for each of those that hold keys of it.
BORROWER_SECONDS = 10.0
#: The scheduler answers for itself; this is for one that does not.
_GRACE_SECONDS = 10.0


def close(core: Core, timeout: float | None = None) -> Operation[None]:
    """See `Client.close`."""
    resources = core.resources
    if resources is None or resources.inherited:
        return
    if core.driver.gives_awaitables and not core.driver.asynchronous:
        raise RuntimeError("a client can't be closed by a coroutine in its own loop: close it in another thread")
    yield from _let_others_hold(core, timeout)
    defaults.closed(core)
    if core.finalizer is not None:
        core.finalizer.detach()
    yield from resources.closing(
        "the client was closed; open another one", CLOSE_TIMEOUT_SECONDS if timeout is None else timeout
    )
    core.kept.clear()


def close_with_loop(core: Core) -> Operation[None]:
    """Have an asynchronous client closed when its loop ends, if it is open still: `asyncio.run` ends a loop in order.

    A loop says nothing of its end, but the asynchronous generators that it has begun are ended with it.
    """
    end = core.end_of_loop = _closing_in_the_end(weakref.ref(core))

    async def begin() -> None:
        await anext(end)

    yield core.driver.in_loop(begin)


async def _closing_in_the_end(of: weakref.ref[Core]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        core = of()
        if core is not None:
            await core.driver.run(close(core))


def _let_others_hold(core: Core, timeout: float | None) -> Operation[None]:
    """Return when the scheduler knows what other clients hold of this one's keys, which is to go."""
    for other in list(core.borrowers) if not core.closed else ():
        if not core.driver.asynchronous and other.session.transport.is_current:
            continue  # it would be waited for in its own loop
        with contextlib.suppress(ConnectError, TimeoutError):
            yield Ask(
                other.session, protocol.requests.WHO_HAS, BORROWER_SECONDS if timeout is None else timeout, keys=[]
            )


def shutdown(core: Core) -> Operation[None]:
    """See `Client.shutdown`."""
    try:
        yield Ask(core.session, protocol.requests.SHUTDOWN, _GRACE_SECONDS)
    except ConnectError:
        inherited = core.resources is not None and core.resources.inherited
        if inherited or (not core.closed and core.session.ended is None):
            raise
    yield from close(core)


def _close_all() -> None:
    for core in list(registry.open):
        with contextlib.suppress(Exception):  # the process ends: whatever is in the way, the others are closed too
            if not core.driver.asynchronous:
                core.driver.run(close(core))
            elif core.resources is not None:
                core.resources.close_elsewhere("the process ends")


atexit.register(_close_all)
