"""What a client is made of: its loop, its session, its way to the stores; how it opens and how it ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from holdfast.client import defaults
from holdfast.client.core.key_table import ERROR, FINISHED, PENDING, KeyState, Place
from holdfast.client.core.session import Session
from holdfast.client.futures.future import Callbacks, Future, error_of, seconds
from holdfast.client.packing.arguments import LARGE_NBYTES, collecting
from holdfast.client.packing.constants import Constants
from holdfast.client.packing.functions import Function, FunctionCache
from holdfast.client.packing.keys import check_text
from holdfast.client.stores.access import STORE_TIMEOUT_SECONDS, StoreAccess
from holdfast.client.stores.reading import Reader
from holdfast.cluster import protocol
from holdfast.cluster.comm.addresses import format_address, parse_address
from holdfast.cluster.comm.frames import raw
from holdfast.cluster.comm.loops import LoopThread
from holdfast.cluster.errors import CancelledError, ConnectError
from holdfast.cluster.protocol.limits import MAX_PAYLOAD_NBYTES
from holdfast.cluster.protocol.message import Request
from holdfast.objectstore import Encoded, Store

CLOSE_TIMEOUT_SECONDS = 30.0
#: How long a client that is closed waits for each of those that hold keys of it.
BORROWER_SECONDS = 10.0
_PARAMETERS = ("address", "timeout", "set_as_default", "name", "token", "attach", "writable")
#: The scheduler keeps about so many functions for each client that has no tasks of them.
MAX_SENT_FUNCTIONS = 10_000
#: A larger function is not kept for later calls: it has data in it.
MAX_KEPT_FUNCTION_NBYTES = 8 * 1024


class Resources:
    """What of a client must be closed, apart from it: a client that is garbage leaves this to be closed."""

    def __init__(self) -> None:
        self.loop = LoopThread("holdfast-client")
        self.session: Session = self.loop.run(_make_session(self.loop))
        self.callbacks = Callbacks()
        self.stores: StoreAccess | None = None
        self.cluster: Any = None
        self._lock = threading.Lock()
        self._closed = False
        #: Whether they are the parent's, of whom this process is a fork.
        self.inherited = False

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self, reason: str, timeout: float = CLOSE_TIMEOUT_SECONDS) -> None:
        """Close everything. Twice is no error; a second caller does not wait for the first."""
        if self.inherited:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # Whatever one part does, the others are closed too.
        with contextlib.ExitStack() as stack:
            if self.cluster is not None:
                stack.callback(self.cluster.close)
            stack.callback(self.loop.close, timeout)
            stack.callback(self.callbacks.close, timeout)
            if self.stores is not None:
                stack.callback(self.stores.close)
            with contextlib.suppress(TimeoutError):
                self.loop.run(self.session.close(reason), timeout)

    def close_elsewhere(self, reason: str) -> None:
        """Close from where nothing may block: a finalizer, or the event loop itself."""
        if self.inherited:
            return
        thread = threading.Thread(target=self.close, args=(reason,), name="holdfast-client-close", daemon=True)
        with contextlib.suppress(RuntimeError):  # the interpreter is ending
            thread.start()

    def leave_to_parent(self) -> None:
        """In a forked child: whatever is asked of the client raises, nothing of it is closed. Takes no lock."""
        self.inherited = True
        self.session.leave_to_parent()
        if self.stores is not None:
            self.stores.leave_to_parent()


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
    if not hasattr(cluster, "scheduler_address"):
        raise TypeError(f"the address is a string such as 'HOST:PORT', or a cluster, not {cluster!r:.200}")
    if isinstance(cluster, ClientBase):
        raise TypeError(f"{cluster!r} is a client: give its scheduler_address for another client of its cluster")
    if not hasattr(cluster, "token"):
        library = type(cluster).__module__.partition(".")[0]
        raise TypeError(
            f"{type(cluster).__qualname__} is a cluster of {library}, which this client can't use: make a "
            "holdfast.LocalCluster, or start a cluster with 'holdfast start'"
        )
    if cluster.closed:
        raise ConnectError(f"{cluster!r} can't be connected to: make another one")
    return cluster


async def _make_session(loop: LoopThread) -> Session:
    return Session(loop.loop)


class ClientBase:
    """The parts of a client, and what its faces share."""

    #: dask asks for it: what it calls blocks.
    asynchronous = False

    #: Whether a worker opened it for its tasks: the scheduler doesn't count it among the users' clients.
    _of_worker = False

    def __init__(
        self,
        address: Any = None,
        *,
        timeout: float | str = 10,
        set_as_default: bool = True,
        name: str | None = None,
        token: bytes | str | None = None,
        attach: bool = True,
        writable: bool = True,
        **cluster_options: Any,
    ) -> None:
        if cluster_options:
            from holdfast.cluster.deploy import keywords  # with all that starts a cluster

            cluster_options = keywords.of_client(cluster_options)
            if cluster_options:
                _check_known(cluster_options)
        self.id = f"client-{uuid.uuid4().hex}"
        self.name = name or ""
        check_text("the client", self.name)
        self.cluster: Any = None
        source = ""
        if address is None and not cluster_options:
            address, source = defaults.default_address()
        owned = address is None
        if not owned and cluster_options:
            raise _not_for_a_client(cluster_options)
        if owned:
            # Most clients connect to a cluster and need none of what starts one.
            from holdfast.cluster.deploy import LocalCluster

            self.cluster = LocalCluster(**cluster_options)
        elif not isinstance(address, str):
            self.cluster = _checked_cluster(address)
        try:
            where = address if isinstance(address, str) else self.cluster.scheduler_address
            if token is None:
                token = defaults.token_for(where) if self.cluster is None else self.cluster.token
            self._open(where, token.encode() if isinstance(token, str) else token, timeout, attach, writable)
        except BaseException as error:
            if source:
                error.add_note(f"The address {address!r} is that of {source}.")
            if owned:
                self.cluster.close()
            raise
        if owned:
            self._resources.cluster = self.cluster
        defaults.opened(self, set_as_default)  # type: ignore[arg-type]

    def _open(self, address: str, token: bytes, timeout: float | str, attach: bool, writable: bool) -> None:
        wait = seconds(timeout)
        self.scheduler_address = format_address(*parse_address(address))
        resources = self._resources = Resources()
        self._loop = resources.loop
        self._session = resources.session
        self._table = resources.session.table
        self._callbacks = resources.callbacks
        this = weakref.ref(self)  # a client that nobody refers to is closed at once
        self._functions = FunctionCache(lambda future: this()._own(future))  # type: ignore[union-attr]
        self._sent_functions: OrderedDict[bytes, None] = OrderedDict()  # the least recently named first
        self._told_turn = 0  # what was posted in it, and before, the scheduler is known to have heard
        self._borrowers: weakref.WeakSet[ClientBase] = weakref.WeakSet()  # other clients that hold keys of this one
        info = {"id": self.id, "name": self.name, "pid": os.getpid(), "hostname": socket.gethostname()}
        info["of_worker"] = self._of_worker
        try:
            self._loop.run(
                self._session.connect(
                    self.scheduler_address, token=token, info=info, timeout=10.0 if wait is None else wait
                )
            )
        except BaseException:
            resources.close("the client could not connect")
            raise
        session = self._session
        self._stores = resources.stores = StoreAccess(lambda: session.nodes, token=token, owner=self.id, attach=attach)
        loop = self._loop
        self._reader = Reader(
            self._table,
            self._stores,
            session.check_open,
            lambda: loop.is_current,
            lambda key: Future(key, this()),  # type: ignore[arg-type]
            writable=writable,
        )
        # A client that is garbage can't wait for its own end.
        self._finalizer = weakref.finalize(self, resources.close_elsewhere, "the client was garbage collected")
        self._finalizer.atexit = False

    # -- its end

    @property
    def closed(self) -> bool:
        """Whether it was closed. (Its connection may be lost without that; then every call says so.)"""
        return self._resources.closed

    def close(self, timeout: float | str | None = None) -> None:
        """Close this client, and the cluster if it started one. Futures that are pending are cancelled.

        Results that were read stay valid. Open clients close by themselves when the process ends; twice is no error.
        In a fork of the process that opened it this does nothing.

        Parameters
        ----------
        timeout : float or str, optional
            How long to wait for the end of the connection, in seconds or as text such as ``"10 s"``.
        """
        if self._resources.inherited:
            return
        limit = seconds(timeout)
        self._let_others_hold(limit)
        defaults.closed(self)  # type: ignore[arg-type]
        self._finalizer.detach()
        self._resources.close("the client was closed", CLOSE_TIMEOUT_SECONDS if limit is None else limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a Client can't be pickled: it is one process's connection. Connect another one there")

    @property
    def store(self) -> Store | None:
        """The object store of this host, attached to; None on a host without one, or with ``attach=False``.

        Examples
        --------
        >>> array = client.submit(np.ones, 1_000_000).result(writable=False)  # doctest: +SKIP
        >>> client.store.address_in_arena(array.__array_interface__["data"][0])  # doctest: +SKIP
        True
        """
        local = self._stores.local
        return None if local is None else local[0]

    # -- asking the scheduler

    def _request(self, request: Request, /, _timeout: float | None = None, **arguments: Any) -> Any:
        if self._loop.is_current:
            raise RuntimeError("a client can't block its own event loop")
        return self._session.ask(request, _timeout, **arguments)

    # -- futures and functions

    def _own(self, future: Future) -> Future:
        """A future that stands for the value of this one in a call of this client: itself, if it is this client's.

        What a future names is a key of a cluster. So of one that is another client's of the same cluster this client
        holds the key as well.

        Raises
        ------
        CancelledError, ConnectError
            It was cancelled or released, or the connection that it was had by is gone.
        ValueError
            It is of another cluster.
        """
        if future._client is not self:
            return self._adopted(future)
        future._check_held()
        if future._state.reason is not None:
            raise error_of(future._state)
        return future

    def _adopted(self, future: Future) -> Future:
        """This client's future of the key of another client's."""
        future._check_held()
        key, other = future.key, future._client
        if not self._shares_cluster(other):
            if other._session.ended is not None:
                raise ValueError(
                    f"{key!r:.200} is a result of another cluster, which can't be asked for it any more "
                    f"({other._session.ended}): compute it here from what it was made of"
                )
            raise ValueError(
                f"{key!r:.200} is a result of the cluster at {other.scheduler_address}, and the one of this client, at "
                f"{self.scheduler_address}, can't read it: take its value from there (client.gather) and scatter it "
                "here, or compute it here from what it was made of"
            )
        known = self._borrow(key, failed=True)
        if known is not None:
            return known
        if other._session.ended is not None:
            return Future(key, self)  # type: ignore[arg-type]  # a dataset or somebody else may still hold it
        if future._state.reason is not None:
            raise error_of(future._state)
        other._make_known(future._state)
        # Else the other client may let go, or leave, before the scheduler hears of this one's hold.
        other._borrowers.add(self)
        kept = other._another(future)
        own = Future(key, self)  # type: ignore[arg-type]
        self._table.when_ready(own._state, kept.release)
        return own

    def _make_known(self, state: KeyState) -> None:
        """Return when the scheduler knows a key that this client holds, whatever others say to it from then on."""
        if state.status == PENDING and state.since > self._told_turn:
            ended = self._table.ended_turn
            with contextlib.suppress(ConnectError):
                self._request(protocol.requests.WHO_HAS, keys=[])
                self._told_turn = max(self._told_turn, ended)

    def _let_others_hold(self, timeout: float | None) -> None:
        """Return when the scheduler knows what other clients hold of this one's keys, which is to go."""
        for other in list(self._borrowers) if not self.closed else ():
            with contextlib.suppress(ConnectError, TimeoutError):
                other._request(protocol.requests.WHO_HAS, BORROWER_SECONDS if timeout is None else timeout, keys=[])

    def _shares_cluster(self, other: ClientBase) -> bool:
        known = self._session.scheduler.get("id")
        return known is not None and known == other._session.scheduler.get("id")

    def _elsewhere(self, key: Any) -> Future | None:
        """A future of a key that this client can't have computed with: one of another client in this process, or one
        of its own that was cancelled."""
        others = [client for client in defaults.known() if client is not self]
        others.sort(key=lambda other: (not self._shares_cluster(other), other._session.ended is not None))
        for client in (self, *others):
            with client._table.lock:
                state = client._table.states.get(key)
                if state is not None and state.holders:
                    return Future._of(state, client)  # type: ignore[arg-type]
        return None

    def _another(self, future: Future) -> Future:
        """Another future of the same key."""
        with self._table.lock:
            return Future._of(future._state, self)  # type: ignore[arg-type]

    def _borrow(self, key: Any, *, failed: bool = False) -> Future | None:
        """A future of a key that this client holds already and that is, or will be, in memory; else None.

        ``failed``: or whose task failed, so that what depends on it fails likewise.
        """
        table = self._table
        if key not in table.states:
            return None
        with table.lock:
            state = table.states.get(key)
            if state is None or state.status not in (PENDING, FINISHED, ERROR if failed else FINISHED):
                return None
            return Future._of(state, self)  # type: ignore[arg-type]

    def _hold_all(self, keys: Iterable[Any]) -> dict[Any, Future]:
        """Futures of keys that the cluster knows."""
        table = self._table
        held: dict[Any, Future] = {}
        with table.lock, table.beginning() as begun:
            for key in keys:
                state, new = table.state_of(key)
                if new:
                    begun.append(state)
                held[key] = Future._of(state, self)  # type: ignore[arg-type]
            if begun:
                self._session.leave(protocol.client.WANT([state.key for state in begun]))
                begun.clear()
        self._session.wake()
        return held

    def _send_functions(self, functions: Iterable[Function]) -> None:
        """Post functions that the scheduler does not have from this client yet. The caller has the table's lock."""
        sent = self._sent_functions
        functions = tuple(functions)
        if len(functions) == 1 and functions[0].digest in sent:  # as for most calls
            sent.move_to_end(functions[0].digest)
            return
        named = {function.digest: function for function in functions}
        if len(sent) > MAX_SENT_FUNCTIONS:
            surplus = [digest for digest in itertools.islice(sent, MAX_SENT_FUNCTIONS // 2) if digest not in named]
            for digest in surplus:
                del sent[digest]
            self._session.post(protocol.client.FUNCTIONS_FORGOTTEN(surplus))
        new = [function for digest, function in named.items() if sent.pop(digest, self) is not None]
        if new:
            sent_now = [(function.digest, raw(function.blob)) for function in new]
            self._session.post(protocol.client.FUNCTIONS_SENT(sent_now))
        sent.update(dict.fromkeys(named))  # last: one that is interrupted before is sent twice, which does no harm

    def _forget_functions(self, functions: Iterable[Function]) -> None:
        """After the last message that names them: forget those that are not to outlive their tasks.

        One with futures in it would keep their results, a large one its data. The caller has the table's lock.
        """
        forgotten = [
            function.digest
            for function in functions
            if function.dependencies or len(function.blob) > MAX_KEPT_FUNCTION_NBYTES
        ]
        if forgotten:
            for digest in forgotten:
                self._sent_functions.pop(digest, None)
            self._session.post(protocol.client.FUNCTIONS_FORGOTTEN(forgotten))

    def _constants(self, large_nbytes: int = LARGE_NBYTES) -> Constants:
        return Constants(self._store_constant, large_nbytes)

    # -- storing

    def _store_constant(self, value: Any) -> Future | None:
        """Put a value into a store, under a key that names its content. None if there is no store, and it is small."""
        encoded, inside = self._encoded(value)
        if not self._has_store(encoded):
            return None
        stores = self._stores
        place = None
        token = stores.fingerprint(encoded)
        if token is None:
            place = stores.write(encoded, None, None, everywhere=False, timeout=None)
            token = stores.fingerprint_of(encoded, place)
        key = f"{encoded.type_name}-{token}"
        known = self._borrow(key)
        if known is not None and known.done():
            if place is not None:
                stores.forget(place)
            return known
        if place is None:
            place = stores.write(encoded, key, None, everywhere=False, timeout=None)
        return self._scattered(key, place, encoded.type_name, inside, chosen=False, at_once=False)

    def _store_as(self, value: Any, key: Any) -> Future | None:
        """Put a value into a store under a key. None if there is no store, and it is small."""
        encoded, inside = self._encoded(value)
        if not self._has_store(encoded):
            return None
        place = self._stores.write(encoded, str(key), None, everywhere=False, timeout=None)
        return self._scattered(key, place, encoded.type_name, inside, chosen=True, at_once=False)

    def _encoded(self, value: Any) -> tuple[Encoded, list[Future]]:
        """A value as it is stored, and this client's futures of what is to live as long: those inside the value."""
        with collecting() as inside:
            encoded = self._stores.encode(value)
        return encoded, [self._own(future) for future in inside]

    def _has_store(self, encoded: Encoded) -> bool:
        """Whether there is a store. For a value that can't be sent without, one is waited for."""
        self._session.check_open()
        if not self._stores.any_node:
            if encoded.nbytes <= MAX_PAYLOAD_NBYTES:
                return False
            self._stores.wait_for_node(STORE_TIMEOUT_SECONDS)
        return True

    def _scattered(
        self, key: Any, place: Place, type_name: str, inside: list[Future], *, chosen: bool, at_once: bool = True
    ) -> Future:
        """Tell the scheduler of an object that this client has stored, with futures in it; the future of it.

        ``chosen``: somebody chose the key; else it is made of the data, or of chance. Unless ``at_once``, that is said
        with what is sent next.
        """
        table = self._table
        entries = [(key, place.object_id, place.nbytes, type_name, node, place.inline) for node in place.nodes]
        with table.lock, table.beginning() as begun:
            self._session.check_open()
            state, new = table.state_of(key)
            if new:
                begun.append(state)
                state.call = place.object_id if chosen else None
            future = Future._of(state, self)  # type: ignore[arg-type]
            if state.status == PENDING:
                table.scattered(state, place)
            messages: list[tuple[Any, ...]] = [protocol.client.SCATTERED(entries, chosen)]
            if inside:
                keys = list(dict.fromkeys([future.key for future in inside]))
                messages.append(protocol.client.CONTAINS([(key, keys)]))
            self._session.leave_all(messages)
            begun.clear()
        if at_once:
            self._session.wake()
        return future

    # -- cancelling

    def _cancel(self, states: list[KeyState], force: bool) -> None:
        """Cancel keys, and return when the scheduler has: what is submitted afterwards is made anew."""
        keys = list(dict.fromkeys(state.key for state in states))
        if not keys:
            return
        with self._table.lock:
            self._session.check_open()
            self._session.post(protocol.client.CANCEL(keys, force))
        # An answer comes after everything that the cancelling brought about.
        self._request(protocol.requests.WHO_HAS, keys=[])
        with self._table.lock:
            live = [state.key for state in states if self._table.states.get(state.key) is state]
            self._table.cancelled(live, CancelledError(f"cancelled by {self.name or self.id}"))
