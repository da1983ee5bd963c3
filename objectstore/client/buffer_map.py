"""A piece of a file in memory, as Python sees it."""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.objectstore.system.file_maps import FileMap


class BufferMap(FileMap):
    """A map for many views of many sizes."""

    def view(self) -> memoryview:
        """The bytes of the piece. Everything made from them holds the map."""
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": (self.nbytes,),
            "typestr": "|u1",
            "data": (self.address, not self.writable),
        }
        return memoryview(np.asarray(self))  # type: ignore[arg-type]
