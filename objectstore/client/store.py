"""The client: what a process holds to use a store of its host."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa

from holdfast.objectstore.client.arena_maps import ArenaMaps
from holdfast.objectstore.client.connection import PATIENCE_SECONDS, StoreConnection
from holdfast.objectstore.client.holdings import Holdings
from holdfast.objectstore.client.index_view import IndexView
from holdfast.objectstore.client.names import Names, checked_id, checked_name, clean
from holdfast.objectstore.client.opening import open_connection
from holdfast.objectstore.client.pending import Pending
from holdfast.objectstore.client.pins import WritableExtent
from holdfast.objectstore.client.reader import ObjectReader
from holdfast.objectstore.client.warm import Warmer
from holdfast.objectstore.client.writer import Writer
from holdfast.objectstore.codecs import (
    Encoded,
    Resident,
    decode,
    decode_item,
    decode_segments,
    encode,
    ndarray,
    raw,
)
from holdfast.objectstore.errors import StoreClosedError
from holdfast.objectstore.shared.ids import IDMinter, ObjectID
from holdfast.objectstore.shared.index import index_nbytes, row_nbytes
from holdfast.objectstore.shared.protocol import IDS_PER_FRAME, TEXT_MAX, Op
from holdfast.objectstore.system.file_maps import map_shared

Descriptions = list[dict[str, Any]]


class Store:
    """A connection to the store of this host. Made by ``connect``.

    Its methods block and may be called from any thread; not from an event loop's. After a fork the child
    has to connect for itself. The views that it has from its parent stay good until it ends: what is looked at when a
    process forks is kept for the child, also where parent and child have let go of it.

    Attributes
    ----------
    arena_address, arena_nbytes : int
        Where this process maps the arena to read it, and how large that is.
    """

    def __init__(
        self,
        connection: StoreConnection,
        maps: ArenaMaps,
        index: IndexView,
        name: str,
        soon: Callable[[Callable[[], object], float], object] | None = None,
    ) -> None:
        self.arena_address = maps.address
        self.arena_nbytes = maps.nbytes
        self.name = name
        self._connection = connection
        self._maps = maps
        self._holdings = Holdings(index, connection.try_flush, connection.close, maps, soon)
        self._resident = Resident(lambda address: maps.offset_of(address) is not None)
        connection.holdings = self._holdings
        self._mint = IDMinter()
        self._warmer = Warmer(maps, connection)
        if soon is not None:
            self._warmer.stop()
        self._writer = Writer(connection, maps, self._holdings, self._warmer)
        self._reader = ObjectReader(connection, maps, self._holdings)
        self._closed = False
        # A store that is forgotten is closed; what its views hold is the holdings, never the store.
        self._closer = weakref.finalize(self, self._holdings.abandon)
        self._closer.atexit = False

    def new_id(self) -> ObjectID:
        """An id that no object has ever had."""
        return self._mint()

    # In

    def put(
        self,
        value: Any,
        *,
        key: str | None = None,
        owner: str | None = None,
        object_id: ObjectID | None = None,
        timeout: float | None = None,
    ) -> ObjectID:
        """Stores a value: one copy of its data, into shared memory.

        Large data that it shows of objects of this store (what ``get`` gave here, a column or a slice of it, or a
        sealed array of ``create``) isn't copied: the new object shares it. It's there whatever becomes of the other.

        Parameters
        ----------
        value : object
            Anything that can be pickled. Arrays, tables and frames are stored so that they're read in place.
        key, owner : str, optional
            The name it goes by outside and the name it is counted for, as ``list`` shows them.
        object_id : ObjectID, optional
            Its id, from ``new_id`` of any process. By default a new one.
        timeout : float, optional
            Seconds to wait for room; by default 30.

        Raises
        ------
        StoreFullError
            If there is no room in time. The error names the clients that hold it.
        StoreClosedError
            If the store was closed.

        Examples
        --------
        >>> store.get(store.put({"x": 1}))
        {'x': 1}
        """
        return self.put_encoded(self.encode(value), key=key, owner=owner, object_id=object_id, timeout=timeout)

    def encode(self, value: Any) -> Encoded:
        """A value for ``put_encoded``: like ``codecs.encode``, but so that ``put`` can share what lies here already."""
        return encode(value, self._resident if self._holdings.views else None)

    def shares(self, encoded: Encoded) -> bool:
        """Whether large data of a value from ``encode`` lies here already, so that ``put`` needn't copy it."""
        return any(self._resident.holds(span.address) for span in encoded.spans())

    def put_encoded(
        self,
        encoded: Encoded,
        *,
        key: str | None = None,
        owner: str | None = None,
        type_name: str | None = None,
        label: int = 0,
        references: bytes = b"",
        object_id: ObjectID | None = None,
        timeout: float | None = None,
    ) -> ObjectID:
        """Stores a value that is encoded already; otherwise like ``put``.

        Parameters
        ----------
        label : int
            A number of the caller's, which goes where the object goes and means nothing to stores. 0: none.
        references : bytes
            What the object refers to, as the caller has packed it, in 4,096 bytes at most. It goes along like the
            label.
        """
        self._check_open()
        is_new = object_id is None
        object_id = self._mint() if object_id is None else checked_id(object_id)
        type_name = clean(type_name or encoded.type_name)[:TEXT_MAX]
        names = checked_name(key), checked_name(owner), type_name, label, references
        self._writer.put(object_id, encoded, names, timeout, is_new=is_new)
        return object_id

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Within the block this thread's small puts are announced together, at its end or with the next request.

        Examples
        --------
        >>> with store.batch():
        ...     ids = [store.put(i) for i in range(100)]
        """
        with self._writer.batch():
            yield

    def create(
        self,
        shape: int | Sequence[int],
        dtype: Any = "float64",
        *,
        key: str | None = None,
        owner: str | None = None,
        timeout: float | None = None,
    ) -> tuple[np.ndarray[Any, Any], Pending]:
        """An array inside the arena, to be filled and sealed: no copy at all.

        Parameters
        ----------
        shape : int or sequence of int
            Its shape.
        dtype : dtype
            Any type without Python objects.
        key, owner, timeout
            As for ``put``.

        Returns
        -------
        array : numpy.ndarray
            Writable, C order, uninitialised: it holds whatever was there.
        pending : Pending
            ``pending.seal()`` gives its id; ``pending.abort()`` gives it up.

        Raises
        ------
        ValueError
            For a dtype with objects in it.
        StoreFullError
            If there is no room in time.

        Examples
        --------
        >>> array, pending = store.create((1000, 1000), "float64")
        >>> array[:] = 1.0
        >>> object_id = pending.seal()
        """
        self._check_open()
        dtype = np.dtype(dtype)
        shape = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(map(int, shape))
        if not ndarray.is_flat(dtype):
            raise ValueError(f"an array of {dtype} is more than its memory; put it instead")
        head = ndarray.head_of(shape, dtype, "C")
        data_nbytes = dtype.itemsize
        for length in shape:
            if length < 0:
                raise ValueError(f"there is no array of shape {shape}")
            data_nbytes *= length
        object_id = self._mint()
        extent = self._writer.reserve(len(head) + data_nbytes, timeout, object_id)
        view = extent.view()
        view[: len(head)] = head
        array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, view, len(head))
        return array, Pending(self._seal, object_id, extent, array, key=key, owner=owner, type_name="numpy.ndarray")

    def create_buffer(
        self, nbytes: int, *, key: str | None = None, owner: str | None = None, timeout: float | None = None
    ) -> tuple[memoryview, Pending]:
        """``nbytes`` of memory inside the arena, to be filled and sealed. ``get`` gives it as a memoryview.

        Nothing may be written through it after ``seal``.

        Raises
        ------
        StoreFullError
            If there is no room in time.
        """
        self._check_open()
        if nbytes < 0:
            raise ValueError(f"there is no buffer of {nbytes} bytes")
        object_id = self._mint()
        extent = self._writer.reserve(raw.VIEW_HEAD_NBYTES + nbytes, timeout, object_id)
        view = extent.view()
        view[: raw.VIEW_HEAD_NBYTES] = raw.VIEW_HEAD
        pending = Pending(self._seal, object_id, extent, None, key=key, owner=owner, type_name="memoryview")
        return view[raw.VIEW_HEAD_NBYTES :], pending

    def warm(self) -> None:
        """This process is going to write large objects: prepares the memory for the next ones, in the background.

        Happens by itself once it has written one.
        """
        self._check_open()
        self._warmer.ahead()

    # Out

    def get(
        self,
        object_id: ObjectID,
        *,
        timeout: float | None = None,
        writable: bool = False,
        sources: Sequence[str] = (),
        patience: float = PATIENCE_SECONDS,
    ) -> Any:
        """The value, made of views of the shared memory wherever its type allows it.

        Parameters
        ----------
        object_id : ObjectID
            What ``put`` or ``seal`` gave, here or in another process.
        timeout : float, optional
            Seconds to wait for an object that isn't there yet. By default none, except for the fetch that
            ``sources`` ask for.
        writable : bool
            Whether what was got may be written to. Then it is this caller's own: no other reader sees what is written,
            not in what another get gave either. Of what is large no byte is copied before it's written.
        sources : sequence of str
            Where the object may be fetched from, for the server's ``fetch`` hook.
        patience : float
            Seconds beyond ``timeout`` after which a server that hasn't answered is taken for stuck.

        Raises
        ------
        ObjectNotFoundError
            If it isn't there (in time), or was deleted.
        SpillError
            If it was moved to disk, and is damaged or gone there.
        UnreadableError
            If its class can't be imported here, or refuses to be unpickled.
        StoreError
            If it couldn't be fetched, or the store is gone.
        """
        self._check_open()
        where = self._reader.open(checked_id(object_id), timeout, writable, sources, patience)
        return decode_segments(where) if type(where) is list else decode(where)

    def get_item(
        self,
        object_id: ObjectID,
        key: Any,
        *,
        timeout: float | None = None,
        writable: bool = False,
        sources: Sequence[str] = (),
    ) -> Any:
        """``get(object_id)[key]``; of a dictionary of arrays or frames nothing but that value is looked at.

        Parameters and errors are those of ``get``, and what looking for the key raises.
        """
        self._check_open()
        where = self._reader.open(checked_id(object_id), timeout, writable, sources, PATIENCE_SECONDS)
        return decode_segments(where)[key] if type(where) is list else decode_item(memoryview(where), key)

    def get_buffer(
        self, object_id: ObjectID, *, timeout: float | None = None, sources: Sequence[str] = ()
    ) -> pa.Buffer:
        """The object's flat encoding where it is, pinned while the buffer or anything made from it lives.

        One that shares data with others isn't in one place: it's a copy then. Parameters and errors are those of
        ``get``; ``decode`` makes the value of it.
        """
        self._check_open()
        return self._reader.buffer(checked_id(object_id), timeout, sources)

    def contains(self, object_id: ObjectID) -> bool:
        """Whether the object is there, sealed and not deleted."""
        self._check_open()
        object_id = checked_id(object_id)
        if self._reader.is_indexed(object_id):
            return True
        (there,) = self._connection.call(Op.CONTAINS, object_id, timeout=PATIENCE_SECONDS)
        return bool(there)

    def delete(self, object_ids: ObjectID | Iterable[ObjectID]) -> None:
        """The objects vanish for everyone at once. Views of them stay valid; the bytes go with the last one.

        Ids that aren't there are remembered, so that objects sealed later under them vanish too.
        """
        self._check_open()
        ids = [checked_id(object_ids)] if isinstance(object_ids, bytes | str) else list(map(checked_id, object_ids))
        for start in range(0, len(ids), IDS_PER_FRAME):
            self._connection.call(Op.DELETE, ids[start : start + IDS_PER_FRAME], timeout=PATIENCE_SECONDS)

    # Looking inside

    def flush(self) -> None:
        """Sends what waits to be sent: seals of a batch, unpins."""
        self._check_open()
        self._connection.flush()

    def defer_releases(self) -> None:
        """This thread calls ``settle_releases`` soon: what views it lets go of until then is told to the server there.

        Otherwise another thread is woken for each large object whose last view is gone, just when this one goes on.
        """
        self._holdings.defer()

    def settle_releases(self) -> None:
        """Tells the server what this thread has deferred. No error if that was nothing, or the store is gone."""
        self._holdings.settle()

    def stats(self) -> dict[str, Any]:
        """The store's figures: capacity, used, free, objects, pins, requests that wait, in bytes and counts."""
        self._check_open()
        (stats,) = self._connection.call(Op.STATS, timeout=PATIENCE_SECONDS)
        return dict(stats)

    def list(self) -> Descriptions:
        """Every object: id, key, owner, type, nbytes, age in seconds, pins, pinned_by, state.

        Read page by page: while objects come and go, one may show twice or not at all.
        """
        self._check_open()
        found: Descriptions = []
        more = True
        while more:
            page, more = self._connection.call(Op.LIST, len(found), timeout=PATIENCE_SECONDS)
            found += page
        return found

    def address_in_arena(self, address: int) -> bool:
        """Whether an address of this process lies where ``get`` shows the arena, in a private map too."""
        return self._maps.shows(address)

    # The end

    def close(self) -> None:
        """Ends the use of the store. Views stay valid: the last one to go closes the connection."""
        if not self._closed:
            self._closed = True
            self._closer.detach()
            self._warmer.stop()
            if self._connection.is_open:
                self._writer.stop()
            self._holdings.close()
            self._warmer.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether it can be used still."""
        return not self._closed and self._connection.is_open

    @property
    def descriptor(self) -> int:
        """Of the connection, as long as it's open; for code that wants to know whether it was closed."""
        return self._connection.descriptor

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<Store at {self._connection.where}{state}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Store is one process's connection; send its socket's path, and connect there")

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"this connection to the store at {self._connection.where} is closed")
        self._connection.check()

    def _seal(self, extent: WritableExtent, object_id: ObjectID, names: Names) -> None:
        self._check_open()
        self._writer.seal(extent, object_id, names)


