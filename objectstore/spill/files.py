"""The files that objects go to when the arena is full.

One private directory a store, fresh, under a parent that may be shared by many. It is removed with the
store, and made anew if another program has removed it. A store that was killed can't tidy up; the next process of this
user that looks for leftovers does it then (``leftovers.py``).

A large object has a file of its own. Small ones go together into one file of up to 16 MiB, which is
removed with the last of them. Bytes go from the arena to the file as they are, so a reader maps the file
and finds at the extent's offset what it would have found in the arena.

A file can be damaged while no process looks, unlike memory. So each extent has a checksum, and is held against
it before it is read: once, for as long as the file's inode, size and time of change stay the same. It is
*read* for that, not mapped: a file that is cut short under a map kills the process that looks.

Everything here blocks. The server calls it in threads of its own, and the books are locked.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import xxhash

from holdfast.objectstore.core.objects import SpillExtent
from holdfast.objectstore.errors import SpillError
from holdfast.objectstore.memory.free_extents import ALIGNMENT
from holdfast.objectstore.shared.layout import Layout
from holdfast.objectstore.sizes import format_size
from holdfast.objectstore.system.leftovers import OwnDirectory, sweep

logger = logging.getLogger("holdfast.objectstore")

SMALL_NBYTES = 1 << 20  # objects below share files
FUSED_NBYTES = 16 << 20
DISK_SHARE_MAX = 0.95
_CHUNK_NBYTES = 4 << 20
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # failures that say nothing about the file


class Written(NamedTuple):
    """What became of a batch: each object's place in a file, None if it has none, and what went wrong."""

    extents: list[SpillExtent | None]
    error: str | None


class SpillLostError(SpillError):
    """An extent's bytes aren't what was written any more, or are gone."""


class _Stamp(NamedTuple):
    """What a file is known by to be unchanged."""

    inode: int
    nbytes: int
    mtime_ns: int


