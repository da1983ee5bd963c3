"""Pins: what keeps an object's bytes in place while anything in this process looks at them.

``get`` makes a pin and gives it to Arrow as the base of the buffer over the object's bytes. Whatever
is made from that buffer (an array, a slice of a column of a table) holds it, directly or not, so the pin
is finalised when the last of them is gone, and not before. An ``IndexPin`` is one that this process has taken by
itself, in the object index; a ``Pin`` is one that the server was asked for. A ``WritableExtent`` keeps bytes that
aren't an object yet.

A finaliser may run anywhere: on any thread, in the middle of a garbage collection, while this very
process holds this very store's locks. So it does three things only, none of which takes a lock: it appends to a list
or a deque, it takes its note out of a dictionary (``views.py``), and it may put a token into a ``SimpleQueue``, which
is made for finalisers. The holdings (``holdings.py``) tell the server.

An interrupt (Ctrl-C) may come anywhere too: whenever a function begins, or one that is written in C returns. What must
happen together is written so that nothing is called in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.objectstore.client.arena_maps import ArenaMaps
from holdfast.objectstore.client.holdings import Holdings
from holdfast.objectstore.codecs.flat import SHARE_NBYTES
from holdfast.objectstore.shared.ids import ObjectID


class Pin:
    """A pin that the server was asked for, once it's granted: when its ``nbytes`` are known. Held by buffers."""

    __slots__ = ("_born", "_holdings", "nbytes", "object_id")

    def __init__(self, holdings: Holdings, object_id: ObjectID) -> None:
        self._holdings = holdings
        self._born = holdings.fork_count
        self.object_id = object_id
        self.nbytes = 0

    def __del__(self) -> None:
        try:
            granted = self.nbytes
        except AttributeError:  # an interrupt came before it had begun
            return
        if granted:
            self._holdings.drop(self.object_id, granted, self._born)
            self._holdings.views.drop(self)


class IndexPin:
    """A pin on the object in one slot of the index. Held by buffers."""

    __slots__ = ("_holdings", "nbytes", "slot")

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self.slot = 0
        self.nbytes = 0

    def __del__(self) -> None:
        try:
            slot = self.slot
        except AttributeError:  # an interrupt came before it had begun
            return
        if slot:
            self._holdings.drop_slot(slot, self.nbytes)
            if self.nbytes >= SHARE_NBYTES:
                self._holdings.views.drop(self)


class WritableExtent:
    """Bytes of the arena that are this process's to write. Held by the array that is made of them.

    The array may outlive the seal, the abort, even the store; its memory must not become another
    client's while it can be written through. So the extent is given back here, when the array is gone: as
    an abort if it wasn't sealed, as an unpin if it was (``seal`` keeps a pin for it).

    Attributes
    ----------
    offset : int
        Where it is in the arena; less than zero before it's granted.
    sealed_as : ObjectID or None
        What it was sealed as.
    handed_over : bool
        Whether a seal takes it as it is: its owner writes no more, and no pin is kept.
    """

    __slots__ = ("__array_interface__", "_born", "_holdings", "_maps", "handed_over", "nbytes", "offset", "sealed_as")

    def __init__(self, holdings: Holdings, maps: ArenaMaps, nbytes: int) -> None:
        self._holdings = holdings
        self._born = holdings.fork_count
        self._maps = maps
        self.nbytes = nbytes
        self.offset = -1
        self.sealed_as: ObjectID | None = None
        self.handed_over = False

    def view(self) -> memoryview:
        """The bytes. Everything made from them holds the extent."""
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (self.nbytes,),
            "typestr": "|u1",
            "data": (self._maps.writable_address + self.offset, False),
        }
        return memoryview(np.asarray(self))  # type: ignore[arg-type]

    def __del__(self) -> None:
        try:
            handed_over = self.handed_over
        except AttributeError:  # an interrupt came before it had begun
            return
        if handed_over:
            self._holdings.drop(None, 0)
        elif self.offset >= 0:
            self._holdings.drop(self.offset if self.sealed_as is None else self.sealed_as, self.nbytes, self._born)
            self._holdings.views.drop(self)
