"""A shared-memory object store for the processes of one host.

Values are written once into an arena that every process maps, and read in place: a gigabyte is handed
from one process to another without being copied or looked at.

>>> from holdfast.objectstore import StoreServer, connect
>>> with StoreServer(capacity="256 MB") as server:
...     with connect(server.socket_path) as store:
...         object_id = store.put({"numbers": [1, 2, 3]})
...         store.get(object_id)
{'numbers': [1, 2, 3]}

The package knows nothing of tasks or clusters. From the bottom up: ``mounts`` and ``control_groups`` (what this host
has), ``arena`` (the memory), ``witness`` (whether anybody maps it), ``allocator`` (which of it is free), ``prefault``
and ``trim`` (pages made ahead of use, and given back), ``board`` (who finds and looks at what, in shared memory),
``segments`` and ``sharing`` (objects that have data in common), ``places`` (what lies where), ``table``, ``eviction``,
``create_queue``, ``spilling``, ``windows`` and ``clearing`` (how a hole is made for a request), ``walls`` (why there is
none), ``effects`` and ``core`` (what is decided, without any I/O), ``mover`` (copies within the arena), ``leftovers``
(directories, and what dead processes leave of them), ``spill_place``, ``spill`` and ``spiller`` (the files of what
doesn't fit), ``protocol``, ``socket_file``, ``server_connection``, ``quarantine``, ``server``; on the other side
``connection``, ``viewed`` and ``private`` (maps, and those that may be written to), ``page_table`` (which of their
pages were), ``mapping`` (the arena as its clients map it), ``looks`` and ``pins``, ``forks`` (what forked children look
at), ``spilled`` (maps of those files), ``warm`` (pages mapped ahead of writing), ``writer``, ``client``; and apart
``codecs``, with what pickle leaves open: ``by_value`` (what it can only name), ``exception_state`` and ``unpickling``
(exceptions), ``outline`` (what a pickle is of), ``own_classes`` (which classes stay as they are).
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
