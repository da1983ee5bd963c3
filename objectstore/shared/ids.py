"""Object ids: sixteen bytes that are never used twice."""

from __future__ import annotations

import itertools
import os
from typing import Self

ID_NBYTES = 16
_PREFIX_NBYTES = 8


class ObjectID(bytes):
    """The name of one object: eight random bytes of its creator, then an eight-byte counter.

    An id is minted once and never again, so whatever is said about it late (a delete, an unpin) can
    never hit a newer object. It is a ``bytes`` subclass: it travels as sixteen bytes in any message.

    Parameters
    ----------
    value : bytes-like
        Exactly sixteen bytes.

    Raises
    ------
    ValueError
        If ``value`` isn't sixteen bytes long.

    Examples
    --------
    >>> ObjectID(bytes(15) + b"\\x07")
    ObjectID('00000000000000000000000000000007')
    """

    __slots__ = ()

    def __new__(cls, value: bytes | bytearray | memoryview) -> Self:
        self = super().__new__(cls, value)
        if len(self) != ID_NBYTES:
            raise ValueError(f"an object id has {ID_NBYTES} bytes, not {len(self)}")
        return self

    @classmethod
    def fromhex(cls, text: str) -> Self:
        """The id that ``str(object_id)`` printed."""
        return cls(bytes.fromhex(text))

    def __repr__(self) -> str:
        return f"ObjectID('{self.hex()}')"

    def __str__(self) -> str:
        return self.hex()

    def __reduce__(self) -> tuple[type[ObjectID], tuple[bytes]]:
        return ObjectID, (bytes(self),)


class IDMinter:
    """Mints the ids of one creator. Thread-safe, and safe to use on either side of a fork."""

    __slots__ = ("_count", "_fork", "_prefix")

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._fork = _fork
        self._prefix = os.urandom(_PREFIX_NBYTES)
        self._count = itertools.count(1)

    def __call__(self) -> ObjectID:
        if self._fork is not _fork:  # a forked child must not repeat its parent's ids
            self._renew()
        return ObjectID(self._prefix + next(self._count).to_bytes(8, "big"))


#: Another object in each fork of a process. To ask for the process's id would be a system call for each id.
_fork = object()


def _after_fork_in_child() -> None:
    global _fork
    _fork = object()


os.register_at_fork(after_in_child=_after_fork_in_child)
