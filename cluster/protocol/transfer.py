"""The protocol in which objects travel between hosts.

A node agent's port speaks the opening with the role ``peer``. After it the connection is a sequence of exchanges
(`EXCHANGES`): the asker asks, the holder answers, and only then the asker asks again. All integers are little endian.
Bytes of objects travel as they are, not in frames.

When bytes have arrived
-----------------------
That a call which sends has returned says where the bytes are in the kernel, not that the receiver has them. What
becomes of the memory that they were sent from depends on the call:

* `send` *copies* into the kernel. After it the memory may become anything. What is brought (``P``), a small object and
  one that is read from a file go that way.
* `sendfile` queues *references* to the pages of the arena. The bytes are read from there when the other end receives
  them, seconds later perhaps, and on one host even what TCP has acknowledged is not read yet. If another object lies
  there by then, the other end receives that one's bytes. Large objects go that way, because it is the fastest.

So a holder keeps its pin on an object of more than `COPIED_NBYTES` until the asker has confirmed that it has received
all bytes. Then the holder says that it still had the pin, and only after that the asker uses what it has received. All
other ends of a transfer are the same, whichever side gives up and why: the asker drops what it has received. A holder
whose asker neither reads nor confirms gives up after a time. It resets the connection *before* it lets go of the pin:
what is queued may be read wrongly from then on, but no word that it is right can follow it. To ask and to answer
costs a round trip, which is little beside a large object. A small one is copied, and followed by that word at once.

Against all other ways in which bytes may change (a network card, a disk, a fault of this program) there is a checksum,
which the holder computes under its pin, from what it sends. An object whose checksum is wrong is not used. For the
asker that host is then one that could not give the object.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgpack

from holdfast.cluster.errors import ProtocolError
from holdfast.cluster.protocol.references import MAX_REFERENCES_NBYTES
from holdfast.cluster.protocol.shapes import Blob, Fields, Integer, Maybe, Plain, Text

GET = b"G"
PUT = b"P"
YES = b"\1"
NO = b"\0"
ID_NBYTES = 16
MAX_DESCRIPTION_NBYTES = 1 << 16
MAX_TEXT_NBYTES = 1 << 16
#: Objects up to this size are copied when they are sent, and need no confirmation.
COPIED_NBYTES = 128 << 10

#: The size of an object, and how many bytes its description has.
ANNOUNCEMENT = struct.Struct("<QI")
#: How many bytes a text has.
LENGTH = struct.Struct("<I")
#: XXH3 of all bytes of an object.
CHECKSUM = struct.Struct("<Q")

#: Stands for the size of an object that is not here.
_ABSENT = (1 << 64) - 1
_NAME = Maybe(Text(MAX_DESCRIPTION_NBYTES))
#: What travels with an object. Later versions may add fields.
DESCRIPTION = Fields(
    {},
    {"key": _NAME, "owner": _NAME, "type": _NAME, "label": Integer(0), "references": Blob(MAX_REFERENCES_NBYTES)},
    others=Plain(),
)


class Step(NamedTuple):
    """What one end sends: its parts, and when it does not send them as a matter of course."""

    sender: str
    parts: str
    when: str = ""


class Exchange(NamedTuple):
    """A request and all that follows from it."""

    name: str
    meaning: str
    steps: tuple[Step, ...]


_SIZE = f"size (8 bytes), length of the description ({LENGTH.size} bytes), description"
_REFUSAL = f"byte 0, length ({LENGTH.size} bytes), text: why not"

EXCHANGES = (
    Exchange(
        "get",
        "The asker gets an object.",
        (
            Step("asker", f"`{GET.decode()}`, object id ({ID_NBYTES} bytes)"),
            Step("holder", f"{_SIZE}, the object's bytes. A size of all ones: the object is not here, and that is all"),
            Step("asker", "byte 1: all bytes have come", f"the object has more than {COPIED_NBYTES:,} bytes"),
            Step("holder", f"byte 1, checksum ({CHECKSUM.size} bytes): these were the object's. Or {_REFUSAL}"),
        ),
    ),
    Exchange(
        "put",
        "The asker brings an object.",
        (
            Step("asker", f"`{PUT.decode()}`, object id ({ID_NBYTES} bytes), {_SIZE}"),
            Step("holder", f"byte 1: go ahead. Or {_REFUSAL}"),
            Step("asker", f"the object's bytes, checksum ({CHECKSUM.size} bytes)", "the holder said go ahead"),
            Step("holder", f"byte 1: it is in the store. Or {_REFUSAL}", "the holder said go ahead"),
        ),
    ),
)


class Description(NamedTuple):
    """What a store says about an object. On the wire it is a dictionary without what is None, zero or empty."""

    key: str | None = None
    owner: str | None = None
    type_name: str | None = None
    label: int = 0
    references: bytes = b""


def get(object_id: bytes) -> bytes:
    """Asks for an object."""
    return GET + object_id


def put(object_id: bytes, nbytes: int, description: Description) -> bytes:
    """Asks whether an object may be brought."""
    return PUT + object_id + announcement(nbytes, description)


def announcement(nbytes: int, description: Description) -> bytes:
    """What goes in front of an object's bytes."""
    packed = _packed(description)
    if len(packed) > MAX_DESCRIPTION_NBYTES:  # a key of this length helps no user to recognise an object
        packed = _packed(description._replace(key=None))
    return ANNOUNCEMENT.pack(nbytes, len(packed)) + packed


def absence() -> bytes:
    """What stands in the place of an object that is not here."""
    return ANNOUNCEMENT.pack(_ABSENT, 0)


def refusal(text: str) -> bytes:
    """No, and why."""
    encoded = text.encode()[:MAX_TEXT_NBYTES]
    return NO + LENGTH.pack(len(encoded)) + encoded


def announced(head: bytes | bytearray) -> tuple[int | None, int]:
    """The size of the object, None if it is absent; and how many bytes of its description follow."""
    nbytes, length = ANNOUNCEMENT.unpack(head)
    if length > MAX_DESCRIPTION_NBYTES:
        raise ProtocolError(f"a description of {length:,} bytes is over the limit")
    return None if nbytes == _ABSENT else nbytes, length


def length_of_text(head: bytes | bytearray) -> int:
    """How many bytes of the text follow."""
    (length,) = LENGTH.unpack(head)
    if length > MAX_TEXT_NBYTES:
        raise ProtocolError(f"a text of {length:,} bytes is over the limit")
    return int(length)


def described(packed: bytes | bytearray) -> Description:
    """What a description says. Raises a `ProtocolError` that names the field which is wrong."""
    try:
        fields: Any = msgpack.unpackb(packed, use_list=False, unicode_errors="surrogatepass")
    except Exception as error:  # msgpack raises a dozen unrelated types for malformed input
        raise ProtocolError(f"an object's description is not valid: {error}") from None
    DESCRIPTION.check(fields, "description")
    names = fields.get("key"), fields.get("owner"), fields.get("type")
    return Description(*names, fields.get("label", 0), fields.get("references", b""))


def _packed(description: Description) -> bytes:
    fields = {"key": description.key, "owner": description.owner, "type": description.type_name}
    said: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if description.label:
        said["label"] = description.label
    if description.references:
        said["references"] = description.references
    packed: bytes = msgpack.packb(said, unicode_errors="surrogatepass")
    return packed
