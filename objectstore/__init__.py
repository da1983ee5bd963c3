"""A shared-memory object store for the processes of one host.

Values are written once into an arena that every process maps, and read in place: a gigabyte is handed
from one process to another without being copied or looked at.

>>> from holdfast.objectstore import StoreServer, connect
>>> with StoreServer(capacity="256 MB") as server:
...     with connect(server.socket_path) as store:
...         object_id = store.put({"numbers": [1, 2, 3]})
...         store.get(object_id)
{'numbers': [1, 2, 3]}

The package knows nothing of tasks or clusters. From the bottom up: ``arena`` (the memory), ``allocator``
(which of it is free), ``table``, ``create_queue`` and ``core`` (what is decided, without any I/O),
``protocol``, ``server``; on the other side ``connection``, ``pins``, ``client``; and ``codecs`` apart.
"""

from holdfast.objectstore.arena import Extent
from holdfast.objectstore.client import Pending, Store, connect
from holdfast.objectstore.codecs import Encoded, decode, encode
from holdfast.objectstore.errors import (
    DecodeError,
    HoldfastError,
    ObjectNotFoundError,
    ProtocolError,
    StoreClosedError,
    StoreError,
    StoreFullError,
)
from holdfast.objectstore.ids import ObjectID
from holdfast.objectstore.server import StoreServer
from holdfast.objectstore.sizes import format_size, parse_size
from holdfast.objectstore.table import ObjectMeta

__all__ = [
    "DecodeError",
    "Encoded",
    "Extent",
    "HoldfastError",
    "ObjectID",
    "ObjectMeta",
    "ObjectNotFoundError",
    "Pending",
    "ProtocolError",
    "Store",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "StoreServer",
    "connect",
    "decode",
    "encode",
    "format_size",
    "parse_size",
]
