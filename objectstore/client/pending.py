"""An object that its creator fills in place: what `Store.create` gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from holdfast.objectstore.client.names import Names, checked_name
from holdfast.objectstore.client.pins import WritableExtent
from holdfast.objectstore.errors import StoreClosedError
from holdfast.objectstore.shared.ids import ObjectID


class Pending:
    """Bytes in the arena that are being filled: sealed or aborted once, by ``seal``, ``abort`` or being dropped.

    As a context manager it seals at the end of the block, and aborts if the block raises.
    """

    def __init__(
        self,
        seal: Callable[[WritableExtent, ObjectID, Names], None],
        object_id: ObjectID,
        extent: WritableExtent,
        value: np.ndarray[Any, Any] | None,
        *,
        key: str | None,
        owner: str | None,
        type_name: str,
    ) -> None:
        self.object_id = object_id
        self._seal = seal
        self._extent: WritableExtent | None = extent
        self._array = value
        self._names: Names = checked_name(key), checked_name(owner), type_name, 0, b""

    @property
    def nbytes(self) -> int:
        """Of the whole object, with what says what the array is. Not after it was sealed or aborted."""
        if self._extent is None:
            raise StoreClosedError("this object was sealed or aborted before")
        return self._extent.nbytes

    @property
    def type_name(self) -> str:
        """What the object is."""
        return self._names[2] or ""

    def seal(self) -> ObjectID:
        """Makes the object visible to everyone, and the array read-only. The array may be kept and read.

        It must not be written any more, through views made before either.

        Raises
        ------
        StoreClosedError
            If the store was closed, or this was sealed or aborted before.
        """
        extent = self._take()
        if self._array is not None:
            self._array.flags.writeable = False
        self._seal(extent, self.object_id, self._names)
        self._array = None
        return self.object_id

    def abort(self) -> None:
        """Gives the bytes back, as soon as the array made of them is gone too."""
        if self._extent is not None:
            self._extent = None
            self._array = None

    def _take(self) -> WritableExtent:
        extent, self._extent = self._extent, None
        if extent is None:
            raise StoreClosedError("this object was sealed or aborted before")
        return extent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        if exc_type is None and self._extent is not None:
            self.seal()
        else:
            self.abort()