def connect(
    socket_path: str | os.PathLike[str],
    *,
    name: str = "",
    timeout: float = 10.0,
    soon: Callable[[Callable[[], object], float], object] | None = None,
) -> Store:
    """Attaches this process to a store of its host.

    Parameters
    ----------
    socket_path : str or path
        The server's ``socket_path``.
    name : str
        The name of this client, as ``list`` and the errors of a full store name it. By default the process's id.
    timeout : float
        Seconds to wait for the server's answer.
    soon : callable, optional
        For a process that has an event loop and wants no thread of the store's: ``soon(function, seconds)`` has the
        function called on the loop after so many seconds. It is called from any thread, also by the garbage collector,
        and may raise a RuntimeError once the loop is closed. What is looked at when the store is closed has a thread
        from then on, until it is looked at no more.

    Raises
    ------
    StoreError
        If no store serves there, or it serves another user.

    Examples
    --------
    >>> with connect(server.socket_path, name="etl") as store:
    ...     object_id = store.put(np.arange(3))
    ...     store.get(object_id)
    array([0, 1, 2])
    """
    connection, hello = open_connection(os.fspath(socket_path), timeout)
    try:
        maps = ArenaMaps(hello.arena_fd, hello.writable_fd, hello.arena_nbytes, hello.lifeline_fd, hello.sentinel_fd)
        slots = hello.slots
        try:
            index = map_shared(hello.index_fd, index_nbytes(slots), writable=False)
            row = map_shared(hello.row_fd, row_nbytes(slots), writable=True)
        finally:
            os.close(hello.index_fd)
            os.close(hello.row_fd)
        connection.attach(clean(name)[:TEXT_MAX])
    except BaseException:
        connection.close()
        raise
    return Store(connection, maps, IndexView(slots, index, row), name, soon)
