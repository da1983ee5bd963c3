"""Reading and writing objects: in the store of this host, or over the network in that of another one.

A client on a host with a store attaches to it: it reads results in place and writes what it scatters straight into it.
A client anywhere else asks the node that has an object for its bytes, and pushes what it scatters to a node.
Everything here blocks, and is called from user threads, or from others for an event loop; except what is done
*at once*, which takes no more time than a round trip within this host.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from hashlib import blake2b
from typing import Any

from holdfast.client.drivers.effects import NotAtOnce, Operation, Sleep
from holdfast.client.stores.location import Location
from holdfast.cluster.errors import MAKE_ROOM, ConnectError, NoWorkerError
from holdfast.cluster.naming import names_of_host, names_of_worker
from holdfast.cluster.processes.host_id import host_id
from holdfast.cluster.protocol.durable_copies import DurableCopy
from holdfast.cluster.protocol.payloads import INLINE_LIMIT_NBYTES
from holdfast.cluster.transfer.pool import DamagedError, PeerPool
from holdfast.objectstore import Encoded, ObjectID, Store, connect, decode, encode
from holdfast.objectstore.client.pending import Pending
from holdfast.objectstore.codecs import TAKES_WRITES
from holdfast.objectstore.errors import (
    DecodeError,
    ObjectNotFoundError,
    StoreClosedError,
    StoreError,
    StoreFullError,
)
from holdfast.objectstore.shared.ids import IDMinter

logger = logging.getLogger(__name__)

#: How long an object may take to come from another host.
FETCH_TIMEOUT_SECONDS = 300.0
#: A host from which nothing comes for so long is given up, as the scheduler does with it.
SILENCE_SECONDS = 30.0
#: A thread that waits for this host's store looks so often whether its agent is still in the cluster.
#: Not a part of `transfer.server.ROOM_SECONDS`, after which a fetch that finds no room fails: what fails between two
#: looks is not heard of, and begins again.
LOOK_SECONDS = 7.0
#: When an object has waited for room in this host's store in vain, longer than `HELD_UP_SECONDS`, those after it are
#: read over the network for so long.
NO_ROOM_SECONDS = 60.0
HELD_UP_SECONDS = 1.0
#: How long an object that should be here is waited for: its seal may be on its way.
LATE_SEAL_SECONDS = 1.0
#: How long an object waits for room in a store.
STORE_TIMEOUT_SECONDS = 60.0
#: How long it may take until the scheduler says that a host has left whose store doesn't answer.
DEPARTURE_SECONDS = 10.0
#: What is larger may take long to decode, or to copy.
AT_ONCE_NBYTES = 1 << 20
#: How long a store of this host may take to answer what is done at once.
AT_ONCE_SECONDS = 1.0
#: How often it is looked whether there is a host.
_LOOK_FOR_HOST_SECONDS = 0.01
#: Of a key, as the store shows it.
_MAX_NAME_LENGTH = 200

NodeDescriptions = Callable[[], dict[str, dict[str, Any]]]
Soon = Callable[[Callable[[], object], float], object]


class ReadTimeoutError(TimeoutError):
    """The caller's time was over before it was known whether an object can be read."""