class SpillDirectory:
    """The spilled objects of one store.

    Parameters
    ----------
    parent : str
        Where the directory is made; made too if it isn't there.
    limit : int, optional
        The most bytes that its files may have together.

    Raises
    ------
    OSError
        If no directory can be made there.
    """

    def __init__(self, parent: str, *, limit: int | None = None) -> None:
        self._parent = parent
        self._limit = limit
        self._lock = threading.Lock()
        self._extents_in: dict[str, int] = {}  # path of a file -> how many of its extents are in use
        self._nbytes_of: dict[str, int] = {}
        self._good: dict[tuple[str, int], _Stamp] = {}  # of the extents that were held against their checksums
        self._closed = False
        self._count = 0
        os.makedirs(parent, mode=0o700, exist_ok=True)
        sweep(parent)
        self._directory = OwnDirectory(parent, "spill")

    @property
    def path(self) -> str:
        """Where it is; elsewhere, once another program has removed it."""
        return self._directory.path

    @property
    def file_nbytes(self) -> int:
        """The bytes of all files."""
        with self._lock:
            return sum(self._nbytes_of.values())

    def write(self, source: memoryview, layouts: Sequence[Layout]) -> Written:
        """Copies objects from ``source`` into files, as many as there is room for. One call at a time."""
        extents: list[SpillExtent | None] = [None] * len(layouts)
        try:
            if not os.path.isdir(self.path):
                self._begin_again()
            room = self._room()
            for group in _groups(layouts):
                end = _laid_out(layouts, group)[-1]
                if end > room:
                    raise SpillError(self._no_room(end))
                room -= end
                for index, extent in zip(group, self._write_file(source, [layouts[i] for i in group]), strict=True):
                    extents[index] = extent
        except (OSError, SpillError) as error:
            return Written(extents, str(error))
        return Written(extents, None)

    def open_verified(self, extent: SpillExtent) -> int:
        """A descriptor of the extent's file, once the extent is known to be undamaged.

        Raises
        ------
        SpillLostError
            If the file is gone, shorter than it was, or has other bytes.
        SpillError
            If there are too many open files, or no memory, to find that out.
        """
        try:
            fd = os.open(extent.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _failure(extent, "opened", error) from error
        try:
            self._verify(fd, extent)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def drop(self, extent: SpillExtent) -> None:
        """The extent isn't needed any more. Its file goes with the last of its extents, unless it is another's."""
        with self._lock:
            self._good.pop((extent.path, extent.offset), None)
            if extent.adopted is not None:
                return
            self._extents_in[extent.path] -= 1
            if self._extents_in[extent.path]:
                return
            del self._extents_in[extent.path], self._nbytes_of[extent.path]
        with contextlib.suppress(OSError):
            os.unlink(extent.path)

    def stop(self) -> None:
        """A write that is under way comes to its end early; none follows."""
        self._closed = True

    def close(self) -> None:
        """Removes everything. What is mapped stays readable."""
        self.stop()
        self._directory.close()

    def _begin_again(self) -> None:
        """Another program has removed the directory. What was in it is lost; what comes has a new one."""
        os.makedirs(self._parent, mode=0o700, exist_ok=True)
        gone, self._directory = self._directory, OwnDirectory(self._parent, "spill")
        gone.close()
        logger.warning("The directory of spilled objects %s is gone; from now on they go to %s", gone.path, self.path)
        with self._lock:
            self._nbytes_of = dict.fromkeys(self._nbytes_of, 0)  # there are none left to count for the limit

    def _room(self) -> int:
        disk = shutil.disk_usage(self.path)
        room = disk.free - int(disk.total * (1 - DISK_SHARE_MAX))
        return room if self._limit is None else min(room, self._limit - self.file_nbytes)

    def _no_room(self, nbytes: int) -> str:
        if self._limit is not None and self.file_nbytes + nbytes > self._limit:
            return f"{format_size(nbytes)} more would exceed the limit of {format_size(self._limit)}"
        return f"{format_size(nbytes)} more would fill its disk beyond {DISK_SHARE_MAX:.0%}"

    def _write_file(self, source: memoryview, layouts: Sequence[Layout]) -> list[SpillExtent]:
        self._count += 1
        path = os.path.join(self.path, str(self._count))
        starts = _laid_out(layouts, range(len(layouts)))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            extents = [
                SpillExtent(path, start, layout.nbytes, self._copy(source, layout, fd, start))
                for start, layout in zip(starts, layouts, strict=False)
            ]
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        finally:
            os.close(fd)
        with self._lock:
            self._extents_in[path] = len(extents)
            self._nbytes_of[path] = starts[-1]
        return extents

    def _copy(self, source: memoryview, layout: Layout, fd: int, start: int) -> int:
        digest = xxhash.xxh3_64()
        for chunk in _chunks(source, layout):
            if self._closed:
                raise SpillError("the store was closed")
            digest.update(chunk)
            while chunk:
                written = os.pwrite(fd, chunk, start)
                start += written
                chunk = chunk[written:]
        return digest.intdigest()

    def _verify(self, fd: int, extent: SpillExtent) -> None:
        status = os.fstat(fd)
        stamp = _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
        key = extent.path, extent.offset
        with self._lock:
            if self._good.get(key) == stamp:
                return
        if status.st_size < extent.offset + extent.nbytes:
            raise SpillLostError(f"{extent.path} has {status.st_size} bytes, fewer than were written")
        if _checksum(fd, extent) != extent.checksum:
            raise SpillLostError(f"{extent.path} is damaged: its bytes don't match their checksum")
        with self._lock:
            self._good[key] = stamp


def _chunks(source: memoryview, layout: Layout) -> Iterator[memoryview]:
    """All bytes of an object, in order."""
    for segment, zeros in layout.with_gaps():
        end = segment.offset + segment.nbytes
        for at in range(segment.offset, end, _CHUNK_NBYTES):
            yield source[at : min(at + _CHUNK_NBYTES, end)]
        yield memoryview(bytes(zeros))


def _checksum(fd: int, extent: SpillExtent) -> int:
    digest = xxhash.xxh3_64()
    chunk = memoryview(bytearray(min(_CHUNK_NBYTES, extent.nbytes)))
    at, end = extent.offset, extent.offset + extent.nbytes
    with contextlib.suppress(OSError):  # a hint: the disk reads ahead of what is hashed here
        os.posix_fadvise(fd, at, extent.nbytes, os.POSIX_FADV_WILLNEED)
    try:
        while at < end:
            count = os.preadv(fd, [chunk[: end - at]], at)
            if not count:
                raise SpillLostError(f"{extent.path} was cut short while it was read")
            digest.update(chunk[:count])
            at += count
    except OSError as error:
        raise _failure(extent, "read", error) from error
    return digest.intdigest()


def _failure(extent: SpillExtent, what: str, error: OSError) -> SpillError:
    kind = SpillError if error.errno in _PASSING else SpillLostError
    return kind(f"{extent.path} can't be {what}: {error.strerror}")


def _groups(layouts: Sequence[Layout]) -> Iterator[list[int]]:
    """Which layouts go into one file together, by their indices."""
    fused: list[int] = []
    nbytes = 0
    for index, layout in enumerate(layouts):
        if layout.nbytes >= SMALL_NBYTES:
            yield [index]
            continue
        if nbytes + layout.nbytes > FUSED_NBYTES:
            yield fused
            fused, nbytes = [], 0
        fused.append(index)
        nbytes += _aligned(layout.nbytes)
    if fused:
        yield fused


def _laid_out(layouts: Sequence[Layout], indices: Sequence[int]) -> list[int]:
    """Where each of the layouts begins in its file, and where the last one ends."""
    starts = [0]
    for index in indices:
        starts.append(starts[-1] + _aligned(layouts[index].nbytes))
    starts[-1] = starts[-2] + layouts[indices[-1]].nbytes
    return starts


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
