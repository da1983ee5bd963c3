"""What a node agent does with the files of durable datasets: the handlers of their errands.

Handlers run in threads of errands. To hash an object and to write it, and to wait for S3, blocks a thread only: none of
it holds the interpreter's lock, and nothing of it is in the agent's loop. So many write at a time, `WRITERS`, that the
workers of the host keep its processors. What is read of the store is pinned meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from holdfast.cluster.errands.threads import Handlers
from holdfast.cluster.protocol.errands import (
    DURABLE_DATASETS,
    ENTER_WRITER,
    LEAVE_WRITER,
    LOAD_DATASET,
    LOAD_TABLE,
    PUBLISH_DURABLY,
    SEE_PLACE,
    SWEEP_PLACE,
    WRITE_OBJECTS,
    WRITE_TABLE,
)
from holdfast.objectstore import ObjectID, StoreServer
from holdfast.objectstore.durable.catalogue import Catalogue
from holdfast.objectstore.durable.manifest import DatasetEntry, Part, TableEntry, dump_table
from holdfast.objectstore.durable.objects import Source, Stored, bytes_source, put, read
from holdfast.objectstore.durable.opening import MARKER, id_of, open_place
from holdfast.objectstore.durable.place import CHUNK_NBYTES, Place
from holdfast.objectstore.durable.sweeping import Process, enter_writer, leave_writer, sweep
from holdfast.objectstore.errors import DurableError, StoreError
from holdfast.objectstore.server.local import Pinned
from holdfast.objectstore.shared.ids import IDMinter

_StoredEntry = tuple[str, int, str]

#: So many threads hash and write at a time: while one waits for the disk, others hash.
WRITERS = 3


class DurableFiles:
    """The files of durable datasets, as a node sees them.

    Parameters
    ----------
    store
        Of this host.
    fetch
        ``await fetch(object_id, nodes)`` brings an object into it.
    """

    def __init__(self, store: StoreServer, fetch: Callable[[ObjectID, Sequence[str]], Awaitable[None]]) -> None:
        self._store = store
        self._fetch = fetch
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._opened: dict[str, tuple[Place, Catalogue]] = {}
        self._seen: dict[str, str] = {}  # the ids of places, as the scheduler was told
        self._writing = threading.BoundedSemaphore(WRITERS)
        self._mint = IDMinter()
        self._stopped = False
        self.handlers: Handlers = {
            SEE_PLACE: self._see,
            ENTER_WRITER: self._enter_writer,
            LEAVE_WRITER: self._leave_writer,
            WRITE_OBJECTS: self._write_objects,
            WRITE_TABLE: self._write_table,
            PUBLISH_DURABLY: self._publish,
            DURABLE_DATASETS: self._datasets,
            LOAD_DATASET: self._load_dataset,
            LOAD_TABLE: self._load_table,
            SWEEP_PLACE: self._sweep,
        }

    def stop(self) -> None:
        """Objects that are being written are left unfinished: the store is about to go."""
        self._stopped = True

    def place(self, url: str) -> Place:
        """A place, opened once. In any thread; raises as `open_place` does."""
        return self._open(url)[0]

    def _open(self, url: str) -> tuple[Place, Catalogue]:
        with self._lock:
            if url not in self._opened:
                place = open_place(url)
                self._opened[url] = place, Catalogue(place)
            return self._opened[url]

    def _same(self, url: str) -> tuple[Place, Catalogue]:
        """A place that is the one that the scheduler was told of.

        Raises
        ------
        DurableError
            It is not there any more. A disk that is not mounted leaves an empty directory: nobody would find what is
            written there, and what lies on the disk would seem to be gone.
        """
        place, catalogue = self._open(url)
        seen = self._seen.get(url)
        if seen is not None and id_of(place) != seen:
            raise DurableError(
                f"{url} is not the place that it was: its {MARKER} is gone, or is another one. Bring it back (is its "
                "disk mounted?), or name another place: publish_dataset(durable=), HOLDFAST_DURABLE"
            )
        return place, catalogue

    # -- the place

    def _see(self, place: str, create: bool = False) -> str | None:
        identity = id_of(self.place(place), create=create)
        if identity is not None:
            self._seen[place] = identity
        return identity

    def _enter_writer(self, place: str, publication: str, process: Sequence[Any]) -> None:
        enter_writer(self._same(place)[0], publication, Process(*process))

    def _leave_writer(self, place: str, publication: str) -> None:
        leave_writer(self.place(place), publication)

    def _sweep(self, place: str) -> bool:
        return sweep(self._same(place)[0]).is_over

    # -- writing

    def _write_objects(
        self, place: str, objects: Sequence[tuple[bytes, bytes | None, Sequence[str]]]
    ) -> list[_StoredEntry | None]:
        opened = self.place(place)
        pinned: dict[int, Pinned] = {}
        try:
            sources = {}
            for index, (object_id, inline, nodes) in enumerate(objects):
                if inline is not None:
                    sources[index] = bytes_source(inline)
                elif (found := self._in_loop(self._pin(ObjectID(object_id), nodes))) is not None:
                    pinned[index] = found
                    sources[index] = self._source(found)
            with self._writing:
                stored = put(opened, list(sources.values()))
        finally:
            if pinned:
                self._in_loop(self._unpin(list(pinned.values())))
        written = dict(zip(sources, stored, strict=True))
        return [_entry(written[index]) if index in written else None for index in range(len(objects))]

    async def _pin(self, object_id: ObjectID, nodes: Sequence[str]) -> Pinned | None:
        try:
            pinned = await self._store.pin(object_id)
            if pinned is None and nodes:
                await self._fetch(object_id, nodes)
                pinned = await self._store.pin(object_id)
        except (StoreError, OSError):
            return None
        return pinned

    async def _unpin(self, pinned: Sequence[Pinned]) -> None:
        for each in pinned:
            self._store.unpin(each)

    def _source(self, pinned: Pinned) -> Source:
        return lambda: self._chunks(pinned)

    def _chunks(self, pinned: Pinned) -> Iterator[memoryview | bytes]:
        for segment, zeros in pinned.layout.with_gaps():
            end = segment.offset + segment.nbytes
            for at in range(segment.offset, end, CHUNK_NBYTES):
                if self._stopped:
                    raise DurableError("the host leaves the cluster")
                nbytes = min(CHUNK_NBYTES, end - at)
                if pinned.in_file is None:
                    yield self._store.readable_view(segment._replace(offset=at, nbytes=nbytes))
                else:
                    yield _read(pinned.fd, nbytes, at)
            yield bytes(zeros)

    def _write_table(
        self, place: str, entries: Sequence[tuple[Any, _StoredEntry, str, Sequence[Any]]]
    ) -> tuple[str, int]:
        rows = [
            TableEntry(key, digest, nbytes, int(checksum, 16), type_name, tuple(inside))
            for key, (digest, nbytes, checksum), type_name, inside in entries
        ]
        (stored,) = put(self.place(place), [bytes_source(dump_table(rows))])
        return stored.digest, stored.nbytes

    def _publish(
        self,
        place: str,
        publication: str,
        datasets: Sequence[tuple[Any, bytes, dict[str, Any], Sequence[tuple[str, int]], int, int]],
        removes: Sequence[Any],
    ) -> None:
        opened, catalogue = self._same(place)
        recipes = put(opened, [bytes_source(recipe) for _, recipe, *_ in datasets]) if datasets else []
        entries = [
            DatasetEntry(
                name, about, Part(stored.digest, stored.nbytes), tuple(Part(*part) for part in tables), count, nbytes
            )
            for (name, _, about, tables, count, nbytes), stored in zip(datasets, recipes, strict=True)
        ]
        catalogue.publish(publication, entries, removes)
        leave_writer(opened, publication)

    # -- reading

    def _datasets(self, place: str, names: Sequence[Any] | None = None) -> list[tuple[Any, dict[str, Any], int, int]]:
        catalogue = self._same(place)[1]
        if names is None:
            found = catalogue.datasets()
        else:
            found = [each for name in names if (each := catalogue.find(name)) is not None]
        return [(each.name, dict(each.about), each.nkeys, each.recipe.nbytes + each.nbytes) for _, each in found]

    def _load_dataset(self, place: str, name: Any) -> tuple[Any, ...] | None:
        opened, catalogue = self._same(place)
        found = catalogue.find(name)
        if found is None:
            return None
        dataset = found.dataset
        recipe = read(opened, *dataset.recipe)
        tables = [tuple(part) for part in dataset.tables]
        return recipe, dict(dataset.about), tables, dataset.nkeys, dataset.nbytes

    def _load_table(self, place: str, table: tuple[str, int]) -> list[tuple[Any, ...]]:
        return [
            (bytes(self._mint()), key, (digest, nbytes, f"{checksum:016x}"), type_name, inside)
            for key, digest, nbytes, checksum, type_name, inside in self._open(place)[1].table(Part(*table))
        ]

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _entry(stored: Stored) -> _StoredEntry:
    return stored.digest, stored.nbytes, f"{stored.checksum:016x}"


def _read(fd: int, nbytes: int, at: int) -> bytes:
    chunk = bytearray()
    while len(chunk) < nbytes:
        piece = os.pread(fd, nbytes - len(chunk), at + len(chunk))
        if not piece:
            raise DurableError("a file of a spilled object was cut short")
        chunk += piece
    return bytes(chunk)
