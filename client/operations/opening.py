"""How a client finds a cluster, or starts one, and connects with it."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from holdfast.client import defaults
from holdfast.client.core.core import Callbacks, Core
from holdfast.client.core.registry import registry
from holdfast.client.core.resources import Resources
from holdfast.client.core.session import Session
from holdfast.client.core.transport import connected
from holdfast.client.drivers.effects import Driver, Elsewhere, Operation
from holdfast.client.packing.keys import check_text
from holdfast.client.stores.access import StoreAccess
from holdfast.cluster import versions
from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.comm.tokens import load_token
from holdfast.cluster.durations import seconds
from holdfast.cluster.errors import ConnectError
from holdfast.cluster.identity import own_identity
from holdfast.cluster.user_warnings import warn_user

T = TypeVar("T")

#: How long to try to connect, where no time is said.
CONNECT_SECONDS = 10.0
#: So much of a client's name stands in its id.
SHOWN_NAME_LENGTH = 100
_PARAMETERS = (
    "address",
    "scheduler_file",
    "timeout",
    "set_as_default",
    "name",
    "token",
    "attach",
    "writable",
    "asynchronous",
)


class Wanted(NamedTuple):
    """A client as it was asked for; checked by `wanted`."""

    address: Any
    scheduler_file: str | None
    timeout: float | None
    set_as_default: bool
    name: str
    token: bytes | None
    attach: bool
    writable: bool
    cluster_options: dict[str, Any]
    type_name: str


def wanted(
    address: Any,
    *,
    scheduler_file: str | os.PathLike[str] | None,
    timeout: float | str | None,
    set_as_default: bool,
    name: str | None,
    token: bytes | str | None,
    attach: bool,
    writable: bool,
    loop: Any,
    security: Any,
    cluster_options: dict[str, Any],
    type_name: str,
) -> Wanted:
    """What `Client` was given, checked.

    Raises
    ------
    TypeError, ValueError
        Something of it can't be; says what to use instead.
    """
    for option, value in (("loop", loop), ("security", security)):
        if value is not None:
            cluster_options[option] = value
    if cluster_options:
        from holdfast.cluster.deploy import keywords  # with all that starts a cluster

        starts_one = address is None and scheduler_file is None and defaults.default_address()[0] is None
        cluster_options = keywords.of_client(cluster_options, starts_cluster=starts_one)
        if cluster_options:
            _check_known(cluster_options)
    check_text("the client", name or "")
    if scheduler_file is not None and address is not None:
        raise TypeError("give the address of the scheduler or scheduler_file, and not both")
    return Wanted(
        address,
        None if scheduler_file is None else os.fspath(scheduler_file),
        seconds(timeout),
        set_as_default,
        name or "",
        token.encode() if isinstance(token, str) else token,
        attach,
        writable,
        cluster_options,
        type_name,
    )


def open_core(
    asked: Wanted, driver: Driver, resources: Resources, callbacks: Callbacks, make_client: Callable[[Core], Any]
) -> Operation[Core]:
    """Find or start a cluster, and connect; the core of a new client."""
    try:
        address, options = asked.address, asked.cluster_options
        source = ""
        cluster: Any = None
        if (file := asked.scheduler_file) is not None:
            address, source = (yield Elsewhere(lambda: _address_in(file, asked.timeout))), f"the file {file}"
        elif address is None and not options:
            address, source = defaults.default_address()
        if address is None:
            cluster = resources.cluster = yield Elsewhere(lambda: _start_cluster(options), undo=lambda it: it.close())
        elif options:
            raise _not_for_a_client(options)
        elif not isinstance(address, str):
            cluster = _checked_cluster(address)
        try:
            where = address if isinstance(address, str) else cluster.scheduler_address
            token = asked.token
            if token is None:
                token = _token_for(where) if cluster is None else cluster.token
            core = yield from _connect(asked, where, token, driver, resources, callbacks, make_client)
            core.cluster, core.scheduler_file = cluster, file
        except BaseException as error:
            if source:
                error.add_note(f"The address {address!r} is that of {source}.")
            raise
    except GeneratorExit:
        resources.close_elsewhere("the client was not opened")
        raise
    except BaseException:
        yield from resources.closing("the client could not connect")
        raise
    return core


def _connect(
    asked: Wanted,
    where: str,
    token: bytes,
    driver: Driver,
    resources: Resources,
    callbacks: Callbacks,
    make_client: Callable[[Core], Any],
) -> Operation[Core]:
    id = "-".join(filter(None, (asked.type_name, asked.name[:SHOWN_NAME_LENGTH], uuid.uuid4().hex)))
    address = format_address(*parse_address(where))
    info = {
        "id": id,
        "name": asked.name,
        **own_identity(),
        "versions": versions.own(),
    }
    timeout = CONNECT_SECONDS if asked.timeout is None else asked.timeout

    async def connect() -> Session:
        transport = await connected(
            address, token=token, info=info, timeout=timeout, threads_read=not driver.asynchronous
        )
        session = Session(transport, address, transport.connection.info)
        session.start()
        return session

    session: Session = yield driver.in_loop(connect)
    resources.session = session
    _warn_of_versions(address, session.versions)
    stores = resources.stores = StoreAccess(
        lambda: session.nodes, token=token, owner=id, attach=asked.attach, soon=driver.call_in
    )
    if driver.asynchronous:
        yield Elsewhere(lambda: stores.local)  # so that attaching to it doesn't block the loop later
    core = Core(
        id=id,
        name=asked.name,
        scheduler_address=address,
        session=session,
        stores=stores,
        driver=driver,
        callbacks=callbacks,
        make_client=make_client,
        writable=asked.writable,
        resources=resources,
    )
    # A client that is garbage can't wait for its own end.
    core.finalizer = weakref.finalize(core, resources.close_elsewhere, "the client was garbage collected")
    core.finalizer.atexit = False
    return core


def opened(core: Core, client: T) -> Operation[T]:
    """The client, if it is open still."""
    core.session.check_open()
    yield from ()
    return client


def _warn_of_versions(address: str, theirs: dict[str, Any]) -> None:
    """Say once in which versions this process and those of the cluster differ."""
    here = versions.own()
    table = versions.differences(here, theirs.get("scheduler") or here, theirs.get("workers") or {})
    if table is not None:
        warn_user(f"this client and the cluster at {address} have different versions, which may not work:\n{table}")


def _start_cluster(options: dict[str, Any]) -> Any:
    # Most clients connect to a cluster and need none of what starts one.
    from holdfast.cluster.deploy import LocalCluster

    return LocalCluster(**options)


def _address_in(file: str, timeout: float | None) -> str:
    from holdfast.cluster.deploy.scheduler_file import wait_for_address

    return wait_for_address(file, CONNECT_SECONDS if timeout is None else timeout)


def _token_for(address: str) -> bytes:
    """The token to connect with: in a task of the cluster at ``address`` that cluster's, else this user's.

    Raises
    ------
    AuthenticationError
        As of `load_token`.
    """
    task = registry.running_task()
    if task is not None and task.scheduler_address == format_address(*parse_address(address)):
        return task.token
    return load_token()


def _check_known(options: dict[str, Any]) -> None:
    """Refuse a keyword that neither a client knows nor the cluster that it starts."""
    from holdfast.cluster.deploy import keywords
    from holdfast.cluster.deploy.local import PARAMETERS

    for name in options:
        if name not in PARAMETERS and not keywords.is_for_cluster(name):
            raise keywords.unexpected("Client", name, (*_PARAMETERS, *PARAMETERS))


def _not_for_a_client(options: dict[str, Any]) -> TypeError:
    names = ", ".join(map(repr, options))
    return TypeError(
        f"{names} {'configures' if len(options) == 1 else 'configure'} the cluster that a client without an address "
        "starts, and here is one already: give that to LocalCluster, or to 'holdfast start'"
    )


def _checked_cluster(cluster: Any) -> Any:
    if _is_client(cluster):
        raise TypeError(f"{cluster!r} is a client: give its scheduler_address for another client of its cluster")
    if isinstance(cluster, type):
        raise TypeError(f"{cluster!r} is a class: make a cluster with it, {cluster.__name__}(...), and give that")
    if not hasattr(cluster, "scheduler_address"):
        raise TypeError(f"the address is a string such as 'HOST:PORT', or a cluster, not {cluster!r:.200}")
    if not hasattr(cluster, "token"):
        library = type(cluster).__module__.partition(".")[0]
        raise TypeError(
            f"{type(cluster).__qualname__} is a cluster of {library}, which this client can't use: make a "
            "holdfast.LocalCluster, or start a cluster with 'holdfast start'"
        )
    if cluster.closed:
        raise ConnectError(f"{cluster!r} can't be connected to: make another one")
    return cluster


def _is_client(value: Any) -> bool:
    return hasattr(type(value), "_core_or_none")
