"""The reader's side of spilling: a map of the file that an object was moved to.

The server verifies the checksum before it tells the path, and the pin keeps the store from removing the file. Another
process of the same user could still cut the file short. Then a process that looks at the lost part of the map is killed
by SIGBUS, as with any mapped file. The directory is private for that reason.
"""

from __future__ import annotations

import mmap
import os

from holdfast.objectstore.client.buffer_map import BufferMap
from holdfast.objectstore.client.pins import IndexPin, Pin
from holdfast.objectstore.client.private_maps import COPIED_NBYTES_MAX, MAPS
from holdfast.objectstore.errors import SpillError
from holdfast.objectstore.shared.ids import ObjectID


def map_spilled(object_id: ObjectID, path: str, offset: int, pin: IndexPin | Pin, *, writable: bool) -> memoryview:
    """A spilled object's bytes, mapped; of this caller alone, if ``writable`` (``private_maps.py``). Maps hold the pin.

    Raises
    ------
    SpillError
        If the file can't be mapped or read, or is shorter than it was.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            nbytes = os.fstat(fd).st_size
            if nbytes < offset + pin.nbytes:
                raise _cut_short(object_id, path, nbytes)
            if not writable:
                return BufferMap(fd, offset, pin.nbytes, flags=mmap.MAP_SHARED, writable=False, base=pin).view()
            view = MAPS.map(fd, offset, pin.nbytes, pin) if pin.nbytes > COPIED_NBYTES_MAX else None
            return _read(fd, offset, pin.nbytes) if view is None else view
        finally:
            os.close(fd)
    except OSError as error:
        raise SpillError(f"object {object_id} was spilled to {path}, which can't be read: {error}") from error
    except EOFError:
        raise _cut_short(object_id, path, offset) from None


def _read(fd: int, offset: int, nbytes: int) -> memoryview:
    copy = memoryview(bytearray(nbytes))
    done = 0
    while done < nbytes:
        count = os.preadv(fd, [copy[done:]], offset + done)
        if not count:
            raise EOFError
        done += count
    return copy


def _cut_short(object_id: ObjectID, path: str, nbytes: int) -> SpillError:
    return SpillError(f"object {object_id} was spilled and is lost: {path} was cut short to {nbytes} bytes")
