"""Which client is meant when none is named.

The client that was opened last, and is open still, is the current one of its process and dask's default scheduler.
When it is closed, the one before it is again; when none is left, dask's configuration is what it was before the first.
Inside a task the client is one of the worker's own, made when a task first needs it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import dask.config

from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.comm.tokens import load_token

if TYPE_CHECKING:
    from holdfast.client.client import Client
    from holdfast.cluster.worker.worker import Worker

#: Where a cluster is that commands and clients use which are told of none.
ADDRESS_VARIABLE = "HOLDFAST_ADDRESS"
_ADDRESS = "scheduler-address"
_SCHEDULER = "scheduler"
#: What dask decides by whether its own distributed is there: without it frames are shuffled through files, which other
#: hosts don't see; with it frames and arrays are, by "p2p", which is a part of it.
_METHODS = ("dataframe.shuffle.method", "array.rechunk.method")
_TASKS = "tasks"
_NOT_OURS = (None, "p2p")
_ABSENT = object()

_lock = threading.RLock()
_defaults: list[Client] = []
_open: weakref.WeakSet[Client] = weakref.WeakSet()
_known: weakref.WeakSet[Client] = weakref.WeakSet()
_before: dict[str, Any] = {}
_worker_clients: dict[str, Client] = {}
_worker_lock = threading.Lock()


def opened(client: Client, set_as_default: bool) -> None:
    """A client is open; from now on the default, if it is to be."""
    with _lock:
        _open.add(client)
        _known.add(client)
        if not set_as_default:
            worker = _worker_of_task()
            if worker is not None:
                _prepare_for_futures(worker)
            return
        if not _defaults:
            _before.clear()
            _before.update({name: dask.config.get(name, _ABSENT) for name in (_SCHEDULER, *_METHODS)})
        _defaults.append(client)
        dask.config.set({_SCHEDULER: client})
        for name in _METHODS:
            if dask.config.get(name, None) in _NOT_OURS:
                dask.config.set({name: _TASKS})


def closed(client: Client) -> None:
    """A client is no longer open. Twice is no error."""
    with _lock:
        _open.discard(client)
        if client not in _defaults:
            return
        _defaults.remove(client)
        if dask.config.get(_SCHEDULER, None) is client:  # else somebody has chosen another one meanwhile
            _restore(_SCHEDULER, _defaults[-1] if _defaults else _before[_SCHEDULER])
        for name in _METHODS if not _defaults else ():
            before = _before[name]
            if (before is _ABSENT or before in _NOT_OURS) and dask.config.get(name, None) == _TASKS:
                _restore(name, before)


def _restore(name: str, value: Any) -> None:
    if value is not _ABSENT:
        dask.config.set({name: value})
        return
    *outer, last = name.split(".")
    settings = dask.config.config
    for part in outer:
        settings = settings.get(part, {})
    settings.pop(last, None)


def current() -> Client | None:
    """The client that is meant when none is named; None if there is none."""
    with _lock:
        return _defaults[-1] if _defaults else None


def known() -> list[Client]:
    """All clients of this process, those too that are closed or the parent's: somebody may have futures of them."""
    with _lock:
        return list(_known)


def client_of_this_process() -> Client:
    """The client for a future that was unpickled here: in a task the worker's own, else the current one.

    Raises
    ------
    ValueError
        There is none.
    """
    worker = _worker_of_task()
    if worker is not None:
        return _client_of_worker(worker)
    client = current()
    if client is None:
        raise ValueError("there is no client in this process: connect one first, with holdfast.Client(address)")
    return client


def default_address() -> tuple[str | None, str]:
    """The address of a client that is given none, and where it is from; None: it starts a cluster of its own."""
    variable = os.environ.get(ADDRESS_VARIABLE)
    if variable:
        return variable, f"the environment variable {ADDRESS_VARIABLE}"
    configured = dask.config.get(_ADDRESS, None)
    return (str(configured), f"dask's configuration, {_ADDRESS!r}") if configured else (None, "")


def token_for(address: str) -> bytes:
    """The token to connect with: in a task of the cluster at ``address`` that cluster's, else this user's.

    Raises
    ------
    AuthenticationError
        As of `load_token`.
    """
    worker = _worker_of_task()
    if worker is not None and worker.scheduler_address == format_address(*parse_address(address)):
        token: bytes = worker.token
        return token
    return load_token()


def _worker_of_task() -> Worker | None:
    """The worker whose task is running in this thread."""
    # A worker has imported it; a process without one doesn't need it.
    context = sys.modules.get("holdfast.cluster.worker.context")
    worker: Worker | None = context.current_worker() if context is not None else None
    return worker


def _prepare_for_futures(worker: Worker) -> None:
    """There will be futures in the tasks of this process, so collections may stand on some."""
    if worker.own_process:
        from holdfast.client.in_task import refuse_futures  # it imports what imports this module

        refuse_futures()


def _client_of_worker(worker: Worker) -> Client:
    address, token = worker.scheduler_address, worker.token
    with _worker_lock:
        client = _worker_clients.get(address)
        if client is None or client.closed:
            # Outside of the task's thread: whatever keeps a frame of this must not keep the task's frames with it.
            with ThreadPoolExecutor(1, "holdfast-worker-client") as elsewhere:
                client = elsewhere.submit(_open_for_worker, address, token).result()
            _worker_clients[address] = client
            _prepare_for_futures(worker)
        return client


def _open_for_worker(address: str, token: bytes) -> Client:
    from holdfast.client.in_task import WorkerClient  # it imports what imports this module

    client = WorkerClient(address, token=token, set_as_default=False, name="worker")
    resources = client._resources
    # Nobody closes it: it goes with its cluster.
    client._session.on_end = lambda: resources.close_elsewhere("the cluster is gone")
    return client


def _close_all() -> None:
    for client in list(_open):
        with contextlib.suppress(Exception):  # the process ends: whatever is in the way, the others are closed too
            client.close()


atexit.register(_close_all)


def _leave_to_parent() -> None:
    """In a forked child: the clients are the parent's, and so may be whoever has the locks."""
    global _lock, _worker_lock, _open
    _lock, _worker_lock = threading.RLock(), threading.Lock()
    inherited, _open = list(_open), weakref.WeakSet()
    for client in inherited:
        client._resources.leave_to_parent()
    _worker_clients.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
