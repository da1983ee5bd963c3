"""How records lie in a file of the journal: in batches, each of which counts as a whole or not at all.

A file is its magic and then batches. A batch is ``magic, 4 | u32 bytes of the payload | u64 number | u32 checksum |
payload``, little endian. The payload is a MessagePack array of records. The checksum is the CRC-32 of the number and
the payload. Batches are numbered through all logs of a journal, so that none can be missing unnoticed; those of a
summary are numbered by themselves.

The payload of the first batch of a file is no array but a dictionary, which says what the file is (`Heading`).

A file may be damaged. `scan` gives the whole batches in it, and says which bytes are none:

==================================  ============================================================================
the file ends inside of a batch     torn: the process or the machine ended while it was written
a batch doesn't have its checksum   damaged: what follows is looked for from the next magic on
==================================  ============================================================================
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgpack

from holdfast.cluster.errors import JournalError

FILE_MAGIC = b"holdfast journal\n"
BATCH_MAGIC = b"\xffHFB"
#: What this version writes. It reads those from the first one on.
FORMAT = 1

#: No heading of a file is longer.
HEADING_NBYTES = 4096

_PREFIX = struct.Struct("<4sIQI")
_NUMBER = struct.Struct("<Q")
PREFIX_NBYTES = _PREFIX.size
#: A batch is what one event leads to; no message of a peer, from which it comes, is larger.
MAX_PAYLOAD_NBYTES = 2 << 30

#: Plain data: its first item says of which kind it is (`records`).
Record: TypeAlias = Sequence[Any]


class LaterFormatError(JournalError):
    """A later version of Holdfast has written a file."""


class Heading(NamedTuple):
    """What a file of the journal is.

    Attributes
    ----------
    format
        Of its records.
    cluster
        The id of the cluster.
    epoch
        Which scheduler of the cluster has written it.
    through
        Of a summary: the number of the last batch that it stands for. None: it is a log.
    """

    format: int
    cluster: str
    epoch: int
    through: int | None


class Batch(NamedTuple):
    """Records that were written as one; or none, but what the file is."""

    number: int
    records: Sequence[Record]
    end: int  # the position behind it
    heading: dict[str, Any] | None = None


class Hole(NamedTuple):
    """Bytes of a file that are no whole batch.

    Attributes
    ----------
    start, end
        Where they are.
    torn
        Whether the file ends inside of a batch that is right as far as it goes.
    reason
        What is wrong, for people.
    """

    start: int
    end: int
    torn: bool
    reason: str


def packer() -> msgpack.Packer:
    """What packs records."""
    return msgpack.Packer(unicode_errors="surrogatepass")


def unpack(payload: bytes | memoryview) -> Any:
    """The records of a batch."""
    return msgpack.unpackb(payload, use_list=False, strict_map_key=False, unicode_errors="surrogatepass")


def prefix_of(number: int, payload: bytes) -> bytes:
    """What stands before the payload of a batch."""
    checksum = zlib.crc32(payload, zlib.crc32(_NUMBER.pack(number)))
    return _PREFIX.pack(BATCH_MAGIC, len(payload), number, checksum)


def pack_heading(number: int, heading: Heading) -> bytes:
    """How a file begins."""
    payload: bytes = packer().pack(heading._asdict())
    return FILE_MAGIC + prefix_of(number, payload) + payload


def read_heading(data: memoryview) -> tuple[Heading, Batch]:
    """What a file says about itself, and the batch in which it does.

    Raises
    ------
    LaterFormatError
        A later version of Holdfast has written it.
    JournalError
        It is no file of a journal, or its beginning is damaged.
    """
    if data[: len(FILE_MAGIC)] != FILE_MAGIC:
        raise JournalError("it does not begin as a file of a journal does")
    found = _batch_at(data, len(FILE_MAGIC))
    if isinstance(found, Hole):
        raise JournalError(f"its beginning is damaged: {found.reason}")
    fields = found.heading
    if fields is None:
        raise JournalError("it does not say what it is")
    if fields["format"] > FORMAT:
        raise LaterFormatError(
            f"a later version of Holdfast has written it: it has format {fields['format']}, and this version reads "
            f"those up to {FORMAT}"
        )
    return Heading(*[fields[name] for name in Heading._fields]), found


def scan(data: memoryview, start: int) -> Iterator[Batch | Hole]:
    """All that is in a file from a position on, in order. Whether a number is missing is for the caller to see."""
    position = start
    while position < len(data):
        found = _batch_at(data, position)
        if isinstance(found, Hole):
            end = _next_batch(data, position + 1)
            found = found._replace(end=end, torn=found.torn and end == len(data))
        yield found
        position = found.end


def _batch_at(data: memoryview, start: int) -> Batch | Hole:
    left = len(data) - start
    if left < PREFIX_NBYTES:
        return Hole(start, len(data), BATCH_MAGIC.startswith(bytes(data[start : start + 4])[:left]), "it is cut off")
    magic, nbytes, found, checksum = _PREFIX.unpack_from(data, start)
    if magic != BATCH_MAGIC:
        return Hole(start, len(data), False, "no batch begins here")
    begin, end = start + PREFIX_NBYTES, start + PREFIX_NBYTES + nbytes
    if nbytes > MAX_PAYLOAD_NBYTES:
        return Hole(start, len(data), False, f"batch {found} says that it has {nbytes:,} bytes")
    if end > len(data):
        return Hole(start, len(data), True, f"batch {found} is cut off")
    payload = data[begin:end]
    if zlib.crc32(payload, zlib.crc32(_NUMBER.pack(found))) != checksum:
        return Hole(start, len(data), False, f"batch {found} does not have its checksum")
    try:
        records = unpack(payload)
    except (ValueError, msgpack.UnpackException) as error:
        return Hole(start, len(data), False, f"batch {found} can't be unpacked: {error}")
    return Batch(found, (), end, records) if isinstance(records, dict) else Batch(found, records, end)


def _next_batch(data: memoryview, start: int) -> int:
    """Where the next whole batch begins; the end of the file if there is none."""
    found = _find(data, start)
    while found < len(data) and isinstance(_batch_at(data, found), Hole):
        found = _find(data, found + 1)
    return found


def _find(data: memoryview, start: int, step: int = 1 << 20) -> int:
    """Where the magic of a batch stands next."""
    overlap = len(BATCH_MAGIC) - 1
    while start < len(data):
        position = bytes(data[start : start + step + overlap]).find(BATCH_MAGIC)
        if position >= 0:
            return start + position
        start += step
    return len(data)
