"""The reader's side of spilling: a map of the file that an object was moved to.

The server holds the bytes against their checksum before it tells anybody the path, and the pin keeps the file from
being removed by the store. Nothing keeps others of the same user from cutting it short afterwards: whoever looks at
the lost part of the map is killed by SIGBUS then, as with any mapped file. The directory is private for that reason.
"""

from __future__ import annotations

import mmap
import os

from holdfast.objectstore.errors import SpillError
from holdfast.objectstore.ids import ObjectID
from holdfast.objectstore.mapping import ViewedMap
from holdfast.objectstore.pins import BoardPin, Pin


def map_spilled(object_id: ObjectID, path: str, offset: int, pin: BoardPin | Pin, *, writable: bool) -> memoryview:
    """A spilled object's bytes, mapped; written to by this caller alone, if ``writable``. They hold the pin.

    Raises
    ------
    SpillError
        If the file can't be mapped, or is shorter than it was.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            nbytes = os.fstat(fd).st_size
            if nbytes < offset + pin.nbytes:
                raise SpillError(f"object {object_id} was spilled and is lost: {path} was cut short to {nbytes} bytes")
            flags = mmap.MAP_PRIVATE if writable else mmap.MAP_SHARED
            return ViewedMap(fd, offset, pin.nbytes, flags=flags, writable=writable, base=pin).view()
        finally:
            os.close(fd)
    except OSError as error:
        raise SpillError(f"object {object_id} was spilled to {path}, which can't be mapped: {error}") from error
