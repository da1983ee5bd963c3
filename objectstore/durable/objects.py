"""Objects in a place: named by their content, so that what is there already isn't written again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import xxhash

from holdfast.objectstore.durable.place import CHUNK_NBYTES, NewFile, Place
from holdfast.objectstore.errors import DurableError

_DIGEST = re.compile("[0-9a-f]{64}")


class Stored(NamedTuple):
    """An object in a place.

    Attributes
    ----------
    digest
        Its SHA-256, in hexadecimal digits: its name.
    nbytes
        Its size.
    checksum
        Its XXH3, by which a file that is read in place is checked: in a twentieth of the time.
    """

    digest: str
    nbytes: int
    checksum: int


def is_digest(name: str) -> bool:
    """Whether a file's name is that of an object."""
    return _DIGEST.fullmatch(name) is not None


def name_of(digest: str) -> str:
    """The name of an object's file.

    Raises
    ------
    DurableError
        It is no digest.
    """
    if not is_digest(digest):
        raise DurableError(f"{digest!r:.100} is not the digest of an object")
    return f"objects/{digest}"


#: Gives the bytes of an object, from their beginning each time it is called.
Source = Callable[[], Iterable[memoryview | bytes]]


def put(place: Place, sources: Sequence[Source]) -> list[Stored]:
    """Put objects into a place; they are safe when this returns. What is there, and whole, is not written again."""
    found = [_measured(source) for source in sources]
    new: dict[str, NewFile] = {}
    there: dict[str, None] = {}
    for stored, source in zip(found, sources, strict=True):
        name = name_of(stored.digest)
        if name in new or name in there:
            continue
        if _is_whole(place, name, stored):
            there[name] = None
        else:
            new[name] = NewFile(name, source())
    place.put(list(new.values()), list(there))
    return found


def _is_whole(place: Place, name: str, stored: Stored) -> bool:
    if place.size(name) != stored.nbytes:
        return False
    checksum = xxhash.xxh3_64()
    for chunk in place.chunks(name):
        checksum.update(chunk)
    return checksum.intdigest() == stored.checksum


def _measured(source: Source) -> Stored:
    digest, checksum, nbytes = hashlib.sha256(), xxhash.xxh3_64(), 0
    for chunk in source():
        digest.update(chunk)
        checksum.update(chunk)
        nbytes += len(chunk)
    return Stored(digest.hexdigest(), nbytes, checksum.intdigest())


def bytes_source(data: bytes | memoryview) -> Source:
    """Bytes that are there, as a source."""
    view = memoryview(data).cast("B")
    return lambda: (view[at : at + CHUNK_NBYTES] for at in range(0, len(view), CHUNK_NBYTES))


def read(place: Place, digest: str, nbytes: int) -> bytes:
    """The bytes of a small object.

    Raises
    ------
    DurableError
        It isn't there, or is damaged; names its file.
    """
    data = bytearray(nbytes)
    read_into(place, digest, memoryview(data))
    return bytes(data)


def read_into(place: Place, digest: str, target: memoryview) -> None:
    """Read an object that has exactly the size of ``target``. Raises as `read` does; nothing may use what came then."""
    at = 0
    found = hashlib.sha256()
    for chunk in _pieces(place, digest):
        found.update(chunk)
        end = at + len(chunk)
        if end > target.nbytes:
            raise _damaged(place, digest, "it is larger than it was")
        target[at:end] = chunk
        at = end
    if at < target.nbytes:
        raise _damaged(place, digest, f"it has {at:,} bytes, and had {target.nbytes:,}")
    if found.hexdigest() != digest:
        raise _damaged(place, digest, "its bytes don't match their hash")


def _pieces(place: Place, digest: str) -> Iterator[bytes]:
    name = name_of(digest)
    if place.size(name) is None:
        raise _damaged(place, digest, "it is not there any more")
    return place.chunks(name)


def _damaged(place: Place, digest: str, how: str) -> DurableError:
    return DurableError(f"the object {name_of(digest)} of {place.url} is damaged: {how}. Publish its dataset once more")
