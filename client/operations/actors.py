"""Calls of actors' methods. A call never waits in an asynchronous client; what it has come to is waited for."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from holdfast.client.core.calls import Call
from holdfast.client.core.core import Core
from holdfast.client.core.waits import Answered
from holdfast.client.drivers.effects import Elsewhere, Operation
from holdfast.client.futures.binding import bound
from holdfast.client.futures.holding import own
from holdfast.client.futures.reading import ERROR_READ_SECONDS, read
from holdfast.client.operations.storing import constants
from holdfast.client.packing.arguments import Packer
from holdfast.client.packing.keys import check_together
from holdfast.client.raising import raise_in_operation
from holdfast.client.stores.access import ReadTimeoutError, read_inline
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.errors import ConnectError, RemoteError
from holdfast.cluster.failures.loading import load_exception
from holdfast.cluster.protocol.limits import CALL_INLINE_NBYTES, CALLS_INLINE_NBYTES
from holdfast.objectstore.errors import StoreError, UnreadableError

#: The arguments of very many calls: none.
_NO_ARGUMENTS = b"\x80\x05)}\x86."


def call(core: Core, actor: Any, number: int, name: str, method: str, args: tuple[Any, ...], kwargs: Any) -> Call:
    """Call a method of the actor of a number, whose handle is kept until the call is answered."""
    title = f"{name}.{method}"
    core.session.check_open()
    if not args and not kwargs:
        return _begin(core, actor, number, title, method, _NO_ARGUMENTS, [], ())
    large_nbytes = CALLS_INLINE_NBYTES if core.session.calls.are_under_way(number) else CALL_INLINE_NBYTES
    packed = Packer(title, None, partial(own, core), constants(core, large_nbytes)).pack(args, kwargs)
    check_together(f"a call of {title}", packed.dependencies)
    return _begin(core, actor, number, title, method, raw(packed.payload), packed.dependencies, packed.stored)


def attribute(core: Core, actor: Any, number: int, name: str, attribute: str) -> Operation[Any]:
    """The value of an attribute of an actor."""
    core.session.check_open()
    asked = _begin(core, actor, number, f"{name}.{attribute}", attribute, None, [], ())
    return (yield from result(core, asked, None))


def _begin(
    core: Core,
    actor: Any,
    number: int,
    title: str,
    method: str,
    payload: Any,
    dependencies: list[Any],
    stored: tuple[Any, ...],
) -> Call:
    session = core.session
    calls = session.calls
    if not core.driver.gives_awaitables:
        while (first := calls.first_of_full(number)) is not None:
            core.driver.run(_room(core, first))
    call = Call(title, (actor, *stored), core.table)
    if calls.begin(number, method, payload, dependencies, call):
        session.flush()
    return call


def _room(core: Core, first: Call) -> Operation[None]:
    yield Answered(core.session, first)


def result(core: Core, call: Call, timeout: float | None, writable: bool | None = None) -> Operation[Any]:
    """Wait until a call is answered and read what it gave. Raises what it raised instead.

    Raises
    ------
    TimeoutError
        It was not answered in time.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    if not call.is_done:
        core.session.check_open()
        if not (yield Answered(core.session, call, timeout)):
            raise TimeoutError(f"not done within {timeout:g} s: the call of {call.name}")
    if call.reason is not None:
        raise type(call.reason)(*call.reason.args)
    if not call.ok:
        raise_in_operation((yield from _error_of(core, call)))
    if call.state is not None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return (yield from read(core, call.state, left, writable, call))
    outer = bound.to
    bound.to = core
    try:
        return read_inline(call.value, core.writable if writable is None else writable)
    except UnreadableError as error:
        cause = error.__cause__
        raise UnreadableError(f"what {call.name} gave", error.type_name, cause or error) from cause
    finally:
        bound.to = outer


def _error_of(core: Core, call: Call) -> Operation[BaseException]:
    blob: bytes | None = call.value
    if blob is None:
        try:
            if call.state is not None:
                blob = bytes((yield from read(core, call.state, ERROR_READ_SECONDS, False, call)))
            elif call.location is not None:
                blob = bytes(
                    (yield Elsewhere(partial(core.stores.read, call.location, time.monotonic() + ERROR_READ_SECONDS)))
                )
        except (StoreError, ConnectError, ReadTimeoutError, TimeoutError):
            blob = None
    if blob is None:
        return RemoteError(f"the call of {call.name} failed, and its exception can't be read; it was\n\n{call.text}")
    outer = bound.to
    bound.to = core
    try:
        return load_exception(blob, call.text)[0]
    finally:
        bound.to = outer