class StoreAccess:
    """One client's way to the stores of its cluster.

    Parameters
    ----------
    nodes:
        Gives the descriptions of the nodes by address, as they are now.
    token:
        The cluster's.
    owner:
        The client's id.
    attach:
        Whether to use the store of this host. Without, it behaves as on a host that has none.
    soon:
        As of `holdfast.objectstore.connect`: an event loop, in the place of threads of the store.
    """

    def __init__(
        self, nodes: NodeDescriptions, *, token: bytes, owner: str, attach: bool, soon: Soon | None = None
    ) -> None:
        self._nodes = nodes
        self._soon = soon
        self._owner = owner
        self._attach = attach
        self._peers = PeerPool(token, name=owner)
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._store_node: str | None = None
        self._tried: dict[str, dict[str, Any]] | None = None
        self._mint = IDMinter()
        #: Without the cluster's token no user can make two values that have the same fingerprint.
        self.hash_seed = int.from_bytes(blake2b(token, digest_size=8, person=b"fingerprint").digest(), "little")
        self._turns = itertools.count()
        self._closed = False
        self._no_room_until = 0.0  # of `time.monotonic`

    # -- the store of this host

    @property
    def local(self) -> tuple[Store, str] | None:
        """The store of this host and its node's address; None if there is none."""
        nodes = self._nodes()
        store, address = self._store, self._store_node
        if store is not None and address in nodes:
            return store, address
        if not self._attach or self._tried is nodes or self._closed:
            return None
        with self._lock:
            if self._store_node not in nodes:
                self._detach()
            if self._store is None:
                self._try_attach(nodes)
            self._tried = nodes
            return None if self._store is None or self._store_node is None else (self._store, self._store_node)

    def _try_attach(self, nodes: dict[str, dict[str, Any]]) -> None:
        for address, node in nodes.items():
            if node.get("host_id") != host_id() or not node.get("store_socket"):
                continue
            try:
                self._store = connect(node["store_socket"], name=self._owner, soon=self._soon)
                if self._soon is None:
                    self._store.warm()
            except (StoreError, OSError) as error:
                logger.debug("can't attach to the store of %s: %s", address, error)
                continue
            self._store_node = address
            return

    def _detach(self) -> None:
        store, self._store, self._store_node = self._store, None, None
        if store is not None:
            with contextlib.suppress(StoreError, OSError):
                store.close()

    def _lost(self, store: Store) -> None:
        """The store does not answer any more: its node is gone, and the scheduler will say so."""
        with self._lock:
            if self._store is store:
                self._detach()

    # -- reading

    def read(self, location: Location, deadline: float | None = None, *, writable: bool = False) -> Any:
        """The value of a result.

        Parameters
        ----------
        writable:
            Whether it is the caller's own to change. If not, it shows the store's memory where it can.
        deadline:
            Of `time.monotonic`. All ways to read it share the time until then.

        Raises
        ------
        ObjectNotFoundError
            No copy of it could be read.
        ReadTimeoutError
            It did not come before the deadline. Whether there is a copy is not known then.
        """
        if location.inline is not None:
            return read_inline(location.inline, writable)
        local = self.local
        if local is not None:
            store, address = local
            try:
                return self._read_here(store, address, location, deadline, writable)
            except StoreClosedError:
                self._lost(store)
            except DecodeError:
                raise
            except StoreError as error:
                # Gone from here, or no room to bring it here: its bytes may still be read over the network.
                logger.debug("can't read an object in place: %s", error)
        for address in location.nodes:
            if DurableCopy.of(address) is not None:
                continue  # the scheduler has a host bring it, when it is told that it could not be read
            patience = _left(deadline, SILENCE_SECONDS)
            if not patience:
                break
            try:
                data = self._peers.fetch_bytes(address, location.object_id, timeout=patience)
            except DamagedError as error:
                logger.warning("object %s, read by %s: %s", ObjectID(location.object_id), self._owner, error)
                continue
            except ConnectError as error:
                logger.debug("can't read an object from %s: %s", address, error)
                continue
            if data is not None:
                return decode(data if writable else memoryview(data).toreadonly())
        what = f"object {ObjectID(location.object_id)} can't be read from {', '.join(location.nodes) or 'any host'}"
        if _left(deadline, FETCH_TIMEOUT_SECONDS):
            raise ObjectNotFoundError(what)
        raise ReadTimeoutError(what)

    def read_at_once(self, location: Location, *, writable: bool) -> Any:
        """As `read`, if it is small and lies in this host's store.

        Raises
        ------
        NotAtOnce
            It isn't, or doesn't.
        """
        local = self.local
        if local is None or local[1] not in location.nodes or location.nbytes > AT_ONCE_NBYTES:
            raise NotAtOnce
        try:
            return local[0].get(ObjectID(location.object_id), timeout=0, patience=AT_ONCE_SECONDS, writable=writable)
        except DecodeError:
            raise
        except StoreError:
            raise NotAtOnce from None

    def words_for(self, location: Location) -> str:
        """Where a result lies, for a message."""
        nodes = self._nodes()
        places = [f"{nodes[address]['hostname']} ({address})" for address in location.nodes if address in nodes]
        return f" on {', '.join(places)}" if places else ""

    def _read_here(self, store: Store, address: str, location: Location, deadline: float | None, writable: bool) -> Any:
        """Read from this host's store, which brings the object here from where it is.

        An agent that is stopped answers nothing. So it is waited for as long as it is in the cluster.
        """
        object_id = ObjectID(location.object_id)
        if location.nodes == (address,):  # as most do
            sources: tuple[str, ...] = ()
        else:
            sources = tuple([node for node in location.nodes if node != address])
        if not sources:
            patience = _left(deadline, LATE_SEAL_SECONDS)
            return store.get(object_id, timeout=patience, patience=LOOK_SECONDS, writable=writable)
        if time.monotonic() < self._no_room_until:  # most likely this client's own views fill the store
            return store.get(object_id, timeout=0, patience=LOOK_SECONDS, writable=writable)
        began = time.monotonic()
        end = began + _left(deadline, FETCH_TIMEOUT_SECONDS)
        while True:
            next_look = min(end, time.monotonic() + LOOK_SECONDS)
            patience = max(0.0, next_look - time.monotonic())
            try:
                return store.get(object_id, timeout=patience, sources=sources, patience=LOOK_SECONDS, writable=writable)
            except StoreFullError:
                now = time.monotonic()
                if now > began + HELD_UP_SECONDS:
                    self._no_room_until = now + NO_ROOM_SECONDS
                raise
            except StoreError as error:
                is_late = type(error) in (ObjectNotFoundError, StoreError) and time.monotonic() >= next_look
                if not is_late or next_look >= end or address not in self._nodes():
                    raise

    # -- writing

    @property
    def any_node(self) -> bool:
        """Whether there is a store anywhere."""
        return bool(self._nodes())

    def wait_for_node(self, timeout: float) -> None:
        """Wait until there is a store anywhere.

        Raises
        ------
        TimeoutError
            There was none in time.
        """
        for pause in self.waiting_for_node(timeout):
            pause.block()

    def waiting_for_node(self, timeout: float) -> Operation[None]:
        """`wait_for_node`, as an operation."""
        deadline = time.monotonic() + timeout
        while not self._nodes():
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    f"there was no host with an object store in the cluster within {timeout:g} s; "
                    "'holdfast start --address HOST:PORT' adds one"
                )
            yield Sleep(_LOOK_FOR_HOST_SECONDS)

    def targets(self, workers: Sequence[str] | None) -> list[str]:
        """The addresses of the nodes that ``workers`` names: nodes or workers of them, by address. None: all.

        Raises
        ------
        NoWorkerError
            One of them is not in the cluster; says which there are.
        """
        nodes = self._nodes()
        if workers is None:
            return list(nodes)
        chosen = {}
        for name in workers:
            matching = [address for address, node in nodes.items() if name in _names(address, node)]
            if not matching:
                there = (
                    ", ".join(f"{node.get('hostname', '?')} ({address})" for address, node in nodes.items()) or "none"
                )
                raise NoWorkerError(f"there is no worker or host {name!r} in the cluster; the hosts are {there}")
            chosen.update(dict.fromkeys(matching))
        return list(chosen)

    def encode(self, value: Any) -> Encoded:
        """A value's flat encoding. What of it lies in this host's store needn't be copied by `write`."""
        local = self.local
        return encode(value) if local is None else local[0].encode(value)

    def shares(self, encoded: Encoded) -> bool:
        """Whether large data of a value from `encode` lies in this host's store."""
        local = self.local
        return local is not None and local[0].shares(encoded)

    def write(
        self,
        encoded: Encoded,
        key: str | None,
        workers: Sequence[str] | None,
        *,
        timeout: float | None,
    ) -> Location:
        """Store an encoded value: in this host's store if that is among the targets, else in one of them in turn.

        If a target turns out to have died, another one is taken, once there is one.

        Parameters
        ----------
        workers:
            Names the targets, as for `targets`.

        Raises
        ------
        StoreFullError
            There is no room.
        ConnectError
            The host can't be reached.
        NoWorkerError
            ``workers`` names one that is not there.
        TimeoutError
            There was no other host in time.
        """
        limit = STORE_TIMEOUT_SECONDS if timeout is None else timeout
        deadline = time.monotonic() + limit
        while True:
            if workers is None:
                self.wait_for_node(max(0.0, deadline - time.monotonic()))
            nodes = self._nodes()
            try:
                return self._write_to(self.targets(workers), encoded, key, limit=limit)
            except StoreFullError as error:
                raise StoreFullError(f"there is no room for data of this client: {error}. {MAKE_ROOM}") from None
            except ConnectError:
                if not self._leaves(nodes.keys()):
                    raise

    def write_at_once(self, encoded: Encoded, key: str | None, targets: Sequence[str]) -> Location:
        """As `write`, into this host's store.

        Raises
        ------
        NotAtOnce
            That isn't among the targets, or has no room now.
        """
        local = self.local
        if local is None or local[1] not in targets:
            raise NotAtOnce
        try:
            return self._write_to([local[1]], encoded, key, limit=0)
        except (StoreError, ConnectError):
            raise NotAtOnce from None

    def create(self, shape: Any, dtype: Any, key: str, timeout: float | None) -> tuple[Any, Pending, str]:
        """An array in this host's store to be filled in place, what seals it, and the address of this host's node.

        Raises
        ------
        StoreError
            This client has no store on its host.
        StoreFullError
            There is no room.
        """
        local = self.local
        if local is None:
            raise StoreError(
                "this client has no object store on its host to create an array in: there is no worker here, or it was "
                "opened with attach=False. Client.put and Client.scatter send data to the stores of other hosts"
            )
        limit = STORE_TIMEOUT_SECONDS if timeout is None else timeout
        try:
            array, pending = local[0].create(shape, dtype, key=key, owner=self._owner, timeout=limit)
        except StoreFullError as error:
            raise StoreFullError(f"there is no room for data of this client: {error}. {MAKE_ROOM}") from None
        return array, pending, local[1]

    def _leaves(self, addresses: Set[str]) -> bool:
        """Whether the scheduler says of one of these nodes that it has left, or will soon."""
        deadline = time.monotonic() + DEPARTURE_SECONDS
        while addresses <= self._nodes().keys():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def _write_to(self, targets: Sequence[str], encoded: Encoded, key: str | None, *, limit: float) -> Location:
        key = None if key is None else key[:_MAX_NAME_LENGTH]
        inline = encoded.to_bytes() if encoded.nbytes <= INLINE_LIMIT_NBYTES else None
        local = self.local
        others = list(targets)
        if local is not None and local[1] in targets:
            store, address = local
            try:
                sealed = store.put_encoded(encoded, key=key, owner=self._owner, timeout=limit)
                return Location(bytes(sealed), encoded.nbytes, inline, (address,))
            except StoreClosedError:
                self._lost(store)
                others = [other for other in targets if other != address] or others
        data = encoded.to_bytes() if inline is None else inline
        turn = next(self._turns) % len(others)
        unreachable: ConnectError | None = None
        for address in (*others[turn:], *others[:turn]):
            object_id = self._mint()
            description = (key or "", self._owner, encoded.type_name)
            try:
                self._peers.push_bytes(address, object_id, data, description, timeout=limit)
            except ConnectError as error:
                unreachable = unreachable or error
            else:
                return Location(bytes(object_id), encoded.nbytes, inline, (address,))
        assert unreachable is not None
        raise unreachable

    def is_here(self, location: Location) -> bool:
        """Whether this host's store has an object that this client has stored, and no other one."""
        local = self.local
        return local is not None and location.nodes == (local[1],)

    def forget(self, location: Location) -> None:
        """Delete from this host's store an object that the scheduler never heard of."""
        local = self.local
        if local is not None:
            local[0].delete(ObjectID(location.object_id))

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Within it, small objects are announced to this host's store together."""
        local = self.local
        if local is None:
            yield
        else:
            try:
                with local[0].batch():
                    yield
            except StoreClosedError:  # what was put there is lost with it, as the scheduler will say
                self._lost(local[0])

    def leave_to_parent(self) -> None:
        """In a forked child: attach to nothing any more. Takes no lock; what is attached is the store's to disown."""
        self._closed = True
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of everything. Values that were read in place stay valid."""
        self._closed = True
        with self._lock:
            self._detach()
        self._peers.close()


def read_inline(data: bytes, writable: bool) -> Any:
    """The value of a result that came with its announcement; see `StoreAccess.read`."""
    is_to_be_private = writable and data and data[0] in TAKES_WRITES
    return decode(memoryview(bytearray(data)) if is_to_be_private else data)


def _left(deadline: float | None, limit: float) -> float:
    """The seconds until the deadline, but at most ``limit``."""
    return limit if deadline is None else max(0.0, min(limit, deadline - time.monotonic()))


def _names(address: str, node: dict[str, Any]) -> frozenset[str]:
    """What a node, or a worker of it, can be called."""
    names = names_of_host(address, node.get("hostname", ""))
    workers = [names_of_worker(worker, name, names) for worker, name, *_ in node.get("places") or ()]
    return names.union(*workers)
