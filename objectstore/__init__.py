"""A shared-memory object store for the processes of one host.

Values are written once into an arena that every process maps, and read in place: a gigabyte is handed
from one process to another without being copied or looked at.

>>> from holdfast.objectstore import StoreServer, connect
>>> with StoreServer(capacity="256 MB") as server:
...     with connect(server.socket_path) as store:
...         object_id = store.put({"numbers": [1, 2, 3]})
...         store.get(object_id)
{'numbers': [1, 2, 3]}

The package knows nothing of tasks or clusters. It has rooms, and each may import only what stands below it here (a
room's own docstring says what it adds)::

    server/      the store's process: sockets, the event loop, the calls of its own process
    spill/       the files of spilled objects, and the threads that write and read them
    core/        what the store decides, without any I/O
    client/      what a process holds to use a store: puts, gets, views and their pins
    codecs/      values as flat bytes, and back without a copy
    pickling/    what pickle leaves open: exceptions, classes by value, imports
    shared/      what server and clients both know: ids, messages, the object index, the layout of shared data
    memory/      the arena: which bytes of it are free, and its pages
    system/      what the kernel and this host offer: maps, pages, mounts, limits, directories, forks

    errors.py, sizes.py, lazy.py     for all rooms

The command line (``__main__.py``, ``stats_command.py``) stands on top of all.

There are two towers on one foundation: ``server`` stands on ``spill`` and ``core``, ``client`` on ``codecs`` and
``pickling``, and both on ``shared``, ``memory`` and ``system``. Neither tower imports the other, since neither process
needs the other's half. ``spill`` stands above ``core``: it carries out what the core has decided to spill.

To read it, begin with ``memory/arena.py`` (the memory), ``shared/index.py`` (how objects are found in it) and
``core/core.py`` (what happens to its bytes); then follow a value: ``client/writer.py``, ``client/reader.py``. The
server's parts are put together in ``server/server.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.objectstore.lazy import lazy

if TYPE_CHECKING:
    from holdfast.objectstore.client.pending import Pending
    from holdfast.objectstore.client.store import Store, connect
    from holdfast.objectstore.codecs import Encoded, decode, encode
    from holdfast.objectstore.core.objects import ObjectMeta
    from holdfast.objectstore.errors import (
        DecodeError,
        HoldfastError,
        ObjectNotFoundError,
        SpillError,
        StoreClosedError,
        StoreError,
        StoreFullError,
        StoreProtocolError,
        UnreadableError,
    )
    from holdfast.objectstore.memory.arena import Extent
    from holdfast.objectstore.server.server import StoreServer
    from holdfast.objectstore.shared.ids import ObjectID
    from holdfast.objectstore.sizes import format_size, parse_size

_EXPORTS = {
    "DecodeError": "holdfast.objectstore.errors",
    "Encoded": "holdfast.objectstore.codecs",
    "Extent": "holdfast.objectstore.memory.arena",
    "HoldfastError": "holdfast.objectstore.errors",
    "ObjectID": "holdfast.objectstore.shared.ids",
    "ObjectMeta": "holdfast.objectstore.core.objects",
    "ObjectNotFoundError": "holdfast.objectstore.errors",
    "Pending": "holdfast.objectstore.client.pending",
    "StoreProtocolError": "holdfast.objectstore.errors",
    "SpillError": "holdfast.objectstore.errors",
    "Store": "holdfast.objectstore.client.store",
    "StoreClosedError": "holdfast.objectstore.errors",
    "StoreError": "holdfast.objectstore.errors",
    "StoreFullError": "holdfast.objectstore.errors",
    "UnreadableError": "holdfast.objectstore.errors",
    "StoreServer": "holdfast.objectstore.server.server",
    "connect": "holdfast.objectstore.client.store",
    "decode": "holdfast.objectstore.codecs",
    "encode": "holdfast.objectstore.codecs",
    "format_size": "holdfast.objectstore.sizes",
    "parse_size": "holdfast.objectstore.sizes",
}

__all__ = [
    "DecodeError",
    "Encoded",
    "Extent",
    "HoldfastError",
    "ObjectID",
    "ObjectMeta",
    "ObjectNotFoundError",
    "Pending",
    "SpillError",
    "Store",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "StoreProtocolError",
    "StoreServer",
    "UnreadableError",
    "connect",
    "decode",
    "encode",
    "format_size",
    "parse_size",
]

__getattr__, __dir__ = lazy(globals(), _EXPORTS)
