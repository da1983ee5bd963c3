"""What a client and the server say to each other over the unix socket.

A message is an array in a frame of its own (``frames.py``). The first item of a request is its ``Op``; requests that
are answered carry a number of the client's choice as their second. An answer is ``[number, status, ...]``.

LAST_UNPIN says that the pin counter of a slot of the index has gone to zero while the server waited for that
(``index.py``).

The server sends the first frame, with six descriptors beside it (the arena's, read-only, then writable; the index's,
read-only; the client's row of pin counters; one end of a pipe, the client's *lifeline*, which the client and its forks
keep open as long as they may look into the arena; and a page that they keep mapped as long, its *sentinel page*)::

    [MAGIC, VERSION, client id, arena bytes, slots]

==========  ==============================================================  ======================
op          request                                                         answer
==========  ==============================================================  ======================
ATTACH      name
SEAL        [[id, offset, nbytes, key, owner, type, label,
            references, keep], ...]
SHARE       number, as one in SEAL, nbytes, [[start, id, at, nbytes], ...]  bool
LEASE       number, nbytes, want_nbytes, timeout, [end of a lease, ...]     offset, nbytes
CREATE      number, nbytes, timeout, id or nil                              offset, nbytes
ABORT       [offset, ...]
GET         number, id, timeout, sources                                    offset, nbytes, path, segments
UNPIN       [id, ...]
LAST_UNPIN  [slot, ...]
CONTAINS    number, id                                                      bool
DELETE      number, [id, ...]
STATS       number                                                          map
LIST        number, start                                                   [map, ...], more
HEADROOM    number                                                          [[offset, nbytes], ...], growing
==========  ==============================================================  ======================

The path of a GET's answer is that of the file in which the object's bytes are at ``offset``, if it was
spilled; it's nil if they are in the arena. The segments are ``[[start, offset, nbytes], ...]`` for an object that
shares data with others (``layout.py``), and nil for one that is all at ``offset``.

SHARE is a seal of an object of which only a part is written at that offset: the stretches of its encoding that begin
at ``start`` are those at ``at`` of the encodings of other objects, and stay where they are. The answer is false if one
of those objects is not in the arena any more; nothing is sealed then, and the bytes at the offset are still the
client's.

Nothing in a frame is believed: ``parse_request`` checks every type and bound, and the core whether what
is named belongs to the side that names it. No frame makes either side unpickle anything.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from holdfast.objectstore.errors import StoreProtocolError
from holdfast.objectstore.shared.ids import ID_NBYTES, ObjectID

MAGIC = "holdfast-store"
VERSION = 8

REQUEST_NBYTES_MAX = 16 << 20
REPLY_NBYTES_MAX = 64 << 20
TEXT_MAX = 4096
SEALS_PER_FRAME = 256
IDS_PER_FRAME = 10_000
SOURCES_MAX = 1024
SHARES_MAX = 1024
NUMBER_MAX = 1 << 62
TIMEOUT_MAX = 1e9


class Op(enum.IntEnum):
    """What is asked for."""

    ATTACH = 1
    SEAL = 2
    LEASE = 3
    CREATE = 4
    ABORT = 5
    GET = 6
    UNPIN = 7
    CONTAINS = 8
    DELETE = 9
    STATS = 10
    LIST = 11
    HEADROOM = 12
    LAST_UNPIN = 13
    SHARE = 14


class Status(enum.IntEnum):
    """How it went. All but OK come with a text."""

    OK = 0
    NOT_FOUND = 1
    FULL = 2
    FETCH_FAILED = 3
    UNREADABLE = 4


class SealItem(NamedTuple):
    """One object that was written, and where."""

    object_id: ObjectID
    offset: int
    nbytes: int
    key: str | None
    owner: str | None
    type_name: str | None
    label: int
    references: bytes
    keep: bool


class Share(NamedTuple):
    """A stretch of an object that is part of another one: where it begins in either encoding, and its size."""

    start: int
    lender: ObjectID
    at: int
    nbytes: int


def seconds(timeout: float) -> float:
    """A timeout as it can be sent.

    Raises
    ------
    TypeError, ValueError
        If it isn't a number, or less than zero.
    """
    if not isinstance(timeout, int | float):
        raise TypeError(f"a timeout is a number of seconds, not of type {type(timeout).__name__}")
    if not timeout >= 0:
        raise ValueError(f"a timeout of {timeout} s; it has to be zero or more")
    return min(float(timeout), TIMEOUT_MAX)


def _int(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= NUMBER_MAX:
        raise StoreProtocolError(f"{_short(value)} where a number is due")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > TEXT_MAX:
        raise StoreProtocolError(f"{_short(value)} where a text of at most {TEXT_MAX} characters is due")
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes or len(value) > TEXT_MAX:
        raise StoreProtocolError(f"{_short(value)} where at most {TEXT_MAX} bytes are due")
    return value


def _seconds(value: Any) -> float:
    if (type(value) is not float and type(value) is not int) or not 0 <= value <= TIMEOUT_MAX:
        raise StoreProtocolError(f"{_short(value)} where seconds are due")
    return float(value)


def _seconds_or_none(value: Any) -> float | None:
    return None if value is None else _seconds(value)


def _id(value: Any) -> ObjectID:
    if type(value) is not bytes or len(value) != ID_NBYTES:
        raise StoreProtocolError(f"{_short(value)} where an object id is due")
    return ObjectID(value)


def _id_or_none(value: Any) -> ObjectID | None:
    return None if value is None else _id(value)


def _list(value: Any, limit: int) -> list[Any]:
    if type(value) is not list or len(value) > limit:
        raise StoreProtocolError(f"{_short(value)} where a list of at most {limit} is due")
    return value


def _ids(value: Any) -> list[ObjectID]:
    return [_id(item) for item in _list(value, IDS_PER_FRAME)]


def _numbers(value: Any) -> list[int]:
    return [_int(item) for item in _list(value, IDS_PER_FRAME)]


def _sources(value: Any) -> list[str]:
    return [_text(item) for item in _list(value, SOURCES_MAX)]


def _seals(value: Any) -> list[SealItem]:
    return [_seal(item) for item in _list(value, SEALS_PER_FRAME)]


def _seal(value: Any) -> SealItem:
    if type(value) is not list or len(value) != 9:
        raise StoreProtocolError(f"{_short(value)} where a seal is due")
    object_id, offset, nbytes, key, owner, type_name, label, references, keep = value
    return SealItem(
        _id(object_id),
        _int(offset),
        _int(nbytes),
        None if key is None else _text(key),
        None if owner is None else _text(owner),
        None if type_name is None else _text(type_name),
        _int(label),
        _bytes(references),
        keep is True,
    )


def _shares(value: Any) -> list[Share]:
    return [_share(item) for item in _list(value, SHARES_MAX)]


def _share(value: Any) -> Share:
    if type(value) is not list or len(value) != 4:
        raise StoreProtocolError(f"{_short(value)} where a shared stretch is due")
    start, lender, at, nbytes = value
    return Share(_int(start), _id(lender), _int(at), _int(nbytes))


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, (int, float, str, bytes, type(None))) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


_FIELDS: dict[int, tuple[Callable[[Any], Any], ...]] = {
    Op.ATTACH: (_text,),
    Op.SEAL: (_seals,),
    Op.SHARE: (_int, _seal, _int, _shares),
    Op.LEASE: (_int, _int, _int, _seconds, _numbers),
    Op.CREATE: (_int, _int, _seconds, _id_or_none),
    Op.ABORT: (_numbers,),
    Op.GET: (_int, _id, _seconds_or_none, _sources),
    Op.UNPIN: (_ids,),
    Op.LAST_UNPIN: (_numbers,),
    Op.CONTAINS: (_int, _id),
    Op.DELETE: (_int, _ids),
    Op.STATS: (_int,),
    Op.LIST: (_int, _int),
    Op.HEADROOM: (_int,),
}


def parse_request(message: Any) -> tuple[Op, list[Any]]:
    """The op and the checked fields of what a client sent.

    Raises
    ------
    StoreProtocolError
        If there's no such op, or a field isn't what it has to be.
    """
    if type(message) is not list or not message or type(message[0]) is not int:
        raise StoreProtocolError(f"{_short(message)} where a request is due")
    checks = _FIELDS.get(message[0])
    if checks is None or len(message) != len(checks) + 1:
        raise StoreProtocolError(f"no request {message[0]} with {len(message) - 1} fields")
    return Op(message[0]), [check(field) for check, field in zip(checks, message[1:], strict=True)]
